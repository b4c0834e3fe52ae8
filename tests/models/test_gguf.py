"""GGUF in: weights to the bit, text split as llama.cpp splits it, stop tokens, template; unknown files are refused."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from smolt.cli import app
from smolt.config import LoRA
from smolt.errors import UserError
from smolt.models.forward.precision import choose_precision
from smolt.models.gguf.pretokenizers import PRE
from smolt.models.gguf.reader import NOTE, import_gguf
from smolt.models.locating import locate
from smolt.models.rendering import load_renderer
from smolt.models.roles import open_policy
from tests.gguf_files import LlamaCpp, stored_as, texts, write_gguf
from tests.tiny import tiny_model
from tests.tokenizers_on_the_spot import smollm

F32, F16, BF16, Q8 = (gguf.GGMLQuantizationType[name] for name in ("F32", "F16", "BF16", "Q8_0"))


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def weights(directory: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(directory).named_parameters())


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
@pytest.mark.parametrize(
    ("kind", "dtype"), [(F32, torch.float32), (F16, torch.float16), (BF16, torch.bfloat16), (Q8, torch.float16)]
)
def test_weights_come_in_exactly(architecture: Any, kind: Any, dtype: torch.dtype, tmp_path: Path) -> None:
    """Weights are what the file holds, dequantised and rounded to the dtype once; the head is tied."""
    model = tiny_model(tmp_path / "model", architecture)
    facts = import_gguf(write_gguf(model, tmp_path / "m.gguf", kind), tmp_path / "in")
    found, wanted = weights(tmp_path / "in"), weights(model)
    assert found.keys() == wanted.keys()
    for name, weight in wanted.items():
        held = stored_as(weight.detach().numpy(), kind)
        values = gguf.quants.dequantize(gguf.quants.quantize(weight.detach().numpy(), held), held)
        assert torch.equal(found[name], torch.from_numpy(np.ascontiguousarray(values)).to(dtype)), name
    assert (facts["dtype"], facts["status"]) == (str(dtype).removeprefix("torch."), "complete")
    assert json.loads((tmp_path / "in" / "config.json").read_text())["tie_word_embeddings"] is True
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "in")
    again.save_pretrained(tmp_path / "again")  # a quantised model cannot be saved


@pytest.mark.parametrize("pre", sorted(PRE))
def test_text_is_split_as_llama_cpp_splits_it(pre: str, tmp_path: Path) -> None:
    """500 texts each; the vocabulary has merges of digits, blanks and letters that a wrong split would use."""
    model = tiny_model(tmp_path / "model", vocab=512)
    smollm().save_pretrained(model)
    file = write_gguf(model, tmp_path / "m.gguf", pre=pre)
    import_gguf(file, tmp_path / "in")
    ours, theirs = AutoTokenizer.from_pretrained(tmp_path / "in"), LlamaCpp(file)
    for text in texts(500 if pre in ("gpt-2", "smollm", "qwen2", "llama-bpe") else 100):
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs.tokens(text), text


def test_a_file_is_a_model_wherever_one_is_taken(tmp_path: Path) -> None:
    """Any name; imported once into the user's cache; trained, since its weights are plain."""
    file = write_gguf(tiny_model(tmp_path / "model"), tmp_path / "sha256-0123")
    first = locate(str(file))
    assert Path(first.base).parent == tmp_path / "cache" / "smolt" / "gguf"
    before = (Path(first.base) / NOTE).stat().st_mtime_ns
    assert locate(str(file)) == first
    assert (Path(first.base) / NOTE).stat().st_mtime_ns == before
    policy = open_policy(first, choose_precision("cpu", "fp32"), LoRA(rank=2), 0)
    assert policy.adapter is not None and policy.trunk.packed


def test_stop_tokens_and_template(tmp_path: Path) -> None:
    """The end of a turn and of the text both end an answer; the template is the file's."""
    model = tiny_model(tmp_path / "model")
    own = AutoTokenizer.from_pretrained(model)
    file = write_gguf(model, tmp_path / "m.gguf", eot=own.convert_tokens_to_ids("<|endoftext|>"))
    import_gguf(file, tmp_path / "in")
    renderer = load_renderer(tmp_path / "in")
    assert renderer.stop_ids == {own.eos_token_id, own.convert_tokens_to_ids("<|endoftext|>")}
    assert renderer.style == "chat"
    assert AutoTokenizer.from_pretrained(tmp_path / "in").chat_template == own.chat_template


def test_a_base_model_says_that_it_has_no_template(tmp_path: Path) -> None:
    file = write_gguf(tiny_model(tmp_path / "model"), tmp_path / "m.gguf", template=False)
    done = CliRunner().invoke(app, ["import", str(file), "--out", str(tmp_path / "in")])
    assert done.exit_code == 0
    assert "(matrices: 15 in F32)" in done.stdout and "it has no chat template" in done.stdout
    assert load_renderer(tmp_path / "in").style == "question"


def test_an_import_is_done_once_and_never_written_over(tmp_path: Path) -> None:
    file = write_gguf(tiny_model(tmp_path / "model"), tmp_path / "m.gguf")
    other = write_gguf(tiny_model(tmp_path / "other", seed=1), tmp_path / "o.gguf")
    words = ["import", str(file), "--out", str(tmp_path / "in")]
    assert CliRunner().invoke(app, words).stdout.startswith("complete: ")
    assert CliRunner().invoke(app, words).stdout.startswith("already complete: ")
    with pytest.raises(UserError, match=r"holds an import of m\.gguf; --fresh sets it aside"):
        import_gguf(other, tmp_path / "in")
    assert import_gguf(other, tmp_path / "in", fresh=True)["status"] == "complete"
    assert (tmp_path / "in.old-1" / NOTE).is_file()
    with pytest.raises(UserError, match="is not empty and no earlier import"):
        import_gguf(file, tmp_path / "model", fresh=False)


def changed(file: Path, old: bytes, new: bytes) -> Path:
    found = file.read_bytes()
    assert old in found and len(old) == len(new)
    file.write_bytes(found.replace(old, new))
    return file


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """Each with its name, before anything is written."""
    model = tiny_model(tmp_path / "model")
    (tmp_path / "text.gguf").write_text("hello")
    whole = write_gguf(model, tmp_path / "whole.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(whole[: len(whole) // 3])
    write_gguf(model, tmp_path / "pre.gguf", pre="made-up")
    write_gguf(model, tmp_path / "none.gguf", pre=None)
    write_gguf(model, tmp_path / "kind.gguf")
    changed(tmp_path / "kind.gguf", b"llama", b"lhama")
    for name, message in (
        ("text", "is no GGUF file"),
        ("missing", "no such file"),
        ("cut", "the GGUF file is damaged or cut"),
        ("pre", r"pre 'made-up'\) splits text in a way that is not known here; known: .*smollm"),
        ("none", r"pre None\) splits text in a way that is not known"),
        ("kind", "its architecture 'lhama' is not read from GGUF; known: .*qwen2"),
    ):
        with pytest.raises(UserError, match=message):
            import_gguf(tmp_path / f"{name}.gguf", tmp_path / "in")
        done = CliRunner().invoke(app, ["import", str(tmp_path / f"{name}.gguf"), "--out", str(tmp_path / "in")])
        assert done.exit_code == 2
    assert not (tmp_path / "in").exists()
