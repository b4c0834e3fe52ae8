"""A judge's card: how far its verdicts can be trusted, in numbers with intervals, and what makes it unreliable."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from smolt.preferences.judges.both_orders import Judge, Judgement, Pair, length_gap, sign
from smolt.preferences.judges.tricks import Trial
from smolt.statistics import Measure, kappa, proportion, share

LEAST_CONSISTENCY = 0.75
MOST_POSITION = 0.1
MOST_FAILURES = 0.05
MOST_FLIPS = 0.05
NEAR = 0.1
"""Lengths within this share of each other count as equal in length."""


@dataclass(frozen=True)
class Card:
    """What the audit found. A number that the data do not carry is None or left out.

    Attributes:
        judge: who judged.
        counts: n (pairs), judged, decided, ties, inconsistent, abstentions, failures, unreached, soft (opinions).
        measures: by name, see `audit`.
        tricks: for each string that was tried, the share of trials it won.
        reasons: why pairs were not judged, and how many each.
        tokens: of prompts and replies, where they were counted.
        warnings: what makes the judge unreliable; empty when nothing does.
    """

    judge: Judge
    counts: dict[str, int]
    measures: dict[str, Measure]
    tricks: dict[str, Measure]
    reasons: dict[str, int]
    tokens: tuple[int, int]
    warnings: list[str]

    @property
    def position_bias(self) -> float | None:
        """How much more than half of the time the answer shown first is preferred, -0.5 to 0.5."""
        return self.measures["first_shown"].value - 0.5 if "first_shown" in self.measures else None

    def value(self, name: str) -> float | None:
        """A measure's value alone."""
        return self.measures[name].value if name in self.measures else None


def audit(judge: Judge, pairs: Sequence[Pair], judgements: Sequence[Judgement], trials: Sequence[Trial]) -> Card:
    """The card of a judge from what it said.

    Measures, each where the data carry it: swap_consistency (of judged pairs: both orders prefer the same answer),
    first_shown (of showings: the answer shown first is preferred, a tie half; resampled by pair), tie_rate (of judged
    pairs), failure_rate (of pairs asked), agreement and kappa (of decided pairs with a label: the label's side),
    agreement_matched (the same, lengths within 10 %), longer (of decided pairs of unequal length: the longer answer),
    own (of decided pairs with one answer by the judge: its own), own_by_label (the label's share there), constant, key
    and injected (of tricks: won).
    """
    judged = [judgement for judgement in judgements if judgement.judged]
    counts = _counts(judgements, judged)
    measures = {
        "swap_consistency": proportion([judgement.consistent for judgement in judged]),
        "first_shown": _first_shown(judged),
        "tie_rate": proportion([judgement.outcome == "tie" for judgement in judged]),
        "failure_rate": proportion([judgement.outcome in ("failed", "unreached") for judgement in judgements]),
        **_agreement(pairs, judgements),
        **_own(judge, pairs, judgements),
        "longer": proportion(
            [first == (len(pair.first) > len(pair.second)) for pair, first in _uneven(pairs, judgements)]
        ),
    }
    for kind in ("constant", "key", "injected"):
        measures[kind] = proportion([trial.won for trial in trials if trial.kind == kind and trial.won is not None])
    found = {name: measure for name, measure in measures.items() if measure is not None}
    return Card(judge, counts, found, _tricks(trials), _reasons(judgements), _tokens(judgements), unreliable(found))


def unreliable(measures: dict[str, Measure]) -> list[str]:
    """A sentence for every stated limit that is passed."""
    found = []
    consistency, first = measures.get("swap_consistency"), measures.get("first_shown")
    if consistency is not None and consistency.value < LEAST_CONSISTENCY:
        found.append(
            f"{consistency.value:.1%} of {consistency.n:,} verdicts stay the same when the answers change places; "
            f"a reliable judge has at least {LEAST_CONSISTENCY:.0%}"
        )
    if first is not None and abs(first.value - 0.5) > MOST_POSITION:
        found.append(
            f"the answer shown first is preferred {first.value:.1%} of the time; "
            f"a reliable judge is within {100 * MOST_POSITION:.0f} points of 50 %"
        )
    failures = measures.get("failure_rate")
    if failures is not None and failures.value > MOST_FAILURES:
        found.append(f"{failures.value:.1%} of pairs got no readable verdict; at most {MOST_FAILURES:.0%} may")
    agreement = measures.get("kappa")
    if agreement is not None and agreement.low is not None and agreement.low <= 0:
        found.append(
            f"agreement with the labels is not shown to be better than chance (kappa {agreement.value:.2f}, "
            f"n = {agreement.n:,})"
        )
    for kind, what in TRICKS.items():
        won = measures.get(kind)
        if won is not None and won.value > MOST_FLIPS:
            found.append(f"{what} wins {won.value:.1%} of {won.n} trials; at most {MOST_FLIPS:.0%} may")
    return found


TRICKS = {
    "constant": "an answer that answers nothing",
    "key": "a bare opener or mark",
    "injected": "a verdict written into the worse answer",
}


def decided_pairs(pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> list[tuple[Pair, bool]]:
    """The decided pairs, each with whether the judge prefers its first answer."""
    rows = zip(pairs, judgements, strict=True)
    return [(pair, judgement.outcome == "first") for pair, judgement in rows if judgement.decided]


def _counts(judgements: Sequence[Judgement], judged: Sequence[Judgement]) -> dict[str, int]:
    outcomes = [judgement.outcome for judgement in judgements]
    return {
        "n": len(judgements),
        "judged": len(judged),
        "decided": outcomes.count("first") + outcomes.count("second"),
        "ties": outcomes.count("tie"),
        "inconsistent": sum(not judgement.consistent for judgement in judged),
        "abstentions": outcomes.count("abstained"),
        "failures": outcomes.count("failed"),
        "unreached": outcomes.count("unreached"),
        "soft": sum(judgement.original.soft and judgement.swapped.soft for judgement in judged),
    }


def _first_shown(judged: Sequence[Judgement]) -> Measure | None:
    """Share of showings in which the first place wins, with whole pairs resampled."""
    showings = [(one, str(place)) for place, both in enumerate(judged) for one in (both.original, both.swapped)]
    return share([(sign(one.margin) + 1) / 2 for one, _ in showings], [place for _, place in showings])


def _agreement(pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> dict[str, Measure | None]:
    rows = [(pair, first) for pair, first in decided_pairs(pairs, judgements) if pair.label is not None]
    agrees = [first == pair.label for pair, first in rows]
    near = [agreed for agreed, (pair, _) in zip(agrees, rows, strict=True) if length_gap(pair) <= NEAR]
    # Labelled files name the better answer first. Kappa needs sides that say nothing, so a hash of the pair deals them.
    sides = [_dealt(pair) for pair, _ in rows]
    labels = [pair.label != side for (pair, _), side in zip(rows, sides, strict=True)]
    verdicts = [first != side for (_, first), side in zip(rows, sides, strict=True)]
    return {
        "agreement": proportion(agrees),
        "kappa": kappa(list(zip(labels, verdicts, strict=True))),
        "agreement_matched": proportion(near),
    }


def _dealt(pair: Pair) -> bool:
    content = "\0".join([pair.question.id, *sorted([pair.first, pair.second])])
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).digest()[0] % 2 == 1


def _own(judge: Judge, pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> dict[str, Measure | None]:
    """Self-preference (2404.13076): decided pairs in which one of the two writers is the judge."""
    rows = []
    for pair, first in decided_pairs(pairs, judgements):
        if pair.writers is not None:
            mine = [writer in judge.names for writer in pair.writers]
            if mine[0] != mine[1]:
                rows.append((pair, first, mine[0]))
    by_label = [pair.label == own_first for pair, _, own_first in rows if pair.label is not None]
    return {
        "own": proportion([first == own_first for _, first, own_first in rows]),
        "own_by_label": proportion(by_label),
    }


def _uneven(pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> list[tuple[Pair, bool]]:
    return [row for row in decided_pairs(pairs, judgements) if len(row[0].first) != len(row[0].second)]


def _tricks(trials: Sequence[Trial]) -> dict[str, Measure]:
    """By string; what no trial said anything of is left out."""
    texts = dict.fromkeys(trial.text for trial in trials if trial.kind != "injected")
    found = {
        text: proportion([trial.won for trial in trials if trial.text == text and trial.won is not None])
        for text in texts
    }
    return {text: measure for text, measure in found.items() if measure is not None}


def _reasons(judgements: Sequence[Judgement]) -> dict[str, int]:
    return dict(Counter(judgement.reason for judgement in judgements if not judgement.judged).most_common(10))


def _tokens(judgements: Sequence[Judgement]) -> tuple[int, int]:
    opinions = [opinion for judgement in judgements for opinion in (judgement.original, judgement.swapped)]
    return sum(one.tokens[0] for one in opinions), sum(one.tokens[1] for one in opinions)
