"""Graded files: how many answers are right, how many could not be read, and what these could change."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt import statistics
from smolt.errors import UserError
from smolt.evaluation.grading.answer_table import AnswerTable, look, read_rows, text_of
from smolt.evaluation.grading.grade_rules import Grade, Rule, UnusableGold
from smolt.runs import atomic_write
from smolt.statistics import Measure

LOG = logging.getLogger(__name__)
ANSWERS = (
    *("pred", "prediction", "response", "completion", "output", "generated_text", "filtered_resps", "text", "answer"),
)
GOLDS = ("gold", "target", "reference_solution", "reference", "solution", "label", "answer")
IDENTITY = ("id", "question_id", "doc_id", "question", "prompt")
MANY = 0.05
"""The share of answers that could not be read above which the accuracy says little."""


@dataclass(frozen=True)
class Graded:
    """One file's answers, graded.

    Attributes:
        accuracy: with Wilson's interval (by question where questions repeat); answers that could not be read are wrong.
    """

    name: str
    rows: AnswerTable
    rule: Rule
    grades: list[Grade]
    accuracy: Measure
    answer_field: str
    gold_field: str

    @property
    def correct(self) -> int:
        """How many are right."""
        return sum(grade.correct for grade in self.grades)

    @property
    def unextracted(self) -> int:
        """How many could not be read."""
        return sum(grade.found is None for grade in self.grades)

    def facts(self) -> dict[str, Any]:
        """What `--json` prints of it; rates in 0..1."""
        n, same_text = len(self.grades), sum(grade.same_text for grade in self.grades)
        return {
            "n": n,
            "correct": self.correct,
            "accuracy": self.accuracy.value,
            "low": self.accuracy.low,
            "high": self.accuracy.high,
            "interval": self.accuracy.source,
            "unextracted": self.unextracted,
            "if_failures_wrong": self.correct / n,
            "if_failures_right": (self.correct + self.unextracted) / n,
            "string_correct": same_text,
            "string_accuracy": same_text / n,
            "rule": self.rule.name,
            "rule_version": self.rule.version,
            "answer_field": self.answer_field,
            "gold_field": self.gold_field,
            "sha256": self.rows.sha256,
        }

    def warnings(self) -> list[str]:
        """What a reader of the accuracy must know."""
        n = len(self.grades)
        if self.unextracted <= MANY * n:
            return []
        low, high = 100 * self.correct / n, 100 * (self.correct + self.unextracted) / n
        return [
            f"{self.name}: {self.unextracted:,} of {n:,} answers could not be read; the accuracy lies anywhere between "
            f"{low:.1f} % (all of them wrong) and {high:.1f} % (all right)"
        ]


def grade_file(
    path: Path, rule: Rule, answer_field: str | None = None, gold_field: str | None = None, name: str = ""
) -> Graded:
    """Grade every row of a file.

    Args:
        path: JSONL, JSON, CSV or Parquet.
        rule: how answers are read and compared.
        answer_field: the column of the answers; a place inside one as `resps.0.0`. Found by its name unless given.
        gold_field: the same for the gold answers.
        name: of the arm; the file's stem unless given.

    Raises:
        UserError: file or columns are missing, a row lacks one, or a gold answer holds nothing to compare with.
    """
    LOG.info("reading %s", path)
    table = read_rows(path)
    LOG.info("grading %d answers of %s", len(table.lines), path)
    answers = answer_field or _column(table, ANSWERS, "--answer-field", None)
    golds = gold_field or _column(table, GOLDS, "--gold-field", answers)
    grades = [grade_row(table, line, row, rule, (answers, golds)) for line, row in table.lines]
    accuracy = statistics.proportion([grade.correct for grade in grades], _prompts(table))
    if accuracy is None:
        raise UserError(f"{path}: holds no rows")
    return Graded(name or path.name.partition(".")[0], table, rule, grades, accuracy, answers, golds)


def write_graded(directory: Path, graded: Sequence[Graded]) -> list[Path]:
    """Write each file's rows with `pred`, `gold`, `correct`, `string_correct`, `rule`: what `smolt compare` reads.

    Raises:
        UserError: two files of one name, or a file of this name is there: nothing is written over.
    """
    paths = [directory / f"{entry.name}.jsonl" for entry in graded]
    for path in paths:
        if paths.count(path) > 1:
            raise UserError(f"{path}: two files would be written under this name; rename one")
        if path.exists():
            raise UserError(f"{path}: is there already and is not written over; name another --out")
    directory.mkdir(parents=True, exist_ok=True)
    for path, entry in zip(paths, graded, strict=True):
        lines = [_line(row, grade, entry.rule) for (_, row), grade in zip(entry.rows.lines, entry.grades, strict=True)]
        atomic_write(path, "".join(lines))
    return paths


def _line(row: dict[str, Any], grade: Grade, rule: Rule) -> str:
    verdict = {"pred": grade.found, "gold": grade.gold, "correct": grade.correct, "string_correct": grade.same_text}
    text = json.dumps({**row, **verdict, "rule": rule.version}, ensure_ascii=False, default=str)
    return text.encode("utf-8", "backslashreplace").decode() + "\n"


def _column(table: AnswerTable, names: Sequence[str], option: str, taken: str | None) -> str:
    found = next((name for name in names if name != taken and name in table.lines[0][1]), None)
    if found is None:
        raise UserError(f"{table.name}: no column of a usual name ({table.columns()}); name it with {option}")
    return found


def grade_row(table: AnswerTable, line: int, row: dict[str, Any], rule: Rule, fields: tuple[str, str]) -> Grade:
    """One row's answer against its gold answer, in the columns `fields`.

    Raises:
        UserError: one of them is missing or holds no text, or the gold answer nothing to compare with.
    """
    texts = []
    for field in fields:
        try:
            text = text_of(look(row, field))
        except KeyError:
            names = ", ".join(str(name)[:60] for name in list(row)[:20]) or "no columns"
            raise UserError(f"{table.name}:{line}: {field}: is missing; the row has {names}") from None
        if text is None:
            raise UserError(f"{table.name}:{line}: {field}: is neither text nor a number")
        texts.append(text)
    try:
        return rule.judge(*texts)
    except UnusableGold as problem:
        raise UserError(f"{table.name}:{line}: {fields[1]}: {problem} (rule {rule.name}); see --rule") from None


def _prompts(table: AnswerTable) -> list[str] | None:
    """What each row answers, where the rows say it."""
    field = next((name for name in IDENTITY if all(row.get(name) is not None for _, row in table.lines)), None)
    return None if field is None else [json.dumps(row[field], default=str) for _, row in table.lines]
