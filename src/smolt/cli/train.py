"""The commands that train: one stage, or a whole study."""

import contextlib
import functools
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolt.cli.outcomes import SHARING, Outcome, Stopped, shared
from smolt.errors import UserError

if TYPE_CHECKING:
    from smolt.evaluation.shards import Shard
    from smolt.runs.trackers import Trackers
    from smolt.statistics import Measure

RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", help="A recipe file, or the name of a shipped recipe.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="SECTION.KEY=VALUE", help="Fields to change, for example optim.lr=1e-5."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Run directory; runs/<name> unless given.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Set the run that is there aside and start anew.")]
Log = Annotated[
    list[str] | None,
    typer.Option(
        "--log", envvar="SMOLT_LOG", help="A tracker that gets the metrics too: tensorboard, wandb, trackio ..."
    ),
]
Part = Annotated[
    str | None,
    typer.Option(
        "--part", help="Share the study with other processes over one directory, on one machine or several: 2/4."
    ),
]


def register(app: typer.Typer) -> None:
    """Add `study` and one command for each stage that trains."""
    app.command("study", help="Run every stage of a recipe, measure the arms, write the report.", epilog=SHARING)(
        shared(study)
    )
    for stage, help_text in STAGE_HELP.items():
        app.command(stage, help=help_text, epilog=SHARING)(shared(functools.partial(run_stage, stage)))


STAGE_HELP = {
    "sft": "Fine-tune on demonstrations.",
    "reward": "Train a reward model on preferences.",
    "dpo": "Align with preferences, without sampling (DPO, IPO, SimPO, ORPO, CPO).",
    "kto": "Align with single answers that are good or not (KTO).",
    "decide": "Learn typed decisions with honest probabilities.",
    "ppo": "Align with a reward, with a critic (PPO).",
    "grpo": "Align with a reward, within groups of answers (GRPO and its kin).",
    "online_dpo": "Align with pairs of its own answers, labelled by a reward as they are written (online DPO).",
    "distill": "Learn a teacher's whole distributions on the student's own answers (GKD).",
    "pretrain": "Make a tokenizer and a small model from plain text.",
}

CHAT = "smolt chat {}"
NEXT = {
    "reward": ("smolt audit {} PAIRS",),
    **dict.fromkeys(("dpo", "kto"), ("smolt eval {} HELD-OUT-PAIRS --task preferences", CHAT)),
}
"""What to do after a stage; the loss of one's own pairs says little of what was learned, so measure before talking."""


def run_stage(
    stage: str,
    source: RecipeName,
    overrides: Overrides = None,
    out: Out = None,
    fresh: Fresh = False,
    log: Log = None,
) -> Outcome:
    """Train one stage to its end, showing its progress.

    Raises:
        UserError: recipe, data or model are wrong.
        Stopped: Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    from smolt.config import load_recipe

    recipe = load_recipe(source, stage, overrides or [])
    directory = out if out is not None else default_directory(source, recipe)
    result = finished(directory, recipe, fresh)
    if result is not None:
        return stage_outcome(stage, "already complete", directory, result)
    look_first(directory, recipe)
    from smolt.runs.trackers import Trackers

    trackers = Trackers(log or [])
    from smolt.training.algorithms import STAGES

    training = STAGES[stage](recipe, out=directory, fresh=fresh)
    complete = training.complete
    metrics = finish_shown(training, trackers)
    return stage_outcome(stage, "already complete" if complete else "complete", directory, metrics)


def look_first(out: Path | None, *asked: Any) -> None:
    """See, before a library is loaded that takes seconds, what can be seen of what recipes or blocks ask for.

    Args:
        out: where the results will go; None where nothing is written.
        asked: recipes, or blocks of them.

    Raises:
        UserError: a model, a file or a reward function is not there, or `out` holds something else.
        OSError: `out` cannot be written.
    """
    from smolt.data.inputs import look_for
    from smolt.rewards.shorthand import look_for_rewards
    from smolt.runs.directory import refuse_unwritable

    for block in asked:
        look_for_rewards(block)
    look_for(*asked)
    if out is not None:
        refuse_unwritable(out)


def finish_shown(training: Any, trackers: "Trackers | None" = None) -> dict[str, Any]:
    """Run a training to its end, showing its progress here and in trackers; its metrics.

    Raises:
        Stopped: Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    from smolt.cli.progress import Display
    from smolt.runs import Interrupts
    from smolt.runs.trackers import Trackers
    from smolt.runs.watchdog import Watchdog
    from smolt.training.stage import drive

    sent = trackers or Trackers([])
    with (
        Display() as display,
        Interrupts() as interrupts,
        Watchdog(training.out) as watchdog,
        _stoppable(),
        contextlib.closing(sent),
    ):
        display.begin(training)
        metrics: dict[str, Any] = drive(training, interrupts, _watched(display, watchdog, sent)).metrics
    return metrics


def _watched(display: Any, watchdog: Any, trackers: "Trackers") -> Callable[[Any, Any], None]:
    """Show an update, and that there was one."""

    def shown(training: Any, metrics: Any) -> None:
        watchdog.alive()
        display.show(training, metrics)
        trackers.show(training, metrics)

    return shown


def finished(directory: Path, recipe: Any, fresh: bool) -> dict[str, Any] | None:
    """The result of a complete run of this very recipe, found without loading a model; None where there is work."""
    from smolt.runs import Run

    return None if fresh else Run.finished(directory, recipe.model_dump(mode="json"))


def stage_outcome(stage: str, status: str, directory: Path, metrics: dict[str, Any]) -> Outcome:
    """What a stage's command says at its end."""
    facts = {
        "stage": stage,
        "status": status,
        "out": str(directory),
        "model": str(directory / "model"),
        "metrics": metrics,
    }
    lines = [f"{stage}: {status}; the model is in {directory / 'model'}", *moved(directory)]
    if status == "already complete":  # else the training itself has just said them
        lines += [f"warning: {said}" for said in metrics.get("warnings", [])]
    commands: list[str] = []
    if metrics.get("refused"):
        lines.append(f"its gate refuses it: {metrics['refused']}")
        lines.append("next: more or better pairs, or longer training; options: {refused: true} uses it all the same")
    elif (directory / "model").is_dir():
        commands = [command.format(shlex.quote(str(directory))) for command in NEXT.get(stage, (CHAT,))]
    return Outcome(facts, "\n".join(lines), commands=commands)


def moved(directory: Path) -> list[str]:
    """What became of the figures on held-out data, else what those of the first and last batch were; steps not taken.

    Two batches hold different records, so what differs between them is no progress: where held-out data were measured,
    theirs are left out.
    """
    from smolt.runs.directory import METRICS
    from smolt.runs.identity import MANIFEST, read_manifest
    from smolt.runs.jsontext import decode_object
    from smolt.statistics import few_values

    try:
        rows = (directory / METRICS).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    if not rows:
        return []
    updates = [decode_object(row, METRICS) for row in rows]
    measured = [row for row in updates if "dev/n" in row]
    first, *rest = measured or updates
    recipe = read_manifest(directory)["recipe"] if (directory / MANIFEST).is_file() else {}
    batch = _batch(recipe)
    lines = [_held_out(row) if measured else _of_one_batch(row, batch) for row in (first, *rest[-1:])]
    rough = few_values(found for row in (first, *rest[-1:]) if measured for found in _measured(row).values())
    lines += [rough] if rough else []
    idle = sum(row.get("optimizer_steps") == 0 for row in updates)
    silent = sum(row.get("abstained") or 0 for row in updates)
    if idle:
        lines.append(
            f"{idle:,} of {len(updates):,} updates took no step: no rewards that differ, or steps that were skipped"
            + (f"; {silent:,} answers got no reward, samples.jsonl says why" if silent else "")
        )
    return [*lines, *_cut(updates[-1], recipe)]


def _cut(row: Mapping[str, Any], recipe: Mapping[str, Any]) -> list[str]:
    """Whether most of an update's own answers ran into the limit of tokens, as an evaluation says it."""
    from smolt.report.sections.length import cut_short
    from smolt.statistics import Measure

    stopped, answers = row.get("stop_rate"), _answers(recipe)
    if not isinstance(stopped, int | float) or not answers:
        return []
    measure = Measure(stopped, None, None, answers, "share of one batch", rate=True)
    return [f"warning: {said}" for said in cut_short({f"update {row['step']}": {"stop_rate": measure}})]


def _held_out(row: Mapping[str, Any]) -> str:
    """What an update measured on held-out data, with the intervals."""
    from smolt.report.wording import stated

    said = [
        f"{name} {stated(found) if found.low is not None else f'{found.value:.4f}'}"
        for name, found in _measured(row).items()
    ]
    return f"on held-out data after update {row['step']}: {', '.join(said)} (n = {int(row['dev/n']):,})"


def _measured(row: Mapping[str, Any]) -> "dict[str, Measure]":
    """Reward, loss and accuracy on held-out data; a reward whose interval is Wilson's is a share."""
    from smolt.statistics import Measure, proportion

    n, found = int(row["dev/n"]), dict[str, Measure]()
    for name in ("reward", "loss", "accuracy"):
        if not isinstance(value := row.get(f"dev/{name}"), int | float):
            continue
        low, high = row.get(f"dev/{name}_low"), row.get(f"dev/{name}_high")
        right = round(value * n)
        share = proportion([place < right for place in range(n)]) if 0 <= value <= 1 else None
        if name == "accuracy" and share is not None:
            found[name] = share
        else:
            wilson = share is not None and (share.low, share.high) == (low, high)
            found[name] = Measure(value, low, high, n, "Wilson" if wilson else "normal")
    return found


def _of_one_batch(row: Mapping[str, Any], batch: str) -> str:
    """The figures of an update's own batch, called that."""
    from smolt.cli.progress import telling

    return f"update {row['step']}, on its one batch{batch}: {', '.join(telling(row, speed=False))}"


def _answers(recipe: Mapping[str, Any]) -> int:
    """How many answers an update samples; 0 where it samples none."""
    return int(recipe.get("prompts", 0) * recipe.get("group", recipe.get("samples", 1)))


def _batch(recipe: Mapping[str, Any]) -> str:
    """How many records an update has, or how many answers it samples, in words; empty where no recipe says it."""
    if "prompts" in recipe:
        return f" of {_answers(recipe):,} answers to {recipe['prompts']:,} questions"
    noun = {"pretrain": "rows of text", "sft": "demonstrations", "kto": "answers", "decide": "decisions"}.get(
        str(recipe.get("stage")), "pairs"
    )
    return f" of {recipe['batch']:,} {noun}" if "batch" in recipe else ""


def study(
    source: RecipeName,
    overrides: Overrides = None,
    out: Out = None,
    fresh: Fresh = False,
    part: Part = None,
    log: Log = None,
) -> Outcome:
    """Run or continue a study, or a part of it.

    Raises:
        UserError: recipe, data or model are wrong.
        Stopped: Ctrl-C or SIGTERM; a checkpoint was saved.
    """
    from smolt.cli.progress import Display
    from smolt.config import load_recipe

    own = _own_part(part, fresh)
    recipe = load_recipe(source, "study", overrides or [])
    directory = out if out is not None else default_directory(source, recipe)
    summary = finished(directory, recipe, fresh)
    if summary is not None:
        return study_outcome({**summary, "status": "already complete"}, directory)
    look_first(directory, recipe)
    recipe.require_exam()
    from smolt.runs.trackers import Trackers

    trackers = Trackers(log or [])
    from smolt.runs.watchdog import STALLED, Watchdog
    from smolt.study.study import run_study

    stalled = STALLED if own is None else f"part-{own.index}-of-{own.count}.{STALLED}"
    with Display() as display, Watchdog(directory, stalled) as watchdog, _stoppable(), contextlib.closing(trackers):
        progress = _watched(display, watchdog, trackers)
        if own is None:
            summary = run_study(recipe, out=directory, fresh=fresh, progress=progress)
        else:
            from smolt.study.study_part import run_part

            summary = run_part(recipe, own, out=directory, progress=progress, alive=watchdog.alive)
    return study_outcome(summary, directory)


def _own_part(part: str | None, fresh: bool) -> "Shard | None":
    """Which part of a study this process is; None where it does all of it.

    Raises:
        UserError: there is no such part.
    """
    if part is None:
        return None
    from smolt import processes
    from smolt.evaluation.shards import parse_shard

    if processes.size() > 1:
        raise UserError("--part: the processes of torchrun share every job; start parts by themselves, or leave it out")
    if fresh:
        raise UserError(
            "--fresh: parts share one directory, and none of them may set it aside; move it, or choose another --out"
        )
    return parse_shard(part, "--part")


def study_outcome(summary: dict[str, Any], directory: Path) -> Outcome:
    """What the command says at the end of a study: its verdicts, and where the report is."""
    status = str(summary.get("status", "complete"))
    report = directory / "report.html"
    verdicts = [str(line) for line in summary.get("verdicts", [])]
    warnings = [f"warning: {line}" for line in summary.get("warnings", [])]
    words = "\n".join([*verdicts, *warnings, f"study: {status}; the report is {report}"])
    return Outcome({"stage": "study", "status": status, "out": str(directory), "report": str(report), **summary}, words)


def default_directory(source: str, recipe: Any) -> Path:
    """runs/<name>: the name the recipe gives itself, else that of its file."""
    return Path("runs") / (recipe.name if "name" in recipe.model_fields_set else Path(source).stem)


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """An interrupted training as the outcome of the command."""
    from smolt.training.stage import Interrupted

    try:
        yield
    except Interrupted as stop:
        raise Stopped(stop.exit_code, str(stop)) from None
