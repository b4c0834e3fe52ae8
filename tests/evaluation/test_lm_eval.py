"""The bridge to lm-evaluation-harness, through a stand-in with its interface; and how its figures get intervals."""

import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from smolt.errors import UserError
from smolt.evaluation.lm_eval import evaluate_with_harness, harness_measures
from smolt.statistics import wilson
from tests.tiny import WINDOW, tiny_model

SAMPLES = [{"doc_id": n, "filter": "none", "metrics": ["acc"], "acc": float(n < 3), "f1": n / 4} for n in range(4)]
FIGURES = {"alias": "tiny", "acc,none": 0.75, "acc_stderr,none": 0.25, "f1,none": 0.5, "f1_stderr,none": 0.1}


class Wrapped:
    """What lm_eval's HFLM is given."""

    def __init__(self, **given: Any) -> None:
        self.given = given


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for lm_eval; the list holds what `simple_evaluate` was called with."""
    calls: list[dict[str, Any]] = []

    def simple_evaluate(**given: Any) -> dict[str, Any]:
        calls.append(given)
        if given["tasks"] == ["unknown"]:
            raise KeyError("unknown")
        return {"results": {"tiny": FIGURES}, "samples": {"tiny": SAMPLES}}

    parts: dict[str, dict[str, Any]] = {
        "evaluator": {"simple_evaluate": simple_evaluate},
        "tasks": {"TaskManager": dict},
    }
    parts |= {"models": {}, "models.huggingface": {"HFLM": Wrapped}}
    for name, content in parts.items():
        module = ModuleType(f"lm_eval.{name}")
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "lm_eval", ModuleType("lm_eval"))
    return calls


def test_figures_get_intervals() -> None:
    """acc is the mean of 0 and 1: Wilson of 3 of 4. f1's mean over samples is 0.375, not 0.5: 0.5 -+ 1.96 x 0.1."""
    found = harness_measures({"results": {"tiny": FIGURES}, "samples": {"tiny": SAMPLES}})
    assert set(found) == {"tiny/acc", "tiny/f1"}
    assert (found["tiny/acc"].low, found["tiny/acc"].high) == wilson(3, 4)
    assert found["tiny/acc"].n == 4
    assert (found["tiny/f1"].value, found["tiny/f1"].source) == (0.5, "lm-eval's standard error")
    assert found["tiny/f1"].low == pytest.approx(0.5 - 1.959964 * 0.1, abs=1e-6)


def test_a_filter_is_named_and_a_figure_alone_has_no_interval() -> None:
    rows = [{"filter": "strict", "exact_match": 1.0}, {"filter": "loose", "exact_match": 0.0}]
    figures = {"exact_match,strict": 1.0, "exact_match,loose": 0.0, "word,none": 9.5, "word_stderr,none": "N/A"}
    found = harness_measures({"results": {"t": figures}, "samples": {"t": rows}})
    assert [(name, measure.value, measure.n) for name, measure in found.items()] == [
        ("t/exact_match/strict", 1.0, 1),
        ("t/exact_match/loose", 0.0, 1),
        ("t/word", 9.5, 0),
    ]
    assert (found["t/word"].low, found["t/word"].source) == (None, "lm-eval, no interval")


def test_the_model_is_handed_over(harness: list[dict[str, Any]], tmp_path: Path) -> None:
    """In fp32 on the CPU with its window, tokenizer and template; the samples are lm-eval's own rows; once."""
    tiny_model(tmp_path / "m")
    settings: dict[str, Any] = {"out": tmp_path / "out", "limit": 4, "device": "cpu", "dtype": "fp32"}
    found = evaluate_with_harness(str(tmp_path / "m"), ["tiny"], **settings)
    given = harness[0]["model"].given
    assert given["pretrained"].dtype == torch.float32 and given["max_length"] == WINDOW
    assert given["tokenizer"].chat_template and harness[0]["apply_chat_template"] is True
    assert (harness[0]["limit"], harness[0]["log_samples"]) == (4, True)
    rows = (tmp_path / "out" / "samples_tiny.jsonl").read_text().splitlines()
    assert [json.loads(row) for row in rows] == SAMPLES
    again = evaluate_with_harness(str(tmp_path / "m"), ["tiny"], **settings)
    assert (again.status, again.measures, len(harness)) == ("already complete", found.measures, 1)
    with pytest.raises(UserError, match=r"recipe.limit: 4 in this run, 5 now"):
        evaluate_with_harness(str(tmp_path / "m"), ["tiny"], **{**settings, "limit": 5})
    with pytest.raises(UserError, match="--lm-eval unknown: lm-eval refused: 'unknown'"):
        evaluate_with_harness(str(tmp_path / "m"), ["unknown"], device="cpu")


def test_without_the_package_the_message_installs_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(UserError, match=r"lm-eval is not installed .*pip install -c constraints.txt"):
        evaluate_with_harness(str(tmp_path), ["tiny"])
