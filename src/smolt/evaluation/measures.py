"""From rows to numbers with intervals: what several answers show together, the form of answers, pairs, losses."""

import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial
from typing import Any

from smolt import statistics
from smolt.data.numbers import extract
from smolt.rewards import HINTS
from smolt.runs.rated_answers import RatedAnswer
from smolt.statistics import Measure

Row = Mapping[str, Any]
EXTRACTED = "extracted"
_PATTERN = re.compile(r"format(?:_\d+)?\.(\w+)")
"""A component of the reward `format`: one of its patterns."""


def answer_measures(items: Sequence[RatedAnswer], samples: int) -> dict[str, Measure]:
    """What a report does not measure by itself: pass@k, maj@k, how often a number was read, and each named pattern.

    Args:
        items: all answers, those to a question one after the other.
        samples: answers to each question.
    """
    keys = [item.key for item in items]
    found: dict[str, Measure | None] = {}
    for k in powers(samples):
        found[f"pass@{k}"] = pass_at(items, samples, k)
        found[f"maj@{k}"] = majority_at(items, samples, k) if k > 1 else None
    if any(gold(item) is not None for item in items):
        found[EXTRACTED] = statistics.proportion([extract(item.answer).value is not None for item in items], keys)
    for name, shows in HINTS.items():
        found[f"format/{name}"] = statistics.proportion([shows(item.answer) for item in items], keys)
    return {name: measure for name, measure in found.items() if measure is not None}


def reading_twice(items: Sequence[RatedAnswer]) -> dict[str, str]:
    """The reward's components that say on every answer what `extracted`, or a pattern's `format/NAME`, says.

    Such a component is the same rule, so both are one measure even where all answers agree: metric -> that measure.
    """
    rules: dict[str, Callable[[RatedAnswer], bool]] = {}
    components = sorted({name for item in items for name in item.components})
    if any(gold(item) is not None for item in items):
        rules |= {name: _is_read for name in components if name.endswith(f".{EXTRACTED}")}
    patterns = {name: found.group(1) for name in components if (found := _PATTERN.fullmatch(name))}
    rules |= {name: partial(_shows, hint) for name, hint in patterns.items() if hint in HINTS}
    return {
        f"reward/{name}": f"format/{patterns[name]}" if name in patterns else EXTRACTED
        for name, rule in rules.items()
        if all(item.components.get(name) == float(rule(item)) for item in items)
    }


def _is_read(item: RatedAnswer) -> bool:
    return extract(item.answer).value is not None


def _shows(hint: str, item: RatedAnswer) -> bool:
    return HINTS[hint](item.answer)


def powers(samples: int) -> list[int]:
    """1, 2, 4, ... up to `samples`, and `samples` itself; none for a single answer."""
    below = [2**power for power in range(samples.bit_length()) if 2**power < samples]
    return [*below, samples] if samples > 1 else []


def pass_at(items: Sequence[RatedAnswer], samples: int, k: int) -> Measure | None:
    """pass@k by the unbiased estimator, averaged over the questions whose answers were all judged; n = questions."""
    judged = [block for block in _blocks(items, samples) if all(item.correct is not None for item in block)]
    values = [statistics.pass_at_k(samples, sum(item.correct is True for item in block), k) for block in judged]
    return _by_question(values, "unbiased estimator")


def majority_at(items: Sequence[RatedAnswer], samples: int, k: int) -> Measure | None:
    """maj@k over the first k answers to each question whose solution is a number; n = questions."""
    known = [(gold(block[0]), block[:k]) for block in _blocks(items, samples)]
    values = [majority([item.answer for item in block], value) for value, block in known if value is not None]
    return _by_question(values, f"vote of the first {k}")


def majority(answers: Sequence[str], solution: Fraction) -> float:
    """Whether the number that most answers give is the solution: 1 or 0, and 1/t if it shares the lead with t - 1.

    That is the chance that a fair draw among the leading numbers gives the solution. An answer without a number does
    not vote; without any vote the majority is wrong.
    """
    votes = Counter(value for value in (extract(answer).value for answer in answers) if value is not None)
    most = max(votes.values(), default=0)
    leading = [value for value, count in votes.items() if count == most]
    return 1 / len(leading) if solution in leading else 0.0


def gold(item: RatedAnswer) -> Fraction | None:
    """The number of an item's solution; None where it has none."""
    return None if item.reference_solution is None else extract(item.reference_solution).value


def pair_measures(rows: Sequence[Row]) -> dict[str, Measure]:
    """How often, and by how much, the better answer of a pair scores higher.

    Resampled by context where several pairs share one.
    """
    keys = [row["context"] for row in rows]

    def share(flag: Callable[[Row], bool]) -> Measure | None:
        return statistics.proportion([flag(row) for row in rows], keys)

    def average(number: Callable[[Row], float]) -> Measure | None:
        return statistics.mean([number(row) for row in rows], keys)

    found = {
        "accuracy": share(lambda row: row["correct"]),
        "margin": average(lambda row: row["score"]),
        "ties": share(lambda row: row["score"] == 0),
        "longer_chosen": share(lambda row: row["chosen_tokens"] > row["rejected_tokens"]),
    }
    if rows and "chosen_logprob" in rows[0]:
        found["accuracy_per_token"] = share(lambda row: _lead_per_token(row) > 0)
        found["margin_per_token"] = average(_lead_per_token)
    return {name: measure for name, measure in found.items() if measure is not None}


def _lead_per_token(row: Row) -> float:
    """The difference of the two answers' mean log-probabilities a token."""
    chosen: float = row["chosen_logprob"] / row["chosen_tokens"]
    return chosen - float(row["rejected_logprob"]) / int(row["rejected_tokens"])


def loss_measures(rows: Sequence[Row]) -> dict[str, Measure]:
    """Loss in nats per token, its exponential, and bits per byte of text, which no tokenizer flatters; n = records.

    Pieces that one text was cut into are resampled together.
    """
    texts = [str(row["question_id"]).partition("/")[0] for row in rows]
    totals = [-row["logprob"] for row in rows]
    loss = statistics.ratio(totals, [row["tokens"] for row in rows], texts)
    bits = statistics.ratio([total / math.log(2) for total in totals], [row["bytes"] for row in rows], texts)
    length = statistics.mean([float(row["tokens"]) for row in rows], bounded=True)
    if loss is None or bits is None or length is None:
        return {}
    low, high = (None if end is None else _exp(end) for end in (loss.low, loss.high))
    perplexity = replace(loss, value=_exp(loss.value), low=low, high=high)
    return {"loss": loss, "perplexity": perplexity, "bits_per_byte": bits, "length": length}


def _blocks(items: Sequence[RatedAnswer], samples: int) -> list[Sequence[RatedAnswer]]:
    return [items[start : start + samples] for start in range(0, len(items), samples)]


def _by_question(values: Sequence[float], how: str) -> Measure | None:
    measure = statistics.share(values)
    return None if measure is None else replace(measure, source=f"{how}, {measure.source}")


def _exp(value: float) -> float:
    """The exponential, at most the largest number there is."""
    return math.exp(min(value, 709.0))
