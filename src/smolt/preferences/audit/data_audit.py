"""The audit of a preference file: what was found, as figures and as a Panel. Texts are shown only on request."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from smolt.data import DataSource, load
from smolt.preferences.audit.bias import Trait, traits_of
from smolt.preferences.audit.conflicts import circles, opposites
from smolt.preferences.audit.duplicates import clusters, normalised
from smolt.preferences.audit.labelled_pairs import LabelledPair, LabelledPairs, read_items
from smolt.preferences.audit.leakage import Leakage, leakage_of
from smolt.preferences.audit.suspects import Ranking, rank_by_cross_fit
from smolt.report.panels import Panel, Table
from smolt.report.wording import counted, stated
from smolt.statistics import Measure, proportion

LOG = logging.getLogger(__name__)
SHOWN = 20  # suspects and lines that a table or sentence names
DOUBTED = 0.5


@dataclass(frozen=True)
class SourceFigures:
    """One source's figures: pairs, share of longer answers preferred, share of labels the held-out model shares."""

    source: str
    n: int
    longer: Measure | None
    expected: Measure | None


@dataclass(frozen=True)
class Found:
    """What an audit found; groups are lines of the file.

    Attributes:
        path: the file. items: its pairs. skipped: rows left out.
        ties: pairs of weight a half. same: pairs of two equal answers.
        exact: groups of pairs with the same texts. near: groups that are nearly the same, exact ones included.
        opposite, circles: groups of labels that cannot all be right.
        traits: what the labels prefer. leakage: None without a test file.
        ranking: of labels by doubt; None with fewer than 40 labelled pairs.
        sources: None where no column says.
    """

    path: str
    items: Sequence[LabelledPair]
    skipped: int
    ties: int
    same: tuple[int, ...]
    exact: tuple[tuple[int, ...], ...]
    near: tuple[tuple[int, ...], ...]
    opposite: tuple[tuple[int, ...], ...]
    circles: tuple[tuple[int, ...], ...]
    traits: tuple[Trait, ...]
    leakage: Leakage | None
    ranking: Ranking | None
    sources: tuple[SourceFigures, ...]


@dataclass(frozen=True)
class AuditOptions:
    """What to look at: a test file for leakage, the column of the sources, a judge of doubt, the seed of the folds."""

    test: DataSource | None = None
    source_field: str | None = None
    rank: Callable[[Sequence[LabelledPair]], Ranking | None] | None = None
    seed: int = 0


def audit_preferences(data: DataSource, options: AuditOptions) -> Found:
    """Audit a file of preferences.

    Raises:
        UserError: a file cannot be read.
    """
    read = read_items(data, options.source_field)
    items = read.items
    LOG.info("ranking %d pairs by how far their labels are doubted", len(items))
    ranking = options.rank(items) if options.rank is not None else rank_by_cross_fit(items, options.seed)
    LOG.info("looking for repeats and contradictions among %d pairs", len(items))
    texts = [(normalised(item.asked), normalised(item.better), normalised(item.worse)) for item in items]
    return Found(
        path=read.path,
        items=items,
        skipped=read.skipped,
        ties=sum(item.tie for item in items),
        same=tuple(item.line for item in items if item.better == item.worse),
        exact=_equal(items),
        near=tuple(
            tuple(items[place].line for place in group) for group in clusters([" ".join(text) for text in texts])
        ),
        opposite=tuple(map(tuple, opposites(items))),
        circles=tuple(map(tuple, circles(items))),
        traits=tuple(traits_of(items)),
        leakage=None if options.test is None else _leakage(items, options.test),
        ranking=ranking,
        sources=_parts(read, ranking),
    )


def audit_panel(found: Found) -> Panel:
    """The audit as a finding."""
    tables = [_problems(found), _biases(found.traits)]
    if found.sources:
        tables.append(_sources(found.sources))
    if found.ranking is not None:
        tables.append(_suspects(found))
    return Panel("preference-data", "Preference data", _sentences(found), _warnings(found), tuple(tables))


def _equal(items: Sequence[LabelledPair]) -> tuple[tuple[int, ...], ...]:
    groups: dict[tuple[object, ...], list[int]] = {}
    for item in items:
        groups.setdefault((item.context, item.better, item.worse), []).append(item.line)
    return tuple(tuple(lines) for lines in groups.values() if len(lines) > 1)


def _leakage(items: Sequence[LabelledPair], test: DataSource) -> Leakage:
    loaded = load(test, "questions")
    asked = ["\n".join(turn.content for turn in question.context) for question in loaded.records]
    return leakage_of([item.asked for item in items], asked, loaded.lines)


def _parts(read: LabelledPairs, ranking: Ranking | None) -> tuple[SourceFigures, ...]:
    if read.source_field is None:
        return ()
    expected = {} if ranking is None else {p: d < DOUBTED for p, d in zip(ranking.places, ranking.doubt, strict=True)}
    places: dict[str, list[int]] = {}
    for place, item in enumerate(read.items):
        places.setdefault(item.source, []).append(place)
    return tuple(
        SourceFigures(
            source or "(none)",
            len(own),
            traits_of([read.items[place] for place in own])[0].preferred,
            proportion([expected[place] for place in own if place in expected]),
        )
        for source, own in sorted(places.items(), key=lambda entry: -len(entry[1]))
    )


def _sentences(found: Found) -> tuple[str, ...]:
    labelled = len(found.items) - found.ties
    said = [f"{found.path}: {len(found.items):,} pairs, {labelled:,} of them labelled, {counted(found.ties, 'tie')}."]
    longer = found.traits[0].preferred
    if longer is not None:
        said.append(f"The longer answer is preferred in {stated(longer)} of the pairs whose lengths differ.")
    if found.ranking is None:
        said.append("Too few labelled pairs (under 40) to rank suspected labels.")
    elif found.ranking.accuracy is not None:
        said.append(
            f"Judged by {found.ranking.by}, {stated(found.ranking.accuracy)} of the labels are as expected; the rest "
            "is ranked by doubt. A doubted label is a label to look at, not a wrong one."
        )
    return tuple(said)


def _warnings(found: Found) -> tuple[str, ...]:
    said = []
    wrong = [*found.opposite, *found.circles]
    if wrong:
        lines = sorted({line for group in wrong for line in group})
        said.append(f"{len(wrong)} groups of labels contradict one another, lines {_lines([lines])}.")
    if found.leakage is not None and (found.leakage.exact or found.leakage.near):
        leak = found.leakage
        said.append(
            f"{len(leak.exact):,} of {leak.questions:,} test questions are in the training data word for word, "
            f"{len(leak.near):,} more nearly: figures on them are too good."
        )
    if found.ranking is not None and _as_a_coin(found.ranking):
        said.append(
            "The held-out model does no better than a coin on these labels: its ranking says nothing and is not listed."
        )
    return tuple(said)


def _as_a_coin(ranking: Ranking) -> bool:
    """Whether the model is not shown to know more of the labels than a coin."""
    accuracy = ranking.accuracy
    return accuracy is not None and accuracy.low is not None and accuracy.low <= 0.5


def _problems(found: Found) -> Table:
    groups: list[tuple[str, Sequence[Sequence[int]]]] = [
        ("the same pair again", found.exact),
        ("nearly the same pair again", found.near),
        ("two equal answers", [[line] for line in found.same]),
        ("labelled both ways", found.opposite),
        ("circles of preferences", found.circles),
    ]
    if found.leakage is not None:
        groups.append(("test questions in training, exact", [[line] for line in found.leakage.exact]))
        groups.append(("test questions in training, near", [[line] for line in found.leakage.near]))
    rows = tuple((name, len(lines), sum(map(len, lines)), _lines(lines) or None) for name, lines in groups)
    return Table(
        "What is in the data more than once, or contradicts itself.", ("what", "groups", "pairs", "lines"), rows
    )


def _biases(traits: Sequence[Trait]) -> Table:
    return Table(
        "Traits of the answers: how many have one, and how often it is preferred where one answer of the two has it.",
        ("trait", "preferred answers", "other answers", "preferred where one has it"),
        tuple((one.name, one.better, one.worse, one.preferred) for one in traits),
        rate=True,
    )


def _sources(parts: Sequence[SourceFigures]) -> Table:
    return Table(
        "By source: share of longer answers preferred, and share of labels that the held-out model expected.",
        ("source", "longer preferred", "as expected"),
        tuple((f"{one.source} ({one.n:,})", one.longer, one.expected) for one in parts),
        rate=True,
    )


def _suspects(found: Found) -> Table:
    """Labels that the model would have given the other way; none where its ranking says nothing."""
    ranking = found.ranking
    ranked = [] if ranking is None or _as_a_coin(ranking) else zip(ranking.places, ranking.doubt, strict=True)
    top = [(place, doubt) for place, doubt in ranked if doubt > 0.5][:SHOWN]
    return Table(
        "The most doubted labels: their lines, and the model's probability that the other answer is better.",
        ("line", "doubt"),
        tuple((str(found.items[place].line), doubt) for place, doubt in top),
    )


def _lines(groups: Sequence[Sequence[int]]) -> str:
    numbers = [line for group in groups for line in group]
    return ", ".join(map(str, numbers[:SHOWN])) + (", ..." if len(numbers) > SHOWN else "")
