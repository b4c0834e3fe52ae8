"""What can be measured, and a prepared measurement.

A Task names the records it needs, who rates the answers, and where its data come from; a Subject is a task with a
model and data: so many records, the work on them chunk by chunk, and the numbers.
"""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from smolt.data import Question, Turn
from smolt.data.problems import Split, generate
from smolt.errors import UserError
from smolt.report.panels import Panel
from smolt.runs.chunks import Work
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure

PROBLEMS = "problems"
DEFAULT = "answers"


@dataclass(frozen=True)
class Task:
    """One thing to measure.

    Attributes:
        name: as on the command line.
        records: what its data must give.
        rules: who rates, besides what the user asks for.
        home: the hub data set it is measured on unless told otherwise; "" where there is none.
        split: of that data set.
    """

    name: str
    records: Literal["questions", "preferences", "demonstrations", "decisions"]
    rules: tuple[str, ...] = ()
    home: str = ""
    split: str | None = None


@dataclass(frozen=True)
class Subject:
    """A prepared measurement.

    Attributes:
        total: records to work on.
        chunk: records done together.
        sha256: of the data.
        too_long: records left out because they exceed the model's window.
        facts: what the manifest records of how it is measured; part of the identity.
        open_work: loads the model, and gives what makes the rows of some records.
        measures: from all rows to numbers that a report does not find by itself.
        notes: what a reader of the numbers must know.
        items: from all rows to the answers of a report; none where nothing was answered.
        panels: from all rows to further findings.
    """

    total: int
    chunk: int
    sha256: str
    too_long: int
    facts: dict[str, Any]
    open_work: Callable[[], Work]
    measures: Callable[[list[dict[str, Any]]], dict[str, Measure]]
    notes: Sequence[str] = ()
    items: Callable[[list[dict[str, Any]]], list[RatedAnswer]] = lambda rows: []
    panels: Callable[[list[dict[str, Any]]], list[Panel]] = lambda rows: []


TASKS = {
    task.name: task
    for task in (
        Task(DEFAULT, "questions"),
        Task("gsm8k", "questions", ("gsm8k",), "openai/gsm8k:main", "test"),
        Task("svamp", "questions", ("gsm8k",), "ChilleD/SVAMP", "test"),
        Task(PROBLEMS, "questions", ("gsm8k",)),
        Task("preferences", "preferences"),
        Task("loss", "demonstrations"),
        Task("decisions", "decisions"),
    )
}
"""Name -> task."""


def find_task(name: str) -> Task:
    """The task of a name.

    Raises:
        UserError: there is none.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(TASKS)}"
        raise UserError(f"task: {name!r} is unknown; {hint}")
    return TASKS[name]


def problem_questions(seed: int, count: int, split: Split) -> list[Question]:
    """Generated word problems as questions; the ids are those of the files a study writes."""
    return [
        Question((Turn("user", problem.question),), problem.solution, f"{split}-{place:05d}", problem.kind)
        for place, problem in enumerate(generate(seed, count, split))
    ]
