"""The paired tests of two or more arms, and everything that is said of them."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from smolt import statistics
from smolt.errors import UserError
from smolt.evaluation.comparing.alignment import Aligned, align
from smolt.evaluation.comparing.results import MARGIN, ArmResults, Reading, arm_names, read_results
from smolt.report.pairing import Compared
from smolt.runs.identity import run_of
from smolt.statistics import Comparison, Measure, NonInferiority, Retest

LOG = logging.getLogger(__name__)
ROWS = "evaluation.jsonl"
LONGEST = 60


Outcome = Literal["win", "regression", "both right", "both wrong", "tie"]
ONE_RUN = "one file an arm says nothing of another training run: run-to-run variation was not measured"
LEAD = f"accuracy counts the pairs in which the better answer leads; by how much it does compares --metric {MARGIN}"


@dataclass(frozen=True)
class ComparedItem:
    """One item in one pair of arms; a value is the mean over the answers to it."""

    key: str
    question: str
    outcome: Outcome
    a: float
    b: float
    answer_a: str
    answer_b: str


@dataclass(frozen=True)
class ArmPair:
    """The baseline a and one other arm b.

    Attributes:
        comparison: its p-value adjusted over all pairs.
        non_inferiority: against the margin, where one was stated.
    """

    comparison: Comparison
    items: list[ComparedItem]
    non_inferiority: NonInferiority | None = None

    def count(self, outcome: Outcome) -> int:
        """How many items came out so."""
        return sum(item.outcome == outcome for item in self.items)


@dataclass(frozen=True)
class Findings:
    """What a comparison of files found.

    Attributes:
        arms: name -> its measure; the first is the baseline.
        answered_once: every item has one answer in every file.
        remarks: what a reader should know, in sentences without a full stop.
        warnings: why the comparison may not be one of the models, likewise.
    """

    metric: str
    rate: bool
    key: str
    answered_once: bool
    left_out: int
    arms: dict[str, Measure]
    pairs: list[ArmPair]
    files: dict[str, dict[str, str]]
    retest: Retest | None = None
    remarks: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def facts(self) -> dict[str, Any]:
        """The JSON object: the first pair's figures at the top, every pair under `comparisons`; rates in 0..1."""
        listed = [_facts(pair, self) for pair in self.pairs]
        return {
            **listed[0],
            "comparisons": listed,
            "arms": {name: asdict(measure) for name, measure in self.arms.items()},
            "retest": None if self.retest is None else asdict(self.retest),
            "key": self.key,
            "left_out": self.left_out,
            "files": self.files,
            "remarks": self.remarks,
            "warnings": self.warnings,
        }

    def compared(self) -> list[Compared]:
        """The pairs as a report's tables take them."""
        binary = self.rate and self.answered_once
        return [
            Compared(pair.comparison, "baseline", pair.count("both right") if binary else None) for pair in self.pairs
        ]

    def sentences(self) -> list[str]:
        """The verdicts, the most important first."""
        found = [pair.comparison.sentence for pair in self.pairs]
        found += [pair.non_inferiority.sentence for pair in self.pairs if pair.non_inferiority is not None]
        return [*found, *([self.retest.sentence] if self.retest is not None else [])]


def compare_files(
    paths: Sequence[Path],
    reading: Reading | None = None,
    *,
    intersect: bool = False,
    margin: float | None = None,
    again: Path | None = None,
) -> Findings:
    """Pair the first file, the baseline, with each other one.

    Args:
        paths: two or more files of per-item results.
        reading: how to read them.
        intersect: compare the items that all files have, instead of refusing files that differ in items.
        margin: the largest loss that would be accepted; tests non-inferiority.
        again: a second measurement of the baseline on the same items.

    Raises:
        UserError: a file is at fault, the files do not hold the same items, or measure different things.
    """
    if len(paths) < 2:
        raise UserError("compare needs two files or more: the baseline first")
    named = list(zip(paths, arm_names(paths), strict=True))
    if again is not None:
        named.append((again, f"{named[0][1]} again"))
    how = reading or Reading()
    LOG.info("reading %d files", len(named))
    files = [read_results(path, how, name) for path, name in named]
    LOG.info("comparing the arms")
    metric, rate = _one_metric(files)
    aligned = align(files, intersect)
    values = [[sum(row.value for row in answers) / len(answers) for answers in arm] for arm in aligned.rows]
    names = [file.name for file in files]
    arms = list(zip(names, values, strict=True))
    items = "pairs" if all(file.pairs for file in files) else "answers"
    tests = [
        statistics.compare(names[0], name, metric, values[0], own, rate=rate, items=items) for name, own in arms[1:]
    ]
    repeated = tests.pop() if again is not None else None
    tests = statistics.family(tests, items)
    pairs = []
    for place, comparison in enumerate(tests, start=1):
        bound = None if margin is None else statistics.non_inferior(comparison, margin)
        pairs.append(ArmPair(comparison, _items(aligned, values, place, rate), bound))
    return Findings(
        metric=metric,
        rate=rate,
        key=aligned.key,
        answered_once=aligned.single,
        left_out=aligned.left_out,
        arms={file.name: _measure(aligned, place, rate, file.bounded) for place, file in enumerate(files)},
        pairs=pairs,
        files={file.name: {"path": file.file, "sha256": file.sha256} for file in files},
        retest=None if repeated is None else statistics.retest(repeated, tests[0]),
        remarks=[*aligned.remarks, *_copies(files), *([LEAD] if rate and items == "pairs" else []), ONE_RUN],
        warnings=_conditions(named),
    )


def _conditions(named: Sequence[tuple[Path, str]]) -> list[str]:
    """Files of smolt's own evaluations that were measured in another way than the baseline's."""
    (first, a), *others = named
    found = [(b, differing(circumstances(first), circumstances(path))) for path, b in others]
    return [
        f"{b} was not measured as {a} was: {'; '.join(lines)} ({b}'s last). The difference may be one of measuring, "
        "not of the models"
        for b, lines in found
        if lines
    ]


def _one_metric(files: Sequence[ArmResults]) -> tuple[str, bool]:
    """The metric that all files measure; files of right and wrong may name it differently."""
    names = list(dict.fromkeys(file.metric for file in files))
    rate = all(file.rate for file in files)
    graded = {"accuracy", "exact_match", "acc"}
    if len(names) > 1 and not (rate and set(names) <= graded):
        measured = ", ".join(f"{file.file} by {file.metric}" for file in files)
        raise UserError(f"the files measure different things: {measured}; name one column with --metric")
    return names[0] if len(names) == 1 else "accuracy", rate


def _copies(files: Sequence[ArmResults]) -> list[str]:
    """Files that are byte for byte another one: a slip of the hand more often than a result."""
    first: dict[str, str] = {}
    return [
        f"{file.name} and {first[file.sha256]} are the same file, byte for byte"
        for file in files
        if first.setdefault(file.sha256, file.name) != file.name
    ]


def _measure(aligned: Aligned, place: int, rate: bool, bounded: bool) -> Measure:
    answered = list(zip(aligned.items, aligned.rows[place], strict=True))
    values = [row.value for _, answers in answered for row in answers]
    items = [item for item, answers in answered for _ in answers]
    measure = statistics.measure(values, items, rate=rate, bounded=bounded)
    if measure is None:
        raise UserError("there is no item to measure")
    return measure


def _items(aligned: Aligned, values: Sequence[Sequence[float]], place: int, rate: bool) -> list[ComparedItem]:
    items = []
    binary = rate and aligned.single  # looks at every row
    for index, key in enumerate(aligned.items):
        first, second = aligned.rows[0][index][0], aligned.rows[place][index][0]
        a, b = values[0][index], values[place][index]
        question = first.keys.get("question", "") or second.keys.get("question", "")
        outcome = _outcome(a, b, binary)
        items.append(ComparedItem(key, question, outcome, a, b, first.answer, second.answer))
    return items


def _outcome(a: float, b: float, binary: bool) -> Outcome:
    if a != b:
        return "win" if b > a else "regression"
    return "tie" if not binary else "both right" if a == 1.0 else "both wrong"


def _facts(pair: ArmPair, findings: Findings) -> dict[str, Any]:
    known = asdict(pair.comparison)
    means = {side: findings.arms[known[side]].value for side in ("a", "b")}
    binary = findings.rate and findings.answered_once
    tested = ("wins", "regressions", "ties", "p_value", "difference", "low", "high", "minimum_detectable", "p_holm")
    return {
        **{name: known[name] for name in ("a", "b", "metric", "n")},
        **{f"accuracy_{side}": value if findings.rate else None for side, value in means.items()},
        **{f"mean_{side}": value for side, value in means.items()},
        "both_right": pair.count("both right") if binary else None,
        "both_wrong": pair.count("both wrong") if binary else None,
        **{name: known[name] for name in (*tested, "test", "caution", "sentence")},
        "non_inferiority": None if pair.non_inferiority is None else asdict(pair.non_inferiority),
    }


def circumstances(path: Path) -> dict[str, Any]:
    """Template, stop tokens, length, extractor, sampling, answers an item, rater, precision; {} where not known.

    In half precision an answer depends on how many are decoded beside it, so there the batch is one of them.
    """
    place = path / ROWS if path.is_dir() else path
    manifest = run_of(place.parent)[0] if place.name == ROWS else {}
    recipe = manifest.get("recipe")
    if manifest.get("stage") != "eval" or not isinstance(recipe, dict):
        return {}
    conditions, sampling = (recipe.get(name) or {} for name in ("conditions", "sampling"))
    found = {name: conditions.get(name) for name in ("template", "style", "stop_ids", "max_tokens", "extractor")}
    found |= {"temperature": sampling.get("temperature"), "samples": recipe.get("samples")}
    found |= {"reward": recipe.get("reward"), "task": recipe.get("task")}
    dtype = manifest.get("dtype")
    found |= {} if dtype is None else {"dtype": dtype}
    return found if dtype in (None, "fp32") else found | {"batch": sampling.get("batch")}


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """`max_tokens 40 and 256` for each condition that both know and that differs."""
    changed = [name for name in a if name in b and a[name] != b[name]]
    return [f"{name} {_short(a[name])} and {_short(b[name])}" for name in changed]


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
