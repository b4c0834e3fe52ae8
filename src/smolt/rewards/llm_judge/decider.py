"""A model asked for decisions: the probability of each answer to typed questions, in one packed forward.

The questions of a state share its tokens, only the labels' rows of the head are computed with, and nothing is parsed.
A model of a class `...ForDecision` has a head of its own; transformers' pipeline asks it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from smolt.config import Model, make_block
from smolt.data import Decision
from smolt.models.forward.precision import Precision
from smolt.models.ground import Ground, open_ground
from smolt.models.groups import join, without_gradient
from smolt.models.locating import locate
from smolt.models.publishing.model_card import shown_place
from smolt.models.rendering.decision_prompts import DecisionPrompts
from smolt.models.rendering.decision_settings import settings_of, trainable_settings
from smolt.models.rendering.option_scores import option_groups, option_scores
from smolt.models.saving import load_policy
from smolt.rewards.llm_judge.asking import Asker, Reply
from smolt.rewards.llm_judge.decision_head import Decided, Decider, by_its_head, has_own_head, tempered

MEMORY = 2.0  # GiB for one forward
CHUNK = 64  # decisions between two times that verdicts are kept


def open_decider(path: str, precision: Precision) -> Decider:
    """Load a model that decides: any chat model, one with decision.json, an adapter, or a class `...ForDecision`.

    Raises:
        UserError: there is no model, or its settings cannot be read.
    """
    located = locate(path)
    if has_own_head(located):
        return by_its_head(located, precision)
    ground = replace(open_ground(make_block(Model, path=path)), precision=precision)
    prompts, policy = prompts_of(ground), load_policy(path, precision)
    temperature = {kind: float(value) for kind, value in prompts.settings.temperature.items()}

    def decide(decisions: Sequence[Decision]) -> list[Decided | None]:
        asked = [prompts.asked(decision) for decision in decisions]
        fitting = [place for place, one in enumerate(asked) if max(map(len, one.rows)) < ground.window]
        found: list[Decided | None] = [None] * len(decisions)
        if not fitting:
            return found
        groups = join([option_groups(asked[at], decisions[at].questions) for at in fitting])
        tokens = policy.trunk.micro_tokens(MEMORY)
        scores = iter(without_gradient(groups, tokens, lambda part: option_scores(policy, part)[:, :, None]).tolist())
        for place in fitting:
            found[place] = [
                tempered([score for (score,) in next(scores)[: len(one.options)]], temperature.get(one.type, 1.0))
                for one in decisions[place].questions
            ]
        return found

    identity = {**ground.identity, "window": ground.window, "dtype": str(precision.dtype)}
    return Decider({**identity, "settings": repr(prompts.settings)}, temperature, decide, ground.window)


def prompts_of(ground: Ground) -> DecisionPrompts:
    """How a model is asked: as it says itself; one without any template as `smolt decide` would ask it."""
    renderer = ground.renderer
    found = settings_of(renderer)
    bare = found.chat_template is None and renderer.template is None
    return DecisionPrompts(renderer.tokenizer, trainable_settings(renderer) if bare else found)


def which_fit(ground: Ground, decisions: Sequence[Decision]) -> list[bool]:
    """Which decisions fit into the model's window; one with a head of its own is not asked."""
    if has_own_head(ground.located):
        return [True] * len(decisions)
    prompts = prompts_of(ground)
    return [max(map(len, prompts.asked(decision).rows)) < ground.window for decision in decisions]


def deciding(path: str, precision: Precision) -> Asker:
    """A model on this machine that is asked decisions of one question each."""
    decider = open_decider(path, precision)
    too_long = Reply(status="abstained", reason=f"longer than the judge's window of {decider.window} tokens")

    def ask(decisions: Sequence[Decision]) -> Iterator[list[tuple[int, Reply]]]:
        for start in range(0, len(decisions), CHUNK):
            found = decider.decide(decisions[start : start + CHUNK])
            yield [(start + at, too_long if one is None else Reply(one[0])) for at, one in enumerate(found)]

    name = shown_place(str(Path(path).resolve())) if Path(path).exists() else path
    return Asker(name, {"decision": decider.identity}, ask, (path, name), decides=True)
