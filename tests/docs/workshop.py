"""A folder in which the commands and programs of the documentation can run: a tiny model and data of every kind."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.tiny import tiny_model

ROOT = Path(__file__).resolve().parents[2]
README = ROOT / "README.md"
PAGES = sorted(
    [
        README,
        ROOT / "AGENTS.md",
        ROOT / "CHANGELOG.md",
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "bench" / "results").glob("*.md"),
    ]
)
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fenced:
    """A fenced block of a page: its language, its text and its line."""

    page: str
    line: int
    language: str
    text: str


def named(page: Path) -> str:
    """A page's path in the repository: two folders hold a README.md."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Fenced]:
    """The fenced blocks of one language on a page."""
    text = page.read_text(encoding="utf-8")
    return [
        Fenced(named(page), text.count("\n", 0, found.start()) + 1, found[1], found[2])
        for found in _FENCE.finditer(text)
        if found[1] == language
    ]


def table(page: Path, header: str) -> list[list[str]]:
    """The cells of the table whose header row begins with `header`, code marks removed."""
    lines = iter(page.read_text(encoding="utf-8").splitlines())
    for line in lines:
        if line.startswith(f"| {header} |"):
            return list(_rows(lines))
    raise AssertionError(f"{named(page)} has no table that begins with {header}")


def _rows(lines: Iterator[str]) -> Iterator[list[str]]:
    for line in lines:
        if not line.startswith("|"):
            return
        if not line.startswith("|---"):
            yield [cell.strip().strip("`") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def furnish(folder: Path) -> Path:
    """Tiny models `my-model` and `my-teacher`, and for each kind of record a file of that name, 24 rows each."""
    tiny_model(folder / "my-model")
    tiny_model(folder / "my-teacher", seed=1)
    rows = [{"question": f"What is {n} + 1?", "answer": f"{n} + 1 = {n + 1}\n#### {n + 1}"} for n in range(1, 25)]
    pairs = [{"prompt": row["question"], "chosen": row["answer"], "rejected": "No."} for row in rows]
    shown = [{"prompt": row["question"], "completion": row["answer"]} for row in rows]
    _write(folder / "questions.jsonl", rows)
    asked = {"right": {"type": "noul", "instructions": "Right?"}}
    _write(
        folder / "decisions.jsonl",
        [{"state": f"{n} + 1 = {n + n % 2}", "questions": asked, "expected": {"right": n % 2 == 1}} for n in range(24)],
    )
    _write(folder / "preferences.jsonl", pairs)
    _write(folder / "demonstrations.jsonl", shown)
    answers = [
        (row, pair, "chosen" if n % 2 else "rejected") for n, (row, pair) in enumerate(zip(rows, pairs, strict=True))
    ]
    _write(
        folder / "feedback.jsonl",
        [
            {"prompt": row["question"], "completion": pair[side], "label": side == "chosen"}
            for row, pair, side in answers
        ],
    )
    _write(folder / "text.jsonl", [{"text": "\n".join(row.values())} for row in rows])
    return folder


def _write(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
