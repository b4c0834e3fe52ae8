"""The pages on RLAIF and on a niche of one's own: their studies run as written, on models too small to learn."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.data import Source, load
from smolt.report.pictures import plots
from smolt.rewards.constraints import read_constraint
from tests.docs.test_commands import lines
from tests.docs.workshop import ROOT, blocks, table

RLAIF, NICHE = (ROOT / "docs" / "guides" / name for name in ("rlaif.md", "niche-example.md"))
LENGTH = "{name: length, options: {target: 3}}"
TINY_SUPPORT = [
    *("problems.train=64", "problems.dev=8", "problems.test=8", "problems.demonstrations=64", "other_tickets.train=8"),
    *("pretrain.budget.updates=1", "pretrain.shape.hidden=16", "pretrain.shape.layers=1", "pretrain.shape.mlp=16"),
    *(
        "pretrain.shape.window=512",
        "sft.budget.updates=1",
        "judge.gate=false",
        "ai_labels.data.limit=8",
        "ai_labels.judge.probes=2",
    ),
    *("grpo.prompts=4", "grpo.group=4", "grpo.budget.updates=1", "model.threads=1"),
    *(f"{section}.sampling.max_tokens=8" for section in ("study", "other_pairs", "ai_labels", "grpo")),
    # An untrained model keeps no rule: its reward does not vary, and pairs need answers of which one is better.
    *(f"other_pairs.reward={LENGTH}", f"grpo.reward={LENGTH}", f"ai_labels.gold={LENGTH}"),
]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures would take most of the time."""
    monkeypatch.setattr(plots, "draw", lambda *given: plots.Pictures())


def study(page: Path, *more: str) -> dict[str, Any]:
    """The record of the one study that a page runs."""
    (command,) = lines(page)
    done = CliRunner().invoke(app, [*command.split()[1:], *more])
    assert done.exit_code == 0, done.output
    record: dict[str, Any] = json.loads((Path(command.split()[-1]) / "record.json").read_text(encoding="utf-8"))
    return record


def widen(model: Path) -> None:
    """A window in which a rubric and two answers fit, byte by byte."""
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2048}))


def test_a_model_judges_itself_in_two_rounds(workshop: Path) -> None:
    """The judge of each round is the model that answers in it; both cards are in the report, with what sways them."""
    widen(workshop / "my-model")
    (workshop / "self-improvement.yaml").write_text(blocks(RLAIF, "yaml")[0].text, encoding="utf-8")
    record = study(RLAIF)
    assert [arm["name"] for arm in record["arms"]] == ["base", "first_round", "second_round"]
    cards = {panel["name"]: panel for panel in record["panels"] if panel["name"].startswith("judge-")}
    assert set(cards) == {"judge-own-labels", "judge-more-labels"}
    for card in cards.values():
        assert "sway" in card["sentences"][-1]
        assert any(table["columns"] == ["answer that is", "judge", "given labels"] for table in card["tables"])
    judges = [json.loads((workshop / "runs" / "self" / name / "manifest.json").read_text()) for name in ("own_labels",)]
    assert judges[0]["recipe"]["judge"]["path"] == judges[0]["recipe"]["model"]["path"] == "my-model"
    later = json.loads((workshop / "runs" / "self" / "more_labels" / "manifest.json").read_text())["recipe"]
    assert later["judge"]["path"] == later["model"]["path"] == str(workshop / "runs" / "self" / "first_round" / "model")


def test_the_niche_runs(workshop: Path) -> None:
    """Every section of the recipe, each rule a component of its own, and the judge's card."""
    record = study(NICHE, *TINY_SUPPORT)
    arms = {arm["name"]: arm for arm in record["arms"]}
    assert set(arms) == {"pretrain", "sft", "judge", "dpo", "grpo", "rejected"}
    rules = {name.rpartition(".")[2] for name in arms["sft"]["items"][0]["components"] if "." in name}
    assert rules == {row[1].partition(":")[0].strip("`") for row in table(NICHE, "rule")}
    assert "judge-ai-labels" in {panel["name"] for panel in record["panels"]}


def test_a_ticket_of_ones_own(workshop: Path) -> None:
    """The row of the page is a question, and its constraint one that the reward reads."""
    (workshop / "tickets.jsonl").write_text(blocks(NICHE, "json")[0].text, encoding="utf-8")
    (question,) = load(Source("tickets.jsonl"), "questions").records
    assert read_constraint(question.solution or "")["words"] == [1, 40]
