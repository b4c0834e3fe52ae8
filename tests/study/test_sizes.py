"""A study over sizes: models of three shapes side by side, from one recipe, to a report that lets a person choose."""

import json
from pathlib import Path

from tests.study.conftest import smolt

SHRUNK = (
    "model.threads=1",
    "problems={train: 60, dev: 5, test: 12, demonstrations: 60}",
    "study.items=12",
    "study.sampling.max_tokens=8",
    *(
        f"pretrain_{name}.{field}"
        for name in ("small", "medium", "large")
        for field in ("tokenizer.vocab=300", "budget.updates=1", "batch=4")
    ),
    "pretrain_small.shape={hidden: 16, layers: 1, heads: 1, mlp: 32, window: 128}",
    "pretrain_medium.shape={hidden: 32, layers: 1, heads: 2, mlp: 64, window: 128}",
    "pretrain_large.shape={hidden: 32, layers: 2, heads: 2, mlp: 64, window: 128}",
    *(f"{name}.budget.updates=2" for name in ("small", "medium", "large")),
    *(f"{name}.batch=4" for name in ("small", "medium", "large")),
)
"""The shipped recipe at the size of a test."""


def test_three_sizes_to_choose_from(tmp_path: Path) -> None:
    """Each arm descends from its own pretraining, has its own parameters and cost, and no KL to another model."""
    done = smolt("study", "sizes", *SHRUNK, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    record = json.loads((tmp_path / "out" / "record.json").read_text())
    arms = {arm["name"]: arm for arm in record["arms"]}
    sizes = [arms[name]["facts"]["parameters"] for name in ("small", "medium", "large")]
    block = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    assert sizes[1:] == [300 * 32 + block + 32, 300 * 32 + 2 * block + 32]
    assert sizes[0] == 300 * 16 + 4 * 16 * 16 + 3 * 16 * 32 + 2 * 16 + 16
    assert [arms[name]["parent"] for name in ("small", "large")] == ["pretrain_small", "pretrain_large"]
    assert {item["kl"] for name in ("small", "medium", "large") for item in arms[name]["items"]} == {None}
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    panels = {panel["name"]: panel for panel in found["panels"]}
    assert "frontier" not in panels
    rows = {row[0]: row for row in panels["choice"]["tables"][0]["rows"]}
    assert set(rows) == {"small", "medium", "large"}
    assert {(entry["a"], entry["b"]) for entry in found["comparisons"]} == {("small", "medium"), ("small", "large")}
    page = (tmp_path / "out" / "report.html").read_text()
    assert '<section id="choice">' in page
    assert "with fewer parameters" in page
