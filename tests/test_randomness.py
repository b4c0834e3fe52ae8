"""Randomness that is a function of counters: pinned to SplitMix64's published numbers, uniform, and order-free."""

from itertools import permutations

import numpy as np
import pytest
from scipy import stats

from smolt import randomness

PUBLISHED = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
"""SplitMix64's first five outputs for the seed 1234567, as its implementations are tested with (Rosetta Code)."""


def draws(key: int, n: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return randomness.uniforms_at(np.full(n, key, dtype=np.uint64), np.arange(n, dtype=np.uint64))


def test_splitmix64() -> None:
    """Draw t of key 1234567 is the upper 24 bits of the published output t, divided by 2^24."""
    assert draws(1234567, 5).tolist() == [(output >> 40) / 2**24 for output in PUBLISHED]


def test_pinned_keys() -> None:
    """key(0) is SplitMix64's first output for the seed 0; the others must never change, or no run could be repeated."""
    assert randomness.key(0) == 0xE220A8397B1DCDAF
    assert randomness.key(0, 1, 2) == 6768782832058643234
    assert randomness.key(2, 1, 0) == 10428484394136884971
    assert randomness.permutation(10, 0, 0) == [0, 1, 9, 4, 2, 3, 6, 8, 7, 5]
    assert randomness.permutation(10, 0, 1) == [1, 6, 5, 4, 8, 3, 7, 9, 2, 0]


def test_many_keys_are_the_single_ones() -> None:
    """`keys` of rows equals `key` of each row."""
    rows = [[0, 1, 2], [0, 1, 3], [7, 0, 2**62]]
    assert randomness.keys(np.array(rows)).tolist() == [randomness.key(*row) for row in rows]


def test_keys_are_distinct() -> None:
    """20 seeds x 10 updates x 10 questions x 10 answers: 20,000 different keys; the order of counters matters."""
    grid = np.stack(np.meshgrid(np.arange(20), *[np.arange(10)] * 3, indexing="ij"), axis=-1).reshape(-1, 4)
    assert len(set(randomness.keys(grid).tolist())) == 20_000
    assert randomness.key(1, 2) != randomness.key(2, 1)


def test_draws_stay_below_one_and_reach_zero() -> None:
    """A multiple of 2^-24 in [0, 1): 1 would draw a token that is not there."""
    found = draws(randomness.key(3), 200_000)
    assert found.dtype == np.float32
    assert 0 <= found.min() < 1e-4
    assert 1 - 1e-4 < found.max() < 1
    assert np.array_equal(found * 2**24, np.floor(found * 2**24))


@pytest.mark.parametrize("changing", ["token", "answer", "update"])
def test_draws_are_uniform_along_every_counter(changing: str) -> None:
    """20,000 draws in 64 bins, chi-square p > 0.001, whichever of the counters runs; lag-1 correlation below 0.03."""
    n = 20_000
    if changing == "token":
        found = draws(randomness.key(0, 1, 2), n)
    else:
        column = np.arange(n)
        rest = np.zeros(n, dtype=np.int64)
        rows = np.stack([rest, column, rest] if changing == "update" else [rest, rest, column], axis=1)
        found = randomness.uniforms_at(randomness.keys(rows), np.zeros(n, dtype=np.uint64))
    counts, _ = np.histogram(found, bins=64, range=(0, 1))
    assert stats.chisquare(counts).pvalue > 0.001
    assert abs(np.corrcoef(found[:-1], found[1:])[0, 1]) < 0.03


def test_a_draw_needs_no_draws_before_it() -> None:
    """Draw 7 alone equals draw 7 of a sequence, and rows of a batch do not see each other."""
    alone = randomness.uniforms_at(np.array([5], dtype=np.uint64), np.array([7], dtype=np.uint64))
    assert alone[0] == draws(5, 10)[7]
    batch = randomness.uniforms_at(np.array([9, 5], dtype=np.uint64), np.array([0, 7], dtype=np.uint64))
    assert batch[1] == alone[0]


def test_permutations_are_permutations() -> None:
    """Every size from 0 to 40 holds each place once, and the same counters give the same order."""
    for size in range(41):
        assert sorted(randomness.permutation(size, 1, size)) == list(range(size))
    assert randomness.permutation(40, 1, 2) == randomness.permutation(40, 1, 2) != randomness.permutation(40, 1, 3)


def test_every_order_is_equally_likely() -> None:
    """The 24 orders of 4 things over 4,800 epochs: chi-square p > 0.001 against 200 each."""
    seen = dict.fromkeys(permutations(range(4)), 0)
    for epoch in range(4800):
        first, second, third, fourth = randomness.permutation(4, 0, epoch)
        seen[first, second, third, fourth] += 1
    assert stats.chisquare(list(seen.values())).pvalue > 0.001
