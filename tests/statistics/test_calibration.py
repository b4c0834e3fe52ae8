"""Proper scores, temperature, calibration error and risk by hand, by sklearn and by simulation."""

import math

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss

from smolt.statistics.calibration import calibration_change, calibration_error, reliability
from smolt.statistics.proper_scores import brier, decided_alone, fitted_temperature, log_score, risk_coverage


def test_scores_by_hand_and_by_sklearn() -> None:
    """Soft labels by hand; of two options the sum is twice sklearn's Brier score."""
    assert brier((0.7, 0.2, 0.1), (0.0, 0.5, 0.5)) == pytest.approx(0.49 + 0.09 + 0.16)
    assert log_score((0.5, 0.25, 0.25), (0.0, 0.5, 0.5)) == pytest.approx(math.log(4))
    assert log_score((1.0, 0.0), (0.0, 1.0)) == pytest.approx(12 * math.log(10))
    chances, truths = [0.9, 0.2, 0.6], [1, 0, 0]
    own = sum(brier((p, 1 - p), (t, 1 - t)) for p, t in zip(chances, truths, strict=True)) / 3
    assert own == pytest.approx(2 * brier_score_loss(truths, chances))


@pytest.mark.parametrize("true", [0.5, 1.0, 3.0])
def test_the_temperature_is_found_again(true: float) -> None:
    """Labels drawn at a temperature: the fit finds it; soft labels that are the probabilities themselves, exactly."""
    draws = np.random.default_rng(0)
    scores = draws.normal(0, 3, (4000, 4))
    shares = np.exp(scores / true)
    shares /= shares.sum(axis=1, keepdims=True)
    rows = [list(map(float, row)) for row in scores]
    assert fitted_temperature(rows, shares.tolist()) == pytest.approx(true, rel=1e-4)
    drawn = np.eye(4)[[draws.choice(4, p=share) for share in shares]]
    assert fitted_temperature(rows, drawn.tolist()) == pytest.approx(true, rel=0.1)


def test_few_questions_name_no_temperature_and_certain_ones_the_coldest() -> None:
    """19 questions; questions of different numbers of options that are all right."""
    assert fitted_temperature([(0.0, 1.0)] * 19, [(0.0, 1.0)] * 19) is None
    rows, wanted = [(0.0, 1.0), (0.0, 1.0, -math.inf, -1.0)] * 10, [(0.0, 1.0), (0.0, 1.0, 0.0, 0.0)] * 10
    assert fitted_temperature(rows, wanted) == pytest.approx(0.05, rel=0.01)


def test_the_calibration_error_by_hand() -> None:
    """Two bins of 4 and 2 answers: (4 |0.95 - 0.75| + 2 |0.55 - 0.5|) / 6."""
    confidence, right = [0.95] * 4 + [0.55] * 2, [1.0, 1.0, 1.0, 0.0, 1.0, 0.0]
    found = calibration_error(confidence, right)
    assert found is not None and found.value == pytest.approx((4 * 0.2 + 2 * 0.05) / 6) and found.n == 6
    bins = reliability(confidence, right)
    assert [(round(one.confidence, 2), one.right.value, one.right.n) for one in bins] == [
        (0.55, 0.5, 2),
        (0.95, 0.75, 4),
    ]
    assert calibration_error([], []) is None
    assert calibration_error([1.0], [1.0], ["a"]) is not None


def test_intervals_cover_what_is_true() -> None:
    """Answers that are overconfident by 0.15: the interval holds it, and a fall is shown, in 17 of 20 samples."""
    draws, held, fallen = np.random.default_rng(1), 0, 0
    for _ in range(20):
        chances = draws.uniform(0.5, 0.8, 500)
        right = (draws.uniform(size=500) < chances).astype(float).tolist()
        stated = (chances + 0.15).tolist()
        found = calibration_error(stated, right)
        assert found is not None and found.low is not None and found.high is not None
        held += found.low <= 0.15 <= found.high
        change = calibration_change(stated, chances.tolist(), right)
        assert change is not None and change.high is not None
        fallen += change.high < 0
    assert min(held, fallen) >= 17


def test_rows_of_one_prompt_are_resampled_together() -> None:
    """Every answer twice is no more evidence."""
    draws = np.random.default_rng(2)
    chances = draws.uniform(0.5, 1, 200)
    right = (draws.uniform(size=200) < 0.7).astype(float)
    once = calibration_error(chances.tolist(), right.tolist())
    names = [str(number) for number in range(200)] * 2
    twice = calibration_error([*chances] * 2, [*right] * 2, names)
    assert once is not None and twice is not None
    assert (twice.value, twice.low, twice.high) == pytest.approx((once.value, once.low, once.high))


def test_the_surest_are_decided_alone() -> None:
    """Five answers of which the two least sure are wrong; two of one confidence come in together."""
    confidence, right = [0.9, 0.8, 0.7, 0.6, 0.6], [1.0, 1.0, 1.0, 0.0, 0.0]
    assert risk_coverage(confidence, right) == ([0.2, 0.4, 0.6, 1.0], [0.0, 0.0, 0.0, 0.4])
    assert decided_alone(confidence, right, 0.03) == (0.6, 0.0)
    assert decided_alone(confidence, right, 0.4) == (1.0, 0.4)
    assert decided_alone([0.9, 0.1], [0.0, 1.0], 0.1) is None
