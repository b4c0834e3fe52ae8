"""Two orders become one judgement; no opinion never becomes a verdict."""

import json
import math
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from smolt.data import Question, Turn
from smolt.preferences.judges.both_orders import (
    Opinion,
    Pair,
    as_preferences,
    from_choice,
    from_odds,
    length_gap,
    sigmoid,
    silent,
    weigh,
)
from smolt.rewards.llm_judge.nouns import Status

QUESTION = Question((Turn("user", "Which?"),), id="q")
LOGIT = st.floats(-30, 30, allow_nan=False)


def test_margin_and_label_by_hand() -> None:
    """s = ln 3 and, swapped, ln(1/3): margin (ln 3 + ln 3)/2 = ln 3, label (3/4 + 1 - 1/4)/2 = 3/4."""
    judgement = weigh(from_odds(math.log(3), 0.0), from_odds(0.0, math.log(3)))
    assert judgement.outcome == "first" and judgement.consistent
    assert judgement.margin == pytest.approx(math.log(3)) and judgement.probability == pytest.approx(0.75)


def test_the_place_cancels_out_of_the_margin() -> None:
    """s = 2 and, swapped, 1, as of a judge that gives 1.5 to the first place: margin 1/2, both orders disagree."""
    judgement = weigh(from_odds(2.0, 0.0), from_odds(1.0, 0.0))
    assert judgement.margin == 0.5 and judgement.outcome == "first" and not judgement.consistent
    assert judgement.probability == pytest.approx((sigmoid(2.0) + 1 - sigmoid(1.0)) / 2)


@given(LOGIT, LOGIT, LOGIT)
def test_margin_is_free_of_the_place_and_label_has_its_side(merit: float, place: float, extra: float) -> None:
    """margin(merit, place) does not depend on the place; the label lies on the margin's side of 1/2."""
    one = weigh(from_odds(merit + place, 0.0), from_odds(-merit + place, 0.0))
    other = weigh(from_odds(merit + extra, 0.0), from_odds(-merit + extra, 0.0))
    assert one.margin == pytest.approx(merit, abs=1e-9) and other.margin == pytest.approx(merit, abs=1e-9)
    assert one.probability is not None and (one.probability - 0.5) * merit >= -1e-12


@given(LOGIT, LOGIT)
def test_swapping_the_pair_turns_the_judgement_round(first: float, second: float) -> None:
    one = weigh(from_odds(first, 0.0), from_odds(second, 0.0))
    other = weigh(from_odds(second, 0.0), from_odds(first, 0.0))
    assert one.margin == -(other.margin or 0.0)
    assert one.probability == pytest.approx(1 - (other.probability or 0.0), abs=1e-12)
    assert (one.outcome, other.outcome) in {("first", "second"), ("second", "first"), ("tie", "tie")}


def test_tau_makes_ties() -> None:
    """|margin| = 1 is a tie at tau 1 and decided at tau 0.99."""
    one, other = from_odds(1.0, 0.0), from_odds(-1.0, 0.0)
    assert weigh(one, other, tau=1.0).outcome == "tie"
    assert weigh(one, other, tau=0.99).outcome == "first"


def test_hard_choices() -> None:
    """A then B is the same answer twice: weight 1. A then A is its place twice: a tie at 1/2."""
    same = weigh(from_choice(1), from_choice(-1))
    place = weigh(from_choice(1), from_choice(1))
    assert (same.outcome, same.probability, same.consistent) == ("first", 1.0, True)
    assert (place.outcome, place.probability, place.consistent) == ("tie", 0.5, False)


@pytest.mark.parametrize("status", ["abstained", "failed", "unreached"])
def test_one_missing_opinion_is_no_verdict(status: Status) -> None:
    missing = silent(status, "why")
    for orders in ((missing, from_odds(5.0, 0.0)), (from_odds(5.0, 0.0), missing)):
        judgement = weigh(*orders)
        assert judgement.outcome == status and judgement.probability is None and not judgement.judged
        assert judgement.reason == "why" and not judgement.consistent


def test_the_worse_reason_counts() -> None:
    """failed and abstained together are failed; unreached is asked again, so it comes first."""
    assert weigh(silent("abstained", "long"), silent("failed", "?")).outcome == "failed"
    assert weigh(silent("failed", "?"), silent("unreached", "gone")).outcome == "unreached"


def test_preferences_hold_the_decided_pairs_with_the_better_answer_first() -> None:
    pair = Pair(QUESTION, "a", "b")
    second = weigh(from_odds(0.0, math.log(3)), from_odds(math.log(3), 0.0))
    rows = [second, weigh(from_choice(1), from_choice(1)), weigh(silent("failed", ""), silent("failed", ""))]
    made = as_preferences([pair] * 3, rows)
    assert [(one.chosen, one.rejected) for one in made] == [("b", "a")]
    assert made[0].weight == pytest.approx(0.75)


def test_inconsistent_pairs_weigh_little_or_are_dropped() -> None:
    """s = 2, swapped 1: weight (0.881 + 1 - 0.731)/2 = 0.575, or no pair at all."""
    judgement = weigh(from_odds(2.0, 0.0), from_odds(1.0, 0.0))
    (kept,) = as_preferences([Pair(QUESTION, "a", "b")], [judgement])
    assert kept.weight == pytest.approx(0.5748, abs=1e-4)
    assert as_preferences([Pair(QUESTION, "a", "b")], [judgement], drop_inconsistent=True) == []


def test_an_opinion_comes_back_from_json() -> None:
    for opinion in (from_odds(0.1, -0.2, text="why", tokens=(3, 4)), from_choice(-1), silent("failed", "x")):
        assert TypeAdapter(Opinion).validate_python(json.loads(json.dumps(asdict(opinion)))) == opinion


def test_length_gap() -> None:
    """3 against 4 characters is a quarter; two empty answers are alike."""
    assert length_gap(Pair(QUESTION, "abc", "abcd")) == pytest.approx(0.25)
    assert length_gap(Pair(QUESTION, "", "")) == 0.0
