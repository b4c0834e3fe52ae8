"""`smolt eval`: one model, one task, each figure with its interval and n."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from smolt.cli.options import Batch, Device, DType, Format, ModelPath, Samples, Seed, Split, Temperature
from smolt.cli.outcomes import Outcome, refuse_several, shared
from smolt.cli.train import Fresh, look_first

if TYPE_CHECKING:
    from smolt.evaluation.evaluate import Evaluation
    from smolt.statistics import Measure

TaskName = Annotated[
    str, typer.Option("--task", help="answers, gsm8k, svamp, problems, preferences, loss or decisions.")
]
Rules = Annotated[
    list[str] | None,
    typer.Option("--reward", help="Who else rates: a rule's name, file.py:function, a reward model; may be repeated."),
]
Out = Annotated[Path | None, typer.Option("--out", help="Directory for evaluation.jsonl and the report; continued.")]
Longest = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Longest answer; unset: as in the model's training, else 256.")
]
Records = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many records; problems: how many.")]
TooLong = Annotated[str, typer.Option("--too-long", help="Records that exceed the window: error, or drop (counted).")]
ShardText = Annotated[str | None, typer.Option("--shard", help="Measure only this part, for example 2/4.")]
Harness = Annotated[
    list[str] | None, typer.Option("--lm-eval", metavar="TASK", help="A task of lm-evaluation-harness instead (extra).")
]
Dev = Annotated[str | None, typer.Option("--dev", help="decisions: others, on which a temperature is fitted.")]
DataSeed = Annotated[int, typer.Option("--data-seed", help="Of the task problems.")]
LONGEST_LINE = 110


@shared
def evaluate(
    model: ModelPath,
    data: Annotated[
        str | None, typer.Argument(metavar="[DATA]", help="JSONL, Parquet or a data set; the task's own unless given.")
    ] = None,
    task: TaskName = "answers",
    reward: Rules = None,
    out: Out = None,
    samples: Samples = 1,
    max_tokens: Longest = None,
    temperature: Temperature = 0.0,
    batch: Batch = 64,
    seed: Seed = 0,
    shard: ShardText = None,
    limit: Records = None,
    record_format: Format = None,
    split: Split = None,
    too_long: TooLong = "error",
    data_seed: DataSeed = 0,
    dev: Dev = None,
    lm_eval: Harness = None,
    device: Device = "auto",
    dtype: DType = "auto",
    fresh: Fresh = False,
) -> Outcome:
    """Measure a model on questions, pairs or text: each figure with its interval and n."""
    machine = {"device": device, "dtype": dtype}
    if lm_eval:
        refuse_several("--lm-eval")
        from smolt.evaluation.lm_eval import evaluate_with_harness

        _refuse_unused(
            {
                "DATA": data,
                "--reward": reward,
                "--shard": shard,
                "--samples": samples > 1,
                "--max-tokens": max_tokens,
                "--dev": dev,
            }
        )
        return outcome(evaluate_with_harness(model, lm_eval, out=out, limit=limit, batch=batch, fresh=fresh, **machine))
    from smolt.cli.progress import counting
    from smolt.config import Data, Model, make_block
    from smolt.evaluation.tasks import find_task
    from smolt.rewards.shorthand import asked_reward

    find_task(task)
    rated, read = asked_reward(reward or None), None if data is None else make_block(Data, path=data)
    asked = (make_block(Model, path=model, **machine), rated, read)
    look_first(out, *(block for block in asked if block is not None))
    from smolt.evaluation.evaluate import evaluate as measure

    with counting("records") as show:
        found = measure(
            model,
            data,
            task=task,
            reward=reward or None,
            out=out,
            samples=samples,
            max_tokens=max_tokens,
            temperature=temperature,
            batch=batch,
            seed=seed,
            shard=shard,
            fresh=fresh,
            limit=limit,
            record_format=record_format,
            split=split,
            too_long=too_long,
            data_seed=data_seed,
            dev=dev,
            progress=show,
            **machine,
        )
    return outcome(found)


def _refuse_unused(given: Mapping[str, object]) -> None:
    from smolt.errors import UserError

    for name, value in given.items():
        if value:
            raise UserError(f"{name}: is not used with --lm-eval, whose tasks say that themselves; remove it")


def outcome(found: "Evaluation") -> Outcome:
    """What is printed of an evaluation: each figure once, with its interval and n."""
    from smolt.statistics import few_values

    place = "" if found.path is None else f"; it is in {found.path}"
    notes = [f"note: {note}" for note in found.notes]
    if found.too_long:
        notes.append(f"note: {found.too_long} records exceed the model's window and were left out")
    for other in dict.fromkeys(found.repeats.values()):
        names = [name for name, same in found.repeats.items() if same == other]
        notes.append(f"note: {', '.join(names)} {'is' if len(names) == 1 else 'are'} {other} on every answer")
    shown = {name: measure for name, measure in found.measures.items() if name not in found.repeats}
    notes += [f"note: {rough}" for rough in [few_values(shown.values())] if rough]
    return Outcome(found.facts(), "\n".join([f"{found.status}{place}", measures_table(shown), *notes]))


def measures_table(measures: Mapping[str, "Measure"]) -> str:
    """Each measure on a line: its value, 95 % interval, n and method."""
    from rich.console import Console

    from smolt.report.terminal import measure_grid

    console = Console(file=io.StringIO(), width=LONGEST_LINE)
    with console.capture() as capture:
        console.print(measure_grid("measure", "value", measures))
    return "\n".join(line.rstrip() for line in capture.get().splitlines() if line.strip())
