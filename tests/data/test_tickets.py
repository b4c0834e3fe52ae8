"""Support tickets: disjoint splits, rules that a good answer keeps and each fault breaks, the same bytes everywhere."""

import json
from pathlib import Path

import pytest

from smolt.config import load_recipe
from smolt.data import Answer, Source, load
from smolt.data.problems import Split, split_of
from smolt.data.tickets import FAULTS, WORDS, tickets, write_tickets
from smolt.errors import UserError
from smolt.rewards.constraints import constraints, kept

BROKEN = {
    "nameless": "starts_with",
    "vague": "contains",
    "orderless": "contains",
    "astray": "mentions",
    "generous": "avoids",
    "wordy": "words",
}
"""The rule that each fault breaks."""


def test_a_good_answer_keeps_every_rule_and_a_fault_breaks_its_own() -> None:
    """Of 3,000 answers, 60 % careless (binomial: 0.6 within 3 standard errors of 0.009): no rule more, none less."""
    found = tickets(0, 3_000, "train", careless=0.6)
    for ticket in found:
        missed = {name for name, right in kept(ticket.answer, ticket.constraint).items() if not right}
        assert missed == {BROKEN[fault] for fault in ticket.faults}, ticket
    assert sum(bool(ticket.faults) for ticket in found) / 3_000 == pytest.approx(0.6, abs=0.027)
    assert {fault for ticket in found for fault in ticket.faults} == set(FAULTS) == set(BROKEN)
    assert max(len(ticket.answer.split()) for ticket in found if not ticket.faults) <= WORDS


def test_the_text_decides_the_split() -> None:
    """Train, dev and test of three seeds share nothing; within a split nothing repeats."""
    splits: tuple[Split, ...] = ("train", "dev", "test")
    groups = {split: [t.question for seed in (0, 1, 2) for t in tickets(seed, 500, split)] for split in splits}
    assert all(split_of(question) == split for split, group in groups.items() for question in group)
    for seed in (0, 1):
        assert len({ticket.question for ticket in tickets(seed, 2_000, "train")}) == 2_000


def test_a_longer_list_begins_with_the_shorter_one() -> None:
    assert tickets(3, 50, "test")[:20] == tickets(3, 20, "test") != tickets(4, 20, "test")


def test_the_files_are_records(tmp_path: Path) -> None:
    """Demonstrations to imitate, tickets with their rules as solutions, and the reward rates the good answer 1."""
    write_tickets(tmp_path, 0, 40, 5, 10, 30, careless=0.5)
    assert len(load(Source(str(tmp_path / "demonstrations.jsonl")), "demonstrations").records) == 30
    questions = load(Source(str(tmp_path / "test.jsonl")), "questions").records
    answers = [Answer(ticket.answer, 20, True) for ticket in tickets(0, 10, "test")]
    scores = constraints()(questions, answers)
    assert [score.value for score in scores] == [1.0] * 10
    assert set(scores[0].components) == {"starts_with", "contains", "mentions", "avoids", "words"}
    rows = [json.loads(line) for line in (tmp_path / "train.jsonl").read_text().splitlines()]
    assert [tuple(row) for row in rows] == [("id", "kind", "prompt", "constraint")] * 40


@pytest.mark.parametrize(
    ("counts", "reason"),
    [((5, 0, 0, 6), "demonstrations: is 6; it must lie in 0 ... train = 5"), ((-1, 0, 0, 0), "must lie in")],
)
def test_wrong_counts(tmp_path: Path, counts: tuple[int, int, int, int], reason: str) -> None:
    with pytest.raises(UserError, match=reason):
        write_tickets(tmp_path, 0, *counts)


def test_a_field_of_the_other_task_is_refused() -> None:
    for task, field in (("support", "facts: 3"), ("arithmetic", "careless: 0.5")):
        with pytest.raises(UserError, match=f"{field.partition(':')[0]} is for task"):
            load_recipe("support", None, [f"problems={{task: {task}, {field}}}"])
