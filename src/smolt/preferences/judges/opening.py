"""The judge that a recipe's `judge:` block asks for."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smolt.config import Judging, RewardPart
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.locating import locate
from smolt.models.publishing.model_card import shown_place
from smolt.models.saving import weights_hash
from smolt.preferences.judges.both_orders import Compare, Judge, Opinion, from_choice, from_odds, silent
from smolt.preferences.judges.rule_judges import LENGTHS, by_length, by_scores
from smolt.rewards import Reward
from smolt.rewards.build import build_reward
from smolt.rewards.llm_judge.asking import Asker, Reply
from smolt.rewards.llm_judge.judge_reward import is_scorer, open_asker
from smolt.rewards.llm_judge.nouns import Showing
from smolt.rewards.llm_judge.rubrics import Rubric, load_rubric


def comparing(asker: Asker, rubric: Rubric, rationale: bool) -> Compare:
    """Pairwise judging."""

    def compare(showings: Sequence[Showing]) -> Iterator[list[tuple[int, Opinion]]]:
        prompts = [asker.pairwise(rubric, showing, rationale) for showing in showings]
        for replies in asker.ask(prompts):
            yield [(place, as_opinion(reply)) for place, reply in replies]

    return compare


def as_opinion(reply: Reply) -> Opinion:
    """A reply about A and B."""
    told: dict[str, Any] = {"text": reply.text, "tokens": reply.tokens}
    if reply.status != "given":
        return silent(reply.status, reply.reason, **told)
    if reply.logprobs is not None:
        return from_odds(*reply.logprobs, **told)
    return from_choice({0: 1, 1: -1}.get(reply.choice if reply.choice is not None else -1, 0), **told)


ModelReward = Callable[[RewardPart], Reward]


def open_judge(settings: Judging, precision: Precision, model_reward: ModelReward) -> Judge:
    """The judge a recipe asks for.

    Args:
        settings: the recipe's block.
        precision: of a judge on this machine.
        model_reward: builds the reward of a reward model.

    Raises:
        UserError: there is no such model, rubric or rule.
    """
    if settings.rule is not None:
        return _rule(settings, model_reward)
    if settings.path is not None and is_scorer(settings):
        part = RewardPart(name="model", path=settings.path, options={"refused": True})
        name = shown_place(str(Path(settings.path).resolve()))
        identity = {"model": weights_hash(locate(settings.path))}
        return Judge(name, "model", identity, by_scores(model_reward(part), soft=True), (settings.path, name))
    rubric = load_rubric(settings.rubric)
    asker = open_asker(settings, precision)
    kind = "local" if settings.remote is None else "endpoint"
    identity = {**asker.identity, "rubric": rubric.identity}
    return Judge(asker.name, kind, identity, comparing(asker, rubric, settings.rationale > 0), asker.names)


def _rule(settings: Judging, model_reward: ModelReward) -> Judge:
    rule = settings.rule
    if rule is None:
        raise RuntimeError("no rule")
    names = [part.name for part in rule.parts]
    identity = {"rule": rule.model_dump(mode="json")}
    if set(names) & set(LENGTHS):
        if len(names) > 1:
            raise UserError(f"judge.rule: {', '.join(LENGTHS)} stand alone, not in a sum")
        return Judge(names[0], "rule", identity, by_length(LENGTHS[names[0]]))
    reward = build_reward(rule.parts, model_reward=model_reward, cap=rule.cap)
    return Judge(" + ".join(names), "rule", identity, by_scores(reward, soft=False))
