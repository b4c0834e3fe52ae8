"""Records as JSON lines that smolt, and others, read back: prompt/chosen/rejected, prompt/completion, question/answer.

A file is replaced as a whole: after a crash it holds all of the old rows or all of the new ones.
"""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from smolt.data.nouns import Context, Demonstration, Preference, Question, as_messages
from smolt.runs import jsontext
from smolt.runs.storage import append, atomic_stream, sync


def write_preferences(path: Path | str, preferences: Iterable[Preference]) -> None:
    """Write `prompt`, `chosen`, `rejected` and, where it is not 1, `weight`.

    Raises:
        StorageError: The disk is full or failing; the old file is intact.
    """
    write_rows(path, (preference_row(preference) for preference in preferences))


def write_demonstrations(path: Path | str, demonstrations: Iterable[Demonstration]) -> None:
    """Write `prompt` and `completion`; plain text has the empty list as its prompt.

    Raises:
        StorageError: The disk is full or failing; the old file is intact.
    """
    write_rows(path, ({"prompt": _prompt(one.context), "completion": one.answer} for one in demonstrations))


def write_questions(path: Path | str, questions: Iterable[Question]) -> None:
    """Write `question`, `id`, `kind` and, where there is a solution, GSM8K's `answer` "#### solution".

    Questions without solutions are read back when no question of the file has one.

    Raises:
        StorageError: The disk is full or failing; the old file is intact.
    """
    write_rows(path, (_question(question) for question in questions))


def write_rows(path: Path | str, rows: Iterable[Mapping[str, object]]) -> None:
    """Write JSON objects, one a line, replacing the file as a whole.

    Raises:
        StorageError: The disk is full or failing; the old file is intact.
    """
    atomic_stream(Path(path), (jsontext.encode(row, Path(path).name).encode() + b"\n" for row in rows))


def append_rows(path: Path | str, rows: Iterable[Mapping[str, object]]) -> None:
    """Add JSON objects, one a line, at the end of a file, all of them or none; a file that is not there is made.

    Raises:
        StorageError: The disk is full or failing; what was in the file is intact.
    """
    path = Path(path)
    lines = b"".join(jsontext.encode(row, path.name).encode() + b"\n" for row in rows)
    if path.exists() and path.stat().st_size:
        with path.open("rb") as file:
            file.seek(-1, os.SEEK_END)
            lines = lines if file.read() == b"\n" else b"\n" + lines
    append(path, lines)
    sync(path)


def preference_row(preference: Preference) -> dict[str, object]:
    """`prompt`, `chosen`, `rejected` and, where it is not 1, `weight`."""
    row: dict[str, object] = {
        "prompt": _prompt(preference.context),
        "chosen": preference.chosen,
        "rejected": preference.rejected,
    }
    return row if preference.weight == 1.0 else {**row, "weight": preference.weight}


def _question(question: Question) -> dict[str, object]:
    row: dict[str, object] = {"id": question.id, "kind": question.kind, "question": _prompt(question.context)}
    return row if question.solution is None else {**row, "answer": f"#### {question.solution}"}


def _prompt(context: Context) -> str | list[dict[str, str]]:
    """Text for a single question, messages for anything else and for text that looks like a whole HH dialogue."""
    if len(context) == 1 and context[0].role == "user" and not context[0].content.startswith("\n\n"):
        return context[0].content
    return as_messages(context)
