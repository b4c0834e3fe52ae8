"""What a reward says of some answers before anything is trained on it: its parts, its length bias, its signal."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from smolt.data import Answer, Question, Score
from smolt.report.pairing import ranged
from smolt.report.panels import Chart, Panel, Series, Table
from smolt.report.wording import stated, value_text
from smolt.rewards.audit.linter import Finding
from smolt.rewards.mix import told
from smolt.statistics import Measure, correlation, measure, wilson

GROUPS = (4, 8, 16)
"""Group sizes of the forecast."""

WEAK = 0.5
"""A larger share of groups without signal than this is worth a warning."""

RARELY = 0.1
"""Below this share of answers that stop by themselves, most are cut off."""

LENGTH_BIAS = 0.5
"""A correlation with length above this, whose interval excludes 0 as well, is worth a warning."""

TOTAL = "reward"


@dataclass(frozen=True)
class PartFigures:
    """The whole reward or one of its components over the answers.

    Attributes:
        name: of the component; "reward" is the sum.
        mean: over the answers that have one, bootstrapped by question.
        fired: share of answers where it is not 0.
        low, high: its smallest and largest value.
        length: correlation with the answers' tokens; None where one of the two does not vary.
        absent: answers without a value.
    """

    name: str
    mean: Measure
    fired: Measure
    low: float
    high: float
    length: Measure | None
    absent: int


@dataclass(frozen=True)
class XRay:
    """A reward over sampled or written answers.

    Attributes:
        answers: how many were rated.
        questions: to how many questions.
        parts: the reward, then its components.
        no_signal: group size -> the chance that all answers of a group are rated alike; empty with too few answers.
        stop_rate: share of answers that ended by themselves.
        tokens: length of each answer that has a reward, with `rewards` the points of the picture.
        unscored: the rater's reason -> answers that got no reward for it.
    """

    answers: int
    questions: int
    parts: tuple[PartFigures, ...]
    no_signal: Mapping[int, Measure]
    stop_rate: float
    tokens: tuple[float, ...]
    rewards: tuple[float, ...]
    unscored: Mapping[str, int]

    @property
    def varies(self) -> bool:
        """Whether two answers differ in their reward."""
        return len(set(self.rewards)) > 1


def xray(questions: Sequence[Question], answers: Sequence[Answer], scores: Sequence[Score]) -> XRay:
    """Measure a reward on answers it has rated; answers to one question need not stand together.

    Args:
        questions: `questions[i]` is what `answers[i]` answers.
        answers: at least one.
        scores: one for each answer.
    """
    keys = [repr(question.context) for question in questions]
    columns = {TOTAL: [score.value for score in scores]}
    for name in {name: None for score in scores for name in score.components}:
        columns[name] = [score.components.get(name) for score in scores]
    lengths = [float(answer.tokens) for answer in answers]
    rated = [row for row in zip(lengths, columns[TOTAL], strict=True) if row[1] is not None]
    return XRay(
        answers=len(answers),
        questions=len(set(keys)),
        parts=tuple(
            part
            for name, column in columns.items()
            if (part := _part(name, column, keys, lengths, ranged(columns if name == TOTAL else [name])))
        ),
        no_signal=signal_forecast(_by_question(keys, columns[TOTAL])),
        stop_rate=sum(answer.stopped for answer in answers) / len(answers),
        tokens=tuple(row[0] for row in rated),
        rewards=tuple(row[1] for row in rated if row[1] is not None),
        unscored=Counter(score.reason or "the rater abstained" for score in scores if score.value is None),
    )


def no_signal(rewards: Sequence[float], group: int) -> float | None:
    """The chance that a group drawn from these rewards of one question is rated alike, and so teaches nothing.

    The unbiased estimate of sum_v p_v^G (of p^G + (1 - p)^G where rewards are right or wrong): the share of all groups
    that can be drawn without replacement whose rewards are equal, sum_v C(c_v, G) / C(n, G). None with n < G.
    """
    if len(rewards) < group:
        return None
    alike = sum(math.comb(count, group) for count in Counter(rewards).values())
    return alike / math.comb(len(rewards), group)


def signal_forecast(rewards: Sequence[Sequence[float]]) -> dict[int, Measure]:
    """The chance of a group without signal for each group size that the answers carry, over questions.

    Args:
        rewards: of each question's answers.
    """
    found = {}
    for group in GROUPS:
        shares = [share for row in rewards if (share := no_signal(row, group)) is not None]
        if shares:
            found[group] = share_of(shares)
    return found


def share_of(shares: Sequence[float]) -> Measure:
    """The mean of one share a question with Wilson's interval for as many trials as there are questions.

    No variable in [0, 1] varies more than one that is 0 or 1 with the same mean, so the interval is wide enough.
    """
    value = sum(shares) / len(shares)
    low, high = wilson(value * len(shares), len(shares))
    return Measure(value, low, high, len(shares), "Wilson, one share a question", rate=True)


def _by_question(keys: Sequence[str], values: Sequence[float | None]) -> list[list[float]]:
    groups: dict[str, list[float]] = {}
    for key, value in zip(keys, values, strict=True):
        groups.setdefault(key, []).extend([] if value is None else [value])
    return [group for group in groups.values() if group]


def _part(
    name: str, column: Sequence[float | None], keys: Sequence[str], lengths: Sequence[float], bounded: bool
) -> PartFigures | None:
    rows = [row for row in zip(column, keys, lengths, strict=True) if row[0] is not None]
    values = [row[0] for row in rows if row[0] is not None]
    average = measure(values, [row[1] for row in rows], bounded=bounded)
    if average is None:
        return None
    groups = _by_question([row[1] for row in rows], values)
    return PartFigures(
        name=name,
        mean=average,
        fired=share_of([sum(value != 0 for value in group) / len(group) for group in groups]),
        low=min(values),
        high=max(values),
        length=correlation([row[2] for row in rows], values),
        absent=len(column) - len(rows),
    )


def advice(found: XRay, group: int | None) -> list[str]:
    """What to change before training on this reward, in sentences; empty where nothing stands out.

    Args:
        found: the measured reward.
        group: answers for each question of a method that compares within groups; None for others.
    """
    said = []
    weak = found.no_signal.get(_nearest(group)) if group is not None else None
    if group is not None and weak is not None and weak.value > WEAK:
        size = _nearest(group)
        larger = "".join(
            f"; {other} answers a question: {value_text(measure)}"
            for other, measure in found.no_signal.items()
            if other > size and measure.value < weak.value
        )
        said.append(
            f"groups of {size} give no signal in {stated(weak)} of draws{larger}. Use more answers a question, "
            f"{_other_questions(found)}, or train longer by SFT first"
        )
    if found.stop_rate < RARELY:
        said.append(
            f"{found.stop_rate:.0%} of the answers end by themselves; the others are cut off. Raise "
            "sampling.max_tokens, or train by SFT with the stop token first"
        )
    if found.unscored:
        absent = sum(found.unscored.values())
        said.append(f"{absent} of {found.answers} answers got no reward ({told(found.unscored)})")
    for part in found.parts:
        said += _alarms(part, found.answers)
    return said


def verdict(found: XRay, group: int | None) -> list[str]:
    """What to change before training on this reward; of one that never varies only why nothing is learned from it."""
    return advice(found, group) if found.varies else [refusal(found)]


def refusal(found: XRay) -> str:
    """Why a reward without any difference is not trained on."""
    why = told(found.unscored) if found.unscored else ""
    if not found.rewards:
        return (
            f"none of {found.answers} answers to {found.questions} questions got a reward ({why}), so there is nothing "
            "to learn from"
        )
    said = f"all got {found.rewards[0]:g}" + (f", but {sum(found.unscored.values())} got none ({why})" if why else "")
    return (
        f"the reward does not vary: {found.answers} answers to {found.questions} questions were rated and {said}, "
        "so there is nothing to learn from. Where the reward is a function of yours, see that it looks at the answer; "
        "else use easier questions, train by SFT first, or raise sampling.max_tokens"
    )


def _alarms(part: PartFigures, answers: int) -> list[str]:
    """A component that never fires; a reward that follows the length."""
    said = []
    if part.fired.value == 0:
        said.append(f"{part.name} is 0 in all {answers - part.absent} answers")
    if part.name == TOTAL and (bias := part.length) is not None and abs(bias.value) > LENGTH_BIAS and _clear(bias):
        longer = "longer" if bias.value > 0 else "shorter"
        said.append(f"{longer} answers earn more (correlation with length {bias.value:+.2f}): training may follow it")
    return said


def _clear(measure: Measure) -> bool:
    """Whether the interval excludes 0."""
    return measure.low is not None and measure.high is not None and measure.low * measure.high > 0


def _nearest(group: int) -> int:
    return min(GROUPS, key=lambda size: abs(size - group))


def _other_questions(found: XRay) -> str:
    """Harder ones where most answers are as good as the best one, else easier ones."""
    best = sum(reward == max(found.rewards) for reward in found.rewards) if found.rewards else 0
    return "harder questions" if 2 * best > len(found.rewards) else "easier questions"


def reward_panel(name: str, title: str, found: XRay, findings: Sequence[Finding], group: int | None) -> Panel:
    """The finding for a report.

    Args:
        name: of the panel.
        title: of the panel.
        found: the measured reward.
        findings: of the linter.
        group: see `advice`.
    """
    errors = [f"{finding.message}" for finding in findings if finding.severity == "error"]
    sentences = [f"Measured on {found.answers} answers to {found.questions} questions."]
    if found.no_signal:
        shown = ", ".join(f"{stated(measure)} for G = {size}" for size, measure in found.no_signal.items())
        sentences.append(f"A group whose answers are all rated alike teaches nothing; the forecast: {shown}.")
    same = [part.name for part in found.parts if part.low == part.high and part.fired.value > 0]
    if same:
        sentences.append(f"The same in all answers, so they teach nothing: {', '.join(same)}.")
    sentences.append(_linter_sentence(findings))
    sentences += [f"The linter warns: {finding.message}." for finding in findings if finding.severity == "warning"]
    return Panel(
        name=name,
        title=title,
        sentences=tuple(sentences),
        warnings=(*errors, *verdict(found, group)),
        tables=_tables(found),
        charts=_charts(name, found),
    )


def _linter_sentence(findings: Sequence[Finding]) -> str:
    errors = sum(finding.severity == "error" for finding in findings)
    if errors:
        return f"The linter's made-up answers found {errors} ways to earn this reward without a right answer."
    if any(finding.severity == "warning" for finding in findings):
        return "The linter's made-up answers found no way around it, but not all of them got a score."
    return "The linter's made-up answers (decorated, stuffed, repeated, constant, empty) found no way around it."


def _tables(found: XRay) -> tuple[Table, ...]:
    parts = Table(
        caption="The reward and its components, before their weights. Fired: share of answers where it is not 0.",
        columns=("part", "mean", "fired", "least", "most", "correlation with length", "without a value"),
        rows=tuple(
            (part.name, part.mean, part.fired, part.low, part.high, part.length, part.absent) for part in found.parts
        ),
    )
    signal = Table(
        caption="The chance that a group of G answers to one question is rated alike, over the questions asked.",
        columns=("G", "no signal"),
        rows=tuple((str(size), measure) for size, measure in found.no_signal.items()),
        rate=True,
    )
    return (parts, signal) if found.no_signal else (parts,)


def _charts(name: str, found: XRay) -> tuple[Chart, ...]:
    if len(found.rewards) < 2:
        return ()
    caption = "Each answer's length and reward; a good reward does not rise with length alone."
    points = Series("answers", found.tokens, found.rewards)
    return (Chart(f"{name}-length", caption, "points", "length (tokens)", "reward", (points,)),)
