"""What is shared out is the whole, and what is agreed is one: in one process, in shares, in two at work."""

import json
from collections.abc import Iterator, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch

from smolt import processes
from smolt.config import Data, Judging, make_block
from smolt.data import Answer, Question
from smolt.evaluation.evaluate import evaluate
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import from_answers, share_rows
from smolt.preferences.judges.labelling import judge_file
from smolt.rewards.python import python_reward
from tests.processes.ranks import ended, launched


def test_one_process_has_it_all() -> None:
    """Shares are the whole, gathered values one, and nothing is told to anybody."""
    assert (processes.size(), processes.rank(), processes.first(), processes.sharing()) == (1, 0, True, False)
    assert processes.share([3, 1, 2]) == [3, 1, 2]
    assert processes.gather(7) == [7]
    assert processes.together([1, 2]) == [1, 2]
    assert list(processes.as_first_says(lambda: iter("ab"))) == ["a", "b"]


def test_a_launcher_is_known_by_all_it_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """WORLD_SIZE=4 alone, as a cluster may set it, launches nothing; with torchrun's four it is rank 2 of 4."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.size() == 1
    for name, value in {"RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert (processes.size(), processes.rank(), processes.first()) == (4, 2, False)


@pytest.mark.parametrize("count", [1, 2, 3, 8])
def test_shares_of_answers(count: int) -> None:
    """Every row once, pairs whole, and a share at most one pair of tokens off the mean; of 8 shares 5 pairs leave 3."""
    answers = [[[1] * (3 + context), [2] * 4] for context in range(5)]
    groups = from_answers([[9] * 5] * 5, answers).with_columns(pair=torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 4, 4]))
    shares = share_rows(groups, count)
    assert sorted(row for share in shares for row in share) == list(range(10))
    assert all(row ^ 1 in share for share in shares for row in share)
    costs = [sum(5 + int(groups.lengths[row]) for row in share) for share in shares]
    largest = max(10 + int(groups.lengths[row] + groups.lengths[row + 1]) for row in range(0, 10, 2))
    assert max(costs) <= sum(costs) / count + largest
    assert sum(not share for share in shares) == max(0, count - 5)


def at_work(inputs: Path, out: Path) -> None:
    """An evaluation, pairs, a judge here, and reward functions; what they found, in a file of each process."""
    settings: dict[str, Any] = {"dtype": "fp32", "device": "cpu", "max_tokens": 6, "batch": 2, "temperature": 1.0}
    model, reward = inputs / "model", f"{inputs / 'reward.py'}:reward"
    answers = evaluate(model, inputs / "questions.jsonl", reward=reward, samples=2, out=out / "answers", **settings)
    pairs = evaluate(model, inputs / "preferences.jsonl", task="preferences", dtype="fp32", device="cpu")
    judging = make_block(Judging, path=str(model), probes=2, gate=False)
    data = make_block(Data, path=str(inputs / "preferences.jsonl"))
    labels = judge_file(data, judging, out=out / "judge", device="cpu", dtype="fp32")
    found = {
        "answers": [[row["question_id"], row["answer"], row["reward"]] for row in answers.rows],
        "pairs": [row["score"] for row in pairs.rows],
        "labels": [labels["n"], labels["decided"], labels["preferences"], labels["status"]],
        "rewards": rewards(),
        "parts": list(processes.as_first_says(numbered)),
        "met": met(),
    }
    (out.parent / f"{out.name}-{processes.rank()}.json").write_text(json.dumps(found))


def rewards() -> list[Any]:
    """A function that each process calls for its part, and one of a whole batch that the first one calls."""
    questions, answers = [Question(())] * 5, [Answer("a" * n, n, True) for n in range(5)]

    def length(question: Question, answer: Answer) -> float:
        return float(answer.tokens)

    def batch(questions: Sequence[Question], answers: Sequence[Answer]) -> list[float]:
        return [float(len(answers))] * len(answers)

    return [[score.value for score in python_reward(each)(questions, answers)] for each in (length, batch)]


def numbered() -> Iterator[int]:
    """What only the first process may begin."""
    assert processes.first()
    yield from (1, 2, 3)


def met() -> str:
    """An error that only the first process meets is met by all."""
    choose_precision("cpu", "fp32")

    def fail() -> None:
        raise ValueError(f"of rank {processes.rank()}")

    try:
        processes.by_first(fail)
    except ValueError as error:
        return str(error)
    return "nothing"


def test_two_processes_measure_and_judge_as_one(server: ForkServerContext, inputs: Path, tmp_path: Path) -> None:
    """The same answers, scores, labels and words in both processes and in one alone."""
    at_work(inputs, tmp_path / "one")
    assert ended(launched(server, 2, at_work, inputs, tmp_path / "two")) == [0, 0]
    one, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("one-0", "two-0", "two-1"))
    assert first == second
    assert first.pop("pairs") == pytest.approx(one.pop("pairs"), abs=1e-4)
    assert first == one
    assert one["rewards"] == [[0, 1, 2, 3, 4], [5] * 5]
    assert (one["parts"], one["met"]) == ([1, 2, 3], "of rank 0")
    assert (tmp_path / "two" / "judge" / "verdicts.jsonl").exists()
