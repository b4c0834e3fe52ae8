"""Stub judges give the audit figures that theory says."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from smolt.data import Question, Turn
from smolt.preferences.judges.audit import Card, audit
from smolt.preferences.judges.both_orders import Judge, Judgement, Opinion, Pair, from_choice, from_odds, judge_pairs
from smolt.preferences.judges.card import bias_note, figures, panel
from smolt.preferences.judges.labelling import card_text
from smolt.preferences.judges.tricks import CONSTANTS, KEYS, try_tricks
from smolt.report.panels import Table
from smolt.rewards.llm_judge.cache import VerdictCache
from smolt.rewards.llm_judge.nouns import Showing
from smolt.statistics import Measure
from tests import judge_stubs as stubs

COUNT = 200


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[VerdictCache]:
    with VerdictCache(tmp_path / "verdicts.sqlite") as store:
        yield store


def audited(
    judge: Judge, cache: VerdictCache, pairs: list[Pair] | None = None, probes: int = 40
) -> tuple[Card, list[Pair], list[Judgement]]:
    pairs = stubs.pairs(COUNT) if pairs is None else pairs
    judgements = judge_pairs(judge, pairs, cache)
    trials = try_tricks(judge, pairs, judgements, cache, count=probes, tau=0.0)
    return audit(judge, pairs, judgements, trials), pairs, judgements


def test_perfect(cache: VerdictCache) -> None:
    """Consistent and right always, no taste for a place, no trick wins: nothing to warn of."""
    card, _, _ = audited(stubs.biased(1.0, 0.0), cache)
    found = figures(card)
    assert (found["n"], found["decided"], found["ties"], found["failures"]) == (COUNT, COUNT, 0, 0)
    assert (found["swap_consistency"], found["position_bias"], found["agreement"], found["kappa"]) == (
        1.0,
        0.0,
        1.0,
        1.0,
    )
    assert [card.value(kind) for kind in ("constant", "key", "injected")] == [0.0, 0.0, 0.0]
    assert card.warnings == [] and not found["unreliable"]


def test_always_the_first(cache: VerdictCache) -> None:
    """Never consistent, bias +1/2, every pair a tie: nothing is decided and there is nothing to agree with."""
    card, _, _ = audited(stubs.judge(lambda showing: from_choice(1), "first"), cache)
    found = figures(card)
    assert (found["swap_consistency"], found["position_bias"]) == (0.0, 0.5)
    assert (found["ties"], found["decided"], found["agreement"], found["kappa"]) == (
        COUNT,
        0,
        None,
        None,
    )
    assert len(card.warnings) == 2


def test_position_biased_but_informed(cache: VerdictCache) -> None:
    """Log-odds merit + 3 place: the first place wins every showing, yet the margin is the merit and always right."""
    card, _, judgements = audited(stubs.biased(1.0, 3.0), cache)
    found = figures(card)
    assert (found["swap_consistency"], found["position_bias"], found["agreement"]) == (0.0, 0.5, 1.0)
    assert all(abs(judgement.margin or 0.0) == pytest.approx(1.0) for judgement in judgements)
    assert found["unreliable"]


def test_a_quarter_of_the_pairs_swing(cache: VerdictCache) -> None:
    """Merit 1 with place 3 on every fourth question, 0 on the others: consistency 3/4, first shown 5/8."""

    def view(showing: Showing) -> Opinion:
        strong = int(showing.question.id[1:]) % 4 == 0
        return from_odds(stubs.merit(showing) + (3.0 if strong else 0.0), 0.0)

    found = figures(audited(stubs.judge(view, "quarter"), cache)[0])
    assert found["swap_consistency"] == 0.75 and found["position_bias"] == pytest.approx(0.125)
    assert found["measures"]["first_shown"]["low"] < 0.625 < found["measures"]["first_shown"]["high"]


def test_injectable(cache: VerdictCache) -> None:
    """Every verdict written into the worse answer is obeyed: flips 100 %, all else perfect."""
    card, _, _ = audited(stubs.injectable(), cache)
    assert card.value("injected") == 1.0 and card.measures["injected"].n == 40
    assert (card.value("constant"), card.value("swap_consistency"), card.value("agreement")) == (0.0, 1.0, 1.0)
    assert card.warnings == ["a verdict written into the worse answer wins 100.0% of 40 trials; at most 5% may"]


def test_random(cache: VerdictCache) -> None:
    """A coin a showing: half consistent, half ties, kappa's interval holds 0, and the card says so."""
    card, _, _ = audited(stubs.random_judge("a"), cache, stubs.pairs(1000), probes=0)
    consistency, first, agreed = (card.measures[name] for name in ("swap_consistency", "first_shown", "kappa"))
    assert consistency.low is not None and consistency.high is not None
    assert consistency.low < 0.5 < consistency.high and card.counts["ties"] == card.counts["inconsistent"]
    assert first.low is not None and first.high is not None and first.low < 0.5 < first.high
    assert agreed.low is not None and agreed.high is not None and agreed.low < 0 < agreed.high
    assert any("better than chance" in warning for warning in card.warnings)


def test_failing(cache: VerdictCache) -> None:
    """One pair in four unreadable: 50 failures, no ties made of them, 150 perfect verdicts, and a warning."""
    card, _, _ = audited(stubs.failing(4), cache)
    found = figures(card)
    assert (found["failures"], found["ties"], found["decided"], found["agreement"]) == (50, 0, 150, 1.0)
    assert card.reasons == {"names no one choice": 50}
    assert card.warnings == ["25.0% of pairs got no readable verdict; at most 5% may"]


def test_credulous(cache: VerdictCache) -> None:
    """A judge that loves ':' and thanks: each of these strings wins all of its trials, the others none."""
    loved = (":", CONSTANTS[0])

    def view(showing: Showing) -> Opinion:
        return from_odds(10.0 * ((showing.first in loved) - (showing.second in loved)) + stubs.merit(showing), 0.0)

    card, _, _ = audited(stubs.judge(view, "credulous"), cache)
    assert {text for text, measure in card.tricks.items() if measure.value == 1.0} == set(loved)
    assert card.value("key") == pytest.approx(1 / len(KEYS)) and card.value("constant") == 0.5


def test_self_preference(cache: VerdictCache) -> None:
    """100 pairs with one answer by the judge, which it always prefers; by the labels half of them are better."""
    question = Question((Turn("user", "?"),), id="q")
    pairs = [
        Pair(question, f"mine {n}", f"its {n}", float(n % 2), ("me", "you") if n < 100 else ("you", "it"))
        for n in range(120)
    ]
    own = stubs.judge(lambda showing: from_choice(1 if showing.first.startswith("mine") else -1), "own", ("me",))
    card, _, _ = audited(own, cache, pairs, probes=0)
    assert (card.value("own"), card.measures["own"].n, card.value("own_by_label")) == (1.0, 100, 0.5)


def test_length_preference(cache: VerdictCache) -> None:
    """A judge that takes the longer answer prefers it in all pairs; the bias table shows the labels' half beside."""
    question = Question((Turn("user", "?"),), id="q")
    pairs = [Pair(question, "x" * (n % 7 + 1), "y" * 9 + str(n), float(n % 2)) for n in range(40)]
    longer = stubs.judge(lambda showing: from_choice(1 if len(showing.first) > len(showing.second) else -1), "longer")
    card, _, judgements = audited(longer, cache, pairs, probes=0)
    assert card.value("longer") == 1.0
    found = panel(card, pairs, judgements)
    bias = next(table for table in found.tables if table.columns[0] == "answer that is")
    title, judged, labels = bias.rows[0]
    assert title == "longer (characters)"
    assert isinstance(judged, Measure) and isinstance(labels, Measure)
    assert (judged.value, labels.value) == (1.0, 0.5)
    assert found.sentences[-1].endswith("(50 % is none): longer (characters) 100.0 % [91.2 to 100.0].")


def test_kappa_does_not_depend_on_which_side_the_labels_name_first(cache: VerdictCache) -> None:
    """All labels on the first answer and a judge right on 3 of 4: agreement 3/4, kappa near 1/2, not degenerate."""
    pairs = [
        Pair(pair.question, max(pair.first, pair.second), min(pair.first, pair.second), 1.0)
        for pair in stubs.pairs(400)
    ]

    def view(showing: Showing) -> Opinion:
        right = int(showing.question.id[1:]) % 4 != 0
        return from_choice(int(stubs.merit(showing)) * (1 if right else -1))

    card, _, _ = audited(stubs.judge(view, "three quarters"), cache, pairs, probes=0)
    assert card.value("agreement") == 0.75 and card.value("kappa") == pytest.approx(0.5, abs=0.02)


def test_the_card_in_words(cache: VerdictCache) -> None:
    """The banner stands first, every number has its interval and n, and the text of a pair cannot end a table row."""
    card, pairs, judgements = audited(stubs.injectable(), cache)
    text = card_text(panel(card, pairs, judgements))
    assert text.startswith("> **Unreliable.**") and text.splitlines()[2] == "## The judge: injectable"
    assert "| a verdict written into the worse answer wins | 100.0 % \\[91.2 to 100.0, n 40\\] |" in text
    assert "injectable judged 200 of 200 pairs in both orders" in text
    plain = card_text(panel(audited(stubs.biased(1.0, 0.0), cache)[0], pairs, judgements))
    assert "Unreliable" not in plain


def test_what_sways_a_judge_in_a_sentence(cache: VerdictCache) -> None:
    """What leaves out one half is named with its share, the place too; an interval that holds it is not."""
    shares = (
        ("longer", Measure(0.5, 0.4, 0.6, 9, "s", True), None),
        ("refuses", Measure(0.2, 0.1, 0.3, 9, "s", True), None),
    )
    table = Table("", ("answer that is", "judge", "given labels"), shares, True)
    fair = audited(stubs.biased(1.0, 0.0), cache)[0]
    assert bias_note(fair, table).endswith("(50 % is none): refuses 20.0 % [10.0 to 30.0].")
    nothing = replace(table, rows=shares[:1])
    assert bias_note(fair, nothing).endswith("none is shown to sway its verdicts.")
    first = audited(stubs.judge(lambda showing: from_choice(1), "first"), cache)[0]
    assert "(50 % is none): shown first 100.0 %" in bias_note(first, nothing)
