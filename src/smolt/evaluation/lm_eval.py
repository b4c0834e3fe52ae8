"""A bridge to lm-evaluation-harness: its tasks on a smolt model, its samples in a form that `smolt compare` reads.

The package is optional and loaded when asked for. It samples and scores by its own rules; what smolt adds is the model
(an adapter is merged in memory, checked as `smolt merge` checks it), the chat template, and intervals.
"""

import math
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from smolt import statistics
from smolt.config import Model, make_block
from smolt.errors import UserError
from smolt.evaluation.evaluate import Evaluation
from smolt.models.ground import open_ground
from smolt.models.merging import merged_in_memory
from smolt.runs import Run, atomic_write, jsontext
from smolt.runs.identity import package_versions
from smolt.statistics import Measure, Z

INSTALL = 'install it with: pip install -c constraints.txt "smolt-align[lm-eval]"'
SAME = 1e-9  # a mean over samples that differs more from the harness's own figure is not how that figure is made
UNFILTERED = "none"
_OWN = "and samples and scores by its own rules: compare with other lm-eval figures only"
CHAT = f"lm-eval applied the model's chat template, {_OWN}"
PLAIN = f"lm-eval used its own prompts, without a chat template, {_OWN}"
SHARES = ("acc", "acc_norm", "exact_match", "em", "f1")
"""Metrics of the harness that lie in 0..1."""


def evaluate_with_harness(
    model: str,
    tasks: Sequence[str],
    *,
    out: Path | None = None,
    limit: int | None = None,
    batch: int = 8,
    device: str = "auto",
    dtype: str = "auto",
    fresh: bool = False,
) -> Evaluation:
    """Measure a model on tasks of lm-evaluation-harness.

    Args:
        model: a directory, adapter, run or hub name.
        tasks: their names, or paths of task definitions.
        out: directory for results.json and samples_TASK.jsonl; None writes nothing.
        limit: at most so many items of each task.
        batch: sequences computed side by side.
        device: auto, cpu, cuda or mps.
        dtype: auto, fp32, bf16 or fp16.
        fresh: set what lies at `out` aside and start anew.

    Raises:
        UserError: lm-eval is not installed or knows no such task, the model cannot be read, or `out` was begun with
            something else.
    """
    harness = _load_harness()
    who = make_block(Model, path=model, device=device, dtype=dtype)
    ground = open_ground(who)
    chat = ground.renderer.template is not None
    recipe: dict[str, Any] = {
        "stage": "eval",
        "task": "lm-eval",
        "model": who.model_dump(mode="json"),
        "tasks": list(tasks),
    }
    recipe |= {"limit": limit, "chat_template": chat}
    manifest = {"stage": "eval", "recipe": recipe, **ground.identity, "data": None, "versions": package_versions()}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "lm-eval" if out is None else out.resolve()
        run = stack.enter_context(Run.open(folder, manifest=manifest, fresh=fresh))
        stored = run.result
        if stored is None:
            found = _computed(harness, model, tasks, limit, batch, ground)
            measures, notes = harness_measures(found), [CHAT if chat else PLAIN]
            _write(folder, found)
            run.complete({"measures": {name: asdict(measure) for name, measure in measures.items()}, "notes": notes})
        else:
            measures = {name: Measure(**values) for name, values in stored["measures"].items()}
            notes = stored["notes"]
    status = "complete" if stored is None else "already complete"
    return Evaluation("lm-eval", status, measures, [], 0, notes, None if out is None else folder)


def _load_harness() -> Any:
    """The harness's functions, under their own names."""
    try:
        evaluator, models, manager = map(
            import_module, ("lm_eval.evaluator", "lm_eval.models.huggingface", "lm_eval.tasks")
        )
    except ModuleNotFoundError as missing:
        raise UserError(f"--lm-eval: lm-eval is not installed (no module {missing.name!r}); {INSTALL}") from None
    return {**vars(manager), **vars(models), **vars(evaluator)}


def _computed(
    harness: Mapping[str, Any], model: str, tasks: Sequence[str], limit: int | None, batch: int, ground: Any
) -> dict[str, Any]:
    """What the harness found: its `results`, and its `samples` by task."""
    network, renderer = merged_in_memory(model)
    network = network.to(device=ground.precision.device, dtype=ground.precision.dtype)
    wrapped = harness["HFLM"](
        pretrained=network, tokenizer=renderer.tokenizer, batch_size=batch, max_length=ground.window
    )
    try:
        found: dict[str, Any] = harness["simple_evaluate"](
            model=wrapped,
            tasks=list(tasks),
            limit=limit,
            log_samples=True,
            bootstrap_iters=0,
            apply_chat_template=renderer.template is not None,
            task_manager=harness["TaskManager"](),
        )
    except (KeyError, ValueError, FileNotFoundError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"--lm-eval {' '.join(tasks)}: lm-eval refused: {reason}") from error
    return found


def harness_measures(found: Mapping[str, Any]) -> dict[str, Measure]:
    """Every figure of the harness with an interval: from its samples where it is their mean, else its standard error.

    Named TASK/METRIC, and TASK/METRIC/FILTER where the harness filtered the answers.
    """
    measures = {}
    for task, figures in found["results"].items():
        samples = found.get("samples", {}).get(task, [])
        for key, value in figures.items():
            metric, comma, name = key.partition(",")
            figure = comma and not metric.endswith("_stderr") and isinstance(value, int | float)
            if not figure or not math.isfinite(value):
                continue
            rows = [row for row in samples if row.get("filter", UNFILTERED) == name and metric in row]
            shown = f"{task}/{metric}" if name == UNFILTERED else f"{task}/{metric}/{name}"
            measures[shown] = _measure(float(value), figures.get(f"{metric}_stderr,{name}"), metric, rows)
    return measures


def _measure(value: float, error: Any, metric: str, rows: Sequence[Mapping[str, Any]]) -> Measure:
    """One figure; `error` is the harness's standard error, a number or not."""
    numbers = [float(row[metric]) for row in rows if isinstance(row[metric], int | float)]
    if numbers and len(numbers) == len(rows):
        own = statistics.measure(numbers)
        if own is not None and abs(own.value - value) <= SAME:
            return replace(own, value=value, rate=metric in SHARES)
    share = metric in SHARES and 0 <= value <= 1
    if isinstance(error, int | float) and math.isfinite(error):
        low, high = statistics.interval_within(value, Z * error, (0.0, 1.0) if share else None)
        return Measure(value, low, high, len(rows), "lm-eval's standard error", share)
    return Measure(value, None, None, len(rows), "lm-eval, no interval", share)


def _write(folder: Path, found: Mapping[str, Any]) -> None:
    """results.json, and for each task its samples as lm-eval's --log_samples has them."""
    for task, rows in found.get("samples", {}).items():
        lines = "".join(jsontext.encode(jsontext.plain(row), task) + "\n" for row in rows)
        name = "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in task)
        atomic_write(folder / f"samples_{name}.jsonl", lines)
    jsontext.write(folder / "results.json", jsontext.plain(found["results"]))
