"""Before a model is loaded: how much memory its training will take, from its configuration and its data's lengths.

Where that cannot fit, the training is refused, with changes of the recipe that would make it fit, each estimated in the
same way. The estimate is meant to be within 20 % of the peak, so only what would not fit even then is refused.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from smolt import processes, randomness
from smolt.config import REWARDED, DistillRecipe, PPORecipe
from smolt.errors import UserError
from smolt.models.forward.adapter import require_targets
from smolt.models.forward.precision import Precision
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups
from smolt.models.items import READERS, Asked, asked_questions, left_out
from smolt.models.locating import locate
from smolt.training.memory.footprint import Estimate, Way, stored
from smolt.training.memory.shapes import empty_network, shape_of, way_of
from smolt.training.memory.system import GIB, free_memory, release, resident
from smolt.training.memory.workload import LOOKED_AT, Choice, Prospect
from smolt.training.stage_input import settled

LOG = logging.getLogger(__name__)
MARGIN = 0.2  # of the estimate
HALVINGS = 6  # of what is advised to be smaller
SHORTEST = 16  # tokens, the shortest answer that is advised
RANK = 16  # of the adapters that are advised
RATERS = ("model", "ensemble", "judge", "decision")
ADVISED = {
    "memory": "budget.memory={0.memory:.3g}",
    "checkpointing": "budget.checkpointing={0.checkpointing}",
    "half": "model.dtype=bf16",
    "rank": "a lora block (rank {0.way.rank}) instead of training all weights",
    "slots": "sampling.batch={0.slots}",
    "longest": "sampling.max_tokens={0.longest}",
}
"""How a field of a choice that is changed is written, first what changes no result."""


@dataclass(frozen=True)
class Outlook:
    """What a training will need.

    Attributes:
        estimate: by part.
        free: bytes that may still be taken, None where they are not known.
        advice: changes of the recipe that would make it fit.
        recomputed: why layers are recomputed, empty where they are not.
    """

    estimate: Estimate
    free: int | None
    advice: str = ""
    recomputed: str = ""

    @property
    def when(self) -> str:
        """At what the peak is: loading, sampling or learning."""
        return max(self.estimate.peaks, key=lambda name: self.estimate.peaks[name])

    @property
    def hopeless(self) -> bool:
        """Whether it would not fit even if the estimate were too high by its margin."""
        return self.free is not None and self.estimate.needed * (1 - MARGIN) > self.free

    @property
    def sentence(self) -> str:
        """The estimate in a line."""
        process = f"process {gib(self.estimate.process)}, "
        return f"memory: about {gib(self.estimate.peak)} at the peak ({process}{self._parts()}){self._free()}"

    def record(self) -> dict[str, Any]:
        """For the manifest: bytes by part, the peak and where it is, and what was free."""
        parts = {name: value for name, value in vars(self.estimate).items() if value}
        return {"estimate": {**parts, "peak": self.estimate.peak, "when": self.when}, "free": self.free}

    def refuse(self) -> None:
        """Refuse what cannot fit.

        Raises:
            UserError: says what is needed, and what would make it fit.
        """
        if self.hopeless:
            raise UserError(
                f"memory: this training needs about {gib(self.estimate.needed)} ({self._parts()}){self._free()}. "
                f"{self.advice}. To try nevertheless: budget.refuse=false"
            )

    def _parts(self) -> str:
        found = self.estimate
        optimizer, activations = found.moments + found.gradients, found.activations + found.logprobs
        held = {
            "loading": {"copies while loading": found.loading},
            "sampling": {"optimizer": found.moments, "sampling": found.sampling},
            "learning": {"gradients and optimizer": optimizer, "activations": activations},
        }[self.when]
        return ", ".join(f"{name} {gib(value)}" for name, value in {"weights": found.weights, **held}.items())

    def _free(self) -> str:
        return "" if self.free is None else f"; {gib(self.free)} are free"


def gib(value: float) -> str:
    """Bytes for a person."""
    return f"{value / GIB:.2f} GiB" if value >= GIB / 8 else f"{value / 2**20:.1f} MiB"


def look_ahead(
    recipe: Any,
    precision: Precision,
    network: PreTrainedModel,
    items: Sequence[Groups] = (),
    contexts: Sequence[int] = (),
    longest: int = 0,
) -> Outlook | None:
    """The memory that a training will need; None on a card, or where the network is of an unknown kind.

    Args:
        recipe: of a stage that trains.
        precision: settled.
        network: without weights.
        items: an offline stage's records.
        contexts: tokens of each question's context, in the order in which they are asked.
        longest: tokens of the longest context.

    Raises:
        UserError: a target of the recipe's adapters names no linear layer.
    """
    require_targets(network, getattr(recipe, "lora", None))
    LOG.info("estimating the memory")
    shape = shape_of(network) if precision.device.type == "cpu" else None
    if shape is None:
        return None
    release()  # of an earlier stage in this process
    way = way_of(precision, getattr(recipe, "lora", None), getattr(recipe, "optimizer", "adamw"))
    sampling = getattr(recipe, "sampling", None)
    most, slots = (sampling.max_tokens, sampling.batch) if sampling else (0, 0)
    choice = Choice(recipe.budget.memory, way, most, slots, recipe.budget.checkpointing)
    raters = sum(_rater(path, way.half) for path in _raters(recipe)) if sampling else 0
    prospect = Prospect(recipe, network, shape, items, contexts, longest, raters, resident())
    found = Outlook(prospect.estimate(choice), own_part(free_memory()), recomputed=prospect.reason(choice))
    if not found.hopeless or found.free is None:
        return found
    return replace(found, advice=advice(prospect, choice, found.free))


def own_part(free: int | None) -> int | None:
    """What one of several processes may take: its part of what is free on its machine, on the fullest of them."""
    parts = [part for part in processes.gather(None if free is None else free // processes.local_size()) if part]
    return min(parts, default=free)


def look_at_rows(recipe: Any, ground: Ground, items: Sequence[Groups]) -> Outlook | None:
    """Of a stage that learns from records; arguments as of `look_ahead`."""
    network = empty_network(ground.located, recipe.stage == "reward")
    return look_ahead(recipe, ground.precision, network, items=items)


def look_at_questions(recipe: Any, ground: Ground, asked: Asked) -> Outlook | None:
    """Of a stage that samples answers to these questions."""
    order = randomness.permutation(len(asked.questions), recipe.seed, 0)
    order = order[: min(LOOKED_AT, recipe.budget.updates or LOOKED_AT) * recipe.prompts]
    contexts = [len(context) for context in ground.renderer.contexts([asked.questions[at].context for at in order])]
    network = empty_network(ground.located)
    return look_ahead(recipe, ground.precision, network, contexts=contexts, longest=asked.longest)


@dataclass(frozen=True)
class Foresight:
    """What is known of a training before it begins.

    Attributes:
        ground: what it stands on, precision and threads settled.
        left_out: of its records, and why, a line for each reason.
        outlook: the memory it will need, None where that is not estimated.
        items: of an offline stage, one a record.
        asked: of a rollout stage, its questions.
    """

    ground: Ground
    left_out: list[str]
    outlook: Outlook | None
    items: Sequence[Groups] = ()
    asked: Asked | None = None


def foresee(recipe: Any) -> Foresight | None:
    """What a stage's training will be, its model and data looked at as the stage does; None where it trains nothing.

    Raises:
        UserError: model or data cannot be read.
    """
    samples = recipe.stage in (*REWARDED, "distill")
    if not samples and recipe.stage not in READERS:
        return None
    ground = open_ground(settled(recipe.model, None, True))
    if samples:
        asked = asked_questions(recipe.data, ground.renderer, ground.window, recipe.sampling.max_tokens)
        return Foresight(ground, left_out(asked.facts()), look_at_questions(recipe, ground, asked), asked=asked)
    prepared = READERS[recipe.stage](recipe.data, ground.renderer, ground.window)
    return Foresight(ground, left_out(prepared.facts()), look_at_rows(recipe, ground, prepared.items), prepared.items)


def heeded(recipe: Any, outlook: Outlook | None) -> Outlook | None:
    """The outlook, unless it is refused.

    Raises:
        UserError: it cannot fit, and the recipe does not say to try.
    """
    if outlook is not None and recipe.budget.refuse:
        outlook.refuse()
    return outlook


def _raters(recipe: Any) -> Iterator[str]:
    """Where the networks lie that rate answers or teach, and one that a critic beside adapters starts from."""
    if isinstance(recipe, DistillRecipe):
        yield recipe.teacher.path
        return
    parts = [part for part in recipe.reward.parts if part.name in RATERS]
    for part in parts:
        yield from (part.path,) if part.path else map(str, part.options.get("path", ()))
    if isinstance(recipe, PPORecipe) and recipe.critic.start == "reward" and recipe.lora is not None:
        path = recipe.critic.path or next((part.path for part in parts), None)
        yield from (path,) if path else ()


def _rater(path: str, half: bool) -> int:
    """Bytes of a network that is not trained; 0 where it cannot be read, which its own loader says."""
    try:
        shape = shape_of(empty_network(locate(path), classifier=True)) if Path(path).is_dir() else None
    except UserError:
        return 0
    return 0 if shape is None else stored(shape, Way(half, 1))


def options(choice: Choice) -> dict[str, list[Choice]]:
    """What a choice may become by each field of `ADVISED`, the mildest first; nothing where it is that already."""
    values: dict[str, list[Any]] = {
        "memory": [choice.memory / 2**times for times in range(1, HALVINGS + 1)],
        "checkpointing": ["always"] if choice.checkpointing != "always" else [],
        "half": [] if choice.way.half else [True],
        "rank": [] if choice.way.rank else [RANK],
        "slots": _halved(choice.slots, 1),
        "longest": _halved(choice.longest, SHORTEST),
    }
    return {name: [choice.having(name, value) for value in values[name]] for name in ADVISED}


def _halved(size: int, least: int) -> list[int]:
    return [max(least, size // 2**times) for times in range(1, HALVINGS + 1) if size > least]


def advice(prospect: Prospect, choice: Choice, free: int) -> str:
    """The changes that make it fit, each alone; else all together; else how much is missing even then."""
    alone, together, words = [], choice, []
    for field, written in ADVISED.items():
        needs = ((option, prospect.estimate(option).needed) for option in options(choice)[field])
        fitting = next(((option, needed) for option, needed in needs if needed <= free), None)
        if fitting:
            alone.append(f"{written.format(fitting[0])} ({gib(fitting[1])})")
        most = (options(together)[field] or [together])[-1]
        if prospect.estimate(most).needed < prospect.estimate(together).needed:
            together = most
            words.append(written.format(most))
    if alone:
        return f"It would fit with {', or with '.join(alone)}"
    needed = prospect.estimate(together).needed
    said = " and ".join(words) or "less"
    if needed <= free:
        return f"It would fit with {said} together ({gib(needed)})"
    return f"Even with {said} it needs {gib(needed)}, {gib(needed - free)} too much: take a smaller model"
