"""The reward X-ray: P(no signal), the component table, alarms and the panel, against numbers derived by hand."""

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smolt.data import Answer, Question, Score, Turn
from smolt.rewards import Part, gsm8k, mix
from smolt.rewards.audit.linter import Finding, lint_reward
from smolt.rewards.audit.xray import XRay, advice, no_signal, reward_panel, share_of, signal_forecast, xray
from smolt.statistics import wilson


def question(name: str) -> Question:
    return Question((Turn("user", name),))


def seen(rewards: Mapping[str, Sequence[float | None]], tokens: int | None = None, stopped: bool = True) -> XRay:
    """Answers with these rewards; the i-th answer has i + 1 tokens unless told."""
    rows = [(name, value) for name, values in rewards.items() for value in values]
    answers = [Answer("x", place + 1 if tokens is None else tokens, stopped) for place in range(len(rows))]
    return xray([question(name) for name, _ in rows], answers, [Score(value) for _, value in rows])


def test_no_signal_by_hand() -> None:
    """2 right of 4: of the 6 pairs one is right-right and one wrong-wrong; of all four together none is alike."""
    assert no_signal([1, 1, 0, 0], 2) == pytest.approx(2 / 6)
    assert no_signal([1, 1, 0, 0], 4) == 0
    assert no_signal([0.3] * 4, 4) == 1
    assert no_signal([1, 0, 0], 4) is None


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=3, max_size=8), st.integers(2, 3))
def test_no_signal_is_the_share_of_all_groups(rewards: list[float], group: int) -> None:
    """Counted over every group that can be drawn."""
    alike = [len(set(drawn)) == 1 for drawn in combinations(rewards, group)]
    assert no_signal(rewards, group) == pytest.approx(sum(alike) / len(alike))


def test_no_signal_is_unbiased() -> None:
    """Its expectation over 16 draws at a solve rate of 0.05 is p^8 + (1 - p)^8 = 0.6634."""
    p, n, group = 0.05, 16, 8
    expected = sum(
        math.comb(n, right)
        * p**right
        * (1 - p) ** (n - right)
        * (no_signal([1] * right + [0] * (n - right), group) or 0)
        for right in range(n + 1)
    )
    assert expected == pytest.approx(p**group + (1 - p) ** group, abs=1e-12)
    assert expected == pytest.approx(0.6634, abs=5e-5)


def test_the_forecast_is_over_questions() -> None:
    """One question always wrong (1), one with 8 of 16 right (2 C(8,4) / C(16,4) = 140/1820): mean for G = 4."""
    found = signal_forecast([[0.0] * 16, [1.0] * 8 + [0.0] * 8])
    assert found[4].value == pytest.approx((1 + 140 / 1820) / 2)
    assert found[16].value == 0.5
    assert (found[16].low, found[16].high, found[16].n) == (*wilson(1, 2), 2)
    assert list(signal_forecast([[0.0] * 5])) == [4]


def test_a_share_of_shares_is_as_wide_as_a_coin() -> None:
    """Shares 0.25 and 0.75: Wilson for 1 success in 2."""
    measure = share_of([0.25, 0.75])
    assert (measure.value, measure.low, measure.high) == (0.5, *wilson(1, 2))


def test_the_component_table() -> None:
    """Right and length over 4 answers, one of them without a reward: means 1/3 and 2.5, fired 1/3 and all."""
    answers = [Answer("x", tokens, True) for tokens in (1, 2, 3, 4)]
    scores = [
        Score(value, {"right": value, "length": float(answer.tokens)})
        for value, answer in zip((0.0, 0.0, 1.0, None), answers, strict=True)
    ]
    found = xray([question(str(place)) for place in range(4)], answers, scores)
    total, right, length = found.parts
    assert (total.name, total.absent, total.low, total.high) == ("reward", 1, 0.0, 1.0)
    assert (right.mean.value, right.fired.value) == pytest.approx((1 / 3, 1 / 3))
    assert (length.mean.value, length.fired.value, length.absent) == (2.5, 1.0, 0)
    assert length.length is not None and length.length.value == 1.0
    assert found.rewards == (0.0, 0.0, 1.0) and found.tokens == (1, 2, 3)
    assert (found.answers, found.questions) == (4, 4)


def test_advice_on_a_hard_task() -> None:
    """1 right of 16: groups of 8 without signal in C(15,8) / C(16,8) = 50 % of draws; 2 questions of which one is 0."""
    hard = seen({"a": [1.0] + [0.0] * 15, "b": [0.0] * 16}, tokens=3)
    assert hard.no_signal[8].value == pytest.approx(0.75)
    said = advice(hard, 8)
    assert len(said) == 1
    assert said[0].startswith("groups of 8 give no signal in 75.0 % [") and "16 answers a question: 50.0 %" in said[0]
    assert "easier questions" in said[0]
    assert advice(hard, None) == []  # no groups compete in PPO


def test_advice_on_an_easy_task() -> None:
    easy = seen({"a": [0.0] + [1.0] * 15, "b": [1.0] * 16}, tokens=3)
    assert "harder questions" in advice(easy, 8)[0]


def test_advice_on_length_cut_off_and_abstention() -> None:
    """The reward is the length; nothing stops; one answer of 5 has no reward."""
    said = advice(seen({"a": [1.0, 2.0, 3.0, 4.0, None]}, stopped=False), None)
    assert said[0].startswith("0% of the answers end by themselves")
    assert said[1] == "1 of 5 answers got no reward (the rater abstained)"
    assert said[2].startswith("longer answers earn more (correlation with length +1.00)")


def test_the_raters_own_reason_is_what_is_said() -> None:
    """gsm8k on questions without solutions: the advice and the linter name the reason, and nothing is said to pass."""
    asked, answers = [question("a")] * 3, [Answer("x", 1, True)] * 3
    found = xray(asked, answers, mix([Part("gsm8k", 1.0, gsm8k())])(asked, answers))
    reason = "gsm8k: the question has no solution to compare with"
    assert advice(found, None) == [f"3 of 3 answers got no reward ({reason})"]
    findings = lint_reward(mix([Part("gsm8k", 1.0, gsm8k())]), asked)
    assert findings[0].message == f"the constant answer got no score, for 3 questions: {reason}"
    sentences = reward_panel("reward", "The reward", found, findings, None).sentences
    assert "The linter's made-up answers found no way around it, but not all of them got a score." in sentences


def test_what_never_varies() -> None:
    """All alike, also when alike is not 0; one difference is enough."""
    assert not seen({"a": [0.5] * 4}).varies
    assert not seen({"a": [None] * 4}).varies
    assert seen({"a": [0.5, 0.5, 0.0]}).varies


def test_the_panel() -> None:
    """Errors of the linter and the advice are warnings; the table has a row a part; a picture of every answer."""
    found = seen({"a": [1.0] + [0.0] * 15, "b": [0.0] * 16}, tokens=3)
    finding = Finding("empty", "error", "empty 1 against 1 for right and plain: saying nothing pays")
    panel = reward_panel("reward-grpo", "The reward of grpo", found, [finding], 8)
    assert panel.warnings == (finding.message, *advice(found, 8))
    assert panel.sentences[0] == "Measured on 32 answers to 2 questions."
    assert "found 1 ways" in panel.sentences[2]
    assert [row[0] for row in panel.tables[0].rows] == ["reward"]
    assert [row[0] for row in panel.tables[1].rows] == ["4", "8", "16"]
    assert len(panel.charts[0].series[0].x) == 32
