"""A rollout that says nothing: no step, and the record says that there was no signal."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config import GRPORecipe
from smolt.models.groups import from_answers
from smolt.training.objectives import group_advantages
from smolt.training.online.group_advantages import GRPOPreparation, signal_metrics
from tests.reliability.scenes import open_scene, write_inputs

ABSTAINED = math.nan


RECIPE = {"model": "m", "data": "d", "reward": "gsm8k", "kl": {"beta": 0.0}}


@pytest.mark.parametrize(
    ("rewards", "keep_empty"),
    [
        ([ABSTAINED] * 6, False),
        ([ABSTAINED] * 6, True),  # keep_empty_groups keeps groups of equal rewards, and never what abstained
        ([1.0, ABSTAINED, ABSTAINED, ABSTAINED, ABSTAINED, 0.0], True),  # one valid reward in each group
        ([1.0, 1.0, ABSTAINED, 0.0, 0.0, 0.0], False),
    ],
)
def test_abstentions_are_no_signal(rewards: list[float], keep_empty: bool) -> None:
    """Two groups of three answers: a share of 0 groups with signal, no answer learned from, and no optimizer step."""
    recipe = GRPORecipe.model_validate({**RECIPE, "keep_empty_groups": keep_empty})
    groups = from_answers([[1, 2], [3]], [[[4], [5], [6]], [[7], [8], [9]]])
    rolling: Any = SimpleNamespace(micro_tokens=1000)
    update = GRPOPreparation(recipe, rolling, None)(groups, torch.tensor(rewards), 0)
    assert list(update.minibatches) == []
    assert (update.metrics["signal"], update.metrics["answers_used"]) == (0.0, 0)


def test_the_spread_is_that_of_the_groups_that_speak() -> None:
    """1 and 0 in one group, a silent one beside it: half the groups with signal, deviation 0.5; else none."""
    owners = torch.tensor([0, 0, 0, 1, 1, 1])
    rewards = torch.tensor([1.0, 0.0, *[ABSTAINED] * 4])
    found = signal_metrics(rewards, owners, group_advantages(rewards, owners)[1])
    assert found == {"signal": 0.5, "reward_std": 0.5, "answers_used": 2}
    silent = torch.full((6,), ABSTAINED)
    assert signal_metrics(silent, owners, silent > 0) == {"signal": 0.0, "reward_std": None, "answers_used": 0}


def test_a_warm_up_of_all_updates_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The critic learns and the policy does not: said before the first update, at the end and in the report."""
    inputs = write_inputs(tmp_path)
    training = open_scene("ppo-lora", inputs, tmp_path / "run", critic__warmup=3)
    assert "critic.warmup: 3 updates are all of the budget: the policy will stay as it is" in caplog.text
    result = training.finish().metrics
    assert result["warnings"] == ["critic.warmup: 3 updates are all of the budget: the policy has stayed as it is"]
    assert result["panels"][-1]["warnings"] == result["warnings"]
    caplog.clear()
    open_scene("ppo-lora", inputs, tmp_path / "other").close()
    assert "critic.warmup" not in caplog.text


def test_doctor_tells_of_a_warm_up_of_all_updates(tmp_path: Path) -> None:
    """Two updates, two of warm-up; with three nothing is said."""
    write_inputs(tmp_path)
    fields = f"stage: ppo\nmodel: {tmp_path}/model\ndata: {tmp_path}/gone.jsonl\nreward: length\n"
    (tmp_path / "r.yaml").write_text(f"{fields}critic: {{warmup: 2}}\nbudget: {{updates: 2}}\n")
    for more, told in (([], True), (["budget.updates=3"], False)):
        done = CliRunner().invoke(app, ["doctor", str(tmp_path / "r.yaml"), *more, "--json"])
        found = {check["what"]: check["found"] for check in json.loads(done.stdout)["checks"]}
        assert ("updates of ppo" in found) == told
        if told:
            assert found["updates of ppo"].endswith("the policy will stay as it is")


def test_questions_that_no_rule_can_score_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of four questions two lack a solution."""
    inputs = write_inputs(tmp_path / "inputs")
    rows = [{"prompt": f"{n} hens?", **({"solution": str(n)} if n % 2 else {})} for n in range(4)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes: dict[str, Any] = {"data": str(tmp_path / "q.jsonl"), "reward": "gsm8k", "dev": None}
    open_scene("grpo-full", inputs, tmp_path / "run", **changes)
    assert (
        "no answer to 2 of 4 questions gets a score (gsm8k: the question has no solution to compare with): they are "
        "asked all the same, and nothing is learned from their answers; leave them out, or add what the rule needs"
    ) in caplog.messages
