"""decide: the loss by hand and by torch, what it learns, and the directory that transformers' pipeline loads."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import smolt
from smolt.config import Model, make_block
from smolt.models.ground import open_ground
from smolt.models.groups import join
from smolt.models.items import decision_items
from smolt.models.locating import locate
from smolt.models.merging import merge
from smolt.rewards.llm_judge.decider import open_decider
from smolt.training.algorithms.decide import decide_loss
from smolt.training.objectives import brier, cross_entropy
from tests.deciding import CPU, DECISIONS, LABELS, QUESTIONS, by_pipeline, decided, deciding_model

FEW = {"batch": 2, "optim": {"lr": 0.01}, "budget": {"updates": 3}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A chat model without decision.json."""
    return deciding_model(tmp_path_factory.mktemp("decide") / "model")


def test_the_losses_are_proper_scores() -> None:
    """Cross-entropy is torch's with soft labels; an option that is not there has no share and no slope."""
    scores = torch.tensor([[0.3, -1.0, 2.0], [0.5, 0.1, -math.inf]], requires_grad=True)
    expected = torch.tensor([[0.2, 0.0, 0.8], [1.0, 0.0, 0.0]])
    logprobs = torch.log_softmax(scores, dim=1)
    found = cross_entropy(logprobs, expected)
    wanted = torch.nn.functional.cross_entropy(scores[:, :2][1:], expected[1:, :2], reduction="none")
    assert found[1].item() == pytest.approx(wanted.item(), abs=1e-6)
    soft = torch.nn.functional.cross_entropy(scores[:1], expected[:1], reduction="none")
    assert found[0].item() == pytest.approx(soft.item(), abs=1e-6)
    shares = torch.softmax(scores, dim=1)
    squared = brier(logprobs, expected)
    assert squared.tolist() == pytest.approx(((shares - expected) ** 2).sum(dim=1).tolist())
    (found.sum() + squared.sum()).backward()
    assert scores.grad is not None and bool(scores.grad.isfinite().all()) and scores.grad[1, 2] == 0


@pytest.mark.parametrize("loss", ["cross_entropy", "brier"])
def test_the_gradient_does_not_depend_on_the_cut_or_on_the_shared_beginning(model: Path, loss: Any) -> None:
    """All at once, one question at a time, and each question with its state written out for itself."""
    ground = open_ground(make_block(Model, path=str(model)))
    alone = [replace(one, questions=(question,)) for one in DECISIONS for question in one.questions]
    gradients = []
    for decisions, tokens in ((DECISIONS, 10**6), (DECISIONS, 1), (alone, 10**6)):
        training = smolt.decide(str(model), decisions, loss=loss, **FEW)
        policy = training._plan.result
        groups = join(decision_items(decisions, ground.renderer, ground.window).items)
        for rows in [list(range(len(groups)))] if tokens > 1 else [[row] for row in range(len(groups))]:
            (part,) = decide_loss(policy, training._plan.recipe)(groups.select(rows))
            part.total.backward()
        gradients.append(torch.cat([value.grad.flatten() for value in policy.parameters().values()]))
        training.close()
    assert torch.allclose(gradients[0], gradients[1], atol=1e-5)
    assert torch.allclose(gradients[0], gradients[2], atol=1e-5)
    assert float(gradients[0].norm()) > 0.1


@pytest.mark.parametrize("lora", [None, {"rank": 4}])
def test_what_is_saved_is_loaded_by_the_pipeline(model: Path, tmp_path: Path, lora: Any) -> None:
    """Full weights, and base and adapter in one directory: smolt and transformers say the same, as after training."""
    training = smolt.decide(str(model), DECISIONS * 10, lora=lora, out=tmp_path / "run", dev=None, **FEW)
    result = training.finish()
    folder = tmp_path / "run" / "model"
    settings = json.loads((folder / "decision.json").read_text())
    assert settings["labels"] == {"noul": ["Y", "N"]}
    assert settings["adapter"] == (None if lora is None else "adapter")
    found = decided(folder, DECISIONS)
    for decision, rows in zip(DECISIONS, found, strict=True):
        for row, expected in zip(rows, by_pipeline(folder, decision), strict=True):
            assert row == pytest.approx(expected, abs=1e-4)
    untrained = deciding_model(tmp_path / "start", {"labels": LABELS})
    assert found[0][0] != pytest.approx(decided(untrained, DECISIONS[:1])[0][0], abs=1e-3)
    assert result.metrics["facts"]["questions"] == 90
    if lora is not None:
        located = locate(str(tmp_path / "run"))
        assert located.adapter == folder.resolve() / "adapter"
        merge(str(tmp_path / "run"), tmp_path / "merged")
        assert json.loads((tmp_path / "merged" / "decision.json").read_text())["adapter"] is None
        again = decided(tmp_path / "merged", DECISIONS)
        assert [pytest.approx(row, abs=1e-4) for one in found for row in one] == [row for one in again for row in one]


def test_a_model_without_a_chat_template_gets_one_for_decisions(tmp_path: Path) -> None:
    """decision_template.jinja, by which the pipeline asks it too; control tokens in a state stay text."""
    plain = deciding_model(tmp_path / "plain", chat=False)
    smolt.decide(str(plain), DECISIONS, out=tmp_path / "run", **FEW).finish()
    folder = tmp_path / "run" / "model"
    assert (folder / "decision_template.jinja").is_file()
    for decision, rows in zip(DECISIONS, decided(folder, DECISIONS), strict=True):
        for row, expected in zip(rows, by_pipeline(folder, decision), strict=True):
            assert row == pytest.approx(expected, abs=1e-4)


def test_it_learns_and_its_temperature_is_of_dev(model: Path, tmp_path: Path) -> None:
    """Labels by the state's first letter; dev labels of a coin make every probability more even."""

    def made(flipped: int, count: int) -> list[smolt.Decision]:
        found = []
        for number in range(count):
            right = (number % 2 == 0) != (number % 3 < flipped)
            question = replace(QUESTIONS[1], expected=(float(right), float(not right)))
            found.append(smolt.Decision(f"{'ab'[number % 2]} {number}", (question,), f"d{number}"))
        return found

    (tmp_path / "dev.jsonl").write_text("".join(json.dumps(one.row) + "\n" for one in made(1, 60)))
    training = smolt.decide(
        str(model),
        made(0, 40),
        out=tmp_path / "run",
        dev=str(tmp_path / "dev.jsonl"),
        batch=8,
        optim={"lr": 0.01},
        budget={"updates": 30},
    )
    metrics = list(training)
    assert metrics[-1]["accuracy"] == 1.0 and metrics[-1]["brier"] < 0.1 < metrics[0]["brier"]
    assert metrics[-1]["dev/accuracy"] == pytest.approx(2 / 3, abs=0.02)
    temperature = training.finish().metrics["temperature"]
    assert list(temperature) == ["choice"] and temperature["choice"] > 1.5
    assert json.loads((tmp_path / "run" / "model" / "decision.json").read_text())["temperature"] == temperature
    decider = open_decider(str(tmp_path / "run"), CPU)
    (one,) = decider.decide(made(0, 1))[0] or []
    assert math.exp(max(one)) == pytest.approx(2 / 3, abs=0.1)


def test_what_cannot_be_learned_is_refused(model: Path, tmp_path: Path) -> None:
    """A question of which nothing is expected; states beyond the window."""
    unknown = replace(DECISIONS[0], questions=(replace(QUESTIONS[0], expected=None),))
    with pytest.raises(smolt.UserError, match=r"decisions: d0: expected.refund: is missing"):
        smolt.decide(str(model), [unknown], out=tmp_path / "run")
    long = replace(DECISIONS[0], state="x" * 4000)
    with pytest.raises(smolt.UserError, match="1 of 1 records exceed the window of 2048 tokens"):
        smolt.decide(str(model), [long], out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
