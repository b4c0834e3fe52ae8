"""Of what takes long, the step that is named is the one under way: nothing goes on under the name of an earlier one."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
from peft.tuners.lora import LoraModel
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from smolt.config import Data, EvaluationSampling, LoRA, Model, load_recipe
from smolt.data import files
from smolt.evaluation.answer_file import write_answers
from smolt.models import answers
from smolt.models.locating import locate
from smolt.models.merging import EXACT, merge
from smolt.models.rendering import load_renderer
from smolt.models.roles import open_policy
from smolt.models.saving import save_policy
from smolt.training.algorithms.sft import sft
from tests.gguf_files import write_gguf
from tests.tiny import tiny_model

Watch = Callable[[Any, str], None]


@pytest.fixture
def under(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> tuple[Watch, dict[str, list[str]]]:
    """Watches functions of a module or class; for each of them the steps under whose names it was called."""
    caplog.set_level(logging.INFO, logger="smolt")
    seen: dict[str, list[str]] = {}

    def watch(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def watched(*given: Any, **named: Any) -> Any:
            step = caplog.messages[-1] if caplog.messages else "(nothing)"
            seen.setdefault(name, []).append(step)
            return original(*given, **named)

        monkeypatch.setattr(owner, name, watched)

    return watch, seen


def steps(seen: dict[str, list[str]], folder: Path) -> dict[str, list[str]]:
    """The steps of each function once each, without the folder's name."""
    return {name: [text.replace(f"{folder}/", "") for text in dict.fromkeys(said)] for name, said in seen.items()}


def test_an_import(
    under: tuple[Watch, dict[str, list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The first import of a GGUF file that is named as a model: each tensor is a step, and no bar is shown."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    file = write_gguf(tiny_model(tmp_path / "model"), tmp_path / "m.gguf")
    watch, seen = under
    watch(gguf, "GGUFReader")
    watch(gguf, "dequantize")
    watch(AutoTokenizer, "from_pretrained")
    watch(AutoModelForCausalLM, "from_config")
    watch(PreTrainedModel, "save_pretrained")
    capsys.readouterr()
    locate(str(file))
    found = steps(seen, tmp_path)
    assert found["GGUFReader"] == [  # the library reads the header for each thing it takes from the file
        "reading the header of m.gguf",
        "building the tokenizer of m.gguf",
        "loading the weights of m.gguf",
    ]
    tensors = len(found["dequantize"])
    assert tensors == 20
    assert found["dequantize"] == [f"dequantising tensor {n} of {tensors} of m.gguf" for n in range(1, tensors + 1)]
    assert found["from_pretrained"][0] == "building the tokenizer of m.gguf"
    assert capsys.readouterr().err == ""
    assert found["from_config"] == found["save_pretrained"] == ["writing the weights of m.gguf as float32"]


def test_a_merge(under: tuple[Watch, dict[str, list[str]]], tmp_path: Path) -> None:
    policy = open_policy(locate(str(tiny_model(tmp_path / "base"))), EXACT, LoRA(rank=4, alpha=8.0), seed=0)
    (tmp_path / "adapter").mkdir()
    save_policy(policy, load_renderer(tmp_path / "base"), tmp_path / "adapter")
    watch, seen = under
    watch(AutoModelForCausalLM, "from_pretrained")
    watch(LoraModel, "merge_and_unload")
    watch(PreTrainedModel, "save_pretrained")
    merge(str(tmp_path / "adapter"), tmp_path / "merged")
    found = steps(seen, tmp_path)
    assert [text.partition("merged")[0] for text in found["from_pretrained"]] == [
        "loading the weights of base",
        "loading the weights of .",
    ]
    assert found["merge_and_unload"] == ["merging adapter into its base"]
    assert found["save_pretrained"] == ["writing the merged model"]


def test_a_training_and_answers(under: tuple[Watch, dict[str, list[str]]], tmp_path: Path) -> None:
    """Reading the data, making tokens of them and loading weights are steps of their own; so are answers."""
    tiny_model(tmp_path / "model")
    rows = [{"prompt": "hi", "completion": "ho"}] * 4
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"stage: sft\nmodel: {{path: {tmp_path}/model, device: cpu, dtype: fp32, threads: 1}}\n"
    (tmp_path / "r.yaml").write_text(text + f"data: {tmp_path}/d.jsonl\nbudget: {{updates: 1}}\n")
    watch, seen = under
    watch(files, "read")
    watch(AutoModelForCausalLM, "from_pretrained")
    watch(answers, "sample")
    recipe: Any = load_recipe(tmp_path / "r.yaml")
    sft(recipe, out=tmp_path / "run").close()
    model = Model(path=f"{tmp_path}/model", device="cpu")
    write_answers(model, Data(path=f"{tmp_path}/d.jsonl"), EvaluationSampling(max_tokens=2), out=tmp_path / "out")
    assert steps(seen, tmp_path) == {
        "read": ["reading d.jsonl"],
        "from_pretrained": ["loading the weights of model"],
        "sample": ["answering 4 questions"],
    }
