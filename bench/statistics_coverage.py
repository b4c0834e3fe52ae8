"""How often an interval that says 95 % holds the truth, and how often a test at 5 % finds a difference where none is.

`python -m bench.statistics_coverage` draws 10,000 samples a setting and prints the tables of bench/results; the slow
tests draw the same samples. What is drawn and resampled is a function of a fixed seed.
"""

import math
import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from smolt import statistics
from smolt.statistics.bootstrap import draws

DRAWS = 10_000
WILSON = [(20, 0.05), (20, 0.5), (50, 0.1), (200, 0.3), (1000, 0.02), (1319, 0.44)]
MCNEMAR = [(30, 0.2), (100, 0.1), (200, 0.24), (1319, 0.244)]
SIZES = (20, 30, 40, 50, 100, 200, 1000)
SKEWED = {"exponential": (1.0, 2.0), "log-normal": (math.exp(0.5), (math.e + 2) * math.sqrt(math.e - 1))}
"""Name -> its mean and its skewness."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Coverage:
    """A simulated share beside the exact one (None where there is none to be had)."""

    setting: str
    simulated: float
    exact: float | None

    @property
    def error(self) -> float:
        """The standard error of the simulated share."""
        share = self.simulated if self.exact is None else self.exact
        return math.sqrt(share * (1 - share) / DRAWS)


def wilson(n: int, rate: float) -> Coverage:
    """Wilson's interval of n questions of which each is right with this chance."""
    holds = np.array([low <= rate <= high for low, high in (statistics.wilson(k, n) for k in range(n + 1))])
    drawn = np.random.default_rng([n, round(1000 * rate)]).binomial(n, rate, DRAWS)
    exact = float(scipy_stats.binom.pmf(np.arange(n + 1), n, rate)[holds].sum())
    return Coverage(f"n = {n:,}, rate {rate}", float(holds[drawn].mean()), exact)


def mcnemar(n: int, discordant: float) -> Coverage:
    """Exact McNemar at 5 % on n pairs that are discordant with this chance, either way as likely."""
    random = np.random.default_rng([n, round(1000 * discordant), 1])
    counts = random.binomial(n, discordant, DRAWS)
    wins = random.binomial(counts, 0.5)
    found = [_rejects(int(win), int(count - win)) for win, count in zip(wins, counts, strict=True)]
    chances = scipy_stats.binom.pmf(np.arange(n + 1), n, discordant)
    exact = sum(chance * _size(count) for count, chance in enumerate(chances) if chance > 1e-15)
    return Coverage(f"n = {n:,}, discordant {discordant}", float(np.mean(found)), float(exact))


def _rejects(wins: int, regressions: int) -> bool:
    p_value = statistics.mcnemar(wins, regressions)
    return p_value is not None and p_value < statistics.ALPHA


def _size(count: int) -> float:
    """How often the test finds something among so many fair coins."""
    chances = scipy_stats.binom.pmf(np.arange(count + 1), count, 0.5)
    return float(sum(chance for wins, chance in enumerate(chances) if _rejects(wins, count - wins)))


def bootstrap(shape: str, n: int) -> Coverage:
    """The percentile interval of n scores of a skewed shape, resampled as `paired_bootstrap` does.

    Its resamples are functions of the seed and the place alone, so one matrix of counts serves all samples.
    """
    weights = resampling(n)
    mean = SKEWED[shape][0]
    held = 0
    for part in range(10):
        random = np.random.default_rng([n, part])
        size = (DRAWS // 10, n)
        sample = random.exponential(size=size) if shape == "exponential" else random.lognormal(size=size)
        low, high = np.percentile(sample @ weights, [2.5, 97.5], axis=1)
        held += int(((low <= mean) & (mean <= high)).sum())
    return Coverage(f"{shape}, n = {n:,}", held / DRAWS, None)


def resampling(n: int) -> Floats:
    """How much each of n values weighs in each resample, [n, resamples]."""
    weights = np.zeros((statistics.RESAMPLES, n))
    start = 0
    for chosen in draws(n, statistics.RESAMPLES, seed=0):
        rows = np.arange(start, start + len(chosen))[:, None]
        np.add.at(weights, (rows, chosen), 1 / n)
        start += len(chosen)
    return weights.T


def table(title: str, found: list[Coverage]) -> str:
    """Rows of Markdown under a heading."""
    lines = [f"## {title}", "", "| setting | simulated | standard error | exact |", "|---|---|---|---|"]
    for entry in found:
        exact = "" if entry.exact is None else f"{100 * entry.exact:.2f} %"
        lines.append(f"| {entry.setting} | {100 * entry.simulated:.2f} % | {100 * entry.error:.2f} | {exact} |")
    return "\n".join(lines)


def main() -> int:
    """Print all tables."""
    parts = [
        table("Coverage of Wilson's interval (says 95 %)", [wilson(*setting) for setting in WILSON]),
        table("Exact McNemar under no difference: share with p < 0.05", [mcnemar(*setting) for setting in MCNEMAR]),
        table(
            "Coverage of the bootstrap interval of a mean (says 95 %)",
            [bootstrap(shape, n) for shape in SKEWED for n in SIZES],
        ),
    ]
    print("\n\n".join(parts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
