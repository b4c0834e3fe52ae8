"""A training started from the form: its recipe on the disk, a process of its own, and what that says."""

import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from smolt.errors import UserError
from smolt.runs import atomic_write
from smolt.runs.listing import is_held
from smolt.ui.tabs.recipe_form import checked, file_of

TAIL = 4000
"""Characters of a log that are shown."""


@dataclass
class Launches:
    """What was started from this face.

    Attributes:
        runs: the runs directory.
        environment: of the started processes, which is the user's own and not the face's.
    """

    runs: Path
    environment: Mapping[str, str]
    _started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self, text: str) -> str:
        """Write a recipe and run it; the name of its run.

        It goes on when the face ends, and an interrupted run of the same recipe is continued.

        Raises:
            UserError: the recipe is wrong, its run is under way, or another recipe of this name is there.
            StorageError: the disk is full or failing.
        """
        draft = checked(text)
        if draft.error:
            raise UserError(draft.error)
        path, out = file_of(self.runs, draft.name), self.runs / draft.name
        with self._lock:
            running = self._started.get(draft.name)
            if is_held(out) or (running is not None and running.poll() is None):
                raise UserError(f"{draft.name}: runs already; see it under Runs")
            if path.exists() and path.read_text(encoding="utf-8") != text:
                raise UserError(f"{path}: holds another recipe; give this one another `name`")
            path.parent.mkdir(parents=True, exist_ok=True)
            atomic_write(path, text)
            command = [sys.executable, "-m", "smolt", draft.stage, str(path), "--out", str(out)]
            with path.with_suffix(".log").open("ab") as log:
                self._started[draft.name] = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=dict(self.environment),
                )
        return draft.name

    def state(self, name: str) -> tuple[str, int | None]:
        """The end of what a started run has said, and its exit code, None while it runs."""
        process = self._started.get(name)
        code = None if process is None else process.poll()
        try:
            with file_of(self.runs, name).with_suffix(".log").open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
                return log.read().decode("utf-8", "replace"), code
        except OSError:
            return "", code
