"""Randomness as a function of counters: no generator state, so every draw can be made again after a resume.

The mixing function is SplitMix64's finaliser (Steele, Lea, Flood 2014), applied once per counter.
"""

import numpy as np
from numpy.typing import NDArray

_INCREMENT = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    state = (state ^ (state >> np.uint64(30))) * _FIRST
    state = (state ^ (state >> np.uint64(27))) * _SECOND
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed


def key(*counters: int) -> int:
    """One 64-bit key of some counters, for example (seed, stage, update, question, answer)."""
    return int(keys(np.array([counters], dtype=np.int64))[0])


def keys(counters: NDArray[np.int64]) -> NDArray[np.uint64]:
    """A 64-bit key for each row of counters, [n, c] -> [n]."""
    state = np.zeros(len(counters), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for column in counters.astype(np.uint64).T:
            state = _mix((state ^ column) + _INCREMENT)
    return state


def uniforms_at(row_keys: NDArray[np.uint64], steps: NDArray[np.uint64]) -> NDArray[np.float32]:
    """The draw number `steps` of each key, [n] and [n] -> [n], multiples of 2^-24 in [0, 1)."""
    with np.errstate(over="ignore"):
        state = _mix(row_keys + (steps + np.uint64(1)) * _INCREMENT)
    return (state >> np.uint64(40)).astype(np.float32) / np.float32(2**24)


def permutation(size: int, *counters: int) -> list[int]:
    """A shuffled range(size), a function of the counters."""
    draws = keys(np.stack([np.full(size, key(*counters)).astype(np.int64), np.arange(size)], axis=1))
    order: list[int] = np.argsort(draws, kind="stable").tolist()
    return order
