"""A file's rows as values with their keys: smolt's own rows, lm-evaluation-harness' logged samples, or plain rows."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smolt.data.numbers import parse_number
from smolt.errors import UserError
from smolt.evaluation.grading import Rule, rule_named
from smolt.evaluation.grading.answer_table import AnswerTable, look, read_rows, text_of
from smolt.evaluation.grading.graded import grade_row
from smolt.report.pairing import has_range
from smolt.runs import inventory
from smolt.runs.rated_answers import is_rated_answer

IDS = ("id", "question_id", "doc_id", "uid", "idx", "index")
QUESTIONS = ("question", "prompt", "input", "query", "problem", "ctx", "text")
CORRECT = ("correct", "is_correct")
WRITTEN = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
"""How tables without types (CSV) write right and wrong."""

PREDICTIONS = ("pred", "prediction", "filtered_resps")
GOLDS = ("gold", "target")
SCORES = ("score", "reward", "value")
PAIRS = ("correct", "score", "chosen_tokens", "rejected_tokens")
"""What each row of smolt's evaluation of pairs has."""

MARGIN = "margin"
"""The evaluation's own name for the mean of its rows' `score`."""

LENGTH = "length"
"""Its name for the mean of their `tokens`."""

INNER = (".jsonl", ".json", ".csv", ".tsv")
"""Endings before that of a packed file."""

HARNESS = (
    *("exact_match", "acc", "acc_norm", "acc_mutual_info", "f1", "pass@1", "prompt_level_strict_acc"),
    *("mc1", "mc2", "bleu_acc", "likelihood_diff", "word_perplexity"),
)
"""Metrics that lm-evaluation-harness writes into a row; newer versions list theirs under `metrics`."""


@dataclass(frozen=True)
class ItemResult:
    """One row.

    Attributes:
        keys: what may identify its item: id, question.
        value: right 1, wrong 0, or a score.
        hash: of the item's content, where the tool wrote one.
    """

    line: int
    keys: dict[str, str]
    value: float
    answer: str = ""
    hash: str = ""


@dataclass(frozen=True)
class ArmResults:
    """One file.

    Attributes:
        metric: accuracy where rows say right or wrong, else the name of the column.
        rate: all values are 0 or 1, and no reward model's scores.
        bounded: the values may come from a range; a reward model's scores do not.
        skipped: rows without a value, left out because the user asked for what is there.
        updates: an item has answers of several updates of a training, and items need not have equally many.
        pairs: its rows are pairs of answers, as smolt's own evaluation of preferences writes them.
        remarks: what a reader should know of how it was read.
    """

    name: str
    file: str
    rows: list[ItemResult]
    metric: str
    rate: bool
    sha256: str
    skipped: int = 0
    updates: bool = False
    bounded: bool = True
    pairs: bool = False
    remarks: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Reading:
    """How the user wants files to be read.

    Attributes:
        metric: the column of the value; found unless given.
        rule: grades pred against gold where rows are not graded.
        filter: of lm-evaluation-harness.
        key: the column that identifies an item; found unless given.
        lenient: leave rows without a value out.
    """

    metric: str | None = None
    rule: str | None = None
    filter: str | None = None
    key: str | None = None
    lenient: bool = False


def read_results(path: Path, reading: Reading, name: str) -> ArmResults:
    """Read one file.

    Raises:
        UserError: the file cannot be read, says nothing of right, wrong or a score, or a row is at fault; the message
            names the row and the fix.
        StorageError: it is a finished run's, and not as it was written.
    """
    inventory.require_file(path)
    table = read_rows(path)
    lines, remarks = _filtered(table, reading.filter)
    lines = _chosen(lines, remarks)
    metric, read = _measured(table, lines, reading, remarks)
    rows, skipped = [], 0
    for number, row in lines:
        value = read(number, row)
        if value is None:
            skipped += 1
            continue
        rows.append(ItemResult(number, _keys(row, reading.key), value, _answer(row), str(row.get("doc_hash") or "")))
    if skipped and not reading.lenient:
        raise UserError(
            f"{table.name}: {metric}: is null in {skipped:,} of {len(lines):,} rows; grade them (smolt grade), name "
            "another column with --metric, or leave such items out with --intersect"
        )
    if not rows:
        raise UserError(f"{table.name}: {metric}: is null in every row")
    parts = {part for _, row in lines if is_rated_answer(row) for part in row.get("components") or ()}
    bounded = has_range(metric.removeprefix("components."), parts)
    return ArmResults(
        name=name,
        file=table.name,
        rows=rows,
        metric=metric,
        rate=bounded and all(result.value in (0.0, 1.0) for result in rows),
        sha256=table.sha256,
        skipped=skipped,
        updates=_of_updates(lines),
        bounded=bounded,
        pairs=all(_is_pair(row) for _, row in lines),
        remarks=remarks,
    )


def arm_names(paths: Sequence[Path]) -> list[str]:
    """A name for each file: its stem, with its directory where stems repeat, with a number where that repeats too."""
    stems = [_stem(path) for path in paths]
    if len(set(stems)) < len(stems):
        stems = [f"{path.resolve().parent.name}/{stem}" for path, stem in zip(paths, stems, strict=True)]
    return [
        stem if stems.count(stem) == 1 else f"{stem} ({stems[:place].count(stem) + 1})"
        for place, stem in enumerate(stems)
    ]


def _stem(path: Path) -> str:
    """A file's name without its endings; a dot of a number, as in `dpo-0.1.jsonl`, belongs to the name."""
    if path.is_dir() or not path.suffix:
        return path.name
    inner = path.with_suffix("")
    return inner.stem if inner.suffix in INNER else inner.name


Lines = list[tuple[int, dict[str, Any]]]
Reader = Callable[[int, dict[str, Any]], float | None]


def _filtered(table: AnswerTable, wanted: str | None) -> tuple[Lines, list[str]]:
    """The rows of one filter of lm-evaluation-harness, which writes every item once for each; others have none."""
    answered: dict[tuple[str, str], tuple[int, Any]] = {}
    for number, row in table.lines:
        if "filter" not in row and {"doc_id", "resps", "filtered_resps"} <= row.keys():
            key = _identity(row["doc_id"]), _identity(row["resps"])
            line, seen = answered.setdefault(key, (number, row["filtered_resps"]))
            if seen != row["filtered_resps"]:
                raise UserError(
                    f"{table.name}:{number}: filtered_resps: differs from line {line}, which has the same doc_id and "
                    "resps: the log holds every item once for each of several filters and does not name them; keep the "
                    "rows of one filter, or write the log with a newer lm-evaluation-harness"
                )
    found = list(dict.fromkeys(str(row["filter"]) for _, row in table.lines if "filter" in row and "doc_id" in row))
    if not found or (wanted is None and len(found) == 1):
        return table.lines, []
    if wanted is None or wanted not in found:
        known = ", ".join(found)
        given = "" if wanted is None else f"; there is no {wanted!r}"
        raise UserError(f"{table.name}: filter: its rows are by the filters {known}{given}; name one with --filter")
    return [(number, row) for number, row in table.lines if str(row.get("filter")) == wanted], [f"filter {wanted}"]


def _chosen(lines: Lines, remarks: list[str]) -> Lines:
    """Of the candidates of best-of-n those that were chosen: they are what the arm answers."""
    if not all(is_rated_answer(row) for _, row in lines):
        return lines
    chosen = [(number, row) for number, row in lines if row.get("chosen") is True]
    if chosen and len(chosen) < len(lines):
        remarks.append(f"of {len(lines):,} candidates the {len(chosen):,} chosen ones count")
    return chosen or lines


def _of_updates(lines: Lines) -> bool:
    """Whether a question's answers were drawn in several updates of a training: a measurement asks it in one step."""
    steps: dict[str, set[Any]] = {}
    for _, row in lines:
        if is_rated_answer(row):
            steps.setdefault(row["question_id"] or row["question"], set()).add(row.get("step"))
    return any(len(found) > 1 for found in steps.values())


def _measured(table: AnswerTable, lines: Lines, reading: Reading, remarks: list[str]) -> tuple[str, Reader]:
    """The metric of a file, and how to read it from a row."""
    first = lines[0][1]
    if reading.metric is not None:
        own = reading.metric == MARGIN and MARGIN not in first and _is_pair(first)
        counted = reading.metric == LENGTH and LENGTH not in first and "tokens" in first
        return reading.metric, _number(table, "score" if own else "tokens" if counted else reading.metric)
    if reading.rule is None:
        correct = next((name for name in CORRECT if any(row.get(name) is not None for _, row in lines)), None)
        if correct is not None:
            return "accuracy", _flag(table, correct)
        harness = _harness_metrics(table, first)
        if len(harness) == 1:
            return harness[0], _number(table, harness[0])
        if harness:
            raise UserError(f"{table.name}: holds the metrics {', '.join(harness)}; name one with --metric")
    pred = next((name for name in PREDICTIONS if name in first), None)
    gold = next((name for name in GOLDS if name in first), None)
    if pred is not None and gold is not None:
        return "accuracy", _graded(table, lines, (pred, gold), reading.rule, remarks)
    if reading.rule is not None:
        raise UserError(
            f"{table.name}: --rule grades pred against gold, and its rows have {table.columns()}; "
            "smolt grade takes columns of any name"
        )
    scores = ("reward",) if is_rated_answer(first) else SCORES  # a candidate's score chose it and rates nothing
    score = next((name for name in scores if any(row.get(name) is not None for _, row in lines)), None)
    if score is not None:
        return score, _number(table, score)
    raise UserError(
        f"{table.name}: rows need correct, or pred and gold, or score; they have {table.columns()}. "
        "Name the column with --metric, or grade the answers first (smolt grade)"
    )


def _is_pair(row: dict[str, Any]) -> bool:
    return all(name in row for name in PAIRS)


def _harness_metrics(table: AnswerTable, row: dict[str, Any]) -> list[str]:
    if "doc_id" not in row:
        return []
    listed = row.get("metrics")
    names = listed if isinstance(listed, list) else HARNESS
    return [name for name in names if isinstance(name, str) and isinstance(row.get(name), int | float)]


def _flag(table: AnswerTable, column: str) -> Reader:
    def read(line: int, row: dict[str, Any]) -> float | None:
        value = row.get(column)
        if value is None or value == "":
            return None
        written = WRITTEN.get(value.lower()) if isinstance(value, str) else value
        if not isinstance(written, bool | int | float) or written not in (0, 1):
            raise UserError(f"{table.name}:{line}: {column}: must be true or false, not {value!r:.40}")
        return float(written)

    return read


def _number(table: AnswerTable, column: str) -> Reader:
    def read(line: int, row: dict[str, Any]) -> float | None:
        try:
            value = look(row, column)
        except KeyError:
            raise UserError(f"{table.name}:{line}: {column}: is missing; the file has {table.columns()}") from None
        if value is None or value == "":
            return None
        try:
            number = float(value) if isinstance(value, str | int | float) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise UserError(f"{table.name}:{line}: {column}: must be a finite number, not {value!r:.40}")
        return number

    return read


def _graded(table: AnswerTable, lines: Lines, columns: tuple[str, str], name: str | None, remarks: list[str]) -> Reader:
    rule = rule_named(name) if name is not None else _usual_rule([text_of(row.get(columns[1])) for _, row in lines])
    remarks.append(f"graded by rule {rule.name} ({rule.version})")
    return lambda line, row: float(grade_row(table, line, row, rule, columns).correct)


def _usual_rule(golds: Sequence[str | None]) -> Rule:
    """Numbers as numbers where every gold answer is one or ends in `#### number`; else equal text."""
    numbers = all(gold is not None and ("####" in gold or parse_number(gold) is not None) for gold in golds)
    return rule_named("gsm8k" if numbers else "string")


def _keys(row: dict[str, Any], key: str | None) -> dict[str, str]:
    """What may identify the row's item; the question stands inside `doc` where a tool keeps the whole item there."""
    found = {}
    if key is not None:
        try:
            found["key"] = _identity(look(row, key))
        except KeyError:
            return {}
    identity = next((row[name] for name in IDS if row.get(name) not in (None, "")), None)
    if identity is not None:
        found["id"] = _identity(identity)
    inside = row.get("doc")
    names = ("question",) if is_rated_answer(row) else QUESTIONS
    for place in (row, inside if isinstance(inside, dict) else {}):
        asked = next((place[name] for name in names if isinstance(place.get(name), str) and place[name]), None)
        if asked is not None:
            found["question"] = " ".join(asked.split())
            break
    return found


def _identity(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)


def _answer(row: dict[str, Any]) -> str:
    for name in ("answer", "text", "response", "completion", "output", "filtered_resps", "pred", "prediction"):
        text = text_of(row.get(name))
        if text:
            return text
    return ""
