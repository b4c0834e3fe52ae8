"""Which pairs a reward model has learned from: those of its run's data, less the ones held out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from smolt import randomness
from smolt.config import Data, make_block
from smolt.models.ground import Ground
from smolt.models.groups import Groups
from smolt.models.items import Prepared, preference_items
from smolt.runs import storage
from smolt.runs.identity import run_of

LOG = logging.getLogger(__name__)
HELD_OUT = 10  # without dev data, one pair in so many is held out
CHEAP = 32 * 2**20  # bytes of another file than the audited one that are read to compare its pairs
Item = TypeVar("Item")


def hold_out(items: list[Item], seed: int) -> tuple[list[Item], list[Item]]:
    """A tenth of the pairs, at least one, kept for measurement."""
    order = randomness.permutation(len(items), seed, HELD_OUT)
    size = max(1, len(items) // HELD_OUT)
    return [items[index] for index in order[size:]] or items, [items[index] for index in order[:size]]


def seen_pairs(audited: Prepared, path: str, ground: Ground, given: Sequence[Groups] | None = None) -> int:
    """How many audited pairs the model is known to have learned from; 0 where nothing is known of its training.

    Args:
        audited: the pairs.
        path: the file they are from.
        ground: of the reward model.
        given: its training pairs, where somebody says which they are.
    """
    learned = {_tokens(item) for item in [*(given or []), *_of_its_run(audited, path, ground)]}
    return sum(_tokens(item) in learned for item in audited.items)


def _of_its_run(audited: Prepared, path: str, ground: Ground) -> list[Groups]:
    """What the run that the model is of learned from, where its file is still there."""
    manifest, _ = run_of(ground.located.adapter or Path(ground.located.base))
    recipe = manifest.get("recipe", {})
    if recipe.get("stage") != "reward" or not isinstance(recipe.get("data"), dict):
        return []
    digest, own = manifest["data"]["data"], Path(recipe["data"]["path"])
    if digest == audited.sha256:
        own = Path(path)
    elif not own.is_file() or own.stat().st_size > CHEAP or storage.sha256_of(own) != digest:
        return []
    LOG.info("reading the pairs that it was trained on")
    data = make_block(Data, **{**recipe["data"], "path": str(own), "too_long": "drop"})
    items = preference_items(data, ground.renderer, ground.window).items
    return items if recipe.get("dev") else hold_out(items, recipe["seed"])[0]


def _tokens(item: Groups) -> tuple[tuple[int, ...], ...]:
    """A pair as a key: its context, then its two answers in any order."""
    return (tuple(item.contexts[0].tolist()), *sorted(tuple(answer.tolist()) for answer in item.answers))
