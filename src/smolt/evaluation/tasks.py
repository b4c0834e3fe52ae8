"""What can be measured: a task names the records it needs, who rates the answers, and where its data come from."""

import difflib
from dataclasses import dataclass
from typing import Literal

from smolt.data import Question, Turn
from smolt.data.problems import Split, generate
from smolt.errors import UserError

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
    records: Literal["questions", "preferences", "demonstrations"]
    rules: tuple[str, ...] = ()
    home: str = ""
    split: str | None = None


TASKS = {
    task.name: task
    for task in (
        Task(DEFAULT, "questions"),
        Task("gsm8k", "questions", ("gsm8k",), "openai/gsm8k:main", "test"),
        Task("svamp", "questions", ("gsm8k",), "ChilleD/SVAMP", "test"),
        Task(PROBLEMS, "questions", ("gsm8k",)),
        Task("preferences", "preferences"),
        Task("loss", "demonstrations"),
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
