"""The labeller in a real terminal (tmux): two annotators, undo, a kill, a resume, agreement, export, a reward model."""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smolt.cli import app
from smolt.preferences.people import LabelStore
from tests.tiny import tiny_model
from tests.tmux import Terminal, tmux_terminal

LABELS = 50
LINGERS = ("sh", "-c", '"$@"; sleep 1', "sh")
"""tmux 3.3a may lose the last words of a pane whose program ends."""


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    with tmux_terminal(tmp_path) as opened:
        yield opened


def pairs_file(folder: Path) -> Path:
    """60 questions, the right answer chosen; the annotators are shown neither which."""
    rows = [{"prompt": f"What is {n} + 1?", "chosen": f"good {n + 1}", "rejected": f"poor {n}"} for n in range(60)]
    path = folder / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def labelling(folder: Path, name: str) -> list[str]:
    words = ["label", str(folder / "pairs.jsonl"), "--store", str(folder / "labels.sqlite"), "--annotator", name]
    return [sys.executable, "-m", "smolt", *words]


def better_side(screen: str) -> str:
    """The key of the side on which the good answer stands."""
    line = next(line for line in screen.splitlines() if "good" in line and "poor" in line)
    return "l" if line.index("good") < line.index("poor") else "r"


def label(terminal: Terminal, name: str, start: int, end: int, key: Callable[[int, str], str]) -> None:
    """Label until `end` are done, each key pressed on what the screen shows."""
    for number in range(start, end):
        screen = terminal.see(f"{name} | {number} of 60 done")
        terminal.press(key(number, screen), f"{name} | {number + 1} of 60 done")


def used(terminal: Terminal, folder: Path, labels: int) -> None:
    """Two annotators: the first undoes one, is killed and comes back; the second ties every tenth pair."""
    kill_at = labels // 2
    pairs_file(folder)
    terminal.start(["sh", "-c", "cat; :"])
    terminal.tmux("set-option", "-g", "remain-on-exit", "on")
    terminal.tmux("respawn-pane", "-k", *labelling(folder, "ann"))
    label(terminal, "ann", 0, 3, lambda _, screen: better_side(screen))
    terminal.press("u", "ann | 2 of 60 done")
    label(terminal, "ann", 2, kill_at, lambda _, screen: better_side(screen))
    terminal.kill()
    with LabelStore(folder / "labels.sqlite") as store:
        assert len(store.labels("ann")) == kill_at
    terminal.tmux("respawn-pane", "-k", *LINGERS, *labelling(folder, "ann"))
    label(terminal, "ann", kill_at, labels, lambda _, screen: better_side(screen))
    terminal.press("q", f"labels this time: {labels - kill_at:,}; labelled: {labels} of 60 pairs")
    terminal.tmux("respawn-pane", "-k", *LINGERS, *labelling(folder, "bob"))
    label(terminal, "bob", 0, labels, lambda number, screen: "t" if number % 10 == 9 else better_side(screen))
    terminal.press("q", f"labelled: {labels} of 60 pairs")


def facts(*words: str) -> dict[str, Any]:
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def checked(folder: Path, labels: int) -> Path:
    """Agreement and export are what the keys pressed say; the exported file."""
    store, out = str(folder / "labels.sqlite"), folder / "human.jsonl"
    ties = labels // 10
    found = facts("label", "stats", "--store", store)
    (agreement,) = found["agreements"]
    assert (agreement["n"], agreement["same"]["value"]) == (labels, (labels - ties) / labels)
    assert 0.6 < agreement["kappa"]["value"] < 1.0
    counts = facts("label", "export", str(out), "--store", store)
    assert (counts["written"], counts["decided"], counts["disagreements"]) == (labels, labels - ties, ties)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert sum(row["chosen"].startswith("good") for row in rows if "weight" not in row) == labels - ties
    return out


def test_the_labeller_in_a_terminal(terminal: Terminal, tmp_path: Path) -> None:
    """10 labels by each of two annotators."""
    used(terminal, tmp_path, 10)
    checked(tmp_path, 10)


@pytest.mark.slow
def test_fifty_labels_train_a_reward_model(terminal: Terminal, tmp_path: Path) -> None:
    """50 labels by each of two annotators, of which a reward model learns: 30 updates, held-out accuracy measured."""
    used(terminal, tmp_path, LABELS)
    out = checked(tmp_path, LABELS)
    recipe = tmp_path / "reward.yaml"
    model = tiny_model(tmp_path / "model")
    recipe.write_text(f"stage: reward\nmodel: {model}\ndata: {out}\nbatch: 8\nbudget: {{updates: 30}}\n")
    trained = facts("reward", str(recipe), "--out", str(tmp_path / "run"), "gate=false")
    assert trained["status"] == "complete"
    assert (tmp_path / "run" / "model").is_dir()
    accuracy = trained["metrics"]["accuracy"]
    assert accuracy["n"] == LABELS // 10
