"""Which parameters go how fast and by which optimizer: LoRA+, Muon, and adapters that are made otherwise."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import smolt
from smolt.config import LoRA, Optim, PretrainRecipe
from smolt.models.forward.precision import choose_precision
from smolt.models.groups import from_answers
from smolt.models.locating import locate
from smolt.models.roles import open_policy
from smolt.models.saving import load_policy
from smolt.training.algorithms.pretrain import pretrain
from smolt.training.fit import Learner
from smolt.training.optimizers.parameter_groups import Role, adapter_role, block_matrices, optimizers_of
from smolt.training.stage import Training
from tests.tiny import tiny_model

SHOWN = [smolt.Demonstration((smolt.Turn("user", text),), "a hen") for text in ("hen?", "a tin?")]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_model(tmp_path_factory.mktemp("groups") / "model"))


def test_the_second_matrix_goes_faster(model: str) -> None:
    """Two groups of one role, a sixteenfold rate for B alone; the schedule and the clip hold for both."""
    policy = open_policy(locate(model), choose_precision("cpu", "fp32", 1), LoRA(rank=2, plus=16.0), 0)
    learner = Learner({"policy": adapter_role(policy.parameters(), LoRA(rank=2, plus=16.0))}, Optim(lr=1e-3), 10)
    (optimizer,) = learner.optimizers
    rates = {group["rate"]: len(group["params"]) for group in optimizer.param_groups}
    assert rates == {1.0: 14, 16.0: 14}
    policy(from_answers([[3]], [[[4, 5]]]))[0].sum().backward()
    before = {name: value.detach().clone() for name, value in policy.parameters().items()}
    learner.step({"policy": 1.0}, 0, frozenset({"policy"}))
    moved = {name: float((value.detach() - before[name]).abs().max()) for name, value in policy.parameters().items()}
    assert max(size for name, size in moved.items() if ".lora_B." in name) == pytest.approx(1.6e-2, rel=1e-3)


def test_matrices_of_the_blocks_alone_go_to_muon(model: str) -> None:
    """Seven in each of two layers; embedding (tied to the head) and norms stay with AdamW."""
    policy = open_policy(locate(model), choose_precision("cpu", "fp32", 1), None, 0)
    names = block_matrices(policy.trunk.network)
    assert len(names) == 14 and all(".layers." in name for name in names)
    adam, muon = optimizers_of({"policy": Role(policy.parameters(), matrices=names)}, Optim(), True)
    assert isinstance(adam, torch.optim.AdamW) and isinstance(muon, torch.optim.Muon)
    assert [len(group["params"]) for group in muon.param_groups] == [14]
    assert sum(len(group["params"]) for group in adam.param_groups) == len(policy.parameters()) - 14


def opened(folder: Path, optimizer: str, name: str) -> Training:
    (folder / "text.txt").write_text("the hen ate a tin by the sea. " * 60)
    recipe = PretrainRecipe.model_validate(
        {
            "data": str(folder / "text.txt"),
            "tokenizer": {"vocab": 270},
            "shape": {"hidden": 32, "layers": 2, "heads": 2, "mlp": 32, "window": 16},
            "batch": 4,
            "optimizer": optimizer,
            "optim": {"lr": 0.01},
            "budget": {"updates": 8},
            "model": {"device": "cpu", "dtype": "fp32", "threads": 1},
            "save": {"every": 1},
        }
    )
    return pretrain(recipe, out=folder / name)


def test_muon_learns_and_continues(tmp_path: Path) -> None:
    """The loss falls by a nat; left after three of eight updates, the momentum goes on where it was."""
    rows, others = list(opened(tmp_path, "muon", "whole")), list(opened(tmp_path, "adamw", "other"))
    assert rows[-1]["loss"] < rows[0]["loss"] - 1
    assert rows[-1]["loss"] != others[-1]["loss"]
    left = opened(tmp_path, "muon", "left")
    for _ in range(3):
        next(left)
    left.close()
    last = list(opened(tmp_path, "muon", "left"))[-1]
    assert (last["step"], last["loss"], last["gradient_norm"]) == (8, rows[-1]["loss"], rows[-1]["gradient_norm"])


@pytest.mark.parametrize(("fields", "scale"), [({"scaling": "root"}, 8 / 2), ({"dora": True}, 8 / 4)])
def test_other_adapters(fields: dict[str, Any], scale: float, model: str, tmp_path: Path) -> None:
    """They begin as the base model, learn, are sampled from as they are trained, and are read back as they were."""
    lora = {"rank": 4, "alpha": 8.0, **fields}
    training = smolt.sft(
        model, SHOWN, lora=lora, batch=2, optim={"lr": 1e-2}, budget={"updates": 4}, out=tmp_path / "a"
    )
    rows = list(training)
    assert rows[-1]["loss"] < rows[0]["loss"]
    config = json.loads((tmp_path / "a" / "model" / "adapter_config.json").read_text())
    assert (config["use_rslora"], config["use_dora"]) == ("scaling" in fields, "dora" in fields)
    base, tuned = (load_policy(path, choose_precision("cpu", "fp32", 1)) for path in (model, str(tmp_path / "a")))
    assert next(
        float(part.scaling["policy"]) for part in tuned.trunk.network.modules() if hasattr(part, "lora_A")
    ) == pytest.approx(scale)
    groups = from_answers([[3, 4, 5]], [[[5, 6, 7]]])
    with torch.no_grad():
        assert not torch.allclose(base(groups)[0], tuned(groups)[0], atol=1e-4)
    (row,) = smolt.grpo(
        str(tmp_path / "a"),
        ["hen?"],
        reward=lambda question, answer: len(answer.text),
        lora=lora,
        prompts=1,
        sampling={"max_tokens": 8},
        budget={"updates": 1},
    )
    assert row["mismatch_max"] < 1e-4
    with pytest.raises(smolt.UserError, match=r"lora: the adapter at .* has scaling"):
        smolt.sft(str(tmp_path / "a"), SHOWN, lora={"rank": 4, "alpha": 8.0})
