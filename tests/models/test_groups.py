"""Groups: masks by length, columns that travel with their answers, cuts that keep together what belongs together."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor

from smolt.models.groups import Groups, PaddedTokens, atoms, cut, cut_rows, from_answers, join, widen, without_gradient


def three() -> Groups:
    """Contexts of 2 and 1 tokens; answers of 3, 1 and 2 tokens, the first two to context 0."""
    return from_answers([[1, 2], [3]], [[[4, 5, 0], [0]], [[6, 0]]]).with_columns(
        score=torch.tensor([1.0, 2.0, 3.0]), logprob=torch.tensor([[-1.0, -2.0, -3.0], [-4.0, 0, 0], [-5.0, -6.0, 0]])
    )


def lists(tensors: tuple[Tensor, ...]) -> list[list[int]]:
    return [tensor.tolist() for tensor in tensors]


def test_what_from_answers_makes() -> None:
    """Owners 0, 0, 1; lengths 3, 1, 2; mask by length although token 0 is inside; 3 + 6 tokens packed."""
    groups = three()
    assert len(groups) == 3
    assert groups.owners == (0, 0, 1)
    assert groups.lengths.tolist() == [3, 1, 2]
    assert groups.mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert groups.tokens == 3 + 6
    assert groups.stopped.tolist() == [True, True, True]
    assert from_answers([[1]], [[[2]]], stopped=False).stopped.tolist() == [False]


@pytest.mark.parametrize(("contexts", "answers"), [([[]], [[[1]]]), ([[1]], [[[]]])])
def test_empty_rows_are_refused(contexts: list[list[int]], answers: list[list[list[int]]]) -> None:
    with pytest.raises(ValueError, match="no token"):
        from_answers(contexts, answers)


def test_fields_of_different_lengths_are_refused() -> None:
    token = torch.tensor([1])
    with pytest.raises(ValueError, match="one entry for each answer"):
        Groups((token,), (token,), (0, 0), torch.tensor([True]))


def test_select_takes_contexts_and_columns_along() -> None:
    """Rows 2 and 1: both contexts, owners renumbered, [B, T] columns cut to T = 2 and [B] columns reordered."""
    chosen = three().select([2, 1])
    assert lists(chosen.contexts) == [[1, 2], [3]]
    assert lists(chosen.answers) == [[6, 0], [0]]
    assert chosen.owners == (1, 0)
    assert chosen.columns["score"].tolist() == [3, 2]
    assert chosen.columns["logprob"].tolist() == [[-5, -6], [-4, 0]]
    assert lists(three().select([2]).contexts) == [[3]]


def test_join_shifts_owners_and_pads_columns_with_zeros() -> None:
    """An answer of 2 tokens and groups of T = 3: owners 0 and 1, 1, 2; the narrow column gets one zero."""
    joined = join([three().select([2]), three()])
    assert joined.owners == (0, 1, 1, 2)
    assert lists(joined.contexts) == [[3], [1, 2], [3]]
    assert joined.columns["logprob"].tolist()[0] == [-5, -6, 0]
    assert joined.columns["score"].tolist() == [3, 1, 2, 3]
    assert joined.tokens == 3 + 9


def test_joining_what_was_selected_gives_it_back() -> None:
    """Select each context's answers and join them: the same groups."""
    groups, again = three(), join([three().select([0, 1]), three().select([2])])
    assert lists(again.contexts) == lists(groups.contexts)
    assert lists(again.answers) == lists(groups.answers)
    assert again.owners == groups.owners
    assert all(torch.equal(again.columns[name], groups.columns[name]) for name in groups.columns)


def test_widen_by_hand() -> None:
    assert widen(torch.ones(1, 2), 4).tolist() == [[1, 1, 0, 0]]
    assert widen(torch.ones(3), 4).tolist() == [1, 1, 1]


def test_columns_are_added_and_replaced_on_a_copy() -> None:
    groups = three()
    more = groups.with_columns(score=torch.zeros(3), pair=torch.arange(3))
    assert set(more.columns) == {"score", "logprob", "pair"}
    assert groups.columns["score"].tolist() == [1, 2, 3]


# --- cutting ----------------------------------------------------------------------------------------------------------


def test_a_context_counts_once_where_its_answers_meet() -> None:
    """Contexts of 2 and 1, answers of 3, 1 and 2 tokens: 2 + 3 + 1 = 6 fit in 6, and 1 + 2 go into the next."""
    assert list(cut_rows(three(), 6)) == [[0, 1], [2]]
    assert list(cut_rows(three(), 9)) == [[0, 1, 2]]
    assert list(cut_rows(three(), 5)) == [[0], [1], [2]]
    assert [part.tokens for part in cut(three(), 6)] == [6, 3]


def test_an_answer_larger_than_the_budget_travels_alone() -> None:
    assert list(cut_rows(three(), 1)) == [[0], [1], [2]]


def test_pairs_are_never_cut() -> None:
    """Three pairs, budget 1: each micro-batch holds the two answers of one pair, wherever they stand."""
    groups = from_answers([[1], [2], [3]], [[[4], [5]], [[6], [7]], [[8], [9]]])
    groups = groups.with_columns(pair=torch.tensor([7, 7, 2, 2, 5, 5]))
    assert atoms(groups) == [[0, 1], [2, 3], [4, 5]]
    assert list(cut_rows(groups, 1)) == [[0, 1], [2, 3], [4, 5]]
    turned = groups.select([0, 2, 4, 1, 3, 5])
    assert sorted(map(sorted, cut_rows(turned, 1))) == [[0, 3], [1, 4], [2, 5]]


def test_answers_without_a_pair_are_atoms_alone() -> None:
    assert atoms(three()) == [[0], [1], [2]]


@given(
    sizes=some.lists(
        some.tuples(some.integers(1, 9), some.lists(some.integers(1, 9), min_size=1, max_size=4)), min_size=1
    ),
    budget=some.integers(1, 60),
    paired=some.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_every_cut_holds_every_answer_once_within_its_budget(
    sizes: list[tuple[int, list[int]]], budget: int, paired: bool
) -> None:
    """Any shapes and budget: no answer is lost or doubled, and only a single atom may exceed the budget."""
    groups = from_answers([[1] * size for size, _ in sizes], [[[2] * length for length in each] for _, each in sizes])
    groups = groups.with_columns(row=torch.arange(len(groups)))
    if paired:
        groups = groups.with_columns(pair=torch.arange(len(groups)) // 2)
    parts = list(cut(groups, budget))
    assert sorted(row for part in parts for row in part.columns["row"].tolist()) == list(range(len(groups)))
    assert all(part.tokens <= budget or len(atoms(part)) == 1 for part in parts)


def test_a_column_computed_by_micro_batches_is_in_its_place() -> None:
    """[B, T] and [B] results land in the rows they were computed from, for every budget, and carry no gradient."""
    groups = three().select([2, 0, 1])
    weight = torch.ones((), requires_grad=True)
    for budget in (1, 6, 100):
        wide = without_gradient(groups, budget, lambda part: weight * part.columns["logprob"])
        assert torch.equal(wide, groups.columns["logprob"])
        assert not wide.requires_grad
        narrow = without_gradient(groups, budget, lambda part: weight * part.columns["score"])
        assert narrow.tolist() == [3, 1, 2]


def test_a_forward_that_pads_is_cut_by_what_it_computes() -> None:
    """Rows of 4 + 2, 4 + 6 and 4 + 1 tokens, 15 packed: padded 2 x 10 and 1 x 5; squares of 0.1 double a row of 10."""
    groups = from_answers([[1] * 4], [[[2] * 2, [3] * 6, [4]]])
    for limit, square, expected in (
        (30, 0.0, [[0, 1, 2]]),
        (29, 0.0, [[0, 1], [2]]),
        (19, 0.0, [[0], [1], [2]]),
        (39, 0.1, [[0], [1], [2]]),  # 2 x 10 x 2 = 40
        (40, 0.1, [[0, 1], [2]]),
    ):
        tokens = PaddedTokens(limit)
        tokens.square = square
        assert list(cut_rows(groups, tokens)) == expected
