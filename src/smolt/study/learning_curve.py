"""Is there enough data: reward models on growing fractions, all measured on the same held-out pairs."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smolt import randomness
from smolt.config import Data, RewardRecipe, make_block
from smolt.data import Preference, load, write_preferences
from smolt.errors import UserError
from smolt.report.markdown import panel_section
from smolt.report.panels import Chart, Panel, Table, measured_series
from smolt.report.pictures.charts import draw
from smolt.report.pictures.plots import Pictures
from smolt.report.wording import stated
from smolt.rewards.audit.seen_pairs import HELD_OUT
from smolt.runs import jsontext
from smolt.runs.storage import atomic_write
from smolt.statistics import Measure
from smolt.training.algorithms.reward_model import reward_model
from smolt.training.stage import Training

FRACTIONS = (0.05, 0.10, 0.25, 0.50, 1.0)
FEWEST = 100  # pairs


@dataclass(frozen=True)
class Point:
    """One training: its fraction, its pairs, and its accuracy on the held-out pairs."""

    fraction: float
    pairs: int
    accuracy: Measure


def run_pilot(
    recipe: RewardRecipe, out: Path, finish: Callable[[Training], dict[str, Any]], fresh: bool = False
) -> list[Point]:
    """Train on each fraction, the smaller ones contained in the larger; complete trainings are not run again.

    Args:
        recipe: of a reward model; its dev data are the held-out pairs, else a tenth of its data.
        out: one run directory for each fraction, and the files of pairs.
        finish: runs a training to its end and returns its metrics.
        fresh: set trainings that are there aside.

    Raises:
        UserError: fewer than 100 pairs, or the recipe is wrong.
    """
    learned, held_out = _split(recipe)
    out.mkdir(parents=True, exist_ok=True)
    dev = recipe.dev if recipe.dev is not None else _written(out / "held-out.jsonl", held_out, recipe.data)
    points = []
    for fraction in FRACTIONS:
        count = max(1, round(fraction * len(learned)))
        name = f"{100 * fraction:g}-percent"
        data = _written(out / f"{name}.jsonl", learned[:count], recipe.data)
        part = recipe.model_copy(update={"data": data, "dev": dev, "gate": False, "name": name})
        metrics = finish(reward_model(part, out=out / name, fresh=fresh))
        points.append(Point(fraction, count, _measure(metrics["accuracy"])))
    return points


def pilot_panel(points: Sequence[Point]) -> Panel:
    """The learning curve as a finding."""
    curve = measured_series(
        "held-out accuracy",
        [point.accuracy for point in points],
        [float(point.pairs) for point in points],
        [f"{point.fraction:.0%}" for point in points],
    )
    caption = (
        "Held-out accuracy of reward models on growing parts of the data; a curve still rising asks for more pairs."
    )
    rows = tuple((f"{point.fraction:.0%}", point.pairs, point.accuracy) for point in points)
    return Panel(
        "learning-curve",
        "Learning curve",
        sentences=(_said(points),),
        tables=(Table("Accuracy on the same held-out pairs.", ("part", "pairs", "accuracy"), rows),),
        charts=(Chart("learning-curve", caption, "lines", "pairs trained on", "held-out accuracy", (curve,)),),
    )


def write_pilot(points: Sequence[Point], panel: Panel, out: Path) -> None:
    """Write pilot.json, which holds the panel for a report, pilot.md and the picture.

    Raises:
        StorageError: the disk is full or failing; each file is the earlier one or the new one, whole.
    """
    facts = {"points": [asdict(point) for point in points], "panel": asdict(panel)}
    jsontext.write(out / "pilot.json", facts, indent=1)
    drawn = [picture for picture in (draw(chart, panel.name, {}) for chart in panel.charts) if picture is not None]
    (out / "plots").mkdir(exist_ok=True)
    for picture in drawn:
        atomic_write(out / "plots" / f"{picture.name}.svg", picture.light)
        atomic_write(out / "plots" / f"{picture.name}.png", picture.png)
    atomic_write(out / "pilot.md", panel_section(panel, Pictures(panels={panel.name: drawn})) + "\n")


def _split(recipe: RewardRecipe) -> tuple[list[Preference], list[Preference]]:
    records = load(recipe.data, "preferences").records
    if len(records) < FEWEST:
        raise UserError(f"{recipe.data.path}: has {len(records)} pairs; a learning curve needs {FEWEST}")
    order = [records[place] for place in randomness.permutation(len(records), recipe.seed, HELD_OUT)]
    size = 0 if recipe.dev is not None else len(records) // HELD_OUT
    return order[size:], order[:size]


def _written(path: Path, records: Sequence[Preference], like: Data) -> Data:
    write_preferences(path, records)
    return make_block(Data, path=str(path), format="preference", too_long=like.too_long)


def _measure(found: dict[str, Any]) -> Measure:
    return Measure(found["value"], found["low"], found["high"], found["n"], "Wilson", rate=True)


def _said(points: Sequence[Point]) -> str:
    last, before = points[-1].accuracy, points[-2].accuracy
    gain = f"{100 * (last.value - before.value):+.1f} points"
    return (
        f"With all {points[-1].pairs:,} pairs the held-out accuracy is {stated(last)}, n = {last.n}; the second half "
        f"of the data brought {gain}."
    )
