"""A training: one stage at work in its run directory. Iterate it for the metrics of each update, or finish it.

Checkpoints are taken between updates only, so nothing of a rollout has to be saved: what an update does is a function
of the weights, the optimizer's moments, the stream's small state and the update's number.
"""

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from smolt import processes
from smolt.errors import SelfCheckError, UserError
from smolt.models.items import left_out
from smolt.report.panels import Panel, panel_name
from smolt.runs import REFUSED, Interrupts, Run, storage
from smolt.runs.chunks import SAID
from smolt.runs.directory import METRICS
from smolt.runs.rated_answers import from_row, is_rated_answer
from smolt.runs.rows import RowFile
from smolt.training.checks import cautions, same_everywhere
from smolt.training.clock import Clock, now
from smolt.training.fit import ENDLESS, Metrics, Update, fit
from smolt.training.memory.system import peak
from smolt.training.optimizers.loss_scale import LossScale
from smolt.training.plan import FORECAST, Plan, manifest_of

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Result:
    """What a finished stage gives: the model in memory (None when the run was complete before), its place, figures."""

    model: Any
    path: Path
    metrics: dict[str, Any]


class Training:
    """Iterate for metrics, or `finish()`. Leaving early keeps the last checkpoint; `save()` takes one now.

    Attributes:
        stage: the stage's name.
        name: the recipe's, in a study the section's.
        out: the run directory.
        complete: whether there is nothing left to do.
    """

    def __init__(self, plan: Plan, out: Path | None, fresh: bool = False) -> None:
        self.stage = plan.stage
        self.name = plan.recipe.name
        self.out = out or processes.by_first(lambda: Path(tempfile.mkdtemp(prefix=f"smolt-{plan.stage}-")))
        self._plan = plan
        self._run = Run.open(self.out, manifest=manifest_of(plan), fresh=fresh)
        torch.set_num_threads(self._run.manifest["threads"])  # another number would change the last digits
        self.complete = self._run.status == "complete"
        self.warnings = self._run.warnings
        self._step = 0
        budget = plan.recipe.budget
        seconds = budget.minutes * 60 if plan.seconds is None and budget.minutes is not None else plan.seconds
        self._clock = Clock(seconds, whole=budget.like is None)
        if plan.facts.get("dtype") == "float16":
            plan.learner.scale = LossScale.for_half()
        self._best: float | None = None
        self._bad = 0
        self._last: Metrics = {}
        self._ended = False
        self._steps = iter(()) if self.complete else self._freeing(self._train())

    @property
    def total(self) -> int | None:
        """Updates in all, None while only the clock knows."""
        most = self._plan.stream.total if self._clock.total is None else self._clock.total
        return None if most >= ENDLESS else most

    @property
    def remarks(self) -> list[str]:
        """What a person should know before the first update."""
        outlook, facts = self._plan.outlook, self._plan.facts
        recomputed = facts.get("checkpointing_note")
        memory = [*([outlook.sentence] if outlook else []), *([f"memory: {recomputed}"] if recomputed else [])]
        shared = [f"{processes.size()} processes of {torch.get_num_threads()} threads"] * processes.sharing()
        return [*shared, *(f"warning: {warning}" for warning in self.warnings), *left_out(facts), *memory]

    @property
    def shares(self) -> dict[str, float]:
        """Share of the time so far, by what it went into (`smolt.training.clock.KINDS`)."""
        return self._clock.shares

    def __iter__(self) -> Iterator[Metrics]:
        return self

    def __next__(self) -> Metrics:
        return next(self._steps)

    def finish(self) -> Result:
        """Run to the end; a finished run is left as it is.

        Raises:
            UserError: a gate of the stage refuses the finished model.
        """
        for _ in self:
            pass
        if self.complete:
            result = self._run.result or {}
            self._run.close()
            return Result(None if self._step == 0 else self._plan.result, self.out, result)
        raise RuntimeError("the training did not end")

    def close(self) -> None:
        """Give the run directory free."""
        self._run.close()

    def save(self) -> None:
        """Take a checkpoint between two updates."""
        LOG.info("saving a checkpoint")
        began = now()
        same_everywhere(self._plan.learner.weights())
        blobs, keep = self._plan.learner.blobs() if processes.first() else {}, self._plan.recipe.save.keep
        self._run.save_checkpoint(self._step, blobs, self._state(), keep=keep)
        self._clock.saved(processes.agreed(now() - began))

    def _freeing(self, steps: Iterator[Metrics]) -> Iterator[Metrics]:
        """The same steps; an error, or the end of this object, gives the run directory free."""
        try:
            yield from steps
        except BaseException:
            self._run.close()
            raise

    def _train(self) -> Iterator[Metrics]:
        plan, recipe, save = self._plan, self._plan.recipe, self._plan.recipe.save
        LOG.info("checking the start")
        for check in plan.checks:
            check()  # of step 0, which a continued run is at too until its checkpoint is loaded
        self._resume()
        ended = self._ended
        steps = fit(plan.stream, plan.loss, plan.learner, plan.micro_tokens, recipe.seed, self._step)
        LOG.info("update %d", self._step + 1)
        while not ended:
            began = now()
            found = next(steps, None)
            if found is None:
                break
            update = found[1]
            metrics, seconds = processes.agreed((found[0], now() - began))  # the clock is the first process's
            self._step = metrics["step"]
            self._clock.updated(seconds, metrics)
            fixed = self._fix_total(metrics)
            ended = self._is_last(metrics)
            ended = self._watch(metrics, ended) or ended
            self._ended = ended
            self._record(metrics, update)
            due = (save.every and self._step % save.every == 0) or processes.agreed(self._clock.unsaved(save.minutes))
            if ended or fixed or (due and not plan.learner.divergence.suspected):
                self.save()
            yield metrics
        self._complete()

    def _fix_total(self, metrics: Metrics) -> bool:
        """Once the pace is known, fix the updates that fit into the time; the schedule decays over them."""
        clock, plan = self._clock, self._plan
        if not clock.ready or clock.limit is None:
            return False
        if plan.dev is not None and clock.whole and clock.evaluation is None:
            began = now()
            plan.dev.measure()  # only to see how long it takes: the last update is followed by one
            clock.evaluated(processes.agreed(now() - began))
        most = plan.stream.total
        total = clock.fix(self._step, most, plan.recipe.watch.every)
        if total < most:
            plan.learner.total = total
            event = f"{clock.pace:.2g} s an update: {total} updates fit into {clock.limit / 60:.3g} minutes"
            metrics["events"] = [*metrics.get("events", []), event]
        return True

    def _is_last(self, metrics: Metrics) -> bool:
        """Whether no update follows; the reason is in the metrics where the clock decided."""
        clock, most = self._clock, self._plan.stream.total
        if "stop" in metrics or self._step >= most:
            return True
        if clock.limit is not None and (clock.up or self._step >= (clock.total or most)):
            metrics["stop"] = f"the time is up ({clock.limit / 60:.1f} minutes)"
            return True
        return False

    def _record(self, metrics: Metrics, update: Update) -> None:
        for row in update.samples:
            self._run.sample({"step": self._step, **row})
        self._forecast(metrics)
        self._run.log(metrics)
        self._last = metrics

    def _forecast(self, metrics: Metrics) -> None:
        """Once there are enough answers, or no more will come: what they say of the reward, kept in the manifest."""
        if self._plan.forecast is not None and "forecast" not in self._run.manifest:
            answers = [from_row(row) for row in self._run.samples() if is_rated_answer(row)]  # damaged ones were named
            if len(answers) < FORECAST and not self._ended:
                return
            try:
                found = self._plan.forecast(answers)
            except SelfCheckError as error:
                self._run.measured({REFUSED: str(error)})  # nothing was learned: the next start sets it aside
                raise
            self._run.measured({**found, "forecast": {**found["forecast"], "step": self._step}})
        made = self._run.manifest.get("forecast", {})
        if made.get("step") == self._step and made["advice"]:  # an update that is done again tells it again
            metrics["events"] = [*made["advice"], *metrics.get("events", [])]

    def _watch(self, metrics: Metrics, last: bool) -> bool:
        """Measure on dev data when it is time; remember the best; whether to stop for lack of improvement."""
        plan, watch = self._plan, self._plan.recipe.watch
        due = watch.every and self._step % watch.every == 0
        if plan.dev is None or not (due or last):
            return False
        LOG.info("measuring on dev data")
        began = now()
        figures = {f"dev/{name}": value for name, value in plan.dev.measure().items()}
        self._clock.evaluated(processes.agreed(now() - began))
        metrics.update({"dev/n": plan.dev.n, **figures})
        name = f"dev/{watch.metric or plan.dev.metric}"
        if name not in figures:
            known = ", ".join(sorted(key.removeprefix("dev/") for key in figures))
            raise UserError(f"watch.metric: {watch.metric} is not measured on dev data here; there are {known}")
        value = figures[name] if plan.dev.better == "max" else -figures[name]
        if self._best is None or value > self._best:
            self._best, self._bad = value, 0
            if watch.best:
                blobs = {"weights.safetensors": plan.learner.blobs()["weights.safetensors"]}
                self._run.save_checkpoint(self._step, blobs, {"dev": figures[name]}, keep=1, best=True)
            return False
        self._bad += 1
        if watch.patience and self._bad >= watch.patience and not last:
            metrics["stop"] = f"{name} has not improved in {self._bad} measurements"
            return True
        return False

    def _complete(self) -> None:
        plan = self._plan
        best = self._run.best_checkpoint() if plan.dev and plan.recipe.watch.best else None
        chosen = self._step
        if best is not None and best.step != self._step:
            plan.learner.load_weights(best.read("weights.safetensors"))
            chosen = best.step
        LOG.info("measuring the finished model")
        figures = plan.finish() if plan.finish else {}
        warnings = cautions(plan.recipe, plan.facts, processes.by_first(RowFile(self.out / METRICS).rows))
        for said in warnings:
            LOG.warning("%s: %s", self.name, said)
        title = f"The training of {self.name}"
        panel = Panel(panel_name(f"training-{self.name}"), title, warnings=tuple(warnings))
        LOG.info("writing the model")
        processes.by_first(self._write_model)
        result = {
            "stage": self.stage,
            "updates": self._step,
            "chosen_update": chosen,
            "training_seconds": self._clock.updates,
            "time": self._clock.record(),
            "peak_memory": peak(plan.learner.optimizers[0].param_groups[0]["params"][0].device),
            **({"memory": self._run.manifest["memory"]} if "memory" in self._run.manifest else {}),
            "facts": plan.facts,
            "final": {key: value for key, value in self._last.items() if isinstance(value, int | float)},
            **figures,
            "warnings": warnings,
            "panels": [
                *self._run.manifest.get("panels", []),
                *figures.get("panels", []),
                *([asdict(panel)] if warnings else []),
            ],
        }
        self._run.complete(result)
        self.complete = True

    def _write_model(self) -> None:
        with storage.whole_directory(self.out / "model", keep=False) as staging:
            self._plan.save(staging)

    def _state(self) -> dict[str, Any]:
        return {
            "stream": self._plan.stream.state(),
            "learner": self._plan.learner.state(),
            "clock": self._clock.state(),
            "best": self._best,
            "bad": self._bad,
            "ended": self._ended,
            "last": self._last,
        }

    def _resume(self) -> None:
        checkpoint = self._run.load_checkpoint()
        if checkpoint is None:
            return
        learner, state = self._plan.learner, checkpoint.state
        learner.load_weights(checkpoint.read("weights.safetensors"))
        learner.load_moments(checkpoint.read("optimizer.safetensors"))
        learner.restore(state["learner"])
        self._plan.stream.restore(state["stream"])
        self._step = checkpoint.step
        LOG.log(SAID, "%s: continued after update %d", self.name, self._step)
        self._clock.restore(state["clock"])
        learner.total = self._clock.total or learner.total
        self._best, self._bad, self._ended, self._last = (state[key] for key in ("best", "bad", "ended", "last"))


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the run saved a checkpoint and can be continued with the same command."""

    def __init__(self, exit_code: int, out: Path) -> None:
        super().__init__(f"interrupted; the same command continues {out}")
        self.exit_code = exit_code


def drive(training: Training, interrupts: Interrupts, show: Callable[[Training, Metrics], None]) -> Result:
    """Run a training to its end, showing each update; an interrupt saves between two updates: raises Interrupted."""
    try:
        interrupts.directory = training.out
        for metrics in training:
            interrupts.seconds = metrics["seconds"]
            show(training, metrics)
            code = interrupts.heard()
            if code is not None and not training.complete:
                training.save()
                raise Interrupted(code, training.out)
        return training.finish()
    finally:
        interrupts.directory = None
        training.close()
