"""What stands beside the figures of a comparison: how each file was measured, tables that fit, the arms' names."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from smolt.evaluation.comparing import compare_files
from smolt.evaluation.comparing.results import arm_names
from tests.evaluation.test_comparing import facts, flags, run, write


def test_four_arms_fit_into_eighty_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a long name is folded; every number stands whole on the line of its arm."""
    monkeypatch.setenv("COLUMNS", "80")
    names = ("baseline-with-a-long-name", "grpo-with-a-very-long-name-indeed", "dpo-0.1", "dpo-0.2")
    draw = np.random.default_rng(1)
    arms = [
        flags(tmp_path / f"{name}.jsonl", (draw.random(1319) < rate).tolist())
        for name, rate in zip(names, (0.4, 0.5, 0.6, 0.7), strict=True)
    ]
    shown = run(*arms, "--show", 0).output
    tables = [line for line in shown.splitlines() if line.startswith(" ")]
    assert max(map(len, tables)) <= 80
    assert "…" not in shown
    found = compare_files(arms)
    for pair in found.pairs[1:]:
        test = pair.comparison
        assert test.difference is not None
        numbers = f"{100 * test.difference:+.2f}"
        assert any(line.split()[:2] == [test.b, numbers] and line.count("0.0001") == 2 for line in tables)


def evaluated(folder: Path, values: Sequence[bool], **changed: Any) -> Path:
    """A file as `smolt eval` leaves it, with the manifest beside it."""
    folder.mkdir()
    recipe: dict[str, Any] = {
        "conditions": {"template": "ab12", "style": "chat", "stop_ids": [2], "max_tokens": 256, "extractor": "gsm8k-1"},
        "sampling": {"temperature": 0.0, "max_tokens": 256, "batch": 64},
        "samples": 1,
        "reward": {"parts": [{"name": "gsm8k"}]},
        "task": "gsm8k",
    }
    for name, value in changed.items():
        (recipe["conditions"] if name in recipe["conditions"] else recipe)[name] = value
    (folder / "manifest.json").write_text(json.dumps({"format": "smolt-run/1", "stage": "eval", "recipe": recipe}))
    return flags(folder / "evaluation.jsonl", values)


def test_evaluations_under_different_conditions_are_warned_of(tmp_path: Path) -> None:
    """Length and temperature, by name with both values; on the terminal, in JSON and on the page."""
    a = evaluated(tmp_path / "a", [True, False] * 5)
    b = evaluated(tmp_path / "b", [True] * 10, max_tokens=40, sampling={"temperature": 0.7})
    (warning,) = facts(a, b)["warnings"]
    assert warning == (
        "b/evaluation was not measured as a/evaluation was: max_tokens 256 and 40; temperature 0.0 and 0.7 "
        "(b/evaluation's last). The difference may be one of measuring, not of the models"
    )
    assert f"warning: {warning}." in " ".join(run(a, b, "--out", tmp_path / "out").output.split())
    assert "max_tokens 256 and 40" in (tmp_path / "out" / "comparison.html").read_text()


def test_equal_or_unknown_conditions_are_not(tmp_path: Path) -> None:
    """The same settings in another batch; a file of another tool; one whose manifest is a training's; a damaged one."""
    a = evaluated(tmp_path / "a", [True, False] * 5)
    same = evaluated(tmp_path / "same", [True] * 10, sampling={"temperature": 0.0, "batch": 8})
    trained = evaluated(tmp_path / "trained", [True] * 10, max_tokens=40)
    (tmp_path / "trained" / "manifest.json").write_text(
        json.dumps({"format": "smolt-run/1", "stage": "sft", "recipe": {"conditions": {}}})
    )
    damaged = evaluated(tmp_path / "damaged", [True] * 10)
    (tmp_path / "damaged" / "manifest.json").write_text("{")
    other = flags(tmp_path / "other.jsonl", [True] * 10)
    assert facts(a, same, trained, damaged, other)["warnings"] == []


def test_a_number_stays_in_an_arms_name(tmp_path: Path) -> None:
    """Not the endings of a file, of a packed one either."""
    paths = [tmp_path / name for name in ("ppo_kl_0.05.jsonl", "samples.jsonl.gz", "plain", "rows.csv")]
    assert arm_names(paths) == ["ppo_kl_0.05", "samples", "plain", "rows"]


def pairs(path: Path, leads: list[float]) -> Path:
    """The rows that an evaluation of preferences writes."""
    return write(
        path,
        [
            {"question_id": str(place), "correct": lead > 0, "score": lead, "chosen_tokens": 3, "rejected_tokens": 4}
            for place, lead in enumerate(leads)
        ],
    )


def test_evaluations_of_pairs_are_compared_as_pairs(tmp_path: Path) -> None:
    """They are counted as pairs, and their rows' score has the evaluation's own name: 8 leads that grew by 0.5."""
    a, b = pairs(tmp_path / "a.jsonl", [1.0] * 8), pairs(tmp_path / "b.jsonl", [1.5] * 7 + [1.6])
    said = run(a, b).stdout
    assert "b against a, accuracy: the same on all 8 pairs, so the data carry no test." in said
    assert "by how much it does compares --metric margin" in said
    found = facts(a, b, "--metric", "margin")
    assert (found["metric"], found["p_value"]) == ("margin", 2.0**-7)
    assert found["difference"] == pytest.approx((7 * 0.5 + 0.6) / 8)
    assert "--metric margin" not in run(a, b, "--metric", "margin").stdout
    one = pairs(tmp_path / "c.jsonl", [-1.0] + [1.0] * 7)
    assert "only 1 pair differs, too few for p < 0.05" in run(a, one).stdout
