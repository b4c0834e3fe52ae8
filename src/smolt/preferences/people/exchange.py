"""Labels out: as preferences that train a reward model or DPO, or one by one, as `importing` reads them back."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from smolt.data import Preference, preference_row, write_rows
from smolt.data.nouns import as_messages
from smolt.errors import UserError
from smolt.preferences.people.nouns import BlindPair, Choice, Label
from smolt.preferences.people.store import LabelStore

ExportFormat = Literal["preferences", "dpo", "hh", "labels"]
EXPORT_FORMATS: tuple[ExportFormat, ...] = get_args(ExportFormat)
Even = Literal["half", "drop"]
Weights = Literal["majority", "share"]
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"


CHOICES_OF: dict[str, tuple[str, ...]] = {
    "form": EXPORT_FORMATS,
    "ties": get_args(Even),
    "both_bad": get_args(Even),
    "weights": get_args(Weights),
}


@dataclass(frozen=True)
class Exporting:
    """How labels become preferences.

    Attributes:
        form: preferences (prompt, chosen, rejected), dpo (the same as lists of messages), hh (whole dialogues), or
            labels (every label that stands, gold questions and skips included).
        ties: half keeps a tied pair with weight 0.5, drop leaves it out; a pair without a majority is a tie.
        both_bad: the same for pairs of which most say that both answers are bad.
        weights: majority gives each pair its most frequent choice, share the weight (first + ties / 2) / labels.
        least: only pairs with at least so many labels.
    """

    form: ExportFormat = "preferences"
    ties: Even = "half"
    both_bad: Even = "drop"
    weights: Weights = "majority"
    least: int = 1


def exporting(**options: Any) -> Exporting:
    """The options as words, checked.

    Raises:
        UserError: one has no such value.
    """
    for name, known in CHOICES_OF.items():
        if options[name] not in known:
            option = "format" if name == "form" else name.replace("_", "-")
            raise UserError(f"--{option}: {options[name]!r} is unknown; known: {', '.join(known)}")
    return Exporting(**options)


def export_labels(store: LabelStore, out: Path, how: Exporting) -> dict[str, int]:
    """Write a store's labels; counts of what became of the pairs.

    Raises:
        UserError: no pair is left to write, or the format cannot hold one.
        StorageError: the disk is full or failing; the old file is intact.
    """
    pairs, labels = store.pairs(), store.labels()
    if how.form == "labels":
        if not labels:
            raise UserError(f"{store.path}: holds no labels yet")
        write_rows(out, (label_row(label, pairs[label.pair]) for label in labels))
        return {"written": len(labels)}
    counts, rows = _preference_rows(pairs, labels, how)
    if not rows:
        raise UserError(f"{store.path}: no pair is left to export ({_listed(counts)})")
    write_rows(out, rows)
    return {"written": len(rows), **counts}


def verdict(choices: Sequence[Choice], how: Exporting) -> tuple[float | None, str]:
    """The probability that the first answer is better, None to leave the pair out, and why: the counted outcome.

    Args:
        choices: of all annotators, skips left out; at least one.
        how: what to do with ties, both bad, and disagreement.
    """
    counts = Counter(choices)
    most = max(counts.values())
    leaders = [choice for choice, count in counts.items() if count == most]
    outcome = (
        "disagreements" if len(leaders) > 1 else {"tie": "ties", "both_bad": "both_bad"}.get(leaders[0], "decided")
    )
    drop = how.both_bad if outcome == "both_bad" else how.ties
    if outcome != "decided" and drop == "drop":
        return None, outcome
    if how.weights == "share":
        even = counts["tie"] + counts["both_bad"]
        return (counts["first"] + even / 2) / len(choices), outcome
    return (0.5, outcome) if outcome != "decided" else (float(leaders[0] == "first"), outcome)


def label_row(label: Label, pair: BlindPair) -> dict[str, object]:
    """One label as a row that `smolt label import` reads back."""
    return {
        "prompt": as_messages(pair.context),
        "first": pair.first,
        "second": pair.second,
        "choice": label.choice,
        "annotator": label.annotator,
        "left": label.left,
        "seconds": label.seconds,
        "at": label.at,
        "gold": pair.known,
    }


def _preference_rows(
    pairs: Mapping[str, BlindPair], labels: Sequence[Label], how: Exporting
) -> tuple[dict[str, int], list[dict[str, object]]]:
    choices: dict[str, list[Choice]] = {}
    for label in labels:
        if label.choice != "skip" and pairs[label.pair].known is None:
            choices.setdefault(label.pair, []).append(label.choice)
    counts = dict.fromkeys(("decided", "ties", "both_bad", "disagreements", "too_few"), 0)
    rows = []
    for name, pair in pairs.items():
        given = choices.get(name)
        if given is None:
            continue
        if len(given) < how.least:
            counts["too_few"] += 1
            continue
        first, outcome = verdict(given, how)
        counts[outcome] += 1
        if first is not None:
            rows.append({**_ROWS[how.form](preferred(pair, first)), "id": name, "labels": len(given)})
    return counts, rows


def preferred(pair: BlindPair, first: float) -> Preference:
    """The pair as a preference, the likelier answer as `chosen`; `first` is the first answer's probability."""
    return Preference(pair.context, pair.first, pair.second, first).likelier_first


def _dpo_row(preference: Preference) -> dict[str, object]:
    chosen, rejected = ([{"role": "assistant", "content": text}] for text in (preference.chosen, preference.rejected))
    return {
        **preference_row(preference),
        "prompt": as_messages(preference.context),
        "chosen": chosen,
        "rejected": rejected,
    }


def _hh_row(preference: Preference) -> dict[str, object]:
    texts = [*(turn.content for turn in preference.context), preference.chosen, preference.rejected]
    if any(turn.role == "system" for turn in preference.context) or not preference.context:
        raise UserError("format hh: has no place for a system turn or for answers without a question; use preferences")
    if any(mark in text for text in texts for mark in (HUMAN, ASSISTANT)):
        raise UserError("format hh: a text holds Human: or Assistant: marks of its own; use preferences")
    dialogue = "".join(f"{HUMAN if turn.role == 'user' else ASSISTANT} {turn.content}" for turn in preference.context)
    row = preference_row(preference)
    del row["prompt"]
    return {**row, **{side: f"{dialogue}{ASSISTANT} {row[side]}" for side in ("chosen", "rejected")}}


_ROWS: dict[str, Callable[[Preference], dict[str, object]]] = {
    "preferences": preference_row,
    "dpo": _dpo_row,
    "hh": _hh_row,
}


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
