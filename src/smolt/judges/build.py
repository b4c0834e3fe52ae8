"""From a recipe's `judge:` block to a judge, and from a reward part named judge to a rater."""

from collections.abc import Callable
from pathlib import Path

from smolt.cards import shown_place
from smolt.config import Judging, RewardPart, make_block
from smolt.directories import locate
from smolt.errors import UserError
from smolt.judges.asking import Asker, comparing, grading, remembering
from smolt.judges.endpoint import open_endpoint
from smolt.judges.local import open_local
from smolt.judges.rubrics import load_rubric
from smolt.judges.rules import LENGTHS, by_length, by_scores
from smolt.judges.verdicts import Judge
from smolt.rewards import Reward, build_reward
from smolt.saving import is_reward_model, weights_hash
from smolt.trunk import Precision

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
    if settings.path is not None and _is_scorer(settings):
        part = RewardPart(name="model", path=settings.path, options={"refused": True})
        name = shown_place(str(Path(settings.path).resolve()))
        identity = {"model": weights_hash(locate(settings.path))}
        return Judge(name, "model", identity, by_scores(model_reward(part), soft=True), (settings.path, name))
    rubric = load_rubric(settings.rubric)
    asker = _asker(settings, precision)
    kind = "endpoint" if settings.endpoint is not None else "local"
    identity = {**asker.identity, "rubric": rubric.identity}
    return Judge(asker.name, kind, identity, comparing(asker, rubric, settings.rationale > 0), asker.names)


def judge_reward(part: RewardPart, precision: Precision, verdicts: Path | None = None) -> Reward:
    """Direct RLAIF: a judge's expected grade of each answer, in [-1, 1].

    Args:
        part: `path` is a language model on this machine, or `options.endpoint` an endpoint; options are the other
            fields of a judge.
        precision: of a judge on this machine.
        verdicts: a file in which an endpoint's replies are kept, so that none is asked for twice.

    Raises:
        UserError: an unknown option, or a judge that gives no grades.
    """
    settings = make_block(Judging, path=part.path, **part.options)
    if settings.rule is not None or (settings.path is not None and _is_scorer(settings)):
        raise UserError("reward judge: a rule or a reward model is a reward by itself; write its name instead of judge")
    asker = _asker(settings, precision)
    if verdicts is not None and settings.endpoint is not None:
        asker = remembering(asker, verdicts)
    return grading(asker, load_rubric(settings.rubric), settings.rationale > 0)


def _asker(settings: Judging, precision: Precision) -> Asker:
    if settings.endpoint is not None:
        return open_endpoint(settings.endpoint, settings.rationale)
    return open_local(str(settings.path), precision, settings.rationale)


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


def _is_scorer(settings: Judging) -> bool:
    """Whether the path holds a reward model; `kind` may insist on one or the other."""
    found = is_reward_model(locate(str(settings.path)))
    if settings.kind in ("local", "model") and found != (settings.kind == "model"):
        what = "a reward model" if found else "a language model"
        raise UserError(f"judge.kind: {settings.path} is {what}; write kind: {'model' if found else 'local'}")
    return found
