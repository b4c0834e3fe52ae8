"""A rated answer, from the sampler to the report: one noun, and one set of names in every file that holds answers.

The rows of samples.jsonl, evaluation.jsonl, candidates.jsonl and of a suite's answers are this noun's fields. Rows of a
run have their `step` beside them.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from smolt.errors import UserError
from smolt.runs.jsontext import decode_object, plain
from smolt.runs.storage import atomic_write


@dataclass(frozen=True)
class RatedAnswer:
    """One answer to one question, rated.

    Attributes:
        question_id: the same for all arms; the pairing key. Where empty, the question's text is the key.
        question: its last turn.
        kind: groups questions, may be empty.
        tokens: length of the answer with its stop token; 0 where nothing was written, but decided.
        stopped: it ended by itself.
        correct: None where no verifier judged it.
        reward: None where no reward was asked for, or the rater abstained.
        components: the reward's named parts.
        kl: sequence KL to the reference in nats: at each token over the vocabulary, summed over the answer.
        reference_solution: what a verifier compares with.
        seed: of the draw; in a study's report, the training run of the arm that gave the answer.
        logprob: of the whole answer in nats, at the temperature it was sampled at.
        abstained: why the rater gave no reward; None where it gave one, or nobody rated.
        score: the reward model's that chose among several answers; None where it abstained, or none chose.
        chosen: whether that score is the highest of all answers to the question; None where none chose.
        earlier: the turns before the question, each a role and a content; None where there are none.
    """

    question_id: str
    question: str
    kind: str
    answer: str
    tokens: int
    stopped: bool
    correct: bool | None = None
    reward: float | None = None
    components: dict[str, float | None] = field(default_factory=dict)
    kl: float | None = None
    reference_solution: str | None = None
    seed: int = 0
    logprob: float | None = None
    abstained: str | None = None
    score: float | None = None
    chosen: bool | None = None
    earlier: list[dict[str, str]] | None = None

    @property
    def key(self) -> str:
        """What pairs this answer with other arms' answers."""
        return self.question_id or self.question


NAMES = tuple(column.name for column in fields(RatedAnswer))
NEEDED = tuple(
    column.name for column in fields(RatedAnswer) if column.default is MISSING and column.default_factory is MISSING
)


def as_row(answer: RatedAnswer) -> dict[str, Any]:
    """Every field as a strict JSON value; what is absent, or not finite, is null."""
    row: dict[str, Any] = plain(asdict(answer))
    return row


def is_rated_answer(row: Mapping[str, Any]) -> bool:
    """Whether a row of some file is one of smolt's answers."""
    return all(name in row for name in NEEDED)


def from_row(row: Mapping[str, Any], where: str = "row") -> RatedAnswer:
    """The answer of a row; columns that are none of its fields are left out.

    Raises:
        UserError: fields are missing; `where` names the row.
    """
    missing = [name for name in NEEDED if name not in row]
    if missing:
        raise UserError(f"{where}: {', '.join(missing)}: missing; another version of smolt wrote it: make it again")
    return RatedAnswer(**{name: row[name] for name in NAMES if name in row})


def write_rated(path: Path, answers: Iterable[RatedAnswer]) -> None:
    """One row an answer, the file whole or absent.

    Raises:
        StorageError: the disk is full or failing.
    """
    atomic_write(path, "".join(json.dumps(as_row(answer), ensure_ascii=False) + "\n" for answer in answers))


def read_rated(path: Path) -> list[RatedAnswer]:
    """The answers of a file that smolt wrote.

    Raises:
        UserError: a row is no rated answer.
        ValueError: a row is no JSON object.
    """
    with path.open("rb") as lines:  # not splitlines: an answer may hold other line separators
        places = ((line, f"{path}:{number}") for number, line in enumerate(lines, 1))
        return [from_row(decode_object(line, where), where) for line, where in places]
