"""What stages that learn from records share: records as tokens, a plan, dev loss, and losses that several have."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smolt import processes, statistics
from smolt.config import DecideRecipe, DPORecipe, KTORecipe, PretrainRecipe, RewardRecipe, SFTRecipe
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import Groups, answer_sums, atoms, cut, join, masked_sum, own_share, without_gradient
from smolt.models.items import Prepared
from smolt.models.roles import Policy, Scorer
from smolt.training.checks import answer_tokens_only, forward_facts
from smolt.training.fit import Learner, Loss, LossFunction, Metrics, Tally, of_all
from smolt.training.memory.outlook import Outlook, heeded, look_at_rows
from smolt.training.mismatch import mismatch_parts
from smolt.training.objectives import dpo_sigmoid, ipo, log_odds, simpo
from smolt.training.optimizers.parameter_groups import Role, adapter_role
from smolt.training.plan import Dev, Plan
from smolt.training.stage_input import settled
from smolt.training.streams import Rows, updates_of

ENDS = ("loss_low", "loss_high")
"""The ends of a held-out loss's interval, as metrics.jsonl names them after `dev/`."""
PER_TOKEN = ("ipo", "simpo", "orpo")
"""Losses of an answer's mean log-probability per token; the others take its sum."""


@dataclass(frozen=True)
class Lessons:
    """What a stage learns from.

    Attributes:
        recipe: the stage's.
        identity: what a continued run must share with its start.
        items: one Groups a record.
        held_out: records that are only measured on; none where nothing is.
        outlook: the memory it is estimated to need.
        facts: how many records there are, for the record.
        checks: of the items, before update 1.
    """

    recipe: PretrainRecipe | SFTRecipe | RewardRecipe | DPORecipe | KTORecipe | DecideRecipe
    identity: dict[str, Any]
    items: list[Groups]
    held_out: list[Groups]
    outlook: Outlook | None
    facts: dict[str, Any]
    checks: list[Callable[[], None]] = field(default_factory=list)


def open_lessons(
    recipe: SFTRecipe | RewardRecipe | DPORecipe | KTORecipe | DecideRecipe,
    records: Sequence[Any] | None,
    read: Callable[..., Prepared],
    out: Path | None,
    fresh: bool,
    hold_out: Callable[[list[Groups], int], tuple[list[Groups], list[Groups]]] | None = None,
) -> tuple[Ground, Lessons]:
    """Load what a stage learns from, and what it stands on.

    Args:
        recipe: the stage's recipe.
        records: instead of `recipe.data`.
        read: from records to tokens.
        out: the run's directory.
        fresh: whether the run there is set aside.
        hold_out: divides the items, by a seed, into those learned from and those held out, where there are no dev data.
    """
    ground = open_ground(settled(recipe.model, out, fresh))
    train = read(records or recipe.data, ground.renderer, ground.window)
    items, held_out = train.items, list[Groups]()
    facts = train.facts()
    if recipe.dev is not None:
        dev = read(recipe.dev, ground.renderer, ground.window)
        held_out = dev.items
        facts |= {f"dev_{name}": count for name, count in dev.facts().items() if dev.dropped or dev.identical}
    elif hold_out is not None:
        items, held_out = hold_out(train.items, recipe.seed)
    return ground, Lessons(
        recipe=recipe,
        identity={**ground.identity, "data": train.sha256},
        items=items,
        held_out=held_out[: recipe.watch.items],
        outlook=heeded(recipe, look_at_rows(recipe, ground, items)),
        facts=facts,
        checks=[lambda: answer_tokens_only(train.items, ground.renderer)],
    )


def plan_for(
    lessons: Lessons,
    model: Policy | Scorer,
    loss: LossFunction,
    save: Callable[[Path], None],
    complete: Callable[[Groups], Groups] | None = None,
    whole: Callable[[Groups], Groups] | None = None,
    trained: Role | None = None,
) -> Plan:
    """The plan of a stage that goes through its lessons in `batch` records an update, without dev measurement.

    Args:
        lessons: what is learned from.
        model: who learns.
        loss: of a micro-batch.
        save: writes the finished model into a directory.
        complete: adds columns that the loss needs to records.
        whole: adds columns that depend on all records of an update.
        trained: the parameters, where not all go alike; None takes those of the model.
    """
    recipe, lora = lessons.recipe, getattr(lessons.recipe, "lora", None)
    micro_tokens = model.trunk.settle(recipe.budget, lessons.items)
    total = updates_of(recipe.budget, len(lessons.items), recipe.batch)
    role = "policy" if isinstance(model, Policy) else "reward"
    return Plan(
        stage=recipe.stage,
        recipe=recipe,
        identity=lessons.identity,
        stream=Rows(lessons.items, recipe.batch, total, recipe.seed, complete, whole),
        loss=loss,
        learner=Learner({role: trained or adapter_role(model.parameters(), lora)}, recipe.optim, total),
        micro_tokens=micro_tokens,
        save=save,
        result=model,
        checks=list(lessons.checks),
        facts={**forward_facts(model.trunk), **lessons.facts},
        outlook=lessons.outlook,
    )


def dev_loss(
    plan: Plan,
    held_out: Sequence[Groups],
    figures: Sequence[str] = ("loss",),
    complete: Callable[[Groups], Groups] = lambda groups: groups,
    whole: Callable[[Groups], Groups] | None = None,
) -> Dev | None:
    """The stage's own loss on held-out records, and other figures that it gives; None without records.

    Args:
        plan: whose loss.
        held_out: one Groups a record.
        figures: which of the loss's metrics are wanted.
        complete: adds columns that the loss needs, when they are first needed.
        whole: adds columns that depend on all records, each time.
    """
    if not held_out:
        return None
    groups = cache(lambda: complete(join(held_out)))

    def measure() -> dict[str, float]:
        update = groups() if whole is None else whole(groups())
        found = without_learning(update, plan.loss, plan.micro_tokens)
        return {name: found[name] for name in (*figures, *ENDS) if name in found}

    return Dev(measure, "loss", "min", len(held_out))


def without_learning(groups: Groups, loss: LossFunction, micro_tokens: int) -> Metrics:
    """The loss of some groups with the ends of its interval, and its metrics; nothing is learned from them."""
    tally, totals, counts, contexts = Tally(), list[float](), list[float](), list[Tensor]()
    own = own_share(groups)
    with torch.no_grad():
        for micro in cut(own, micro_tokens) if own is not None else ():
            for part in loss(micro):
                tally.add(part.figures)
                if part.each is not None:
                    totals += part.each[0].detach().tolist()
                    counts += part.each[1].tolist()
                    contexts += [micro.contexts[micro.owners[rows[0]]] for rows in atoms(micro)]
    tally, _ = of_all(tally, {})
    totals, counts = processes.together(totals), processes.together(counts)
    return tally.means() | interval_of_loss(totals, counts, processes.together(contexts))


def interval_of_loss(totals: Sequence[float], counts: Sequence[float], contexts: Sequence[Tensor]) -> Metrics:
    """The ends of the 95 % interval of sum of totals / sum of counts over records; nothing where none can be formed.

    Records that share a context are resampled together, unless all do, as rows of plain text share the empty one.
    """
    keys = [context.numpy().tobytes() for context in contexts]
    found = statistics.ratio(totals, counts, keys if len(set(keys)) > 1 else None)
    return {} if found is None or found.low is None else dict(zip(ENDS, (found.low, found.high), strict=True))


def reference_column(reference: Policy, micro_tokens: int, groups: Groups) -> Groups:
    """The groups with the reference's log-probabilities, [B, T]."""
    return groups.with_columns(reference=without_gradient(groups, micro_tokens, lambda part: reference(part)[0]))


def sft_loss(policy: Policy) -> LossFunction:
    """The loss of imitation, of demonstrations and of plain text: token sums and token counts of a micro-batch."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, entropy = policy(batch)
        mask = batch.mask.to(logprobs.device)
        count = float(mask.sum())
        metrics = {"entropy": (masked_sum(entropy.detach(), mask), count)}
        each = -answer_sums(logprobs, mask), mask.sum(dim=1)
        yield Loss(-masked_sum(logprobs, mask), count, metrics, each=each)

    return loss


def dpo_loss(policy: Policy, recipe: DPORecipe, temperature: float = 1.0) -> LossFunction:
    """Sum over the pairs of a micro-batch, and what should be watched together: log-probabilities, margin, accuracy."""

    def loss(batch: Groups) -> Iterator[Loss]:
        logprobs, _ = policy(batch, temperature)
        mask, columns = batch.on(logprobs.device)
        sums, first = answer_sums(logprobs, mask), columns["side"] == 0
        values = sums if recipe.reference_free else answer_sums(logprobs - columns["reference"], mask)
        if recipe.loss in PER_TOKEN:
            values = values / mask.sum(dim=1)
        chosen, rejected = values[first], values[~first]
        terms = pair_terms(chosen, rejected, columns["weight"][first], recipe)
        pairs, total = float(len(terms)), terms.sum()
        seen = {"chosen_logprob": sums[first], "rejected_logprob": sums[~first]}
        seen |= {"chosen_reward": recipe.beta * chosen, "rejected_reward": recipe.beta * rejected}
        seen |= {"margin": recipe.beta * (chosen - rejected)}
        each = terms
        if recipe.nll:
            imitation = -columns["imitation"] * sums
            total = total + recipe.nll * imitation.sum()
            seen |= {"pair_loss": terms, "nll": imitation}
            each = terms + recipe.nll * (imitation[first] + imitation[~first])
        metrics = {name: (value.detach().sum(), pairs) for name, value in seen.items()}
        metrics |= {"accuracy": led(chosen, rejected)}
        spread, apart = mismatch_parts(columns.get("sampled"), logprobs.detach(), mask)
        yield Loss(total, pairs, metrics | apart, spread=spread, each=(each, torch.ones_like(each)))

    return loss


def led(chosen: Tensor, rejected: Tensor) -> tuple[Tensor, float]:
    """How many chosen answers lead, of how many pairs in which one leads: a tie is neither right nor wrong.

    Before the first step all of DPO's pairs are ties: the policy is its reference.
    """
    return (chosen > rejected).float().sum(), float((chosen != rejected).sum())


def pair_terms(chosen: Tensor, rejected: Tensor, weight: Tensor, recipe: DPORecipe) -> Tensor:
    """The loss of each pair, [P], from its answers' log-probabilities or log-ratios: sums, or means `PER_TOKEN`."""
    if recipe.loss == "ipo":
        return ipo(chosen - rejected, recipe.beta, weight)
    if recipe.loss == "simpo":
        return simpo(chosen - rejected, recipe.beta, recipe.gamma, weight)
    if recipe.loss == "orpo":
        return recipe.beta * dpo_sigmoid(log_odds(chosen) - log_odds(rejected), 1.0, weight)
    return dpo_sigmoid(chosen - rejected, recipe.beta, weight, recipe.label_smoothing)
