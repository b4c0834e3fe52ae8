"""How well the data audit finds flipped labels: 20 % of a file's labels flipped at random, precision at 200.

`python -m bench.label_noise FILE ...` prints one row for each file of preferences.
"""

import argparse
import dataclasses
import sys
from collections.abc import Sequence

import numpy as np

from smolt.data import Source
from smolt.preferences.audit import LabelledPair, rank_by_cross_fit, read_items
from smolt.statistics import mean, wilson

AT = 200


def precision(items: Sequence[LabelledPair], seed: int, share: float) -> float:
    """Share of flipped labels among the 200 most doubted, one random choice of flips."""
    count = round(share * len(items))
    flipped = set(np.random.default_rng(seed).choice(len(items), count, replace=False).tolist())
    noisy = [
        dataclasses.replace(item, better=item.worse, worse=item.better) if place in flipped else item
        for place, item in enumerate(items)
    ]
    ranking = rank_by_cross_fit(noisy)
    if ranking is None:
        raise SystemExit("too few pairs to rank")
    return len(flipped & set(ranking.places[:AT])) / AT


def main(given: Sequence[str]) -> int:
    """Print a row for each file."""
    parser = argparse.ArgumentParser(prog="python -m bench.label_noise")
    parser.add_argument("files", nargs="+", help="preferences")
    parser.add_argument("--draws", type=int, default=20, help="random choices of flipped labels")
    parser.add_argument("--first", type=int, default=1000, help="seed of the first")
    parser.add_argument("--share", type=float, default=0.2, help="labels flipped")
    options = parser.parse_args(given)
    print(
        "| file | pairs | held-out accuracy, labels as they are | precision at 200, mean of draws | lowest | highest |"
    )
    print("|---|---|---|---|---|---|")
    for file in options.files:
        items = [item for item in read_items(Source(file)).items if not item.tie]
        clean = rank_by_cross_fit(items)
        found = [precision(items, seed, options.share) for seed in range(options.first, options.first + options.draws)]
        average = mean(found)
        if clean is None or clean.accuracy is None or average is None:
            raise SystemExit(f"{file}: too few pairs to rank")
        ends = [f"{value:.3f} [{low:.3f}, {high:.3f}]" for value, (low, high) in ends_of(found)]
        accuracy = f"{clean.accuracy.value:.3f} [{clean.accuracy.low:.3f}, {clean.accuracy.high:.3f}]"
        size = f"{average.value:.3f} [{average.low:.3f}, {average.high:.3f}]"
        print(f"| {file} | {len(items)} | {accuracy} | {size} | {ends[0]} | {ends[1]} |", flush=True)
    return 0


def ends_of(found: Sequence[float]) -> list[tuple[float, tuple[float, float]]]:
    """The lowest and the highest draw, each with Wilson's interval."""
    return [(value, wilson(round(value * AT), AT)) for value in (min(found), max(found))]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
