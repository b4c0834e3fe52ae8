"""From a recipe's model and data blocks to what a stage works with: tokens that fit, and the identity of a run."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from pydantic import BaseModel
from transformers import AutoConfig

from smolt import machine
from smolt.config import Data, Machine, Model, make_recipe
from smolt.directories import Located, locate, read_by_library
from smolt.errors import UserError
from smolt.groups import Groups, from_answers
from smolt.records import Demonstration, Preference, Question, load
from smolt.rendering import Renderer, load_renderer
from smolt.runs.identity import MANIFEST, read_manifest
from smolt.saving import weights_hash
from smolt.trunk import Precision, choose_precision

T = TypeVar("T")
SHOWN = 10  # record numbers listed in an error


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
    located = locate(model.path)
    renderer = load_renderer(located.tokenizer, model.style)
    precision = choose_precision(model.device, model.dtype, model.threads)
    own = window_of(located)
    if model.window is not None and model.window > own:
        raise UserError(f"model.window: {model.window} exceeds the model's own {own}")
    return Ground(located, precision, renderer, model.window or own)


Computing = TypeVar("Computing", Model, Machine)


def settled(model: Computing, run: Path | None, fresh: bool, shape: tuple[int, int] | None = None) -> Computing:
    """A training's model block with `auto` dtype and threads decided: as in the run it continues, else by measuring.

    Args:
        model: a recipe's.
        run: the training's directory.
        fresh: whether the run there is set aside.
        shape: width and feed-forward width; None asks the model at the path.

    Raises:
        UserError: there is no such model, or the manifest is damaged.
    """
    if model.dtype != "auto" and model.threads is not None:
        return model
    if run is not None and not fresh and (run / MANIFEST).is_file():
        manifest = read_manifest(run)
        dtype = model.dtype if model.dtype != "auto" else manifest.get("dtype", "fp32")
        return model.model_copy(update={"dtype": dtype, "threads": manifest.get("threads", model.threads)})
    if choose_precision(model.device, "auto").device.type != "cpu":
        return model
    dtype, threads = machine.settle(model.dtype, model.threads, *(shape or _widths(model)))
    return model.model_copy(update={"dtype": dtype, "threads": threads})


def _widths(model: Model | Machine) -> tuple[int, int]:
    located = locate(model.path) if isinstance(model, Model) else None
    if located is None:
        return machine.USUAL
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    width = int(config.hidden_size)
    return width, int(getattr(config, "intermediate_size", None) or 4 * width)


def window_of(located: Located) -> int:
    """Most positions the model takes; without a limit (ALiBi) a very large number."""
    with read_by_library(f"model.path: {located.base}"):
        config = AutoConfig.from_pretrained(located.base, trust_remote_code=False)
    return int(config.to_dict().get("max_position_embeddings") or config.to_dict().get("n_positions") or 2**31)


@dataclass(frozen=True)
class Prepared:
    """Records as tokens.

    Attributes:
        items: one Groups a record.
        dropped: records left out because they exceed the window.
        sha256: of the records' file.
        kept: for each item the place of its record, from 0.
    """

    items: list[Groups]
    dropped: int
    sha256: str
    kept: list[int]


def demonstration_items(
    data: Data | Sequence[Demonstration], renderer: Renderer, window: int, too_long: str = "error"
) -> Prepared:
    """Demonstrations as one context with one answer each."""
    records, digest, place = records_of(data, "demonstrations")

    def tokens(record: Demonstration) -> Groups:
        return from_answers([renderer.context(record.context)], [[renderer.answer(record.answer)]])

    return _fitting(records, tokens, window, too_long_policy(data, too_long), place, digest)


def preference_items(
    data: Data | Sequence[Preference], renderer: Renderer, window: int, too_long: str = "error"
) -> Prepared:
    """Preferences as one context with two answers: columns `side` (0 chosen, 1 rejected), `weight`, `pair`."""
    records, digest, place = records_of(data, "preferences")
    numbers = iter(range(len(records)))

    def tokens(record: Preference) -> Groups:
        answers = [renderer.answer(record.chosen), renderer.answer(record.rejected)]
        return from_answers([renderer.context(record.context)], [answers]).with_columns(
            side=torch.tensor([0, 1]),
            weight=torch.tensor([record.weight] * 2),
            pair=torch.full((2,), next(numbers)),
        )

    return _fitting(records, tokens, window, too_long_policy(data, too_long), place, digest)


def question_list(
    data: Data | Sequence[Question], renderer: Renderer, window: int, answer: int, too_long: str = "error"
) -> tuple[list[Question], int, str]:
    """Questions that leave room for an answer of `answer` tokens, the number dropped, and the file's hash."""
    records, digest, place = records_of(data, "questions")
    fitting, lengths = [], []
    for number, question in enumerate(records):
        length = len(renderer.context(question.context)) + answer
        if length > window:
            lengths.append((number + 1, length))
        else:
            fitting.append(
                question if question.id else Question(question.context, question.solution, str(number), question.kind)
            )
    _refuse(lengths, window, too_long_policy(data, too_long), place, len(fitting))
    return fitting, len(lengths), digest


def longest_context(questions: Sequence[Question], renderer: Renderer) -> int:
    """Tokens of the longest context of any question."""
    return max(len(renderer.context(question.context)) for question in questions)


def longest_answer(context: int, answer: int) -> Groups:
    """A context and an answer of so many tokens, which ones does not matter."""
    return from_answers([[0] * context], [[[0] * answer]])


def records_of(data: Any, kind: Any) -> tuple[list[Any], str, str]:
    """Records of a data block, or those in memory; the hash of the data; and what names them in messages."""
    if isinstance(data, Data):
        loaded = load(data, kind)
        return list(loaded.records), loaded.sha256, loaded.path
    records = list(data)
    if not records:
        raise UserError(f"no {kind} were given")
    return records, hashlib.sha256(repr(records).encode()).hexdigest(), kind


def too_long_policy(data: object, too_long: str) -> str:
    """What happens to records that exceed the window: a data block says it itself."""
    return data.too_long if isinstance(data, Data) else too_long


def _fitting(
    records: list[T], tokens: Callable[[T], Groups], window: int, too_long: str, place: str, digest: str
) -> Prepared:
    items, lengths, kept = [], [], []
    for number, record in enumerate(records):
        groups = tokens(record)
        length = len(groups.contexts[0]) + int(groups.lengths.max())
        if length > window:
            lengths.append((number + 1, length))
        else:
            items.append(groups)
            kept.append(number)
    _refuse(lengths, window, too_long, place, len(items))
    return Prepared(items, len(lengths), digest, kept)


def _refuse(lengths: list[tuple[int, int]], window: int, too_long: str, place: str, left: int) -> None:
    if lengths and too_long == "error":
        shown = ", ".join(f"{number} ({length} tokens)" for number, length in lengths[:SHOWN])
        raise UserError(
            f"{place}: {len(lengths)} of {len(lengths) + left} records exceed the window of {window} tokens with their "
            f"answer: records {shown}{' ...' if len(lengths) > SHOWN else ''}. "
            "Allow shorter answers (max_tokens), or leave these records out, counted: data.too_long=drop in a recipe, "
            "--too-long drop of smolt eval"
        )
    if not left:
        raise UserError(f"{place}: no record fits into the window of {window} tokens")


RecipeT = TypeVar("RecipeT", bound=BaseModel)


def recipe_for(kind: type[RecipeT], recipe: RecipeT | str | Path, fields: dict[str, Any], **given: Any) -> RecipeT:
    """A recipe as it is, or one made from a model path and fields.

    Args:
        kind: the recipe's class.
        recipe: a recipe of that class, or a model path or hub name.
        fields: recipe fields, for a path only.
        given: fields whose values were handed over in memory; None where they were not.

    Raises:
        UserError: fields beside a recipe, or a field that is wrong.
    """
    memory = {name: value for name, value in given.items() if value is not None}
    if isinstance(recipe, kind):
        if fields:
            raise UserError(f"{', '.join(fields)}: a recipe was given; put the fields into it")
        return recipe
    stage = str(kind.model_fields["stage"].default)
    return cast(RecipeT, make_recipe(stage, model=str(recipe), **memory, **fields))


def in_memory(records: Sequence[object] | None) -> str | None:
    """What a recipe's data block says of records that were handed over in memory."""
    return None if records is None else "(in memory)"
