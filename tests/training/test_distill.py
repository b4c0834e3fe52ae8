"""On-policy distillation: whose answers an update holds, that it comes nearer to the teacher, and who may teach."""

from pathlib import Path

import pytest
import torch

import smolt
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import from_answers
from smolt.models.rendering import load_renderer
from smolt.models.roles import divergence
from smolt.models.saving import load_policy
from smolt.training.stage import Training
from tests.tiny import WINDOW, tiny_model

ASK = (smolt.Turn("user", "hen?"),)
SHOWN = [smolt.Demonstration((smolt.Turn("user", text),), "a hen") for text in ("hen?", "a tin?", "who?", "her?")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student, a teacher with more rows in its embedding, and strangers."""
    place = tmp_path_factory.mktemp("distill")
    tiny_model(place / "student")
    tiny_model(place / "teacher", seed=5, vocab=300)
    tiny_model(place / "stranger", chat=False)
    return place


def trained(folder: Path, own: float, lora: dict[str, int] | None = None, **fields: object) -> Training:
    training: Training = smolt.distill(
        str(folder / "student"),
        SHOWN if own < 1 else ["hen?", "a tin?", "who?", "her?"],
        teacher=str(folder / "teacher"),
        own=own,
        lora=lora,
        prompts=4,
        sampling={"max_tokens": 8},
        optim={"lr": 5e-3},
        **{"budget": {"updates": 8}, **fields},
    )
    return training


@pytest.mark.parametrize(("own", "lora"), [(1.0, None), (0.5, {"rank": 4}), (0.0, None)])
def test_the_student_comes_nearer(own: float, lora: dict[str, int] | None, folder: Path) -> None:
    """Of 4 questions the share `own` is answered by the student, and its rows are kept; the loss falls by a tenth."""
    training = trained(folder, own, lora)
    rows = list(training)
    assert rows[-1]["loss"] < 0.9 * rows[0]["loss"]
    samples = (training.out / "samples.jsonl").read_text().splitlines() if own else []
    assert len(samples) == 8 * 4 * own
    assert ("length" in rows[0]) is (own > 0)


def test_the_loss_is_the_mean_over_tokens_of_own_and_given_answers(folder: Path) -> None:
    """One update of 4 given answers of 3 tokens: the divergence of the two models on exactly these."""
    (row,) = trained(folder, 0.0, budget={"updates": 1}, beta=0.0)
    student, teacher = (
        load_policy(str(folder / name), choose_precision("cpu", "fp32")) for name in ("student", "teacher")
    )
    renderer = load_renderer(folder / "student", None)
    groups = from_answers(
        renderer.contexts([record.context for record in SHOWN]), [[renderer.answer(record.answer)] for record in SHOWN]
    )
    with torch.no_grad():
        logits = [(role.trunk.states(groups)[0] @ role.trunk.head.T)[:, :266] for role in (student, teacher)]
        own, other = (torch.log_softmax(each, dim=-1) for each in logits)
        expected = float((other.exp() * (other - own)).sum(dim=-1).mean())
        assert float(divergence(student, student, groups)[0].abs().max()) < 1e-6
    assert row["loss"] == pytest.approx(expected, rel=1e-5)


def test_dev_measures_greedy_answers(folder: Path) -> None:
    """The loss on held-out questions falls too, and 2 of 3 are looked at."""
    data = folder / "asked.jsonl"
    data.write_text('{"prompt": "hen"}\n{"prompt": "tin"}\n{"prompt": "inn"}\n')
    rows = list(trained(folder, 1.0, dev=str(data), watch={"every": 1, "items": 2}))
    assert rows[0]["dev/n"] == 2
    assert rows[-1]["dev/loss"] < rows[0]["dev/loss"]


@pytest.mark.parametrize(
    ("teacher", "fields", "reason"),
    [
        ("nobody", {"sampling": {"max_tokens": 8}}, "nobody: no such directory"),
        ("teacher", {"sampling": {"max_tokens": WINDOW}}, r"questions: 1 of 1 records exceed the window of 128 tokens"),
    ],
)
def test_who_cannot_teach(teacher: str, fields: dict[str, object], reason: str, folder: Path) -> None:
    with pytest.raises(smolt.UserError, match=reason):
        smolt.distill(str(folder / "student"), ["hen?"], teacher=str(folder / teacher), **fields)


def test_a_teacher_with_another_vocabulary(folder: Path, tmp_path: Path) -> None:
    """One token more: it is named, with its two ids, and where to turn instead."""
    from transformers import AutoTokenizer

    tiny_model(tmp_path / "other", vocab=300)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "other")
    tokenizer.add_tokens(["henhouse"])
    tokenizer.save_pretrained(tmp_path / "other")
    with pytest.raises(smolt.UserError) as caught:
        smolt.distill(
            str(folder / "student"),
            ["hen?"],
            teacher=str(tmp_path / "other"),
            sampling={"max_tokens": 8},
            out=tmp_path / "run",
        )
    said = str(caught.value)
    assert (
        "its vocabulary is not the student's (267 and 266 tokens): 'henhouse' has the id 266 there and none here"
        in said
    )
    assert "stage: answers" in said
    assert not (tmp_path / "run").exists()


def test_a_teacher_with_another_template_is_said(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    smolt.distill(
        str(folder / "student"), ["hen?"], teacher=str(folder / "stranger"), sampling={"max_tokens": 8}
    ).close()
    assert "writes its dialogues otherwise" in caplog.text
