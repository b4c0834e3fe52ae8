"""A training as its memory depends on it: the recipe, the network's shape, the lengths of its data, and choices."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from transformers import PreTrainedModel

from smolt.config import DistillRecipe, DPORecipe, GRPORecipe, KTORecipe, OnlineDPORecipe, PPORecipe
from smolt.models.groups import Groups, from_answers, join
from smolt.training.memory.footprint import Estimate, Network, Rollout, Way, Work
from smolt.training.memory.shapes import largest, room_of
from smolt.training.stage_input import longest_answer
from smolt.training.streams import taken, updates_of

LOOKED_AT = 64  # updates whose lengths are looked at


@dataclass(frozen=True)
class Choice:
    """What a recipe says and may be advised to say otherwise.

    Attributes:
        memory: budget.memory, GiB.
        way: precision and adapters.
        longest, slots: sampling.max_tokens and sampling.batch, 0 offline.
        checkpointing: budget.checkpointing.
    """

    memory: float
    way: Way
    longest: int = 0
    slots: int = 0
    checkpointing: str = "auto"

    def having(self, name: str, value: Any) -> "Choice":
        """The same with another value of a field, or of one of its way's."""
        if name in ("half", "rank"):
            return replace(self, way=replace(self.way, **{name: value}))
        return replace(self, **{name: value})


@dataclass(frozen=True)
class Prospect:
    """A recipe with its network and its data, so far as memory depends on them.

    Attributes:
        recipe: of a stage that trains.
        network: without weights.
        shape: the network's.
        items: of an offline stage, one a record.
        contexts: of a rollout stage, the tokens of each question's context in the order in which they are asked.
        longest: tokens of the longest of all, those that are asked later included.
        raters: bytes of reward models.
        process: bytes held now.
    """

    recipe: Any
    network: PreTrainedModel
    shape: Network
    items: Sequence[Groups]
    contexts: Sequence[int]
    longest: int
    raters: int
    process: int

    def estimate(self, choice: Choice) -> Estimate:
        """What is held with a choice."""
        room = room_of(self.network, choice.way)
        recomputed = bool(self.reason(choice))
        way, limit = replace(choice.way, recomputed=recomputed), room.tokens(choice.memory, recomputed)
        first, later = largest(self._updates(choice.longest), limit, self.shape, way)
        rollout = None
        if self.contexts:
            asked = self.recipe.prompts
            slots = min(choice.slots, asked * self.recipe.answers)
            rollout = Rollout(slots, asked, max(self.contexts), choice.longest)
        full = not way.rank
        copies, roles = (_copies(self.recipe) if full else 0), (2 if isinstance(self.recipe, PPORecipe) else 1)
        head = self.recipe.stage != "reward"
        return Work(self.shape, way, first, later, rollout, copies, roles, self.raters, self.process, head).estimate()

    def reason(self, choice: Choice) -> str:
        """Why layers are recomputed with a choice, empty where they are not, as `Trunk.settle` will say."""
        room, budget = room_of(self.network, choice.way), self.recipe.budget
        asked = budget.model_copy(update={"memory": choice.memory, "checkpointing": choice.checkpointing})
        alone = room.largest([longest_answer(self.longest, choice.longest)]) if self.contexts else self._largest_item
        return room.reason(asked, alone)

    @cached_property
    def _largest_item(self) -> float:
        return room_of(self.network, Way(False, 0)).largest(self.items)

    def _updates(self, longest: int) -> Iterator[Groups]:
        if not self.contexts:
            recipe = self.recipe
            total = updates_of(recipe.budget, len(self.items), recipe.batch)
            for number in range(min(total, LOOKED_AT, -(-len(self.items) // recipe.batch))):
                yield join([self.items[place] for place in taken(number, recipe.batch, len(self.items), recipe.seed)])
            return
        asked, answers = self._minibatch()
        for start in range(0, len(self.contexts), self.recipe.prompts):
            contexts = sorted(self.contexts[start : start + self.recipe.prompts])[-asked:]
            yield from_answers([[0] * size for size in contexts], [[[0] * longest] * answers] * len(contexts))

    def _minibatch(self) -> tuple[int, int]:
        """Contexts of an optimizer step, and answers to each: whole groups, pairs (online DPO), single ones (PPO)."""
        recipe = self.recipe
        if isinstance(recipe, DistillRecipe):
            return recipe.prompts, 1
        if isinstance(recipe, GRPORecipe | OnlineDPORecipe):
            answers = recipe.group if isinstance(recipe, GRPORecipe) else 2
            return -(-recipe.prompts // recipe.inner.minibatches), answers
        answers = -(-recipe.prompts * recipe.samples // recipe.inner.minibatches)
        asked = min(recipe.prompts, answers)
        return asked, -(-answers // asked)


def _copies(recipe: Any) -> int:
    """Networks beside the trained one when all weights are trained: a reference, a critic."""
    if isinstance(recipe, PPORecipe):
        return 1 + (recipe.critic.trunk == "own")
    if isinstance(recipe, DPORecipe):
        return int(not recipe.reference_free)
    return int(
        isinstance(recipe, KTORecipe | OnlineDPORecipe) or (isinstance(recipe, GRPORecipe) and recipe.kl.beta > 0)
    )
