"""Where a GGUF file goes, seen to before a library is loaded that takes seconds."""

import os
from pathlib import Path

from smolt.errors import UserError
from smolt.runs import inventory
from smolt.runs.identity import is_run

KINDS = ("f32", "f16", "bf16", "q8_0")
"""What matrices are stored as."""


def title_of(path: str) -> str:
    """A model's name: its directory's, or that of the run whose model it is; the last part of a hub name."""
    place = Path(os.path.expanduser(path)).resolve()
    if place.name == inventory.MODEL and is_run(place.parent):
        return place.parent.name
    return place.stem if place.is_file() else place.name


def files_for(path: str, out: Path | None, kind: str, fresh: bool, with_modelfile: bool) -> tuple[Path, Path | None]:
    """The file that will be written, NAME-TYPE.gguf here unless told, and the Modelfile beside it or None.

    Args:
        path: of the model.
        out: as the user gave it.
        kind: of matrices.
        fresh: what is there may be set aside.
        with_modelfile: whether there will be one.

    Raises:
        UserError: a kind that is none of KINDS, a file that is there, or no directory for it.
    """
    if kind not in KINDS:
        raise UserError(f"type: {kind!r} is unknown; choose {', '.join(KINDS)}")
    file = Path(os.path.expanduser(out or f"{title_of(path)}-{kind}.gguf"))
    beside = file.with_suffix(".Modelfile") if with_modelfile else None
    for place in (file, beside):
        if place is None:
            continue
        if place.is_dir():
            raise UserError(f"{place}: is a directory; --out names a file")
        if place.exists() and not fresh:
            raise UserError(f"{place}: is there already; --fresh sets it aside, or choose another --out")
        if not place.absolute().parent.is_dir():
            raise UserError(f"{place}: there is no directory {place.parent}")
    return file, beside
