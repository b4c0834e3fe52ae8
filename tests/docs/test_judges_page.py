"""The page on judges: its commands, its section of a study and its rewards run as written, an endpoint's too."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config import PairsRecipe, make_recipe
from smolt.rewards.llm_judge import judge_reward
from smolt.training.algorithms import STAGES
from tests.docs.test_commands import lines
from tests.docs.test_feedback_pages import widen
from tests.docs.workshop import ROOT, blocks
from tests.judge_server import Script, serving

PAGE = ROOT / "docs" / "guides" / "judges.md"
ADDRESS = "http://localhost:8000/v1"


@pytest.fixture(autouse=True)
def no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SMOLT_JUDGE_KEY", raising=False)


def test_its_commands_run(workshop: Path) -> None:
    """A model, a rule and an endpoint judge the 24 pairs; each leaves the files of the page's table."""
    widen(workshop / "my-model")
    commands = lines(PAGE)
    assert [command.split()[-1].split("/")[-1] for command in commands] == ["judged", "longer", "600"]
    with serving(Script(logprobs=False)) as url:
        for command in commands:
            words = command.replace(ADDRESS, url).split()[1:]
            done = CliRunner().invoke(app, [*words, "--json", "--probes", "2", "--no-gate"])
            assert done.exit_code == 0, done.output
            found = json.loads(done.stdout)
            assert (found["n"], found["judged"]) == (24, 24)
            assert found["soft"] == (24 if found["kind"] == "local" else 0)
    promised = {name.strip(" `") for row in page_files() for name in row.split(",")}
    for out in ("judged", "longer", "remote"):
        assert promised <= {path.name for path in (workshop / "runs" / out).iterdir()}


def page_files() -> list[str]:
    """The first column of the table of files."""
    table = PAGE.read_text(encoding="utf-8").split("| file |")[1].split("\n\n")[0].splitlines()[2:]
    return [row.split("|")[1] for row in table]


def test_its_section_of_a_study_and_its_rewards(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The section is a recipe; GRPO takes both rewards, and the endpoint's grades lie in the run's directory."""
    widen(workshop / "my-model")
    texts = [block.text for block in blocks(PAGE, "yaml")]
    section: dict[str, Any] = yaml.safe_load(texts[0])["ai_labels"]
    stage = section.pop("stage")
    assert isinstance(make_recipe(stage, model="my-model", **section), PairsRecipe)
    monkeypatch.setattr(judge_reward, "refuse_coin", lambda reward, name: None)  # both judges here are coins
    script = Script(logprobs=False, fault=lambda number, body: str(1 + number % 9))
    with serving(script) as url:
        for number, text in enumerate(texts[1:]):
            recipe = make_recipe(
                "grpo",
                model={"path": "my-model", "threads": 1},
                data="questions.jsonl",
                prompts=2,
                group=2,
                sampling={"max_tokens": 4},
                budget={"updates": 1},
                checks={"forecast": False},
                **yaml.safe_load(text.replace(ADDRESS, url)),
            )
            STAGES["grpo"](recipe, out=Path(f"direct-{number}")).finish()
    assert len(script.seen) == 4
    assert [Path(f"direct-{number}", "verdicts.sqlite").is_file() for number in (0, 1)] == [False, True]
