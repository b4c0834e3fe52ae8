"""The command line. Commands import their stage when called: `smolt --help` loads neither torch nor transformers."""

import contextlib
import io
import logging
import os
import sys
import warnings
from typing import Annotated, Any, TextIO, cast

import typer

from smolt.cli import compare, data, doctor, judge, label, models, recipes, rewards, train
from smolt.cli.outcomes import SHARING, delivered

app = typer.Typer(
    name="smolt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Align small language models with human and AI feedback, on the one machine you have.",
)
train.register(app)
models.register(app)
app.command("judge", epilog=SHARING)(judge.judge)
rewards.register(app)
compare.register(app)
app.command("doctor", help="Check the machine, and a model or the model and data of a recipe.")(
    delivered(doctor.examined)
)
app.add_typer(recipes.app, name="recipe")
app.add_typer(label.app, name="label")
app.add_typer(data.app, name="data")


def _version(wanted: bool) -> None:
    if wanted:
        from smolt import __version__

        typer.echo(f"smolt {__version__}")
        raise typer.Exit()


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """The options before a command."""


def main() -> None:
    """Run the command line; leaves with the exit codes of docs/reference/command-line.md."""
    quiet()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal without a character still gets its line
    sys.stderr = cast(TextIO, Unbreakable(sys.stderr))
    app(prog_name="smolt")


class Unbreakable:
    """Standard error on which a full disk or a closed terminal is no reason to end a training."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write what can be written."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Likewise."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def quiet() -> None:
    """No warning and no log line of a library reaches the terminal, unless `python -W` or PYTHONWARNINGS asks for it.

    Warnings of the user's own reward functions do.
    """
    logging.getLogger().addHandler(logging.NullHandler())
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the hub's client has a handler of its own, and retries aloud
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        warnings.filterwarnings("default", module="smolt_reward_")


__all__ = ["app", "main"]
