"""What choosing among fewer answers than n would have given, from the n answers that a best-of-n arm drew."""

import math
from collections.abc import Sequence

from smolt.evaluation import Candidate, read_candidates
from smolt.recording.places import CANDIDATES, Places
from smolt.report.pairing import RATES, rating
from smolt.statistics import Measure, best_of_k, mean, share

METRICS = ("accuracy", "reward")


def best_of(places: Places, name: str, n: int) -> dict[int, dict[str, Measure]]:
    """K -> metric -> measure, for k = 2, 4, ... below n; a metric that not all n answers carry is absent."""
    paths = [places.folder(name, seed) / CANDIDATES for seed in places.recipe.study.seeds]
    drawn = [candidate for path in paths if path.is_file() for candidate in read_candidates(path)]
    groups = [drawn[start : start + n] for start in range(0, len(drawn), n)]
    found = {}
    for k in [2**power for power in range(1, n.bit_length()) if 2**power < n]:
        measures = {metric: _measure(groups, metric, k) for metric in METRICS}
        found[k] = {metric: measure for metric, measure in measures.items() if measure is not None}
    return {k: measures for k, measures in found.items() if measures}


def _measure(groups: Sequence[Sequence[Candidate]], metric: str, k: int) -> Measure | None:
    """The mean over questions of what the best of k gives, with an interval over questions."""
    rows = []
    for group in groups:
        ranked = sorted(group, key=lambda one: -math.inf if one.score is None else one.score, reverse=True)
        values = [value for one in ranked if (value := rating(one.item, metric)) is not None]
        if len(values) == len(group):
            rows.append((best_of_k(values, k), group[0].item.key))
    values, keys = [value for value, _ in rows], [key for _, key in rows]
    return share(values, keys) if metric in RATES else mean(values, keys)
