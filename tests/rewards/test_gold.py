"""Proxy against gold: the answers rated again, stretches with hand-derived numbers, the rule, and its false alarms."""

import math
from dataclasses import replace

import numpy as np
import pytest

from smolt.config import RewardMix, RewardPart
from smolt.errors import UserError
from smolt.rewards.audit.gold import Rated, Rerating, Stretch, into_stretches, parting, rate_again
from smolt.rewards.audit.gold_panel import Course, overoptimisation_panel
from smolt.rewards.build import rules_alone
from smolt.runs.rated_answers import RatedAnswer, as_row
from smolt.statistics import Measure, Z, mean, wilson

GOLD = RewardMix.model_validate("gsm8k")


def row(number: int, text: str, step: int = 1, reward: float | None = 0.5, **named: object) -> dict[str, object]:
    answer = RatedAnswer(f"q{number}", f"what is {number}?", "", text, 3, True, reward=reward)
    return {"step": step, **as_row(replace(answer, reference_solution=f"#### {number}")), **named}


def test_answers_are_rated_again_by_the_gold() -> None:
    """Right and wrong by the rule, whatever the training's reward was; the key is the question's id."""
    found = rate_again([row(1, "1"), row(2, "3", step=2, reward=0.9)], GOLD)
    assert found == Rerating([Rated(1, "q1", 0.5, 1.0), Rated(2, "q2", 0.9, 0.0)], abstained=0)


def test_the_question_and_its_solution_come_with_the_answer() -> None:
    """Without an id the text is the key; a row of other columns is refused by their names."""
    found = rate_again([row(1, "1", question_id="")], GOLD)
    assert found == Rerating([Rated(1, "what is 1?", 0.5, 1.0)], abstained=0)
    with pytest.raises(UserError, match=r"samples\.jsonl: question_id, kind, answer, tokens, stopped: missing"):
        rate_again([{"step": 1, "id": "q1", "question": "what is 1?", "text": "1", "stop": "stop"}], GOLD)


def test_what_a_rater_abstains_from_is_counted() -> None:
    """The proxy on the first, the gold on the second, whose question has no solution."""
    found = rate_again([row(1, "1", reward=None), row(2, "2", reference_solution=None), row(3, "3")], GOLD)
    assert found == Rerating([Rated(1, "q3", 0.5, 1.0)], abstained=2)


def test_only_rules_rate_again() -> None:
    """A model, a judge or a function of the user's is not asked thousands of times."""
    assert rules_alone(RewardMix.model_validate(["gsm8k", {"name": "length", "options": {"target": 8}}]).parts)
    for name in ("model", "python", "judge"):
        assert not rules_alone((RewardPart(name="gsm8k"), RewardPart(name=name, path="x")))
    with pytest.raises(UserError, match="unknown option"):
        rate_again([], RewardMix(parts=(RewardPart(name="gsm8k", options={"equal": "x"}),)))


def rated(update: int, number: int, proxy: float, gold: float) -> Rated:
    return Rated(update, f"{update}/{number}", proxy, gold)


def test_stretches_by_hand() -> None:
    """4 updates of 25 answers: 100 answers make 2 stretches of 2 updates, KL (0 + 1) / 2 and (4 + 9) / 2.

    Gold is right 10 + 15 and 20 + 25 times out of 50: Wilson's intervals. The proxy is the update + 0 or 1 by turns: of
    25 numbers 12 are odd, so its mean over updates 1 and 2 is 1.5 + 12 / 25; its interval is the normal one.
    """
    rights = {1: 10, 2: 15, 3: 20, 4: 25}
    answers = [rated(step, n, step + n % 2, float(n < rights[step])) for step in rights for n in range(25)]
    first, second = into_stretches(answers, {1: 0.0, 2: 1.0, 3: 4.0, 4: 9.0})
    assert [(s.first, s.last, s.kl) for s in (first, second)] == [(1, 2, 0.5), (3, 4, 6.5)]
    assert (first.gold.value, first.gold.low, first.gold.high) == (0.5, *wilson(25, 50))
    assert (second.gold.value, second.gold.low, second.gold.high) == (0.9, *wilson(45, 50))
    values = np.array([answer.proxy for answer in answers[:50]])
    half = Z * values.std(ddof=1) / math.sqrt(50)
    assert first.proxy.value == pytest.approx(1.98, abs=1e-12)
    assert (first.proxy.low, first.proxy.high) == pytest.approx((1.98 - half, 1.98 + half), abs=1e-12)


def test_twenty_stretches_at_most_and_fifty_questions_each() -> None:
    """60 updates of 64 make 20 of 3; 6 updates of 20 (120 questions) make 2; 40 make 1; none make none."""
    long = into_stretches([rated(step, n, 0.0, n % 2) for step in range(1, 61) for n in range(64)], {})
    assert [(s.first, s.last) for s in long] == [(3 * k + 1, 3 * k + 3) for k in range(20)]
    assert len(into_stretches([rated(step, n, 0.0, n % 2) for step in range(1, 7) for n in range(20)], {})) == 2
    assert len(into_stretches([rated(step, n, 0.0, n % 2) for step in range(1, 5) for n in range(10)], {})) == 1
    assert into_stretches([], {}) == []


def test_a_group_counts_as_one_question() -> None:
    """10 updates of 10 questions with 8 answers each are 100 questions: 2 stretches, not 16."""
    answers = [Rated(step, f"q{n // 8}", 0.0, n % 2) for step in range(1, 11) for n in range(80)]
    assert len(into_stretches(answers, {})) == 2


def test_an_update_without_a_kl_is_left_out_of_its_mean() -> None:
    """Updates whose groups carry no signal measure none; a stretch of such updates alone has none."""
    answers = [rated(step, n, 0.0, n % 2) for step in (1, 2, 3, 4) for n in range(25)]
    assert [s.kl for s in into_stretches(answers, {1: 1.0, 3: 2.0, 4: 4.0})] == [1.0, 3.0]
    assert [s.kl for s in into_stretches(answers, {1: 1.0})] == [1.0, None]


def test_answers_to_one_question_are_not_independent() -> None:
    """Groups of 8 that agree: the interval is the bootstrap's over questions, wider than Wilson's over answers."""
    answers = [Rated(1, f"q{n // 8}", 0.0, float(n // 8 % 2)) for n in range(160)]
    (stretch,) = into_stretches(answers, {})
    low, high = wilson(80, 160)
    assert stretch.gold.source.startswith("bootstrap by question")
    assert stretch.gold.low is not None and stretch.gold.low < low
    assert stretch.gold.high is not None and stretch.gold.high > high
    assert stretch.gold == mean([answer.gold for answer in answers], [answer.question for answer in answers])


def course(golds: list[float], proxies: list[float], width: float = 0.05, kl: bool = True) -> list[Stretch]:
    """Stretches of one update each with these means and intervals of +- width."""
    return [
        Stretch(
            place + 1,
            place + 1,
            float(place**2) if kl else None,
            Measure(proxy, proxy - width, proxy + width, 64, "normal"),
            Measure(gold, gold - width, gold + width, 64, "normal"),
        )
        for place, (gold, proxy) in enumerate(zip(golds, proxies, strict=True))
    ]


RISING = [0.1, 0.3, 0.5, 0.7, 0.9]


@pytest.mark.parametrize(
    ("golds", "proxies", "place"),
    [
        ([0.3, 0.5, 0.7, 0.4, 0.3], RISING, 2),  # both ends lie below 0.65 and the proxy above 0.55
        ([0.3, 0.3, 0.3, 0.3, 0.3], RISING, None),  # flat
        (RISING, RISING, None),  # rising together
        ([0.3, 0.5, 0.7, 0.65, 0.3], RISING, None),  # only the last one fell: 0.7 > 0.65
        ([0.3, 0.5, 0.7, 0.3, 0.65], RISING, None),  # it came back
        ([0.3, 0.5, 0.7, 0.4, 0.3], [0.5] * 5, None),  # the proxy did not rise: nothing was over-optimised
        ([0.3, 0.5, 0.7, 0.4, 0.3], [0.1, 0.3, 0.5, 0.7, 0.5], None),  # nor stayed above
        ([0.7, 0.3], [0.1, 0.9], None),  # too few
        ([0.7, 0.3, 0.3], [0.1, 0.9, 0.9], 0),
    ],
)
def test_the_rule(golds: list[float], proxies: list[float], place: int | None) -> None:
    found = course(golds, proxies)
    assert parting(found) == (None if place is None else found[place])


def test_no_interval_no_alarm() -> None:
    found = course([0.7, 0.3, 0.3], [0.1, 0.9, 0.9])
    bare = [Stretch(s.first, s.last, s.kl, s.proxy, Measure(s.gold.value, None, None, 1, "one value")) for s in found]
    assert parting(bare) is None


def test_false_alarms_are_rare() -> None:
    """Gold flat at a half, the proxy climbing, 20 stretches of 64 answers, 4,000 trainings of a fixed seed.

    Every alarm is false. The rule raises 18; to ask only whether the last stretch's mean is below the best one's by
    more than the interval of their difference, which looks sound, raises 950.
    """
    draws = np.random.default_rng(0).binomial(64, 0.5, size=(4000, 20))
    alarms, naive = 0, 0
    for rights in draws.tolist():
        stretches = [
            Stretch(n, n, None, Measure(n, n - 0.1, n + 0.1, 64, ""), Measure(k / 64, *wilson(k, 64), 64, "Wilson"))
            for n, k in enumerate(rights)
        ]
        alarms += parting(stretches) is not None
        best, last = max(rights) / 64, rights[-1] / 64
        naive += best - last > Z * math.sqrt((best * (1 - best) + last * (1 - last)) / 64)
    assert (alarms, naive) == (18, 950)


def shown(golds: list[float], proxies: list[float], kl: bool = True, abstained: int = 0) -> Course:
    """A course whose proxy has a standard deviation of 2, and whose gold one of 0.5."""
    answers = [Rated(1, "q", 2.0 * sign, 0.5 * sign) for sign in (-1.0, 1.0)]
    rating = Rerating(answers, abstained)
    return Course("ppo", "model", "gsm8k", rating, course(golds, proxies, kl=kl))


def test_the_panel_marks_where_they_part() -> None:
    """Gold's best, 0.7, stands at sqrt KL 2; in deviations of 0.5 from the first 0.3 it is 0.8 up, the proxy 0.2."""
    panel = overoptimisation_panel([shown([0.3, 0.5, 0.7, 0.4, 0.3], RISING)])
    assert panel is not None
    (warning,) = panel.warnings
    assert warning == (
        "ppo: proxy and gold part in update 3 (sqrt KL 2.00): since then the proxy (model) rose from 0.500 [0.450 to "
        "0.550] to 0.900 [0.850 to 0.950] and the gold (gsm8k) fell from 0.700 [0.650 to 0.750] to 0.300 [0.250 to "
        "0.350] (95 % intervals, n = 64 and 64 answers). What it learned after that is the proxy's faults."
    )
    assert len(panel.sentences) == 2
    proxy, gold, mark = panel.charts[0].series
    assert mark.x == (2.0,)
    assert mark.y == pytest.approx((0.8,))
    assert gold.x == proxy.x == (0.0, 1.0, 2.0, 3.0, 4.0)
    assert proxy.y == pytest.approx((0.0, 0.1, 0.2, 0.3, 0.4))
    assert gold.low[0] == pytest.approx(-0.1)
    assert panel.charts[0].x.startswith("sqrt KL")
    assert [row[0] for row in panel.tables[0].rows] == ["1", "2", "3", "4", "5"]


def test_a_panel_without_parting_says_what_it_would_take() -> None:
    panel = overoptimisation_panel([shown([0.3, 0.5, 0.7, 0.65, 0.6], RISING, abstained=1)])
    assert panel is not None
    assert panel.warnings == ()
    assert panel.sentences[0].endswith("of its training; left out: 1 that a reward abstained from.")
    assert panel.sentences[2].startswith("That they part is not shown: gold was best in update 3 (sqrt KL 2.00), 0.700")
    rising = overoptimisation_panel([shown(RISING, RISING)])
    assert rising is not None
    assert rising.sentences[2].startswith("They do not part: gold was best at the end, in update 5 (sqrt KL 4.00), 0.9")
    assert [series.name for series in rising.charts[0].series] == ["proxy", "gold"]


def test_without_a_kl_the_picture_is_over_updates() -> None:
    panel = overoptimisation_panel([shown(RISING, RISING, kl=False)])
    assert panel is not None
    assert (panel.charts[0].x, panel.charts[0].series[0].x) == ("update", (1.0, 2.0, 3.0, 4.0, 5.0))
    assert "KL" not in " ".join(panel.sentences)
    assert [row[1] for row in panel.tables[0].rows] == [None] * 5


def test_the_picture_is_in_the_order_of_the_kl() -> None:
    """A run that came back towards where it began: its points are joined from left to right."""
    wandering = shown(RISING, RISING)
    moved = [
        replace(stretch, kl=kl) for stretch, kl in zip(wandering.stretches, (0.0, 4.0, 1.0, 9.0, -0.1), strict=True)
    ]
    panel = overoptimisation_panel([replace(wandering, stretches=moved)])
    assert panel is not None
    assert panel.charts[0].series[0].x == (0.0, 0.0, 1.0, 2.0, 3.0)
    assert panel.charts[0].series[1].y == pytest.approx((0.0, 1.6, 0.8, 0.4, 1.2))


def test_nothing_to_see_no_panel() -> None:
    """No arm, or none whose training has two stretches."""
    assert overoptimisation_panel([]) is None
    assert overoptimisation_panel([shown([0.3], [0.1])]) is None


def test_a_reward_that_never_varies_is_drawn_flat() -> None:
    """No deviation to divide by."""
    flat = Course("ppo", "model", "gsm8k", Rerating([Rated(1, "q", 1.0, 1.0)], 0), course([1.0] * 3, [1.0] * 3, 0.0))
    panel = overoptimisation_panel([flat])
    assert panel is not None
    assert panel.charts[0].series[0].y == (0.0, 0.0, 0.0)
