"""From a recipe's `reward:` block to one reward function."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from smolt.config import RewardMix, RewardPart
from smolt.data import Question
from smolt.data.inputs import find_model, model_paths
from smolt.errors import UserError
from smolt.models.forward.precision import Precision
from smolt.models.locating import locate
from smolt.models.saving import read_note
from smolt.rewards.audit.linter import CONSTANT
from smolt.rewards.learned import ensemble_reward, learned_reward, require_accepted
from smolt.rewards.llm_judge.judge_reward import decision_part, judge_reward, plain_answer
from smolt.rewards.mix import Part, mix, told
from smolt.rewards.python import python_reward
from smolt.rewards.rules import Reward
from smolt.rewards.shorthand import RULES, rule

LOADED = ("model", "ensemble", "judge", "decision")


def build_reward(
    parts: Sequence[RewardPart],
    *,
    model_reward: Callable[[RewardPart], Reward] | None = None,
    judge_reward: Callable[[RewardPart], Reward] | None = None,
    cap: float | None = None,
) -> Reward:
    """The reward a recipe asks for (see mix.mix for its components).

    Args:
        parts: the recipe's parts; a second part of one name is shown as "name_2".
        model_reward: builds the parts "model" and "ensemble" (it has the precision); None when there is none here.
        judge_reward: builds the parts "judge" and "decision", likewise.
        cap: the sum is clipped to [-cap, cap].

    Raises:
        UserError: an unknown name or option (with the nearest), a missing or needless path.
    """
    seen: Counter[str] = Counter()
    made: list[Part] = []
    loaders = {"model": model_reward, "ensemble": model_reward, "judge": judge_reward, "decision": judge_reward}
    for part in parts:
        seen[part.name] += 1
        label = part.name if seen[part.name] == 1 else f"{part.name}_{seen[part.name]}"
        made.append(Part(label, part.weight, _reward(part, loaders)))
    return mix(made, cap)


def rules_alone(parts: Sequence[RewardPart]) -> bool:
    """Whether a reward is made of rules that come with smolt: they cost nothing and give the same score each time."""
    return all(part.name in RULES for part in parts)


def why_useless(part: RewardPart, question: Question) -> str | None:
    """Why a training on this part would end at once, so far as can be told without loading a model; None: it works.

    A rule or a function is tried on the question's solution and on an answer that knows nothing; a judge is not tried.
    """
    try:
        if part.name in LOADED:
            for path in model_paths(part):
                if "{" not in path:
                    find_model(path, f"reward {part.name}")
            if part.name == "model" and part.path is not None and Path(part.path).exists():
                require_accepted(part, read_note(locate(part.path)))
            return None
        reward = build_reward([part])
    except UserError as error:
        return str(error)
    reasons = []
    for text in (question.solution or "42", CONSTANT):
        try:
            reward([question], [plain_answer(text)])
        except UserError as error:
            reasons.append(str(error))
    return reasons[0] if len(reasons) == 2 else None


def unscored(parts: Sequence[RewardPart], questions: Sequence[Question]) -> Counter[str]:
    """Reason -> how many of the questions the rules among these parts score no answer to, as where a solution lacks."""
    rules = [part for part in parts if part.name in RULES]
    scores = build_reward(rules)(questions, [plain_answer(CONSTANT)] * len(questions)) if rules else []
    return Counter(score.reason for score in scores if score.value is None)


def never_scored(parts: Sequence[RewardPart], questions: Sequence[Question]) -> str | None:
    """Why no answer to any of these questions would have a score, as far as rules go; None where some would."""
    reasons = unscored(parts, questions)
    if reasons.total() < len(questions):
        return None
    return (
        f"reward: no answer to any of the {len(questions):,} questions would get a score ({told(reasons)}). Take data "
        "whose records carry what the rule compares with (a solution, or a constraint), or another reward"
    )


def partly_scored(parts: Sequence[RewardPart], questions: Sequence[Question]) -> str:
    """How many of these questions the rules score no answer to, and what becomes of them; empty where there are none.

    See `never_scored` for where they are all of them.
    """
    reasons = unscored(parts, questions)
    if not reasons:
        return ""
    return (
        f"no answer to {reasons.total():,} of {len(questions):,} questions gets a score ({told(reasons)}): they are "
        "asked all the same, and nothing is learned from their answers; leave them out, or add what the rule needs"
    )


def _reward(part: RewardPart, loaders: Mapping[str, Callable[[RewardPart], Reward] | None]) -> Reward:
    if part.name in LOADED:
        load = loaders[part.name]
        if load is None:
            raise UserError(f"reward {part.name}: no model can be loaded here; use a rule or a python function")
        return load(part)
    if part.name == "python":
        if part.path is None:
            raise UserError('reward python: path: is missing; give "file.py:function"')
        return python_reward(part.path, part.options, part.seconds)
    return rule(part)


def mixed_reward(mix: RewardMix, precision: Precision, verdicts: Path | None = None) -> Reward:
    """The reward a recipe asks for, its reward models loaded at `precision`; `verdicts` keeps an endpoint's grades."""

    def made(part: RewardPart) -> Reward:
        return ensemble_reward(part, precision) if part.name == "ensemble" else learned_reward(part, precision)

    def judged(part: RewardPart) -> Reward:
        return (judge_reward if part.name == "judge" else decision_part)(part, precision, verdicts)

    return build_reward(mix.parts, model_reward=made, judge_reward=judged, cap=mix.cap)
