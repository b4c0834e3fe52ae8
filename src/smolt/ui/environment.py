"""What a face is started with, and an environment in which no variable of Gradio's has a say; loads no library."""

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from smolt.errors import UserError
from smolt.ui.sign_in import SHORTEST_PASSWORD

LOOPBACK = "127.0.0.1"
NEEDED = ("gradio", "starlette", "uvicorn")
INSTALL = 'smolt ui needs packages that are not installed: pip install -c constraints.txt "smolt-align[ui]"'
ENVIRONMENT = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


@dataclass(frozen=True)
class Face:
    """What a face is started with.

    Attributes:
        models: as on the command line, `PATH` or `NAME=PATH`.
        runs: the runs directory.
        store: where labels and votes go.
        pairs: preferences to label, None for those that the store holds.
        host, port: the address; port None takes the first free one from 7860 on.
        password: of a face that others can reach; None on the loopback address.
        device, dtype: of the models, as in a recipe.
        environment: of trainings that are started; None: the face's own.
    """

    models: tuple[str, ...]
    runs: Path
    store: Path
    pairs: str | None = None
    host: str = LOOPBACK
    port: int | None = None
    password: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    environment: Mapping[str, str] | None = None

    @property
    def alone(self) -> bool:
        """Whether only this machine reaches it."""
        return self.host == LOOPBACK


def password_from(host: str, variable: str | None) -> str | None:
    """The password of a face on `host`, out of an environment variable.

    Raises:
        UserError: another address than the loopback one without a password, or one that is too short.
    """
    if variable is None:
        if host != LOOPBACK:
            raise UserError(f"--host {host}: others could reach this face; name a password with --password-env NAME")
        return None
    password = os.environ.get(variable, "")
    if len(password) < SHORTEST_PASSWORD:
        raise UserError(f"--password-env {variable}: holds no password of at least {SHORTEST_PASSWORD} characters")
    return password


@contextlib.contextmanager
def own_environment() -> Iterator[dict[str, str]]:
    """While entered, no variable of Gradio's has a say but our own, and its files lie in a directory of ours.

    Gives the environment as it was.

    Raises:
        UserError: the extra `ui` is not installed.
    """
    if any(importlib.util.find_spec(name) is None for name in NEEDED):
        raise UserError(INSTALL)
    before = dict(os.environ)
    folder = tempfile.mkdtemp(prefix="smolt-ui-")
    for name in [name for name in os.environ if name.startswith(("GRADIO_", "UVICORN_"))]:
        del os.environ[name]
    os.environ.update(ENVIRONMENT, GRADIO_TEMP_DIR=folder)
    try:
        yield before
    finally:
        os.environ.clear()
        os.environ.update(before)
        shutil.rmtree(folder, ignore_errors=True)
