"""Claims that a study's report has no table for: `python -m bench.systems.claims RUN [GOLD]`.

Of each arm: the spread of its rewards ("more consistent"), their correlation with length ("longer answers get more"),
and the gold reward beside (a component of the rows, such as model_2), each with a 95 % interval; and the spread of each
arm less the baseline's, both bootstrapped by question.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from smolt.runs.rated_answers import RatedAnswer, read_rated
from smolt.statistics import Measure, correlation, measure

RESAMPLES = 2000


def table_of(items: Sequence[RatedAnswer], name: str | None) -> NDArray[np.float64]:
    """One row a question, one column an answer: the reward, or a component of it."""
    rows: dict[str, list[float]] = {}
    for item in items:
        value = item.reward if name is None else item.components[name]
        rows.setdefault(str(item.question_id), []).append(float("nan") if value is None else value)
    return np.array(list(rows.values()))


def spreads(values: NDArray[np.float64], draws: NDArray[np.int64]) -> NDArray[np.float64]:
    """The standard deviation of all rewards of the drawn questions, one a resample."""
    return np.array([np.nanstd(values[draw], ddof=1) for draw in draws])


def shown(value: float, sample: NDArray[np.float64]) -> str:
    """A figure with its percentile interval."""
    low, high = np.percentile(sample, [2.5, 97.5])
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def written(found: Measure | None) -> str:
    """A figure with its interval."""
    return "" if found is None or found.low is None else f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main(given: Sequence[str]) -> int:
    """Print a row for each arm that has answers, the baseline first."""
    parser = argparse.ArgumentParser(prog="python -m bench.systems.claims")
    parser.add_argument("run", type=Path, help="a finished study")
    parser.add_argument("gold", nargs="?", help="the component that rates beside, such as model_2")
    parser.add_argument("--baseline", default="base")
    options = parser.parse_args(given)
    arms = {file.parent.name: list(read_rated(file)) for file in options.run.glob("*/evaluation.jsonl")}
    order = sorted(arms, key=lambda name: (name != options.baseline, name))
    size = len(table_of(arms[options.baseline], None))
    draws = np.random.default_rng(0).integers(0, size, (RESAMPLES, size))
    base = table_of(arms[options.baseline], None)
    base_spreads = spreads(base, draws)
    print(
        "| arm | answers | reward | gold | spread of rewards | less the baseline's | reward and tokens | tokens | KL |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in order:
        items = arms[name]
        values, keys = table_of(items, None), [str(item.question_id) for item in items]
        own = spreads(values, draws)
        rated = [item for item in items if item.reward is not None]
        cells = [
            name,
            f"{len(items):,}",
            written(measure([item.reward or 0.0 for item in rated], [str(item.question_id) for item in rated])),
            written(measure([float(item.components[options.gold] or 0) for item in items], keys))
            if options.gold
            else "",
            shown(float(np.nanstd(values, ddof=1)), own),
            shown(float(np.nanstd(values, ddof=1) - np.nanstd(base, ddof=1)), own - base_spreads),
            written(correlation([float(item.tokens) for item in rated], [item.reward or 0.0 for item in rated])),
            written(measure([float(item.tokens) for item in items], keys)),
            written(measure([item.kl for item in items if item.kl is not None])),
        ]
        print(f"| {' | '.join(cells)} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
