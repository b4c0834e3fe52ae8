"""The models a face offers: those named on its command line and those found in its runs, by short names."""

from collections.abc import Sequence
from pathlib import Path

from smolt.errors import UserError
from smolt.runs.listing import runs_below


def offered(given: Sequence[str], runs: Path) -> dict[str, str]:
    """Name -> where the model lies.

    Args:
        given: `PATH` or `NAME=PATH` each; a path alone is named by its last part, or the last two of a run's model.
        runs: the runs directory; the model of each of its runs is named by the run.

    Raises:
        UserError: two of those given have one name, or a name or a path is empty.
    """
    found: dict[str, str] = {}
    for one in given:
        name, path = _named(one)
        if not name or not path:
            raise UserError(f"{one!r}: names no model; give PATH or NAME=PATH")
        if found.get(name, path) != path:
            raise UserError(f"{one}: {name} is {found[name]} already; give it another name: OTHER={path}")
        found[name] = path
    for run in runs_below(runs):
        if run.model:
            found.setdefault(run.name, str(run.directory / "model"))
    return found


def _named(one: str) -> tuple[str, str]:
    name, equals, path = one.partition("=")
    if equals and "/" not in name:
        return name.strip(), path.strip()
    parts = [part for part in Path(one).parts if part not in ("/", ".")]
    short = parts[-2:] if parts and parts[-1] == "model" else parts[-1:]
    return "/".join(short), one
