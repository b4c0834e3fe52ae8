"""The command line. Commands import their stage when called: `smolt --help` loads neither torch nor transformers."""

from typing import Annotated

import typer

from smolt.cli import compare, data, doctor, judge, label, models, recipes, rewards, train

app = typer.Typer(
    name="smolt",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Align small language models with human and AI feedback, on the one machine you have.",
)
train.register(app)
models.register(app)
app.command("judge")(judge.judge)
rewards.register(app)
compare.register(app)
app.command("doctor")(doctor.doctor)
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
    app(prog_name="smolt")


__all__ = ["app", "main"]
