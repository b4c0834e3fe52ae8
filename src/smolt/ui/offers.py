"""The models a face offers: those named on its command line and those found in its runs, by short names."""

from collections.abc import Sequence
from pathlib import Path

from smolt.runs.listing import runs_below
from smolt.serving.address import named_models


def offered(given: Sequence[str], runs: Path) -> dict[str, str]:
    """Name -> where the model lies.

    Args:
        given: `PATH` or `NAME=PATH` each; a path alone is named by its last part, or the last two of a run's model.
        runs: the runs directory; the model of each of its runs is named by the run.

    Raises:
        UserError: two of those given have one name, or a name or a path is empty.
    """
    found = named_models(given)
    for run in runs_below(runs):
        if run.model:
            found.setdefault(run.name, str(run.directory / "model"))
    return found
