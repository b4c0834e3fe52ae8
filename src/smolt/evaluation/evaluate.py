"""One model measured on one task: chunk by chunk, every row on the disk, each figure with interval, n and source."""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from smolt import processes
from smolt.config import Data, Model, make_block
from smolt.data import Decision, Demonstration, Preference, Question
from smolt.data.nouns import as_question
from smolt.errors import UserError
from smolt.evaluation.decided.decision_subject import deciding
from smolt.evaluation.likelihood import losing, preferring
from smolt.evaluation.measures import reading_twice
from smolt.evaluation.questions import answering
from smolt.evaluation.shards import ROWS, finished_shards, gather, parse_shard, shard_directory
from smolt.evaluation.tasks import DEFAULT, PROBLEMS, Subject, Task, find_task, problem_questions
from smolt.models.forward.precision import NAMES
from smolt.models.ground import Ground, open_ground
from smolt.models.saving import other_inputs
from smolt.report.analysis import analyse
from smolt.report.record import Arm, StudyRecord
from smolt.report.report import write_report
from smolt.report.sections.length import cut_short
from smolt.rewards.shorthand import asked_reward
from smolt.runs import Run
from smolt.runs.chunks import Progress, in_chunks
from smolt.runs.identity import package_versions
from smolt.statistics import Measure

Records = Sequence[Question | str] | Sequence[Preference] | Sequence[Demonstration] | Sequence[Decision]


@dataclass(frozen=True)
class Evaluation:
    """What a measurement found.

    Attributes:
        task: its name.
        status: "complete", or "already complete" where an earlier call had finished it.
        measures: name -> value with 95 % interval, n and method.
        rows: one an answer, pair or passage, as in evaluation.jsonl.
        too_long: records left out because they exceed the model's window.
        notes: what a reader of the numbers must know.
        path: the directory of evaluation.jsonl and the report; None where nothing was written.
        repeats: measure -> the one it equals on every answer, such as a reward that is the accuracy.
    """

    task: str
    status: str
    measures: dict[str, Measure]
    rows: list[dict[str, Any]]
    too_long: int
    notes: list[str]
    path: Path | None
    repeats: dict[str, str] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """As JSON values: each measure under its name, beside task, status, too_long, notes and out."""
        own = {"task": self.task, "status": self.status, "too_long": self.too_long, "notes": self.notes}
        measures = {name: asdict(measure) for name, measure in self.measures.items()}
        return {**measures, **own, "out": None if self.path is None else str(self.path)}


def evaluate(
    model: str | Path,
    data: str | Path | Records | None = None,
    *,
    task: str = DEFAULT,
    reward: Any = None,
    out: str | Path | None = None,
    samples: int = 1,
    max_tokens: int | None = None,
    temperature: float = 0.0,
    batch: int = 64,
    seed: int = 0,
    shard: str | None = None,
    fresh: bool = False,
    limit: int | None = None,
    record_format: str | None = None,
    split: str | None = None,
    too_long: str = "error",
    data_seed: int = 0,
    dev: str | Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a model, an adapter or a run.

    Args:
        model: who is measured: a directory, adapter, run or hub name; a reward model for the task "preferences".
        data: a path, a hub name or records; None is the task's own data.
        task: "answers", "gsm8k", "svamp", "problems", "preferences", "loss" or "decisions" (docs/guides/measuring.md).
        reward: who rates answers: a function, or what a recipe's reward takes (see shorthand.asked_reward).
        out: directory for evaluation.jsonl and the report; the same call continues there. None writes nothing.
        samples: answers to each question; several need a temperature above 0.
        max_tokens: longest answer; None is what the model's training allowed, else 256.
        temperature: 0 is greedy.
        batch: answers decoded side by side.
        seed: of the draws.
        shard: "2/4" measures the second of four parts, beside `out`; without it finished shards are put together.
        fresh: set what lies at `out` aside and start anew.
        limit: at most so many records; of "problems" how many are made (1,000 unless given).
        record_format: of the data; detected unless given.
        split: of a data set with several; of "problems" train, dev or test.
        too_long: "error" or "drop": records that exceed the model's window.
        data_seed: of "problems".
        dev: of "decisions", a file of others on which a temperature for each type of question is fitted.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, bf16 or fp16.
        progress: told (records done, in all) after every chunk.

    Raises:
        UserError: model, data or settings are wrong, or `out` was begun under others; the message names them.
        DirectoryInUse: another process works in `out`.
        StorageError: the disk is full or failing.
    """
    who = make_block(Model, path=str(model), device=device, dtype=dtype)
    chosen = find_task(task)
    if reward is not None and chosen.records != "questions":
        raise UserError(f"reward: the task {task} rates nothing; remove it")
    if chosen.records != "questions" and (max_tokens is not None or samples > 1 or temperature > 0):
        raise UserError(f"max_tokens, samples, temperature: the task {task} samples no answers; remove them")
    if dev is not None and chosen.records != "decisions":
        raise UserError(f"dev: the task {task} fits nothing; remove it")
    rated = asked_reward(reward)
    ground = open_ground(who)
    where = _data(chosen, data, limit, record_format, split, too_long, data_seed)
    if chosen.records == "questions":
        drawing = {"max_tokens": max_tokens, "temperature": temperature, "batch": batch}
        subject = answering(who, ground, chosen, where, rated, drawing, samples, seed, too_long)
    elif chosen.records == "decisions":
        subject = deciding(who, ground, where, too_long, None if dev is None else str(dev))
    else:
        prepare: Any = preferring if chosen.records == "preferences" else losing
        subject = prepare(who, ground, where, too_long)
    said = where.model_dump(mode="json") if isinstance(where, Data) else f"{len(where)} records in memory"
    recipe = {"stage": "eval", "task": task, "model": who.model_dump(mode="json"), "data": said, **subject.facts}
    recipe |= {"shard": None if shard is None else str(parse_shard(shard))}
    return measure(subject, ground, recipe, None if out is None else Path(out), fresh, progress)


def measure(
    subject: Subject, ground: Ground, recipe: dict[str, Any], out: Path | None, fresh: bool, progress: Progress | None
) -> Evaluation:
    """Do, or continue, a prepared measurement in the directory of its shard or of the whole."""
    shard = None if recipe["shard"] is None else parse_shard(recipe["shard"])
    if out is None and (shard is not None or fresh):
        raise UserError(f"{'fresh' if fresh else 'shard'}: needs --out, the directory it is about")
    places = range(subject.total) if shard is None else shard.places(subject.total, subject.chunk)
    manifest = {
        "stage": "eval",
        "recipe": recipe,
        **ground.identity,
        "data": {"data": subject.sha256, **other_inputs(recipe)},
        "versions": package_versions(),
        "threads": torch.get_num_threads(),
        "dtype": NAMES[ground.precision.dtype],
    }
    with ExitStack() as stack:
        base = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "evaluation" if out is None else out.resolve()
        base = processes.agreed(base)
        folder = base if shard is None else shard_directory(base, shard)
        whole = shard is None and not fresh
        shards = processes.by_first(lambda: finished_shards(base, manifest) if whole and not folder.exists() else [])
        run = stack.enter_context(Run.open(folder, manifest=manifest, fresh=fresh, samples=ROWS))
        status = "complete" if run.result is None else "already complete"
        if shards:
            gather(run, base, shards, subject.total)
        elif run.result is None:
            with torch.no_grad():
                in_chunks(run, places, subject.chunk, subject.open_work, progress)
        else:
            run.load_checkpoint()
        rows = run.samples()
        record = study_record(subject, manifest, rows)
        analysis = analyse(record)
        measures, path = analysis.measures["model"], None if out is None else folder
        notes = [*subject.notes, *cut_short(analysis.measures)]
        found = Evaluation(recipe["task"], status, measures, rows, subject.too_long, notes, path, analysis.repeats)
        if run.result is None:
            processes.by_first(lambda: write_report(folder, record, analysis))
            run.complete({**found.facts(), "status": "complete", "out": None})
    return found


def study_record(subject: Subject, manifest: dict[str, Any], rows: list[dict[str, Any]]) -> StudyRecord:
    """What the report of an evaluation is written from."""
    items = subject.items(rows)
    extra, repeated = subject.measures(rows), reading_twice(items)
    arm = Arm(name="model", stage="eval", items=items, extra_measures=extra, repeated=repeated, role="component")
    judged = not items or any(item.correct is not None for item in items)
    return StudyRecord(
        name=manifest["recipe"]["model"]["path"],
        arms=[arm],
        metric="accuracy" if judged else "reward",
        provenance={name: manifest[name] for name in ("recipe", "data", "model", "renderer", "versions", "threads")},
        notes=list(subject.notes),
        panels=subject.panels(rows),
    )


def _data(
    task: Task,
    data: str | Path | Records | None,
    limit: int | None,
    record_format: str | None,
    split: str | None,
    too_long: str,
    data_seed: int,
) -> Any:
    """The data block, or the records in memory."""
    if task.name == PROBLEMS:
        if data is not None:
            raise UserError("task problems: makes its own data; remove DATA, or take the task gsm8k for a file")
        chosen: Any = split or "test"
        return problem_questions(data_seed, limit or 1000, chosen)
    if data is None and not task.home:
        raise UserError(f"data: the task {task.name} needs some: a file, a directory or a hub name")
    if data is None or isinstance(data, str | Path):
        path, chosen = (task.home, split or task.split) if data is None else (str(data), split)
        return make_block(Data, path=path, format=record_format, split=chosen, limit=limit, too_long=too_long)
    records = [as_question(record) if isinstance(record, str) else record for record in data]
    return records[:limit]
