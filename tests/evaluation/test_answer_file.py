"""`smolt sample`: rows of answers, the same whether written in one go or continued."""

import json
from pathlib import Path
from typing import Any

import pytest

from smolt.config import Data, EvaluationSampling, Model
from smolt.data import Turn
from smolt.errors import UserError
from smolt.evaluation import exam
from smolt.evaluation.answer_file import write_answers
from smolt.models.forward.precision import choose_precision
from smolt.models.rendering import load_renderer
from smolt.models.sampling import Drawing, sample
from smolt.models.saving import load_policy
from smolt.runs.rated_answers import NAMES, RatedAnswer
from tests.tiny import tiny_model

QUESTIONS = 7


def ask(folder: Path, out: Path, **more: Any) -> dict[str, Any]:
    """Seven questions, two answers each, in chunks of four questions (4 refills of 2 slots, 2 answers a question)."""
    if not (folder / "config.json").is_file():
        tiny_model(folder)
        rows = [{"id": f"q{n}", "question": f"question {n}", "answer": f"#### {n}"} for n in range(QUESTIONS)]
        (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings: dict[str, Any] = {"samples": 2, "temperature": 1.0, "seed": 0, **more}
    sampling = EvaluationSampling(max_tokens=6, temperature=settings.pop("temperature"), batch=2)
    model = Model(path=str(folder), device="cpu", dtype="fp32")
    return write_answers(model, Data(path=str(folder / "questions.jsonl")), sampling, out=out, **settings)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "samples.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_question_has_its_answers(tmp_path: Path) -> None:
    """14 rows in the order of the file; the texts are the sampler's for (seed, place, number)."""
    told: list[tuple[int, int]] = []
    facts = ask(tmp_path / "m", tmp_path / "out", progress=lambda done, total: told.append((done, total)))
    found = rows(tmp_path / "out")
    assert [row["question_id"] for row in found] == [f"q{n}" for n in range(QUESTIONS) for _ in range(2)]
    assert (facts["status"], facts["n"], facts["questions"], facts["too_long"]) == ("complete", 14, 7, 0)
    assert facts["length"] == pytest.approx(sum(row["tokens"] for row in found) / 14)
    assert facts["stop_rate"] == pytest.approx(sum(row["stopped"] for row in found) / 14)
    assert told == [(0, 7), (4, 7), (7, 7)]
    renderer = load_renderer(tmp_path / "m")
    policy = load_policy(str(tmp_path / "m"), choose_precision("cpu", "fp32"))
    context = renderer.context((Turn("user", "question 5"),))
    drawn = sample(policy, [context], 2, Drawing(6, 1.0, 2, renderer.stop_ids), (0,), ids=[5])
    wanted = [renderer.decode(answer.tolist()) for answer in drawn.answers]
    assert [row["answer"] for row in found if row["question_id"] == "q5"] == wanted
    assert set(found[0]) == {"step", *NAMES}
    assert (found[10]["question"], found[10]["reference_solution"]) == ("question 5", "5")
    assert {(row["correct"], row["reward"], row["abstained"]) for row in found} == {(None, None, None)}


class Stop(Exception):
    pass


def test_a_stopped_command_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed while the second chunk's rows are written: the first chunk is not asked again, the file ends up equal."""
    ask(tmp_path / "m", tmp_path / "whole")
    real = exam.answer_part

    def torn(asked: Any, policy: Any, ground: Any, places: range) -> list[RatedAnswer]:
        if places.start:
            raise Stop
        return real(asked, policy, ground, places)

    monkeypatch.setattr(exam, "answer_part", torn)
    with pytest.raises(Stop):
        ask(tmp_path / "m", tmp_path / "out")
    with (tmp_path / "out" / "samples.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"step": 7, "question_id": "q4", "answer": "whole, but with no checkpoint"}\n{"step": 7, "te')
    starts: list[int] = []

    def counted(asked: Any, policy: Any, ground: Any, places: range) -> list[RatedAnswer]:
        starts.append(places.start)
        return real(asked, policy, ground, places)

    monkeypatch.setattr(exam, "answer_part", counted)
    facts = ask(tmp_path / "m", tmp_path / "out")
    assert starts == [4]
    assert facts == ask(tmp_path / "m", tmp_path / "whole") | {"status": "complete"}
    assert rows(tmp_path / "out") == rows(tmp_path / "whole")
    assert ask(tmp_path / "m", tmp_path / "out")["status"] == "already complete"
    assert starts == [4]


def test_other_settings_are_another_run(tmp_path: Path) -> None:
    """A different seed is refused with both values; --fresh sets the old answers aside."""
    ask(tmp_path / "m", tmp_path / "out")
    before = rows(tmp_path / "out")
    with pytest.raises(UserError, match=r"recipe.seed: 0 in this run, 1 now"):
        ask(tmp_path / "m", tmp_path / "out", seed=1)
    ask(tmp_path / "m", tmp_path / "out", seed=1, fresh=True)
    assert rows(tmp_path / "out.old-1") == before
    assert [row["answer"] for row in rows(tmp_path / "out")] != [row["answer"] for row in before]


def test_several_greedy_answers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="2 greedy answers to a question are all the same"):
        ask(tmp_path / "m", tmp_path / "out", temperature=0.0)
    assert not (tmp_path / "out").exists()
    assert ask(tmp_path / "m", tmp_path / "out", temperature=0.0, samples=1)["n"] == 7
