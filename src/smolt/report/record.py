"""What a report is made from: plain nouns, kept as record.json beside the report so that it can be written again."""

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from smolt.errors import UserError
from smolt.report.panels import Panel, finite
from smolt.runs import jsontext
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure

Role = Literal["candidate", "baseline", "control", "component"]
Metric = Literal["accuracy", "reward"]
RECORD = "record.json"


@dataclass(frozen=True)
class LatePart:
    """One part of the reward over the answers of the last quarter of a training's updates.

    Attributes:
        first, last: these updates.
        answers: those that have the part.
        zeros: of them with the value 0.
        least, most: its smallest and largest value in the whole training.
        at_most: of the answers with the value `most`.
    """

    first: int
    last: int
    answers: int
    zeros: int
    least: float
    most: float
    at_most: int


@dataclass(frozen=True)
class Arm:
    """One model of the study.

    Attributes:
        name: the section of the recipe.
        parent: the arm it was trained from, if any.
        curve: rows of metrics.jsonl.
        cost: seconds, tokens, peak_memory (bytes); what was not measured is left out.
        facts: settings and findings to print beside the arm.
        late_parts: the reward's parts at the end of a training that rated its own answers.
        best_of: of an arm that chooses among n answers, k -> metric -> what choosing among k < n would have given.
        extra_measures: what no answer carries, for example a reward model's held-out accuracy.
        repeated: metric -> the extra measure that it equals on every answer.
        role: candidates and controls are compared with the baseline, and candidates with the controls; a component (a
            reward model, an untrained base) is measured only.
    """

    name: str
    stage: str
    parent: str | None = None
    items: list[RatedAnswer] = field(default_factory=list)
    curve: list[dict[str, Any]] = field(default_factory=list)
    cost: dict[str, int | float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    extra_measures: dict[str, Measure] = field(default_factory=dict)
    late_parts: dict[str, LatePart] = field(default_factory=dict)
    best_of: dict[int, dict[str, Measure]] = field(default_factory=dict)
    repeated: dict[str, str] = field(default_factory=dict)
    role: Role = "candidate"

    def __post_init__(self) -> None:
        """Leave out what is not finite: the record could not hold it, and the report would not come back from it."""
        cost = {name: value for name, value in self.cost.items() if math.isfinite(value)}
        measures = {name: finite(measure) for name, measure in self.extra_measures.items()}
        object.__setattr__(self, "cost", cost)
        object.__setattr__(self, "extra_measures", {name: found for name, found in measures.items() if found})


@dataclass(frozen=True)
class StudyRecord:
    """Everything a report says comes from here.

    Attributes:
        baseline: the name of the arm the others are compared with; empty where there is nothing to compare.
        metric: what the verdict is about.
        provenance: recipe, data hashes, versions, seeds, machine; nested mappings are printed as dotted names.
        events: what happened on the way (an early stop, a resume, a refused update).
        notes: what a reader must know.
        panels: findings of audits, suites and judges, in the order they are shown.

    Raises:
        UserError: two arms of one name, or a baseline that is no arm.
    """

    name: str
    arms: list[Arm]
    baseline: str = ""
    metric: Metric = "accuracy"
    provenance: dict[str, Any] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    panels: list[Panel] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check that names are unique and that the baseline is one of them."""
        names = [arm.name for arm in self.arms]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise UserError(f"arms: {', '.join(repeated)}: named more than once; give each arm its own name")
        if self.baseline and self.baseline not in names:
            raise UserError(f"baseline: {self.baseline}: no such arm; there are {', '.join(names) or 'none'}")


_STUDY = TypeAdapter(StudyRecord)


def write_record(directory: Path, record: StudyRecord) -> None:
    """Write record.json; numbers that are not finite become null, lone surrogates become visible escapes.

    Raises:
        StorageError: the disk is full or failing; an earlier record is intact.
    """
    directory.mkdir(parents=True, exist_ok=True)
    jsontext.write(directory / RECORD, jsontext.plain(asdict(record)), indent=None)


def read_record(directory: Path) -> StudyRecord:
    """Read record.json.

    Raises:
        UserError: there is none, or it is not one that smolt wrote.
    """
    path = directory / RECORD
    if not path.is_file():
        raise UserError(f"{path}: not found; a report is rewritten from the record its study left there")
    try:
        return _STUDY.validate_python(jsontext.read_object(path))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{path}: {place + ': ' if place else ''}{first['msg']}; write it again with its study"
        ) from None
    except UserError as error:
        raise UserError(f"{error}; write it again with its study") from None
