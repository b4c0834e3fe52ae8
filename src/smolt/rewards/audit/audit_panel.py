"""An audit as a panel of a report: what was found in sentences, then the numbers and two pictures."""

from smolt.report.panels import Chart, Panel, Series, Table, measured_series
from smolt.report.wording import stated, value_text
from smolt.rewards.audit.auditing import RewardAudit
from smolt.rewards.audit.figures import TRIVIAL, Bin, Lean
from smolt.statistics import format_p

FOOLED = 0.5
"""A probe that beats the chosen answer in more pairs than this, interval included, is worth a warning."""


def called(name: str) -> str:
    """A reward model in words; one whose section is named after its stage has no other name."""
    return "reward model" if name == "reward" else f"reward model {name}"


def audit_panel(found: RewardAudit, name: str, title: str) -> Panel:
    """The finding for a report.

    Args:
        found: the audit.
        name: of the panel.
        title: of the panel.
    """
    return Panel(
        name=name,
        title=title,
        sentences=tuple(_sentences(found)),
        warnings=tuple(warnings(found)),
        tables=_tables(found),
        charts=_charts(found, name),
    )


def warnings(found: RewardAudit) -> list[str]:
    """What must not be overlooked."""
    said = [found.refused] if found.refused else []
    if found.seen:
        said.append(
            f"it was trained on {found.seen:,} of these {found.accuracy.n:,} pairs: its figures here say little of "
            "pairs it has not seen; audit it on others"
        )
    said += _lean(found.lean)
    for name, share in found.probes.items():
        if share.low is not None and share.low > FOOLED:
            said.append(f"the {name} answer is scored above the chosen one in {stated(share)} of the pairs")
    return said


def _lean(lean: Lean) -> list[str]:
    """The warning about length, where it is shown."""
    bias = lean.correlation
    if not lean.shown or bias is None or bias.low is None or bias.high is None:
        return []
    said = f"it leans on length: its lead grows with the length gap, r {stated(bias)}"
    if lean.longer is not None and lean.shorter is not None:
        said += (
            f"; right in {stated(lean.longer)} of the pairs whose chosen answer is the longer one, in "
            f"{stated(lean.shorter)} of those where it is the shorter one"
        )
    return [said]


def _sentences(found: RewardAudit) -> list[str]:
    own = found.accuracy
    said = [f"The preferred answer gets the higher score in {stated(own)} of {own.n:,} {_pairs(found)}."]
    best = max((name for name in TRIVIAL), key=lambda name: found.against[name].p_value)
    beside = found.against[best]
    verb = "is not shown to beat" if found.refused else "beats"
    said.append(
        f"It {verb} what needs no model: the hardest of them, '{best}', is right in {value_text(beside.baseline)} "
        f"(exact one-sided p {format_p(beside.p_value)})."
    )
    if "words" in found.against:
        words = found.against["words"]
        said.append(
            f"A bag of words, fitted on {found.words_from}, is right in {stated(words.baseline)}; the model is better "
            f"on {words.wins:,} pairs and worse on {words.losses:,} (exact one-sided p {format_p(words.p_value)})."
        )
    prefers, labels = found.lean.prefers_longer, found.lean.labels
    if prefers is not None and labels is not None:
        said.append(
            f"It prefers the longer answer in {stated(prefers)} of the pairs; the labels do in {value_text(labels)}."
        )
    said.append(f"Expected calibration error {found.ece:.3f}: 0 where a stated 80 % is right in 80 % of the pairs.")
    return said


def _pairs(found: RewardAudit) -> str:
    """What the pairs may be called."""
    return "pairs" if found.seen else "held-out pairs"


def _tables(found: RewardAudit) -> tuple[Table, ...]:
    beside = Table(
        caption=f"Share of {_pairs(found)} each gets right; better and worse: pairs only the reward model, only the "
        "baseline gets right (a pair it cannot decide counts half).",
        columns=("who", "accuracy", "model better", "model worse", "p"),
        rows=(
            ("reward model", found.accuracy, None, None, None),
            *(
                (name, entry.baseline, entry.wins, entry.losses, format_p(entry.p_value).removeprefix("= "))
                for name, entry in found.against.items()
            ),
        ),
        rate=True,
    )
    gaps = Table(
        caption="Accuracy by how many tokens the chosen answer is longer than the rejected one.",
        columns=("length gap", "accuracy"),
        rows=tuple((_span(part), part.accuracy) for part in found.gaps),
        rate=True,
    )
    probes = Table(
        caption="Made-up answers: share of pairs in which each is scored above the chosen answer.",
        columns=("probe", "above the chosen answer"),
        rows=tuple(found.probes.items()),
        rate=True,
    )
    return (beside, gaps, probes) if found.probes else (beside, gaps)


def _span(part: Bin) -> str:
    return f"{part.low:+.0f}" if part.low == part.high else f"{part.low:+.0f} to {part.high:+.0f}"


def _charts(found: RewardAudit, name: str) -> tuple[Chart, ...]:
    reliability = Chart(
        name=f"{name}-calibration",
        caption="How often the side the model prefers is the preferred one, by its stated probability; on the diagonal "
        "it means what it says.",
        kind="points",
        x="predicted probability",
        y="share right",
        series=(_series(found, found.calibration),),
        diagonal=True,
    )
    gaps = Chart(
        name=f"{name}-length",
        caption="Accuracy by length gap; a model that reads the answers is as good on the left as on the right.",
        kind="lines",
        x="chosen minus rejected (tokens)",
        y="share right",
        series=(_series(found, found.gaps),),
    )
    return (reliability, gaps)


def _series(found: RewardAudit, bins: list[Bin]) -> Series:
    measures, labels = [part.accuracy for part in bins], [f"n = {part.accuracy.n}" for part in bins]
    return measured_series(_pairs(found), measures, [part.middle for part in bins], labels)
