"""A reward written by the user: a plain Python function. Its faults make answers abstain, never 0 (trap 22).

One that a recipe names by its file runs in a process of its own (`smolt.rewards.worker`); one that was handed over in
memory runs where it is.
"""

import ast
import importlib.util
import inspect
import math
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsFloat

from pydantic import BaseModel

from smolt import processes
from smolt.config.blocks import ANSWER_SECONDS
from smolt.config.complaints import beside, nearest
from smolt.config.yaml_reader import KeyPath, dotted
from smolt.data import Answer, Question, Score, Turn
from smolt.errors import UserError
from smolt.rewards.rules import Reward
from smolt.rewards.worker import MODULE, Died, Worker, serve

TOLERANCE = 0.2
"""The share of a batch that may abstain; more of it is a broken reward, not bad luck."""

LARGEST = 1e12
"""The size of a reward: the squares of larger ones do not fit into fp32."""

PROGRAM = "from smolt.rewards.python import answer_requests; answer_requests()"

Rate = Callable[[Sequence[Question], Sequence[Answer]], Iterable[Score]]
"""The scores of some answers."""

BATCH_NAMES = ("questions", "answers")


def python_reward(
    source: str | Callable[..., Any], options: Mapping[str, Any] = MappingProxyType({}), seconds: float = ANSWER_SECONDS
) -> Reward:
    """Wrap a function into a reward.

    Per item, `reward(question, answer)` returns a number, a Score, None (abstain), or a dict of named parts: its
    value is their sum, or its entry "value" when it has one. A function whose first parameters are named
    `questions, answers` is called once per batch and returns a list of these, one per answer.

    A function that raises, or returns None, NaN, text or the wrong count, makes the answer (or the batch) abstain with
    the reason; so does one of a file that hangs, ends its process or is ended by the system.

    Of several processes each calls it for its share of the answers; a batch is the first one's.

    Args:
        source: the function, or "file.py:function".
        options: passed on as keyword arguments.
        seconds: of a file's function: an answer that takes longer abstains.

    Raises:
        UserError: now, when the function cannot be found or called; later, from the reward, when more than 20 % of a
            batch abstains, with the first fault's place.
    """
    name = source if isinstance(source, str) else _name(source)
    if isinstance(source, str):
        rate, whole_batch = _apart(source, options, seconds)
    else:
        whole_batch = _takes_batch(source, name, options)
        rate = partial(_here, source, whole_batch, options)

    def reward(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        if whole_batch:
            scores = processes.by_first(lambda: list(rate(questions, answers)))
        else:
            own = processes.share(questions), processes.share(answers)
            with processes.alone():
                rated = list(rate(*own))
            scores = processes.together(rated)
        faults = [score.reason for score in scores if score.value is None]
        if len(faults) > TOLERANCE * len(answers):
            raise UserError(
                f"reward {name}: {len(faults)} of {len(answers)} answers got no score (at most {TOLERANCE:.0%} may); "
                f"the first: {faults[0]}"
            )
        return scores

    return reward


def _here(
    function: Callable[..., Any],
    whole_batch: bool,
    options: Mapping[str, Any],
    questions: Sequence[Question],
    answers: Sequence[Answer],
) -> Iterator[Score]:
    """The scores of a function, in this process."""
    if whole_batch:
        yield from _batch(function, questions, answers, options)
        return
    for question, answer in zip(questions, answers, strict=True):
        yield _attempt(function, (question, answer), options)


def _apart(source: str, options: Mapping[str, Any], seconds: float) -> tuple[Rate, bool]:
    """The same of a file's function, in a process of its own, and whether it takes a batch at once.

    After a death the answers that follow are tried.
    """
    worker = Worker(PROGRAM, {"kind": "reward", "what": "reward python", "source": source, "options": dict(options)})
    whole_batch: bool = worker.facts["whole_batch"]

    def rate(questions: Sequence[Question], answers: Sequence[Answer]) -> list[Score]:
        scores: list[Score] = []
        deaths = 0
        while len(scores) < len(answers):
            rest = slice(len(scores), None)
            request = {"questions": list(map(asdict, questions[rest])), "answers": list(map(asdict, answers[rest]))}
            count = len(answers) - len(scores)
            limits = [seconds * count, *[seconds] * (count - 1)] if whole_batch else [seconds] * count
            try:
                scores += (Score(*part) for part in worker.replies(request, limits))
            except Died as died:
                deaths += 1
                lost = count if whole_batch else 1
                hopeless = deaths > TOLERANCE * len(answers)
                scores += [Score(None, reason=str(died))] * (count if hopeless else lost)
        return scores

    return rate, whole_batch


def loaded(opening: Mapping[str, Any]) -> tuple[dict[str, Any], Callable[[Any], Iterator[Any]]]:
    """In the process of a function: what there is to know of it, and how it answers a request.

    Raises:
        UserError: there is no such function, or it cannot be called.
    """
    function = load_function(opening["source"], opening["what"])
    if opening["kind"] == "rule":
        return {}, lambda request: iter([_ruled(function, request)])
    options = opening["options"]
    whole_batch = _takes_batch(function, opening["source"], options)

    def answered(request: Any) -> Iterator[Any]:
        questions = [
            Question(**{**row, "context": tuple(Turn(**turn) for turn in row["context"])})
            for row in request["questions"]
        ]
        answers = [Answer(**row) for row in request["answers"]]
        for score in _here(function, whole_batch, options, questions, answers):
            yield [score.value, score.components, score.reason]

    return {"whole_batch": whole_batch}, answered


def answer_requests() -> None:
    """The main program of a function's process."""
    serve(loaded)


def python_rule(source: str) -> Callable[[str, str], Any]:
    """A file's `function(answer, gold)`, in a process of its own.

    Raises:
        UserError: now, when it cannot be found; later, when it raises, hangs, or ends its process.
    """
    worker = Worker(PROGRAM, {"kind": "rule", "what": "rule", "source": source})

    def rule(answer: str, gold: str) -> Any:
        try:
            (reply,) = worker.replies([answer, gold], [ANSWER_SECONDS])
        except Died as died:
            raise UserError(f"rule: {source}: {died}") from None
        if "fault" in reply:
            raise UserError(f"rule: {source}: {reply['fault']}")
        return reply["value"]

    return rule


def _ruled(function: Callable[..., Any], arguments: Sequence[str]) -> dict[str, Any]:
    try:
        result = function(*arguments)
    except (Exception, SystemExit) as fault:  # as in _attempt
        return {"fault": place_of(fault)}
    if result is None or isinstance(result, bool):
        return {"value": result}
    return {"fault": f"returned {result!r:.60}; True, False or None (not extracted) is needed"}


def _name(function: Callable[..., Any]) -> str:
    return function.__name__ if inspect.isfunction(function) else type(function).__name__


def load_function(source: str, what: str) -> Callable[..., Any]:
    """The function named by "file.py:function"; `what` begins the messages.

    Raises:
        UserError: the file cannot be loaded or has no such function.
    """
    path, name = _split(source, what)
    file = str(path)
    spec = importlib.util.spec_from_file_location(f"{MODULE}{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{what}: path: {file}: cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as fault:  # the user's file may raise anything while it is loaded
        raise UserError(f"{what}: {file} cannot be loaded: {place_of(fault)}") from fault
    function = vars(module).get(name)
    if not callable(function):
        there = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        raise UserError(_no_function(what, path, name, there))
    found: Callable[..., Any] = function
    return found


def missing_functions(recipe: BaseModel) -> Iterator[str]:
    """What is wrong with each python part of a recipe, or a block of one: no such function, or no such argument of it.

    The file is parsed, not run.
    """
    for place, source, options in _functions_of(recipe.model_dump(), ()):
        if "{" not in source:
            try:
                _look_for(source, options, ": ".join(part for part in (dotted(place), "reward python") if part))
            except UserError as error:
                yield str(error)


def _functions_of(value: Any, place: KeyPath) -> Iterator[tuple[KeyPath, str, list[str]]]:
    """Where each python part stands, its path and the names of its options; a section goes by its name."""
    if isinstance(value, dict):
        if value.get("name") == "python" and isinstance(value.get("path"), str):
            yield place, value["path"], list(value.get("options") or {})
        for key, item in value.items():
            yield from _functions_of(item, place if key in ("sections", "recipe", "parts") else (*place, key))
    elif isinstance(value, list | tuple):
        for item in value:
            is_section = isinstance(item, dict) and "recipe" in item
            yield from _functions_of(item, (*place, item["name"]) if is_section else place)


def _look_for(source: str, options: Sequence[str], what: str) -> None:
    file, name = _split(source, what)
    try:
        tree = ast.parse(file.read_bytes(), file.name)
    except (SyntaxError, ValueError) as fault:  # a zero byte is a ValueError
        raise UserError(f"{what}: {file}: is not valid Python: {fault}") from None
    made = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    bound = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    taken = {
        (entry.asname or entry.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for entry in node.names
    }
    if name not in made | bound | taken and "*" not in taken:
        raise UserError(_no_function(what, file, name, sorted(made)))
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == name and not node.decorator_list and not node.args.kwarg:
            given = *node.args.posonlyargs, *node.args.args
            known = [entry.arg for entry in (*given[2:], *node.args.kwonlyargs)]
            for option in options:
                if option not in known:
                    raise UserError(f"{what}: {source}: options.{option}: the function takes no such argument")


def _no_function(what: str, file: Path, name: str, there: Sequence[str]) -> str:
    close = nearest(name, there)
    hint = f'did you mean "{close}"?' if close else f"it has {', '.join(there) or 'none'}"
    return f"{what}: {file}: there is no function {name!r}; {hint}"


def _split(source: str, what: str) -> tuple[Path, str]:
    """File and name of "file.py:function".

    Raises:
        UserError: it is not of that form, or there is no such file.
    """
    file, _, name = source.rpartition(":")
    if not file.endswith(".py") or not name.isidentifier():
        raise UserError(f'{what}: path: {source!r} is not of the form "file.py:function"')
    if not Path(file).is_file():
        raise UserError(f"{what}: path: {file}: no such file{beside(Path(file))}")
    return Path(file), name


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
    if score.value is not None and not abs(score.value) <= LARGEST:
        return Score(None, score.components, f"returned {score.value}; a reward is a number up to {LARGEST:g}")
    return score


def place_of(fault: BaseException) -> str:
    """`file.py:12 in reward: ZeroDivisionError: division by zero`, the innermost frame outside smolt's own file."""
    frames = [frame for frame in traceback.extract_tb(fault.__traceback__) if frame.filename != __file__]
    place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno} in {frames[-1].name}: " if frames else ""
    return f"{place}{type(fault).__name__}: {fault}"
