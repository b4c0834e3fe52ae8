"""Who rates, as a command line, Python or a recipe says it: a rule's name, file.py:function, a reward model, a block.

What is wrong with that is seen here, without anything being loaded that takes seconds.
"""

import difflib
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from pydantic import BaseModel

from smolt.config import Judging, RewardMix, RewardPart, make_block
from smolt.config.blocks import REWARDS, RULE_NAMES
from smolt.config.complaints import beside, suggestion
from smolt.config.yaml_reader import dotted, read_text
from smolt.data.inputs import blocks_of
from smolt.errors import UserError
from smolt.rewards.constraints import constraints
from smolt.rewards.gym import gym
from smolt.rewards.llm_judge.decision_reward import decision_question
from smolt.rewards.python import missing_functions
from smolt.rewards.refusals import refusal
from smolt.rewards.rules import Reward, exact_words, format_hints, gsm8k, length, overlong
from smolt.rewards.stated import confidence, probabilities
from smolt.rewards.tone import empathy, sentiment

RULES: dict[str, Callable[..., Reward]] = {
    "gsm8k": gsm8k,
    "gym": gym,
    "confidence": confidence,
    "probabilities": probabilities,
    "format": format_hints,
    "sentiment": sentiment,
    "length": length,
    "overlong": overlong,
    "exact_words": exact_words,
    "constraints": constraints,
    "refusal": refusal,
    "empathy": empathy,
}
"""Name in a recipe -> factory; the part's options are the factory's arguments."""

NUMBERS = {int: "a whole number", float: "a number"}
Combine = Literal["mean", "min", "uncertainty"]


def asked_reward(reward: Any) -> RewardMix | Callable[..., Any] | None:
    """What a recipe's `reward:` may be, from Python or a command line.

    Args:
        reward: a function, a reward block or its mapping, or a part or several: a mapping, or a text, which is a rule's
            name, "file.py:function", the directory of a reward model, or a mapping in YAML.

    Raises:
        UserError: a text is none of these, or a mapping is no reward.
    """
    ready: RewardMix | Callable[..., Any] | None = reward
    if ready is None or callable(ready) or isinstance(ready, RewardMix):
        return ready
    given = [_part(one) for one in (reward if isinstance(reward, list | tuple) else [reward])]
    whole = given[0] if len(given) == 1 and isinstance(given[0], dict) and "parts" in given[0] else {"parts": given}
    return make_block(RewardMix, **whole)


def _part(given: Any) -> Any:
    """One rater of a reward; a text as the part it stands for."""
    if not isinstance(given, str) or given in RULE_NAMES:
        return given
    if given.lstrip().startswith("{"):
        return read_text(given, "reward").data
    if given.rpartition(":")[0].endswith(".py"):
        return {"name": "python", "path": given}
    if "\0" not in given and Path(given).is_dir():
        return {"name": "model", "path": given}
    if given.endswith(".py") and Path(given).is_file():
        raise UserError(f"reward: {given}: say which of its functions rates: {given}:FUNCTION")
    if "/" in given or given.endswith(".py"):
        raise UserError(
            f"reward: {given}: no such directory; a reward is a rule's name, file.py:function, or the directory of a "
            f"reward model{beside(Path(given))}"
        )
    if given not in REWARDS:
        raise UserError(f"reward: {given[:60]!a} is unknown" + suggestion(given, REWARDS))
    return given


def look_for_rewards(recipe: BaseModel) -> None:
    """See that the rewards of a recipe, or a block of one, are some, before anything is loaded that takes seconds.

    Raises:
        UserError: the first that is not, with its field.
    """
    for fault in reward_faults(recipe):
        raise UserError(fault)


def reward_faults(recipe: BaseModel) -> Iterator[str]:
    """What is wrong with a recipe's rewards, each with its field: functions that are not there, unknown options."""
    yield from missing_functions(recipe)
    for place, part in blocks_of(recipe):
        if isinstance(part, RewardPart) and part.name in REWARDS and part.name != "python":
            try:
                require_known_options(part)
            except UserError as error:
                yield ": ".join(text for text in (dotted(place), str(error)) if text)


def require_known_options(part: RewardPart) -> None:
    """See that a part's options are those of its reward.

    Raises:
        UserError: one is unknown, missing, or has a value that is not allowed.
    """
    if part.name in RULES:
        rule(part)
    elif part.name == "model":
        if unknown := set(part.options) - {"refused", "label"}:
            raise UserError(f"reward model: options.{min(unknown)}: unknown option; there are refused, label")
    elif part.name == "ensemble":
        read_members(part)
    elif part.name == "judge":
        make_block(Judging, path=part.path, **part.options)
    elif part.name == "decision":
        decision_question(part.options)


def rule(part: RewardPart) -> Reward:
    """A rule by its name.

    Raises:
        UserError: an unknown name or option (with the nearest), or a path.
    """
    if part.name not in RULES:
        raise UserError(f"reward: {part.name!r} is unknown{_nearest(part.name, REWARDS)}")
    if part.path is not None:
        raise UserError(f"reward {part.name}: path: is not used by this reward; remove it")
    return _from_options(part, RULES[part.name])


def _from_options(part: RewardPart, factory: Callable[..., Reward]) -> Reward:
    """Call a factory with a part's options, after a check of their names."""
    known = inspect.signature(factory).parameters
    for option in part.options:
        if option not in known:
            raise UserError(f"reward {part.name}: options.{option}: unknown option{_nearest(option, tuple(known))}")
    needed = [name for name, entry in known.items() if entry.default is inspect.Parameter.empty]
    missing = [name for name in needed if name not in part.options]
    if missing:
        raise UserError(f"reward {part.name}: options.{missing[0]}: is missing")
    options: dict[str, Any] = dict(part.options)
    for option, kind in get_type_hints(factory).items():
        value = options.get(option)
        if kind in NUMBERS and option in options and (not isinstance(value, int | kind) or isinstance(value, bool)):
            raise UserError(f"reward {part.name}: options.{option}: must be {NUMBERS[kind]}, not {value!r}")
    try:
        return factory(**options)
    except TypeError as fault:
        raise UserError(f"reward {part.name}: options {options}: {fault}") from fault


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f'; did you mean "{near[0]}"?'
    return f"; there are {', '.join(known)}" if known else "; this reward has none"


@dataclass(frozen=True)
class Members:
    """The options of an ensemble: where its reward models are, and how their scores become one."""

    paths: tuple[str, ...]
    combine: Combine
    penalty: float
    refused: bool


def read_members(part: RewardPart) -> Members:
    """The checked options of an ensemble.

    Raises:
        UserError: fewer than two paths, an unknown option, or a value that is not allowed.
    """
    known: dict[str, Any] = {"path": None, "combine": "mean", "penalty": 1.0, "refused": False}
    unknown = set(part.options) - set(known)
    if unknown:
        raise UserError(f"reward ensemble: options.{min(unknown)}: unknown option; there are {', '.join(known)}")
    paths, combine, penalty, refused = (known | part.options).values()
    if part.path is not None or not isinstance(paths, list | tuple) or len(paths) < 2:
        raise UserError("reward ensemble: options.path: must list the directories of at least two reward models")
    if combine not in get_args(Combine):
        raise UserError(f"reward ensemble: options.combine: must be mean, min or uncertainty, not {combine!r}")
    number = isinstance(penalty, int | float) and not isinstance(penalty, bool)
    if not number or not math.isfinite(penalty) or penalty < 0:
        raise UserError(f"reward ensemble: options.penalty: must be a number of at least 0, not {penalty!r}")
    if "penalty" in part.options and combine != "uncertainty":
        raise UserError("reward ensemble: options.penalty: is for combine: uncertainty; remove it")
    return Members(tuple(str(path) for path in paths), combine, float(penalty), bool(refused))
