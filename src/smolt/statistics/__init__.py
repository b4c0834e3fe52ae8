"""Intervals, paired tests, and the sentences that may be written from them.

nouns        Measure, Comparison; the levels everything is stated at
proportions  Wilson's interval, exact McNemar, the paired interval
bootstrap    resampling whole prompts
estimates    shares, means, correlations, kappa, win rates; pass@k and best of k; the interval over training runs
comparisons  two arms on the same questions; the smallest difference that could have been shown; Holm's adjustment
claims       that b is at most a margin worse; one arm measured twice
logistic     logistic regression: with a penalty, and by maximum likelihood; the win rate at equal length
verdicts     the sentence of a comparison
proper_scores, calibration   probabilities of answers: Brier and log score, temperature, calibration error, risk

Conventions: rates and differences lie in [0, 1] and [-1, 1] and are printed in percentage points; intervals are 95 %;
in a pair, a is the baseline and b the candidate, a win is a question where b is the better one, difference = b - a.
A number that the data do not carry is None, never 0 or 1. Rows that share a prompt are resampled together.
"""

from smolt.statistics.bootstrap import FEWEST, RESAMPLES, Bootstrap, paired_bootstrap
from smolt.statistics.claims import NonInferiority, Retest, non_inferior, retest
from smolt.statistics.comparisons import (
    DETECTABLE,
    compare,
    compare_counts,
    compare_scores,
    family,
    holm,
    minimum_detectable,
    minimum_detectable_scores,
)
from smolt.statistics.estimates import (
    best_of_k,
    correlation,
    few_values,
    kappa,
    mean,
    measure,
    over_seeds,
    pass_at_k,
    proportion,
    ratio,
    share,
    win_rate,
    won,
)
from smolt.statistics.logistic import length_controlled
from smolt.statistics.nouns import ALPHA, Comparison, Measure, Z
from smolt.statistics.proportions import interval_within, mcnemar, paired_wald, wilson
from smolt.statistics.verdicts import difference_of, format_difference, format_p, shown, with_verdict

__all__ = [
    "ALPHA",
    "DETECTABLE",
    "FEWEST",
    "RESAMPLES",
    "Bootstrap",
    "Comparison",
    "Measure",
    "NonInferiority",
    "Retest",
    "Z",
    "best_of_k",
    "compare",
    "compare_counts",
    "compare_scores",
    "correlation",
    "difference_of",
    "family",
    "few_values",
    "format_difference",
    "format_p",
    "holm",
    "interval_within",
    "kappa",
    "length_controlled",
    "mcnemar",
    "mean",
    "measure",
    "minimum_detectable",
    "minimum_detectable_scores",
    "non_inferior",
    "over_seeds",
    "paired_bootstrap",
    "paired_wald",
    "pass_at_k",
    "proportion",
    "ratio",
    "retest",
    "share",
    "shown",
    "wilson",
    "win_rate",
    "with_verdict",
    "won",
]
