"""What is kept of a training's own answers, and of those that best-of-n did not choose."""

import json
from pathlib import Path

import pytest

from smolt.config import BestOfNRecipe, Data, DPORecipe, Model, RewardRecipe, Section, SFTRecipe, StudyRecipe
from smolt.report import report as report_module
from smolt.report.analysis import Analysis, analyse
from smolt.report.record import Arm, LatePart, StudyRecord
from smolt.runs.interrupts import Interrupts
from smolt.runs.rated_answers import RatedAnswer, read_rated, write_rated
from smolt.study import study as study_module
from smolt.study.places import CANDIDATES, Places
from smolt.study.study_record import best_of
from smolt.study.training_answers import late_parts
from smolt.training.algorithms import STAGES


def rows(values: dict[int, list[float | None]]) -> list[dict[str, object]]:
    return [{"step": step, "components": {"gsm8k": value}} for step in values for value in values[step]]


def test_the_last_quarter_of_the_updates() -> None:
    """Of 8 updates the last two: 3 answers with the part, one of them 0, two at 1; 2 was reached only before."""
    early: dict[int, list[float | None]] = {step: [0.5] for step in range(1, 7)}
    found = late_parts(rows({**early, 7: [1.0, 0.0], 8: [1.0, None]}))
    assert found == {"gsm8k": LatePart(7, 8, 3, 1, 0.0, 1.0, 2)}
    found = late_parts(rows({**early, 1: [2.0, -1.0], 7: [1.0, 0.0], 8: [1.0]}))
    assert found == {"gsm8k": LatePart(7, 8, 3, 1, -1.0, 2.0, 0)}


def test_a_part_that_abstained_at_the_end_is_absent() -> None:
    assert late_parts(rows({1: [1.0], 2: [None]})) == {}
    assert late_parts([]) == {}


def test_of_three_updates_the_last_one() -> None:
    assert late_parts(rows({1: [0.0], 2: [0.0], 3: [1.0]})) == {"gsm8k": LatePart(3, 3, 1, 0, 0.0, 1.0, 1)}


def candidate(question: int, score: float | None, right: bool | None) -> RatedAnswer:
    reward = None if right is None else float(right)
    return RatedAnswer(f"q{question}", "why?", "", "so", 3, True, right, reward, score=score, chosen=False)


def kept(folder: Path, candidates: list[RatedAnswer]) -> Places:
    (folder / "best").mkdir()
    write_rated(folder / "best" / CANDIDATES, candidates)
    assert read_rated(folder / "best" / CANDIDATES) == candidates
    return Places(StudyRecipe(), folder)


def test_the_best_of_two_from_four(tmp_path: Path) -> None:
    """Of 6 pairs of 4 answers 3 hold the first, 2 the second and not the first, 1 the third and not the others.

    Question 0: by rank right, wrong, right, wrong: 3/6 + 1/6 = 2/3. Question 1: wrong, right, right, right, the
    abstained one last: 3/6 = 1/2. Mean 7/12 over 2 questions.
    """
    first = [candidate(0, score, right) for score, right in ((0.1, False), (0.9, True), (0.3, True), (0.5, False))]
    second = [candidate(1, score, right) for score, right in ((0.2, True), (None, True), (0.8, False), (0.4, True))]
    found = best_of(kept(tmp_path, first + second), "best", 4)
    assert list(found) == [2]
    for metric in ("accuracy", "reward"):
        assert found[2][metric].value == pytest.approx(7 / 12, abs=1e-12)
        assert found[2][metric].n == 2


def test_answers_that_nobody_rated_give_nothing(tmp_path: Path) -> None:
    """Only the chosen one is rated; and an arm of two has no smaller choice, one without a file none at all."""
    unrated = [candidate(0, 0.5, True), *(candidate(0, score, None) for score in (0.1, 0.2, 0.3))]
    places = kept(tmp_path, unrated)
    assert best_of(places, "best", 4) == {}
    assert best_of(places, "best", 2) == {}
    assert best_of(places, "other", 4) == {}


def test_a_section_that_names_its_model_begins_from_that_section(tmp_path: Path) -> None:
    """`model: "{sft}"` is another way to write `from: sft`; a model of its own is neither."""
    data = Data(path="pairs.jsonl")
    sft = Section(name="sft", recipe=SFTRecipe(model=Model(path="base"), data=data))
    named = Section(name="dpo", recipe=DPORecipe(model=Model(path="{sft}"), data=data))
    chosen = Section(name="best", recipe=BestOfNRecipe(model=Model(path="{dpo}/model"), reward_model="rm", name="best"))
    own = Section(name="own", recipe=DPORecipe(model=Model(path="elsewhere"), data=data))
    places = Places(StudyRecipe(model=Model(path="base"), sections=(sft, named, chosen, own)), tmp_path)
    assert [places.parent(section) for section in (sft, named, chosen, own)] == ["base", "sft", "dpo", "base"]
    assert places.model_path("best", 0) == str(tmp_path / "dpo" / "model")


def test_a_study_is_analysed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    analysed: list[StudyRecord] = []

    def counting(record: StudyRecord) -> Analysis:
        analysed.append(record)
        return analyse(record)

    for module in (study_module, report_module):
        monkeypatch.setattr(module, "analyse", counting)
    monkeypatch.setattr(study_module.Study, "measure", lambda study, arms, seed: None)
    record = StudyRecord("small", [Arm("sft", "sft", items=[candidate(0, None, True)])])
    monkeypatch.setattr(study_module, "record_of", lambda places: record)
    found = study_module.run_study(StudyRecipe(), out=tmp_path / "study")
    assert (found["status"], found["arms"]["sft"]["accuracy"], len(analysed)) == ("complete", 1.0, 1)


def test_a_gate_that_refuses_is_said_as_the_section_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    section = Section(name="rm", recipe=RewardRecipe(model=Model(path="base"), data=Data(path="pairs.jsonl")))
    places = Places(StudyRecipe(model=Model(path="base"), sections=(section,)), tmp_path)
    folder = places.folder("rm", 0)
    folder.mkdir()
    monkeypatch.setitem(STAGES, "reward", lambda recipe, out: None)
    monkeypatch.setattr(study_module, "drive", lambda training, interrupts, progress: None)
    study = study_module.Study(places, lambda training, metrics: None, Interrupts())
    for refused in (None, "length alone does as well"):
        (folder / "result.json").write_text(json.dumps({"refused": refused}))
        study._train(section, section.recipe, folder, 0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "rm: its gate refuses it: length alone does as well"
    ]
