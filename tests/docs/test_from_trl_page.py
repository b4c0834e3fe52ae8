"""The page for people who come from TRL: its programs run, smolt's names are fields, TRL's names are TRL's."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from smolt.config.reference import stage_fields
from tests.docs.test_commands import lines, run
from tests.docs.workshop import ROOT, blocks, table

PAGE = ROOT / "docs" / "guides" / "from-trl.md"
NAME = re.compile(r"`([a-z_.]+)`")
SEVERAL = {"weight"}  # of a part of the reward


def test_the_scripts_run(workshop: Path) -> None:
    """The function and both recipes; the commands are shortened as on every page, and the runs are complete."""
    for language in ("python", "yaml"):
        for block in blocks(PAGE, language):
            (workshop / block.text.split()[1]).write_text(block.text, encoding="utf-8")
    commands = lines(PAGE)
    assert [command.split()[1] for command in commands] == ["doctor", "grpo", "eval", "ppo"]
    for command in commands:
        run(command.replace(" --log tensorboard", ""))
    for stage in ("grpo", "ppo"):
        assert json.loads((workshop / "runs" / stage / "result.json").read_text())["stage"] == stage


def test_every_name_of_smolt_is_a_field() -> None:
    """The second column names fields of some stage's recipe."""
    stages = ("sft", "reward", "dpo", "kto", "ppo", "grpo", "online_dpo", "distill")
    known = {field.name for stage in stages for field in stage_fields(stage)}
    known |= {name.partition(".")[0] for name in known} | SEVERAL
    named = {name for row in table(PAGE, "TRL") for name in NAME.findall(f"`{row[1]}`".replace("``", "`"))}
    named |= {
        name for row in table(PAGE, "TRL's last PPO (1.12)") for name in re.findall(r"[a-z_]+(?:\.[a-z_]+)?", row[1])
    }
    fields_named = {name for name in named if "." in name or name in known}
    assert len(fields_named) > 30
    assert fields_named <= known


@pytest.mark.filterwarnings("ignore")  # of its experimental part
def test_every_name_of_trl_is_trls() -> None:
    """The first column, against the configurations of the installed release."""
    trl = pytest.importorskip("trl")
    cpo = pytest.importorskip("trl.experimental.cpo")
    online = pytest.importorskip("trl.experimental.online_dpo")
    gkd = pytest.importorskip("trl.experimental.gkd")
    kinds = (
        trl.SFTConfig,
        trl.DPOConfig,
        trl.GRPOConfig,
        trl.RewardConfig,
        trl.KTOConfig,
        cpo.CPOConfig,
        gkd.GKDConfig,
        online.OnlineDPOConfig,
    )
    known = {field.name for kind in kinds for field in fields(kind)} | {"peft_config"}
    named = {name for row in table(PAGE, "TRL") for name in re.findall(r"[a-z]+(?:_[a-z0-9]+)*", row[0])}
    told = {name for name in named if "_" in name or name in known}
    assert told <= known | {"of"}
