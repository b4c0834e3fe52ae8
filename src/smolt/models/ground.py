"""From a recipe's model block to what every stage stands on: its files, precision, renderer and window."""

import logging
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig

from smolt.config import Model
from smolt.errors import UserError
from smolt.models.forward.precision import Precision, choose_precision
from smolt.models.forward.probing import row_limit
from smolt.models.forward.quiet import read_by_library
from smolt.models.locating import Located, locate
from smolt.models.rendering import Renderer, load_renderer
from smolt.models.roles import Policy
from smolt.models.saving import load_policy, weights_hash

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Ground:
    """What every stage stands on.

    Attributes:
        located: what the model path means.
        precision: where and how precisely.
        renderer: records to tokens.
        window: most tokens of a context and its answer.
    """

    located: Located
    precision: Precision
    renderer: Renderer
    window: int

    @property
    def identity(self) -> dict[str, Any]:
        """What a continued run must share with its start, besides recipe and data."""
        return {"model": weights_hash(self.located), "renderer": self.renderer.fingerprint}


def open_ground(model: Model) -> Ground:
    """Resolve a recipe's model block."""
    LOG.info("opening %s", model.path)
    located = locate(model.path)
    renderer = load_renderer(located.tokenizer, model.style)
    require_rows(renderer, _config(located).vocab_size, model.path)
    precision = choose_precision(model.device, model.dtype, model.threads)
    own = window_of(located)
    if model.window is not None and model.window > own:
        raise UserError(f"model.window: {model.window} exceeds the model's own {own}")
    return Ground(located, precision, renderer, model.window or own)


def window_of(located: Located) -> int:
    """Most positions the model takes; without a limit (ALiBi) a very large number.

    Where positions beyond a limit would depend on the rows beside, one less than it: a stop token may be appended.
    """
    config = _config(located)
    fields, limit = config.to_dict(), row_limit(config)
    window = int(fields.get("max_position_embeddings") or fields.get("n_positions") or 2**31)
    return window if limit is None else min(window, limit - 1)


def _config(located: Located) -> Any:
    with read_by_library(f"model.path: {located.base}"):
        return AutoConfig.from_pretrained(located.base, trust_remote_code=False).get_text_config()


def require_rows(renderer: Renderer, rows: int, path: str) -> None:
    """Every token that the tokenizer can give must have its row in the embedding.

    Raises:
        UserError: one has none; it is named.
    """
    ids = {**renderer.tokenizer.get_vocab(), **{f"stop token {index}": index for index in renderer.stop_ids}}
    token = max(ids, key=ids.__getitem__)
    if ids[token] >= rows:
        raise UserError(
            f"model.path: {path}: {token!r} has the id {ids[token]}, and the model's embedding has {rows} rows: the "
            "tokenizer is not this model's, or the embedding was not resized when tokens were added"
        )


def open_teacher(path: str, student: Ground, longest: int) -> Policy:
    """A model whose distributions another one learns: frozen, computed as precisely as the student.

    Args:
        path: a model directory, adapter, run or hub name.
        student: whose tokens it reads.
        longest: tokens of the longest row it will be shown.

    Raises:
        UserError: its vocabulary is another one, or its window is shorter than such a row.
    """
    LOG.info("opening the teacher %s", path)
    located = locate(path)
    renderer = load_renderer(located.tokenizer, None)
    own, other = (found.tokenizer.get_vocab() for found in (student.renderer, renderer))
    if own != other:
        apart = min(own.items() ^ other.items(), key=lambda entry: (entry[1], entry[0]))[0]
        raise UserError(
            f"teacher: {path}: its vocabulary is not the student's ({len(other):,} and {len(own):,} tokens): {apart!r} "
            f"has the id {other.get(apart, 'none')} there and {own.get(apart, 'none')} here. Take a teacher of the "
            "student's family, or learn from its answers: a study section with stage: answers, then sft"
        )
    window = window_of(located)
    if longest > window:
        raise UserError(f"teacher: {path}: its window is {window} tokens, and rows of up to {longest} are compared")
    if renderer.fingerprint != student.renderer.fingerprint:
        LOG.warning("teacher: %s writes its dialogues otherwise; it reads them as the student writes them", path)
    return load_policy(path, student.precision)
