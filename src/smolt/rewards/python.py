"""A reward written by the user: a plain Python function. Its faults make answers abstain, never 0 (trap 22)."""

import importlib.util
import inspect
import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsFloat

from smolt.data import Answer, Question, Score
from smolt.errors import UserError
from smolt.rewards.rules import Reward

TOLERANCE = 0.2
"""The share of a batch that may abstain; more of it is a broken reward, not bad luck."""

BATCH_NAMES = ("questions", "answers")


def python_reward(source: str | Callable[..., Any], options: Mapping[str, Any] = MappingProxyType({})) -> Reward:
    """Wrap a function into a reward.

    Per item, `reward(question, answer)` returns a number, a Score, None (abstain), or a dict of named parts: its
    value is their sum, or its entry "value" when it has one. A function whose first parameters are named
    `questions, answers` is called once per batch and returns a list of these, one per answer.

    A function that raises, or returns None, NaN, text or the wrong count, makes the answer (or the batch) abstain with
    the reason.

    Args:
        source: the function, or "file.py:function".
        options: passed on as keyword arguments.

    Raises:
        UserError: now, when the function cannot be found or called; later, from the reward, when more than 20 % of a
            batch abstains, with the first fault's place.
    """
    function = load_function(source, "reward python") if isinstance(source, str) else source
    name = source if isinstance(source, str) else _name(source)
    whole_batch = _takes_batch(function, name, options)

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        if whole_batch:
            scores = _batch(function, questions, answers, options)
        else:
            pairs = zip(questions, answers, strict=True)
            scores = [_attempt(function, (question, answer), options) for question, answer in pairs]
        faults = [score.reason for score in scores if score.value is None]
        if len(faults) > TOLERANCE * len(answers):
            raise UserError(
                f"reward {name}: {len(faults)} of {len(answers)} answers got no score (at most {TOLERANCE:.0%} may); "
                f"the first: {faults[0]}"
            )
        return scores

    return reward


def _name(function: Callable[..., Any]) -> str:
    return function.__name__ if inspect.isfunction(function) else type(function).__name__


def load_function(source: str, what: str) -> Callable[..., Any]:
    """The function named by "file.py:function"; `what` begins the messages.

    Raises:
        UserError: the file cannot be loaded or has no such function.
    """
    file, _, name = source.rpartition(":")
    path = Path(file)
    if not file.endswith(".py") or not name.isidentifier():
        raise UserError(f'{what}: path: {source!r} is not of the form "file.py:function"')
    if not path.is_file():
        raise UserError(f"{what}: path: {file}: no such file")
    spec = importlib.util.spec_from_file_location(f"smolt_reward_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{what}: path: {file}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as fault:  # the user's file may raise anything while it is loaded
        raise UserError(f"{what}: {file} cannot be loaded: {place_of(fault)}") from fault
    function = vars(module).get(name)
    if not callable(function):
        there = ", ".join(key for key, value in vars(module).items() if inspect.isfunction(value)) or "none"
        raise UserError(f"{what}: {file}: there is no function {name!r}; it has {there}")
    found: Callable[..., Any] = function
    return found


def called(function: Callable[..., Any], arguments: tuple[Any, ...], what: str) -> Any:
    """What a user's function returns where no abstention is possible; `what` begins the message.

    Raises:
        UserError: it raised, with the place of the fault.
    """
    try:
        return function(*arguments)
    except (Exception, SystemExit) as fault:  # somebody else's function: whatever it raises is said with its place
        raise UserError(f"{what}: {place_of(fault)}") from fault


def _takes_batch(function: Callable[..., Any], name: str, options: Mapping[str, Any]) -> bool:
    """Whether the function's first two parameters are named for a batch; it must accept the call at all."""
    try:
        signature = inspect.signature(function)
    except ValueError:  # some built-in functions have none
        return False
    try:
        signature.bind(None, None, **options)
    except TypeError as fault:
        raise UserError(f"reward {name}: must accept (question, answer, {', '.join(options)}): {fault}") from fault
    return tuple(signature.parameters)[:2] == BATCH_NAMES


def _attempt(function: Callable[..., Any], arguments: tuple[Any, Any], options: Mapping[str, Any]) -> Score:
    """One score, or an abstention with the fault."""
    try:
        return _score(function(*arguments, **options))
    except (Exception, SystemExit) as fault:  # somebody else's function: whatever it raises is recorded
        return Score(None, reason=place_of(fault))


def _batch(
    function: Callable[..., Any], questions: Sequence[Question], answers: Sequence[Answer], options: Mapping[str, Any]
) -> list[Score]:
    try:
        results = list(function(questions, answers, **options))
    except (Exception, SystemExit) as fault:  # as in _attempt
        return [Score(None, reason=place_of(fault))] * len(answers)
    if len(results) != len(answers):
        return [Score(None, reason=f"returned {len(results)} scores for {len(answers)} answers")] * len(answers)
    return [_attempt(lambda result, _: result, (result, None), {}) for result in results]


def _score(result: Any) -> Score:
    """A Score from what a reward function returned; what cannot be one abstains."""
    if isinstance(result, Score):
        return _finite(result)
    if result is None:
        return Score(None, reason="returned None")
    if isinstance(result, Mapping):
        parts = {str(key): _number(value) for key, value in result.items()}
        value = parts.pop("value") if "value" in parts else math.fsum(parts.values())
        return _finite(Score(value, dict(parts)))
    return _finite(Score(_number(result)))


def _number(value: Any) -> float:
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"returned {type(value).__name__} {str(value)[:40]!r}, not a number")
    return float(value)


def _finite(score: Score) -> Score:
    if score.value is not None and not math.isfinite(score.value):
        return Score(None, score.components, f"returned {score.value}")
    return score


def place_of(fault: BaseException) -> str:
    """`file.py:12 in reward: ZeroDivisionError: division by zero`, the innermost frame outside smolt's own file."""
    frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if frame.filename != __file__]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}: " if frames else ""
    return f"{place}{type(fault).__name__}: {fault}"
