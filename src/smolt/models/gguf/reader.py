"""A GGUF file as a model directory: weights dequantised, text split as llama.cpp splits it, stop tokens, chat template.

transformers reads weights and vocabulary. What it loses is put right: the pre-tokenizer the file names, further tokens
that end an answer, and weights that can be saved and trained (its own stay marked as quantised).
"""

import contextlib
import copy
import json
import logging
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import gguf
import torch
from tokenizers import Tokenizer, normalizers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
    modeling_gguf_pytorch_utils,
)
from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

from smolt.data.inputs import is_gguf
from smolt.errors import UserError
from smolt.models.forward.quiet import hush, hushed, read_by_library, read_network
from smolt.models.gguf.header import complete, field
from smolt.models.gguf.pretokenizers import PRE, SPLITS, WHOLE_WORDS
from smolt.models.gguf.vocabulary import SPACE, STOPS
from smolt.runs import jsontext, storage

LOG = logging.getLogger(__name__)
NOTE = "smolt_gguf.json"
"""File of an imported directory: what it was made from."""

STORED = {"F32": torch.float32, "BF16": torch.bfloat16}  # everything else keeps more of its digits in fp16


def imported(path: Path) -> Path:
    """The model directory of a GGUF file, made once and kept in the user's cache.

    Raises:
        UserError: the file cannot be read as a model.
    """
    kept = storage.user_directory("XDG_CACHE_HOME", ".cache")
    if kept is None:
        raise UserError(f"{path}: there is no home directory to keep its import in; set XDG_CACHE_HOME, or import it")
    cache, digest = kept / "smolt" / "gguf", storage.sha256_of(path)
    name = re.sub(r"[^\w.-]", "_", path.name)[:60]
    out = cache / f"{name}-{digest[:12]}"
    if not (out / NOTE).is_file():
        LOG.info("importing %s into %s, where it is kept", path.name, out)
        cache.mkdir(parents=True, exist_ok=True)
        import_gguf(path, out)
    return out


def import_gguf(path: Path, out: Path, fresh: bool = False) -> dict[str, Any]:
    """Write a Hugging Face model directory.

    Args:
        path: the file.
        out: the directory; whole or absent, whatever happens.
        fresh: set an earlier import at `out` aside.

    Returns:
        The facts of NOTE, with `status`: "complete", or "already complete" where the same file was imported there.

    Raises:
        UserError: the file is damaged, its architecture or tokenizer is unknown, or `out` holds something else.
        StorageError: the disk is full or failing.
    """
    if not path.is_file() or not is_gguf(path):
        raise UserError(f"{path}: {'is no GGUF file' if path.is_file() else 'no such file'}")
    digest = storage.sha256_of(path)
    if out.exists() and any(out.iterdir()) and not fresh:
        if not (out / NOTE).is_file():
            raise UserError(f"{out}: is not empty and no earlier import; nothing was written: choose another --out")
        facts = jsontext.read_object(out / NOTE)
        if facts.get("sha256") != digest:
            raise UserError(f"{out}: holds an import of {facts.get('file')}; --fresh sets it aside")
        return {**facts, "status": "already complete"}
    hush()
    LOG.info("reading the header of %s", path.name)
    with read_by_library(f"{path}: the GGUF file is damaged or cut"):
        reader = gguf.GGUFReader(path)
        tensors = Counter(tensor.tensor_type.name for tensor in reader.tensors if len(tensor.shape) > 1)
    split = _refuse_unknown(path, reader)
    dtype = STORED.get(next(iter(tensors)) if len(tensors) == 1 else "", torch.float16)
    with storage.whole_directory(out) as staging:
        LOG.info("building the tokenizer of %s", path.name)
        tokenizer = _tokenizer(path, reader, split)
        tokenizer.save_pretrained(staging)
        parameters = _write_weights(path, reader, staging, dtype, _stops(reader, tokenizer))
        facts = {
            "file": path.name,
            "sha256": digest,
            "architecture": field(reader, "general.architecture"),
            "matrices": dict(tensors),
            "pre_tokenizer": field(reader, "tokenizer.ggml.pre"),
            "chat_template": tokenizer.chat_template is not None,
            "dtype": str(dtype).removeprefix("torch."),
            "parameters": parameters,
        }
        jsontext.write(staging / NOTE, facts)
    return {**facts, "status": "complete"}


def _refuse_unknown(path: Path, reader: gguf.GGUFReader) -> str | None:
    """The split of a byte-level vocabulary; None for one of SentencePiece's, which brings its own.

    Raises:
        UserError: an architecture that transformers does not read, or a tokenizer whose splits are not known.
    """
    architecture, kind, pre = (
        field(reader, name) for name in ("general.architecture", "tokenizer.ggml.model", "tokenizer.ggml.pre")
    )
    known = sorted(set(GGUF_SUPPORTED_ARCHITECTURES) - {"general", "tokenizer"})
    if architecture not in known:
        raise UserError(f"{path}: its architecture {architecture!r} is not read from GGUF; known: {', '.join(known)}")
    if kind == "llama":
        return None
    if kind != "gpt2" or pre not in PRE:
        raise UserError(
            f"{path}: its tokenizer ({kind!r}, pre {pre!r}) splits text in a way that is not known here; known: "
            f"{', '.join(sorted(PRE))}"
        )
    return PRE[pre]


def _tokenizer(path: Path, reader: gguf.GGUFReader, split: str | None) -> PreTrainedTokenizerFast:
    """The file's tokenizer, as a class that reads back what it wrote and adds nothing of its own."""
    with read_by_library(f"{path}: its tokenizer"):
        read: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
    if split is not None:
        read.backend_tokenizer.pre_tokenizer = SPLITS[split]()
        read.backend_tokenizer.model.ignore_merges = field(reader, "tokenizer.ggml.pre") in WHOLE_WORDS
    else:
        # llama.cpp puts a space after a control token too; the library's class at the very beginning only.
        prefix = [] if field(reader, "tokenizer.ggml.add_space_prefix") is False else [normalizers.Prepend(SPACE)]
        read.backend_tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", SPACE)])
        read.backend_tokenizer.pre_tokenizer = None
    names = field(reader, "tokenizer.ggml.tokens")
    described = json.loads(read.backend_tokenizer.to_str())
    # The library's classes add control tokens that every one of their models has, and this one need not have.
    described["added_tokens"] = [token for token in described["added_tokens"] if token["id"] < len(names)]
    ids = {role: field(reader, f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "unknown", "padding")}
    roles = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    tokens = {roles[role]: names[index] for role, index in ids.items() if index is not None and index < len(names)}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(described)),
        **tokens,
        chat_template=field(reader, "tokenizer.chat_template"),
    )


def _stops(reader: gguf.GGUFReader, tokenizer: PreTrainedTokenizerFast) -> GenerationConfig:
    """What ends an answer: the end of the text, and of a turn where that is another token."""
    ids = [field(reader, f"tokenizer.ggml.{name}_token_id") for name in STOPS]
    stops = list(dict.fromkeys(int(index) for index in ids if index is not None))
    return GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=stops or None, pad_token_id=tokenizer.pad_token_id
    )


@contextlib.contextmanager
def _named_tensors(name: str) -> Iterator[None]:
    """While entered, the library's loop over a file's tensors names each as a step, in place of a bar of its own.

    No setting turns that bar off; where standard error is held back to hide it, the steps are held back too.
    """

    def loop(tensors: Sequence[Any], **of_the_bar: Any) -> Iterator[Any]:
        for number, tensor in enumerate(tensors, 1):
            LOG.info("dequantising tensor %d of %d of %s", number, len(tensors), name)
            yield tensor

    library: dict[str, Any] = vars(modeling_gguf_pytorch_utils)
    bar, library["tqdm"] = library["tqdm"], loop
    try:
        yield
    finally:
        library["tqdm"] = bar


def _write_weights(
    path: Path, reader: gguf.GGUFReader, out: Path, dtype: torch.dtype, generation: GenerationConfig
) -> int:
    """Dequantised weights in a network that was never quantised; their number."""
    with _named_tensors(path.name):
        given = {"gguf_file": path.name, "dtype": torch.float32}
        read = read_network(AutoModelForCausalLM, str(path.parent), f"{path}: its weights", **given)
    LOG.info("writing the weights of %s as %s", path.name, str(dtype).removeprefix("torch."))
    config = copy.deepcopy(read.config)
    complete(config, read, reader, str(path))
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    weights = read.state_dict()
    del read
    network.load_state_dict({name: weights.pop(name).to(dtype) for name in list(weights)}, assign=True)
    network.tie_weights()
    network.generation_config = generation
    with hushed():
        network.save_pretrained(out)
    return sum(parameter.numel() for parameter in network.parameters())
