"""A model directory with a damaged file: the message names it and what is wrong; no library's traceback."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.ground import window_of
from smolt.models.locating import locate
from smolt.models.rendering import load_renderer
from smolt.models.saving import is_reward_model, load_policy
from tests import tiny
from tests.tiny_models import save

FP32 = Precision(torch.device("cpu"), torch.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A whole model directory, to be damaged."""
    directory = save("llama", tmp_path / "model")
    tiny.tiny_tokenizer().save_pretrained(directory)
    assert load_policy(str(directory), FP32).adapter is None
    assert load_renderer(str(directory)).stop_ids
    return directory


def rewritten(path: Path, **fields: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


READERS: dict[str, Callable[[Path], object]] = {
    "policy": lambda directory: load_policy(str(directory), FP32),
    "window": lambda directory: window_of(locate(str(directory))),
    "kind": lambda directory: is_reward_model(locate(str(directory))),
}


@pytest.mark.parametrize("reader", READERS)
def test_config_of_a_wrong_type(folder: Path, reader: str) -> None:
    """hidden_size as a text: every reader of config.json names the directory and the field."""
    rewritten(folder / "config.json", hidden_size="large")
    with pytest.raises(UserError, match=r"model\.path: .*model: cannot be read: .*hidden_size"):
        READERS[reader](folder)


@pytest.mark.parametrize("text", ["{}", '{"version": "1.0"}', '{"version": "1.0", "model": {"type": "Unheard"}}'])
def test_tokenizer_that_is_json_but_none(folder: Path, text: str) -> None:
    """JSON that is no tokenizer: the tokenizer's directory is named."""
    (folder / "tokenizer.json").write_text(text)
    with pytest.raises(UserError, match=r"model: its tokenizer: cannot be read: "):
        load_renderer(str(folder))


@pytest.mark.parametrize("size", [0, 7, 200])
def test_truncated_weights(folder: Path, size: int) -> None:
    """Weights cut after a few bytes: named, and nothing is loaded."""
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:size])
    with pytest.raises(UserError, match=r"model\.path: .*model: cannot be read: "):
        load_policy(str(folder), FP32)


def test_truncated_adapter(folder: Path, tmp_path: Path) -> None:
    """An adapter whose weights are cut: its own directory is named, not its base's."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "base_model_name_or_path": str(folder)}
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    shutil.copy(folder / "model.safetensors", adapter / "adapter_model.safetensors")
    (adapter / "adapter_model.safetensors").write_bytes(b"\x10" + b"\x00" * 20)
    with pytest.raises(UserError, match=r"/adapter: cannot be read: "):
        load_policy(str(adapter), FP32)
