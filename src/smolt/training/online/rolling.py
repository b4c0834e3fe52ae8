"""What a stage that learns from rewarded rollouts works with: model, questions, reward, how answers are drawn."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smolt.config import GRPORecipe, Model, OnlineDPORecipe, PPORecipe
from smolt.data import Question
from smolt.data.nouns import as_question
from smolt.errors import UserError
from smolt.models.conditions import Conditions, conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups
from smolt.models.items import asked_questions
from smolt.models.roles import Policy, open_policy
from smolt.models.sampling import Drawing
from smolt.rewards import python_reward
from smolt.rewards.build import mixed_reward, never_scored, partly_scored
from smolt.rewards.llm_judge.cache import VERDICTS
from smolt.rewards.rules import Reward
from smolt.training.memory.outlook import Outlook, heeded, look_at_questions
from smolt.training.mismatch import check_mismatch, check_served
from smolt.training.online.served import ServedAnswers
from smolt.training.stage_input import in_memory, longest_answer, recipe_for, settled

LOG = logging.getLogger(__name__)
RolloutRecipe = PPORecipe | GRPORecipe | OnlineDPORecipe
RecipeT = TypeVar("RecipeT", PPORecipe, GRPORecipe, OnlineDPORecipe)
GIVEN = {"name": "python", "path": "(in memory)"}  # what a recipe says of a reward that was handed over


@dataclass(frozen=True)
class Rolling:
    """The parts of a rollout stage."""

    recipe: RolloutRecipe
    ground: Ground
    policy: Policy
    questions: list[Question]
    dropped: int
    sha256: str
    reward: Reward
    conditions: Conditions
    drawing: Drawing
    micro_tokens: int
    outlook: Outlook | None
    served: ServedAnswers | None = None

    def check(self, groups: Groups, metrics: Mapping[str, float]) -> None:
        """The answers were drawn from the distribution that training recomputes; stale ones are not looked at.

        Args:
            groups: answers with the column `sampled`.
            metrics: of them, as `smolt.training.mismatch.mismatch` gives them.

        Raises:
            SelfCheckError: they were not.
        """
        if self.served is None:
            check_mismatch(self.policy, groups, metrics, self.recipe.sampling.temperature)
        elif not self.served.age:
            check_served(groups, metrics, self.served.described)

    def contexts(self, questions: Sequence[Question]) -> list[list[int]]:
        """Their tokens."""
        return self.ground.renderer.contexts([question.context for question in questions])


def open_rollouts(
    recipe: RolloutRecipe,
    questions: Sequence[Question | str] | None = None,
    reward: Callable[..., Any] | None = None,
    model: Model | None = None,
    out: Path | None = None,
) -> Rolling:
    """Load what a rollout stage works with.

    Args:
        recipe: the stage's recipe.
        questions: instead of `recipe.data`.
        reward: a Python function instead of `recipe.reward`.
        model: `recipe.model` with its precision and threads decided.
        out: the run's directory, which keeps what a judge behind an address has said.

    Raises:
        UserError: model or data cannot be used, or the rules of the reward score no answer to any of the questions.
    """
    ground, sampling = open_ground(model or recipe.model), recipe.sampling
    source: Any = recipe.data if questions is None else [as_question(question) for question in questions]
    asked = asked_questions(source, ground.renderer, ground.window, sampling.max_tokens)
    hopeless = None if reward is not None else never_scored(recipe.reward.parts, asked.questions)
    if hopeless is not None:
        raise UserError(hopeless)
    if reward is None and (partly := partly_scored(recipe.reward.parts, asked.questions)):
        LOG.warning("%s", partly)
    outlook = heeded(recipe, look_at_questions(recipe, ground, asked))
    policy = open_policy(ground.located, ground.precision, recipe.lora, recipe.seed)
    verdicts = None if out is None else out / VERDICTS
    rater = python_reward(reward) if reward is not None else mixed_reward(recipe.reward, ground.precision, verdicts)
    conditions = conditions_of(ground.renderer, sampling.max_tokens)
    drawing, served = conditions.drawing(sampling.temperature, sampling.batch), None
    if recipe.server is not None:
        served = ServedAnswers(recipe.server, policy, ground.renderer, drawing, out)
    return Rolling(
        recipe=recipe,
        ground=ground,
        policy=policy,
        questions=asked.questions,
        dropped=asked.dropped,
        sha256=asked.sha256,
        reward=rater,
        conditions=conditions,
        drawing=drawing,
        micro_tokens=policy.trunk.settle(recipe.budget, [longest_answer(asked.longest, sampling.max_tokens)]),
        outlook=outlook,
        served=served,
    )


def open_stage(
    kind: type[RecipeT],
    recipe: RecipeT | str | Path,
    questions: Sequence[Question | str] | None,
    reward: Callable[..., Any] | str | Sequence[Any] | Mapping[str, Any] | None,
    out: Path | None,
    fresh: bool,
    fields: dict[str, Any],
) -> tuple[RecipeT, Rolling]:
    """The checked recipe of a rollout stage and what it works with; arguments as of the stages themselves."""
    function, written = (reward, {}) if reward is None or callable(reward) else (None, {"reward": reward})
    given = {"data": in_memory(questions), "reward": None if function is None else GIVEN}
    checked = recipe_for(kind, recipe, {**fields, **written}, **given)
    return checked, open_rollouts(checked, questions, function, settled(checked.model, out, fresh), out)
