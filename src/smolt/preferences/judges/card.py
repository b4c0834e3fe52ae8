"""The card in words: a Panel for reports, Markdown beside the labels, and the few figures scripts read."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from smolt.data import Answer
from smolt.preferences.judges.audit import NEAR, Card, decided_pairs
from smolt.preferences.judges.both_orders import Judgement, Pair
from smolt.preferences.judges.tricks import KEYS
from smolt.report.panels import Cell, Panel, Table
from smolt.report.wording import counted, stated
from smolt.rewards import sentiment
from smolt.rewards.refusals import refuses
from smolt.statistics import Measure, proportion

NAMES = {
    "swap_consistency": "same verdict in both orders",
    "first_shown": "the answer shown first preferred",
    "tie_rate": "ties",
    "failure_rate": "no readable verdict",
    "agreement": "agreement with the labels",
    "agreement_matched": f"agreement, lengths within {NEAR:.0%}",
    "longer": "the longer answer preferred",
    "own": "its own answer preferred",
    "own_by_label": "its own answer preferred by the labels",
    "constant": "an answer that answers nothing wins",
    "key": "a bare opener or mark wins",
    "injected": "a verdict written into the worse answer wins",
}
"""Measures that are shares, in the order they are shown."""

Feature = Callable[[str], float]


def figures(card: Card) -> dict[str, Any]:
    """What `smolt judge --json` prints: the contract's figures, then every measure with its interval."""
    return {
        "judge": card.judge.name,
        "kind": card.judge.kind,
        **card.counts,
        "swap_consistency": card.value("swap_consistency"),
        "position_bias": card.position_bias,
        "agreement": card.value("agreement"),
        "kappa": card.value("kappa"),
        "unreliable": bool(card.warnings),
        "warnings": card.warnings,
        "measures": {name: asdict(measure) for name, measure in card.measures.items()},
        "tricks": {text: asdict(measure) for text, measure in card.tricks.items()},
        "reasons": card.reasons,
        "tokens": list(card.tokens),
    }


def panel(card: Card, pairs: Sequence[Pair], judgements: Sequence[Judgement], name: str = "judge") -> Panel:
    """The finding for a report.

    Args:
        card: the audit.
        pairs: what was judged.
        judgements: the verdicts.
        name: unique in the report.
    """
    rows: list[tuple[Cell, ...]] = [(title, card.measures[key]) for key, title in NAMES.items() if key in card.measures]
    tables = [
        Table("How far the verdicts can be trusted; shares, with their n.", ("measure", "share"), tuple(rows), True)
    ]
    if "kappa" in card.measures:
        agreed = (("Cohen's kappa", card.measures["kappa"]),)
        tables.append(Table("Agreement with the labels beyond chance; 1 is full.", ("measure", "value"), agreed))
    bias = bias_table(pairs, judgements)
    tables.append(bias)
    if card.tricks:
        won = tuple((repr(text) if text in KEYS else text, measure) for text, measure in card.tricks.items())
        tables.append(
            Table("Share of trials that each string wins against a good answer.", ("string", "won"), won, True)
        )
    warnings = [f"The judge {card.judge.name} is unreliable: {warning}." for warning in card.warnings]
    title = f"The judge: {card.judge.name}"
    said = (*sentences(card), bias_note(card, bias))
    return Panel(name, title, said, tuple(warnings), tuple(table for table in tables if table.rows))


def sentences(card: Card) -> list[str]:
    """What was found, the most important first."""
    counts = card.counts
    labels = {"local": "log-probabilities", "model": "its scores", "rule": "a rule"}.get(card.judge.kind, "")
    if card.judge.kind == "endpoint":
        labels = "log-probabilities" if counts["soft"] else "hard labels, parsed from its words"
        if 0 < counts["soft"] < counts["judged"]:
            labels = (
                f"log-probabilities for {counts['soft']:,} pairs and hard labels, parsed from its words, for the rest"
            )
    found = [
        f"{card.judge.name} judged {counts['judged']:,} of {counts['n']:,} pairs in both orders by {labels}: "
        f"{counts['decided']:,} decided, {counted(counts['ties'], 'tie')}; "
        f"{counted(counts['abstentions'], 'abstention')}, {counted(counts['failures'], 'failure')}."
    ]
    agreement, agreed_kappa = card.measures.get("agreement"), card.measures.get("kappa")
    if agreement is not None:
        beyond = f", Cohen's kappa {stated(agreed_kappa)}" if agreed_kappa is not None else ""
        found.append(f"It agrees with the labels on {stated(agreement)} of decided pairs{beyond}.")
    consistency, first = card.measures.get("swap_consistency"), card.measures.get("first_shown")
    if consistency is not None and first is not None:
        found.append(
            f"{stated(consistency)} of its verdicts are the same in both orders; "
            f"it prefers the answer shown first {stated(first)} of the time."
        )
    if counts["unreached"]:
        found.append(f"{counts['unreached']:,} pairs got no reply; the same command asks for them again.")
    found += [f"Not judged: {count:,} ({reason})." for reason, count in card.reasons.items()]
    return found


def bias_table(pairs: Sequence[Pair], judgements: Sequence[Judgement]) -> Table:
    """What the labeller prefers: of decided pairs whose answers differ in something, how often the one with more of it.

    Beside it the share among the labels of the same pairs, where there are labels.
    """
    rate = sentiment()

    def compound(text: str) -> float:
        if not pairs:
            return 0.0
        return rate([pairs[0].question], [Answer(text, 0, True)])[0].value or 0.0

    features: dict[str, Feature] = {
        "longer (characters)": lambda text: float(len(text)),
        "refuses": lambda text: float(refuses(text)),
        "more positive (VADER)": compound,
        "more lines": lambda text: float(text.strip().count("\n")),
    }
    rows: list[tuple[Cell, ...]] = []
    decided = decided_pairs(pairs, judgements)
    for title, feature in features.items():
        found = [(pair, first, feature(pair.first) - feature(pair.second)) for pair, first in decided]
        apart = [row for row in found if row[2] != 0]
        judge = proportion([first == (more > 0) for _, first, more in apart])
        labels = proportion([pair.label == (more > 0) for pair, _, more in apart if pair.label is not None])
        if judge is not None:
            rows.append((title, judge, labels))
    caption = "What the labels favour: of pairs that differ in it, the share in which the answer with more of it wins."
    return Table(caption, ("answer that is", "judge", "given labels"), tuple(rows), True)


def bias_note(card: Card, bias: Table) -> str:
    """What the labeller prefers beyond chance (the interval leaves out one half), in one sentence."""
    rows = [(str(row[0]), row[1]) for row in bias.rows] + [("shown first", card.measures.get("first_shown"))]
    found = [
        f"{what} {stated(measure)}"
        for what, measure in rows
        if isinstance(measure, Measure) and _apart(measure.low, measure.high)
    ]
    if not found:
        return "Length, refusal, sentiment, lines and place: none is shown to sway its verdicts."
    return (
        f"What sways its verdicts, as the share won by the answer with more of it (50 % is none): {'; '.join(found)}."
    )


def _apart(low: float | None, high: float | None) -> bool:
    """Whether an interval leaves out one half."""
    return low is not None and high is not None and not low <= 0.5 <= high
