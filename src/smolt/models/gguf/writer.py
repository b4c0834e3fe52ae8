"""A model as one GGUF file: whole or absent, weights written one by one, an adapter merged first."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel

from smolt.errors import UserError
from smolt.models.forward.quiet import read_by_library
from smolt.models.gguf.destination import KINDS, files_for, title_of
from smolt.models.gguf.modelfile import modelfile
from smolt.models.gguf.tensors import architecture_of, context_length, notes_on, tensors_of, write_parameters
from smolt.models.gguf.vocabulary import GgufVocabulary, vocabulary_of, write_vocabulary
from smolt.models.locating import locate
from smolt.models.merging import merged_in_memory
from smolt.models.saving import is_reward_model
from smolt.runs import storage
from smolt.runs.chunks import counted

LOG = logging.getLogger(__name__)

FILE_TYPES = dict(
    zip(
        KINDS,
        (LlamaFileType.ALL_F32, LlamaFileType.MOSTLY_F16, LlamaFileType.MOSTLY_BF16, LlamaFileType.MOSTLY_Q8_0),
        strict=True,
    )
)
"""What matrices are stored as -> its number in the header."""

FLOATS = {GGMLQuantizationType.F32: 3.4e38, GGMLQuantizationType.BF16: 3.4e38, GGMLQuantizationType.F16: 65504.0}
"""The largest number each can hold; Q8_0's blocks have a scale in F16, of 1/127."""

POSITIONS = "position_embd.weight"
"""A matrix that stays in F32, as llama.cpp has it."""


def export_gguf(
    path: str, out: Path | None = None, kind: str = "f16", fresh: bool = False, with_modelfile: bool = False
) -> dict[str, Any]:
    """Write a model as GGUF.

    Args:
        path: a model, adapter or run directory, a GGUF file or a hub name; an adapter is merged in memory.
        out: the file; whole or absent, whatever happens. None is NAME-TYPE.gguf here.
        kind: of matrices, one of KINDS; vectors are always f32.
        fresh: set a file that is there aside, as FILE.old-1, FILE.old-2, ...
        with_modelfile: write Ollama's Modelfile beside it.

    Returns:
        out, type, architecture, pre_tokenizer, tokenizer, chat_template, tensors (kind -> number), parameters, bytes,
        context_length, notes (what llama.cpp does otherwise), modelfile (its text), modelfile_out (its path or None).

    Raises:
        UserError: `path` holds no language model or one that llama.cpp would compute otherwise, or a file is there.
        SelfCheckError: a merged adapter does not agree with the adapter model.
        StorageError: the disk is full or failing; nothing is left behind.
    """
    out, beside = files_for(path, out, kind, fresh, with_modelfile)
    located = locate(path, to_merge=True)
    if is_reward_model(located):
        raise UserError(f"model.path: {path}: is a reward model; llama.cpp runs language models")
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    architecture_of(config, f"model.path: {path}")
    network, renderer = merged_in_memory(path)
    LOG.info("putting the tokenizer of %s as llama.cpp has it", path)
    rows = network.get_input_embeddings().weight.shape[0]
    try:
        vocabulary = vocabulary_of(renderer, rows)
    except UserError as fault:
        raise UserError(f"model.path: {path}: {fault}") from fault
    told = modelfile(out.name, renderer, vocabulary, network.config)
    written = _write(out, network, vocabulary, kind, title_of(path), fresh)
    if beside is not None:
        if beside.exists():
            storage.set_aside(beside)
        storage.atomic_write(beside, told)
    return {
        "out": str(out),
        "type": kind,
        **written,
        "tokenizer": vocabulary.model,
        "pre_tokenizer": vocabulary.pre,
        "chat_template": renderer.template is not None,
        "notes": [*notes_on(network.config), *vocabulary.notes],
        "modelfile": told,
        "modelfile_out": None if beside is None else str(beside),
    }


@dataclass(frozen=True)
class _Stored:
    """A tensor of the file: its name, fp32 weight, and what it is stored as."""

    name: str
    shape: Sequence[int]
    kind: GGMLQuantizationType


def _write(
    out: Path, network: PreTrainedModel, vocabulary: GgufVocabulary, kind: str, title: str, fresh: bool
) -> dict[str, Any]:
    """The file, and what is in it."""
    config = network.config
    architecture = architecture_of(config, title)
    number = GGMLQuantizationType[kind.upper()]
    stored = [
        _Stored(name, tuple(weight.shape), _kind_of(name, weight, number))
        for name, weight in tensors_of(network, architecture)
    ]
    with storage.whole_file(out, keep=fresh) as staging:
        writer = gguf.GGUFWriter(staging, gguf.MODEL_ARCH_NAMES[architecture.kind])
        try:
            writer.add_type("model")
            writer.add_name(title)
            writer.add_file_type(FILE_TYPES[kind])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            write_parameters(writer, config, len(vocabulary.tokens))
            write_vocabulary(writer, vocabulary)
            for entry in stored:
                _announce(writer, entry)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
            LOG.info("writing the weights of %s as %s", out.name, kind)
            for done, ((name, weight), entry) in enumerate(
                zip(tensors_of(network, architecture), stored, strict=True), 1
            ):
                writer.write_tensor_data(_quantised(name, weight, entry.kind))
                counted(done, len(stored))
        finally:
            writer.close()
    kinds = [entry.kind.name for entry in stored]
    return {
        "architecture": gguf.MODEL_ARCH_NAMES[architecture.kind],
        "tensors": {name: kinds.count(name) for name in sorted(set(kinds))},
        "context_length": context_length(config),
        "parameters": sum(int(np.prod(entry.shape)) for entry in stored),
        "bytes": out.stat().st_size,
    }


def _kind_of(name: str, weight: Tensor, wanted: GGMLQuantizationType) -> GGMLQuantizationType:
    """Vectors and learned positions stay F32; rows that Q8_0's blocks of 32 do not fit are F16."""
    if weight.dim() == 1 or name == POSITIONS:
        return GGMLQuantizationType.F32
    block = gguf.GGML_QUANT_SIZES[wanted][0]
    return wanted if weight.shape[-1] % block == 0 else GGMLQuantizationType.F16


def _announce(writer: gguf.GGUFWriter, entry: _Stored) -> None:
    """A tensor's line in the header."""
    block, size = gguf.GGML_QUANT_SIZES[entry.kind]
    count = int(np.prod(entry.shape)) // block * size
    writer.add_tensor_info(entry.name, entry.shape, np.dtype(np.float32), count, raw_dtype=entry.kind)


def _quantised(name: str, weight: Tensor, kind: GGMLQuantizationType) -> NDArray[Any]:
    """A weight as it is stored.

    Raises:
        UserError: it has a number that this kind cannot hold, or one that is not finite.
    """
    values = weight.numpy()
    largest = float(np.abs(values).max(initial=0.0))
    most = FLOATS.get(kind, 127 * FLOATS[GGMLQuantizationType.F16])
    if not largest <= most:
        cure = (
            "; choose --type bf16 or f32"
            if np.isfinite(largest)
            else ": the model is damaged, or its training diverged"
        )
        raise UserError(f"{name}: holds {largest:g}, which {kind.name} cannot hold{cure}")
    return gguf.quants.quantize(values, kind)
