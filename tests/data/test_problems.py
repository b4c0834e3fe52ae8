"""The embedded word problems: disjoint splits, right arithmetic, the same bytes everywhere."""

import hashlib
import re
from collections import Counter
from pathlib import Path

import pytest

from smolt.data import Source, load, problems
from smolt.data.problems import KINDS, LARGEST, Problem, Split, facts, generate, split_of, write_problems
from smolt.errors import UserError

SIZES: tuple[tuple[Split, int], ...] = (("train", 20_000), ("dev", 2_000), ("test", 2_000))

PINNED = {
    "demonstrations.jsonl": "2a9c9952504d4558",
    "dev.jsonl": "3c16fb2972f6780b",
    "test.jsonl": "056ed581d516bbe5",
    "train.jsonl": "467c87fc6f283293",
}


@pytest.fixture(scope="module")
def splits() -> dict[Split, list[Problem]]:
    return {split: generate(0, count, split) for split, count in SIZES}


def step(line: str) -> tuple[int, int]:
    """What a line of a worked answer, `left sign right = result`, comes to, and what it says."""
    left, sign, right, equals, result = line.split(" ")
    assert equals == "="
    one, two = int(left), int(right)
    if sign == "/":
        assert one % two == 0
        return one // two, int(result)
    return {"+": one + two, "-": one - two, "*": one * two}[sign], int(result)


def test_counts_and_no_duplicates(splits: dict[Split, list[Problem]]) -> None:
    """20,000 + 2,000 + 2,000 problems are 24,000 different questions."""
    assert [len(splits[split]) for split, _ in SIZES] == [20_000, 2_000, 2_000]
    assert len({problem.question for group in splits.values() for problem in group}) == 24_000


def test_splits_of_different_seeds_are_disjoint() -> None:
    """Train of seed 1 and test of seed 2 share 0 questions: the question decides the split, not the seed."""
    train = {problem.question for problem in generate(1, 3_000, "train")}
    assert train & {problem.question for problem in generate(2, 1_000, "test")} == set()


def test_the_question_decides_the_split(splits: dict[Split, list[Problem]]) -> None:
    """Every question of a split belongs to it and to no other; about 10 of 14 of all questions are train's."""
    assert all(split_of(problem.question) == split for split, group in splits.items() for problem in group)
    shares = Counter(split_of(f"question {number}") for number in range(14_000))
    assert shares["train"] / 14_000 == pytest.approx(10 / 14, abs=0.01)


def test_facts_are_right_and_extend() -> None:
    """Every line of arithmetic is right, a longer list begins with the shorter one, and another seed gives others."""
    lines = facts(0, 5_000)
    assert len(lines) == 5_000
    assert all(told == right for right, told in map(step, lines))
    assert facts(0, 100) == lines[:100] != facts(1, 100)


def test_every_worked_answer_is_right(splits: dict[Split, list[Problem]]) -> None:
    """Each line's arithmetic holds, the last result follows ####, and each step but the first uses the one before it.

    (Buying subtracts the product from the money, so it stands right of the sign; elsewhere it stands left.)
    """
    for problem in (problem for group in splits.values() for problem in group):
        *lines, last = problem.answer.split("\n")
        results = [step(line) for line in lines]
        assert all(computed == said for computed, said in results), problem
        assert last == f"#### {results[-1][0]}" == f"#### {problem.solution}"
        assert problem.steps == len(lines)
        for before, line in zip(results, lines[1:], strict=False):
            assert str(before[0]) in line.split(" ")[:3], problem


def test_numbers_and_lengths(splits: dict[Split, list[Problem]]) -> None:
    """Numbers lie in 0 ... 999; questions have at most 45 words, answers at most 33 signs, all from 100 words."""
    every = [problem for group in splits.values() for problem in group]
    shown = [int(n) for problem in every for n in re.findall(r"\d+", f"{problem.question} {problem.answer}")]
    assert min(shown) >= 0
    assert max(shown) <= LARGEST
    assert not any("-" in problem.solution for problem in every)
    assert max(len(problem.question.split()) for problem in every) <= 45
    assert max(len(re.findall(r"[\d\n]|[^\d\s]", problem.answer)) for problem in every) <= 33
    assert len({word for problem in every for word in re.findall(r"[A-Za-z]+", problem.question)}) <= 100


def test_mix_of_difficulty(splits: dict[Split, list[Problem]]) -> None:
    """8 of 30 problems take one step, 16 two and 6 three: 0.267, 0.533, 0.200, within 0.02 on 20,000; all 11 kinds."""
    counts = Counter(problem.steps for problem in splits["train"])
    assert counts[1] / 20_000 == pytest.approx(8 / 30, abs=0.02)
    assert counts[2] / 20_000 == pytest.approx(16 / 30, abs=0.02)
    assert counts[3] / 20_000 == pytest.approx(6 / 30, abs=0.02)
    assert {problem.kind for problem in splits["test"]} == set(KINDS)
    assert len(KINDS) == 11


def test_share_of_brief_answers(tmp_path: Path) -> None:
    """Of 2,000 demonstrations with brief 0.5 about half, within 0.04, are the result alone; with 0 none is."""
    for share in (0.5, 0.0):
        write_problems(tmp_path, 0, 2_000, 1, 1, 2_000, brief=share)
        answers = [d.answer for d in load(Source(str(tmp_path / "demonstrations.jsonl")), "demonstrations").records]
        assert sum(answer.startswith("####") for answer in answers) / 2_000 == pytest.approx(share, abs=0.04)


def test_longer_list_begins_with_the_shorter() -> None:
    """The first 50 of 200 are the 50."""
    assert generate(7, 200, "dev")[:50] == generate(7, 50, "dev")


def test_bytes_are_pinned(tmp_path: Path) -> None:
    """The four files of seed 0 (300, 40, 50 problems, 100 demonstrations) have these digests on every machine."""
    write_problems(tmp_path / "problems", 0, 300, 40, 50, 100)
    found = {
        file.name: hashlib.sha256(file.read_bytes()).hexdigest()[:16] for file in (tmp_path / "problems").iterdir()
    }
    assert found == PINNED


def test_written_files_read_back(tmp_path: Path) -> None:
    """300 questions, 100 demonstrations that are the first of train, 40 dev, 50 test; ids and solutions survive."""
    write_problems(tmp_path, 3, 300, 40, 50, 100)
    train = generate(3, 300, "train")
    questions = load(Source(str(tmp_path), split="train"), "questions").records
    demonstrations = load(Source(str(tmp_path / "demonstrations.jsonl")), "demonstrations").records
    assert [(q.context[0].content, q.solution, q.kind) for q in questions] == [
        (p.question, p.solution, p.kind) for p in train
    ]
    assert questions[17].id == "train-00017"
    assert [(d.context[0].content, d.answer) for d in demonstrations] == [(p.question, p.answer) for p in train[:100]]
    assert len(load(Source(str(tmp_path), split="dev"), "demonstrations").records) == 40
    assert len(load(Source(str(tmp_path), split="test"), "questions").records) == 50


def test_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown split, a negative count, too many demonstrations, and a space used up (here: after 1 attempt)."""
    with pytest.raises(UserError, match="split: 'valid' is unknown"):
        generate(0, 1, "valid")  # type: ignore[arg-type]  # the mistake under test
    with pytest.raises(UserError, match="count: is -1"):
        generate(0, -1, "train")
    with pytest.raises(UserError, match="demonstrations: is 11"):
        write_problems(tmp_path, 0, 10, 1, 1, 11)
    monkeypatch.setattr(problems, "_ATTEMPTS", 1)
    with pytest.raises(UserError, match="too few different"):
        generate(0, 1_000, "test")
