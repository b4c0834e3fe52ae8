"""What the labels are worth: each annotator's habits, gold questions, and agreement beyond chance."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import median

from smolt.preferences.people.nouns import BlindPair, Label
from smolt.preferences.people.store import LabelStore
from smolt.report.panels import Panel, Table
from smolt.report.wording import counted, stated
from smolt.statistics import Measure, kappa, proportion

DECIDED = ("first", "second")
GOLD_FLOOR = 0.8  # an annotator whose gold accuracy is shown to lie below is named
UNSURE = "no agreement beyond chance is shown"


@dataclass(frozen=True)
class Habits:
    """One annotator's figures.

    Attributes:
        name: who.
        labels: labels that stand, those of gold questions included, skips not.
        asked: how many of them are of gold questions.
        skips, undone: pairs passed over, labels taken back.
        left: share of decided labels for the answer that stood on the left; a half where position means nothing.
        longer: share of decided labels for the longer answer, in characters.
        tie, both_bad: shares of the labels that are no skip.
        gold: share of gold questions answered as known.
        seconds: median time of a label; None where it was not measured.
    """

    name: str
    labels: int
    asked: int
    skips: int
    undone: int
    left: Measure | None
    longer: Measure | None
    tie: Measure | None
    both_bad: Measure | None
    gold: Measure | None
    seconds: float | None


@dataclass(frozen=True)
class Agreement:
    """Two annotators on the pairs both labelled (no gold questions, no skips): kappa over the four choices."""

    a: str
    b: str
    n: int
    same: Measure | None
    kappa: Measure | None


@dataclass(frozen=True)
class Figures:
    """Everything `smolt label stats` says."""

    pairs: int
    gold: int
    labelled: int
    habits: tuple[Habits, ...]
    agreements: tuple[Agreement, ...]


def figures_of(store: LabelStore) -> Figures:
    """The figures of a store."""
    pairs, labels, undone = store.pairs(), store.labels(), store.undone()
    by_annotator: dict[str, list[Label]] = {name: [] for name in undone}
    for label in labels:
        by_annotator.setdefault(label.annotator, []).append(label)
    names = sorted(by_annotator)
    return Figures(
        pairs=sum(pair.known is None for pair in pairs.values()),
        gold=sum(pair.known is not None for pair in pairs.values()),
        labelled=len({label.pair for label in labels if label.choice != "skip" and pairs[label.pair].known is None}),
        habits=tuple(habits_of(name, by_annotator[name], pairs, undone.get(name, 0)) for name in names),
        agreements=tuple(
            agreement_of(a, b, by_annotator[a], by_annotator[b], pairs) for a, b in combinations(names, 2)
        ),
    )


def habits_of(name: str, labels: Sequence[Label], pairs: dict[str, BlindPair], undone: int) -> Habits:
    """One annotator's figures from their labels."""
    given = [label for label in labels if label.choice != "skip"]
    decided = [label for label in given if label.choice in DECIDED]
    seconds = [label.seconds for label in labels if label.seconds is not None]
    return Habits(
        name,
        labels=len(given),
        asked=sum(pairs[label.pair].known is not None for label in given),
        skips=len(labels) - len(given),
        undone=undone,
        left=proportion([label.choice == label.left for label in decided if label.left is not None]),
        longer=proportion([_took_longer(label, pairs[label.pair]) for label in decided if _differ(pairs[label.pair])]),
        tie=proportion([label.choice == "tie" for label in given]),
        both_bad=proportion([label.choice == "both_bad" for label in given]),
        gold=proportion([label.choice == pairs[label.pair].known for label in given if pairs[label.pair].known]),
        seconds=median(seconds) if seconds else None,
    )


def agreement_of(
    a: str, b: str, first: Sequence[Label], second: Sequence[Label], pairs: dict[str, BlindPair]
) -> Agreement:
    """Agreement of two annotators, from their labels."""
    choices = [
        {label.pair: label.choice for label in labels if label.choice != "skip" and pairs[label.pair].known is None}
        for labels in (first, second)
    ]
    both = [(choice, choices[1][pair]) for pair, choice in choices[0].items() if pair in choices[1]]
    return Agreement(a, b, len(both), proportion([one == other for one, other in both]), kappa(both))


def label_panel(figures: Figures) -> Panel:
    """The figures as a finding: sentences, warnings, a table of annotators and one of agreements."""
    habits = figures.habits
    asked = sum(one.asked for one in habits)
    given = sum(one.labels for one in habits) - asked
    head = f"{counted(len(habits), 'annotator')} gave {counted(given, 'label')} on {figures.labelled:,} of "
    head += counted(figures.pairs, "pair")
    head += f", and {asked:,} on gold questions." if asked else "."
    return Panel(
        "human-labels",
        "Human labels",
        sentences=(head, *(_said(one) for one in figures.agreements if one.n)),
        warnings=tuple(warning for one in habits for warning in _warnings(one)),
        tables=(*_habit_tables(habits), *_agreements(figures.agreements)),
    )


def _took_longer(label: Label, pair: BlindPair) -> bool:
    return (label.choice == "first") == (len(pair.first) > len(pair.second))


def _differ(pair: BlindPair) -> bool:
    return len(pair.first) != len(pair.second)


def _said(one: Agreement) -> str:
    names = f"{one.a} and {one.b}, {one.n:,} pairs in common"
    if one.kappa is None:
        return f"{names}: both gave one and the same label throughout, so kappa says nothing."
    size = f"{names}: Cohen's kappa {stated(one.kappa)}"
    if one.kappa.low is None:
        return f"{size}, without an interval."
    return f"{size}; {UNSURE}." if one.kappa.low <= 0 else f"{size}."


def _warnings(one: Habits) -> list[str]:
    found = []
    if one.gold is not None and one.gold.high is not None and one.gold.high < GOLD_FLOOR:
        found.append(
            f"{one.name} answered {one.gold.value:.0%} of {one.gold.n} gold questions as known, "
            f"at most {one.gold.high:.0%}: look at these labels before training on them."
        )
    if one.left is not None and one.left.low is not None and one.left.high is not None:
        side = "left" if one.left.low > 0.5 else "right" if one.left.high < 0.5 else ""
        if side:
            found.append(
                f"{one.name} took the answer on the {side} more often than chance would ({one.left.value:.0%} left, "
                f"n = {one.left.n}): sides are drawn at random, so this is a habit, not a preference."
            )
    return found


def _habit_tables(habits: Sequence[Habits]) -> list[Table]:
    counts = Table(
        "Each annotator's labels, how many of them on gold questions, and the median time of one in seconds.",
        ("annotator", "labels", "gold", "skipped", "taken back", "seconds"),
        tuple((one.name, one.labels, one.asked, one.skips, one.undone, one.seconds) for one in habits),
    )
    shares = Table(
        "Gold questions answered as known; of decided labels, the share for the left and for the longer answer.",
        ("annotator", "gold", "left", "longer", "ties", "both bad"),
        tuple((one.name, one.gold, one.left, one.longer, one.tie, one.both_bad) for one in habits),
        rate=True,
    )
    return [counts, shares] if habits else []


def _agreements(agreements: Sequence[Agreement]) -> list[Table]:
    table = Table(
        "Agreement on the pairs both labelled; kappa counts what chance would not give.",
        ("annotators", "pairs", "same label", "Cohen's kappa"),
        tuple((f"{one.a}, {one.b}", one.n, one.same, one.kappa) for one in agreements),
    )
    return [table] if agreements else []
