"""On-policy distillation (GKD, 2306.13649): the student answers, and learns the teacher's whole distribution there.

At each token of an answer the two distributions over the vocabulary are compared, so how the token was drawn teaches
nothing, and no gradient goes through the sampler. A share of the answers may be given ones instead.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from smolt.config import Data, DistillRecipe
from smolt.data import Demonstration, Question
from smolt.data.nouns import as_question
from smolt.models.conditions import conditions_of
from smolt.models.ground import Ground, open_ground, open_teacher
from smolt.models.groups import Groups, answer_sums, join, masked_sum
from smolt.models.items import Asked, asked_questions, demonstration_items, records_of, too_long_policy
from smolt.models.roles import Policy, divergence, open_policy
from smolt.models.saving import save_policy
from smolt.training.checks import forward_facts, stop_reachable
from smolt.training.fit import Learner, Loss, LossFunction
from smolt.training.memory.outlook import heeded, look_at_questions
from smolt.training.offline import without_learning
from smolt.training.optimizers.parameter_groups import adapter_role
from smolt.training.plan import Dev, Plan
from smolt.training.stage import Training
from smolt.training.stage_input import in_memory, longest_answer, recipe_for, settled
from smolt.training.streams import Exercises

Records = Data | Sequence[Any]


def distill(
    recipe: DistillRecipe | str | Path,
    records: Sequence[Question | Demonstration | str] | None = None,
    *,
    out: Path | None = None,
    fresh: bool = False,
    **fields: Any,
) -> Training:
    """On-policy distillation of a recipe, or of a student's path and its `teacher` on records in memory.

    Args:
        recipe: a recipe, or a model path or hub name with `records`, `teacher` and recipe fields.
        records: instead of `recipe.data`: questions; demonstrations where `own` is below 1.
        out: run directory; a new temporary one unless given.
        fresh: set an existing run directory aside.
        fields: recipe fields, when `recipe` is a path.
    """
    checked = recipe_for(DistillRecipe, recipe, fields, data=in_memory(records))
    ground, sampling = open_ground(settled(checked.model, out, fresh)), checked.sampling
    renderer, conditions = ground.renderer, conditions_of(ground.renderer, sampling.max_tokens)
    asked, given = with_answers(records or checked.data, checked, ground)
    outlook = heeded(checked, look_at_questions(checked, ground, asked))
    teacher = open_teacher(checked.teacher.path, ground, asked.longest + sampling.max_tokens)
    policy = open_policy(ground.located, ground.precision, checked.lora, checked.seed)
    loss, drawing = distill_loss(policy, teacher, checked), conditions.drawing(sampling.temperature, sampling.batch)
    stream = Exercises(checked, policy, renderer, drawing, asked.questions, given)
    plan = Plan(
        stage=checked.stage,
        recipe=checked,
        identity={**ground.identity, "data": asked.sha256, "conditions": conditions.record()},
        stream=stream,
        loss=loss,
        learner=Learner({"policy": adapter_role(policy.parameters(), checked.lora)}, checked.optim, stream.total),
        micro_tokens=policy.trunk.settle(checked.budget, [longest_answer(asked.longest, sampling.max_tokens), *given]),
        save=lambda directory: save_policy(policy, renderer, directory),
        result=policy,
        checks=[lambda: stop_reachable(policy, renderer, sampling.max_tokens, asked.questions[0])] * (checked.own > 0),
        facts={**forward_facts(policy.trunk), **asked.facts()},
        outlook=outlook,
    )
    if checked.dev is not None:
        examined = with_answers(checked.dev, checked, ground)
        plan.dev = held_out(plan, replace(stream, drawing=conditions.drawing(0.0, sampling.batch)), *examined)
    return Training(plan, out, fresh)


def with_answers(source: Records, recipe: DistillRecipe, ground: Ground) -> tuple[Asked, list[Groups]]:
    """Questions that leave room for an answer, and each with the one that was given: none where `own` is 1."""
    room = recipe.sampling.max_tokens if recipe.own else 1
    if recipe.own == 1:
        questions = source if isinstance(source, Data) else [as_question(record) for record in source]
        return asked_questions(questions, ground.renderer, ground.window, room), []
    shown = demonstration_items(source, ground.renderer, ground.window)
    records, digest, _ = records_of(source, "demonstrations")
    questions = [Question(records[place].context, id=str(number)) for number, place in enumerate(shown.kept)]
    asked = asked_questions(questions, ground.renderer, ground.window, room, too_long_policy(source, "error"))
    items = [shown.items[int(question.id)] for question in asked.questions]
    return Asked(asked.questions, asked.dropped + shown.dropped, digest, asked.longest), items


def held_out(plan: Plan, stream: Exercises, asked: Asked, given: list[Groups]) -> Dev:
    """The stage's loss on greedy answers to held-out questions; on the given ones where the student writes none."""
    recipe = stream.recipe
    questions = asked.questions[: recipe.watch.items]

    def measure() -> dict[str, float]:
        ids = range(len(questions))
        groups = (
            stream.answers(questions, stream.drawing, (recipe.seed,), ids) if recipe.own else join(given[: len(ids)])
        )
        found = without_learning(groups, plan.loss, plan.micro_tokens)
        return {name: value for name, value in found.items() if name.startswith("loss")}

    return Dev(measure, "loss", "min", len(questions))


def distill_loss(policy: Policy, teacher: Policy, recipe: DistillRecipe) -> LossFunction:
    """The sum over the tokens of a micro-batch of how far the student is from the teacher."""

    def loss(batch: Groups) -> Iterator[Loss]:
        apart, entropy = divergence(policy, teacher, batch, recipe.beta, recipe.sampling.temperature)
        mask = batch.mask.to(apart.device)
        tokens = float(mask.sum())
        metrics = {"entropy": (masked_sum(entropy, mask), tokens)}
        yield Loss(masked_sum(apart, mask), tokens, metrics, each=(answer_sums(apart, mask), mask.sum(dim=1)))

    return loss
