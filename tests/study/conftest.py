"""The smoke study, shrunk to seconds: every section, models too small and trained too little to learn anything."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from smolt.cli import app
from smolt.report.pictures import plots

SMALL = (
    "model.threads=1",
    "problems={train: 120, dev: 20, test: 40, demonstrations: 120}",
    "study.items=24",
    "study.reward=[gsm8k, {name: length, options: {target: 8}}]",
    "study.sampling.max_tokens=12",
    "pretrain.tokenizer.vocab=300",
    "pretrain.shape={hidden: 32, layers: 1, heads: 2, mlp: 64, window: 128}",
    "pretrain.budget.updates=2",
    "sft.batch=16",
    "sft.budget.updates=6",
    "pairs.data.limit=24",
    "pairs.reward={name: length, options: {target: 8}}",
    "pairs.sampling.max_tokens=12",
    "reward.batch=4",
    "dpo.batch=4",
    "ppo.prompts=8",
    "ppo.sampling.max_tokens=12",
    "ppo.budget.updates=2",
    "grpo.reward={name: length, options: {target: 8}}",
    "grpo.prompts=4",
    "grpo.group=4",
    "grpo.sampling.max_tokens=12",
    "grpo.budget.updates=2",
    "best_of_n.n=2",
    "best_of_n.sampling.max_tokens=12",
)


@pytest.fixture(autouse=True, scope="package")
def quick() -> Iterator[None]:
    """Pictures would take most of the time of such a study."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "draw", lambda *given: plots.Pictures())
        yield


def smolt(*arguments: str | Path) -> Result:
    """The program, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="package")
def finished(quick: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the whole study, run once by `smolt study`."""
    out = tmp_path_factory.mktemp("study") / "small"
    done = smolt("study", "smoke", *SMALL, "--out", out)
    assert done.exit_code == 0, done.output
    return out
