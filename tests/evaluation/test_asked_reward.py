"""`smolt eval --reward`: whatever a recipe's reward takes, and a wrong one in words."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification
from typer.testing import CliRunner

import smolt
from smolt.cli import app
from smolt.errors import UserError
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model in `m` and two questions in `questions.jsonl`."""
    folder = tmp_path_factory.mktemp("asked")
    tiny_model(folder / "m")
    (folder / "questions.jsonl").write_text("".join(f'{{"question": "{n}?", "answer": "{n}"}}\n' for n in (1, 2)))
    return folder


def test_a_reward_in_every_form(place: Path, tmp_path: Path) -> None:
    """What a recipe's reward takes, from Python and as text: each rates an answer by its tokens, or by its form."""
    (tmp_path / "mine.py").write_text("def tokens(question, answer):\n    return answer.tokens\n")
    function = f"{tmp_path / 'mine.py'}:tokens"
    settings: dict[str, Any] = {"max_tokens": 3, "device": "cpu"}
    length = smolt.evaluate(place / "m", ["One?", "Two?"], **settings).measures["length"].value
    part = {"name": "python", "path": function, "weight": 2}
    for reward, factor in ((function, 1), ([function], 1), (part, 2), (f"{{name: python, path: '{function}'}}", 1)):
        found = smolt.evaluate(place / "m", ["One?", "Two?"], reward=reward, **settings)
        assert found.measures["reward"].value == pytest.approx(factor * length, abs=1e-12)
    found = smolt.evaluate(place / "m", ["One?"], reward={"parts": [part, "format"], "cap": 0.5}, **settings)
    assert found.measures["reward"].value == 0.5
    words = ["eval", str(place / "m"), str(place / "questions.jsonl"), "--max-tokens", "3", "--limit", "2"]
    done = CliRunner().invoke(app, [*words, "--reward", function, "--reward", "format", "--json"])
    assert {"reward/python", "reward/format"} <= set(json.loads(done.stdout))


def test_a_reward_model_by_its_directory(place: Path, tmp_path: Path) -> None:
    """A language model is refused; so is a rule, a file or a directory that is not there, each in its own words."""
    tiny_model(tmp_path / "judge")
    classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "judge", num_labels=1)
    classifier.save_pretrained(tmp_path / "judge")
    found = smolt.evaluate(place / "m", ["One?"], reward=str(tmp_path / "judge"), max_tokens=3, device="cpu")
    assert "reward/model" in found.measures
    for reward, message in (
        ("gsm8", "reward: 'gsm8' is unknown; did you mean \"gsm8k\"?"),
        (
            "runs/reward/modle",
            "reward: runs/reward/modle: no such directory; a reward is a rule's name, file.py:function",
        ),
        ("nowhere.py:rate", "nowhere.py: no such file"),
        ({"name": "python"}, "reward python needs a path (file.py:function)"),
        (str(place / "m"), "is a language model"),
    ):
        with pytest.raises(UserError, match=re.escape(message)):
            smolt.evaluate(place / "m", ["One?"], reward=reward, max_tokens=3, device="cpu")
