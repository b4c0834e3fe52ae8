"""A model's answers to a file of questions, as rows of samples.jsonl; stopped, the same command continues."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.config import Data, EvaluationSampling, Model
from smolt.data import Question, Score
from smolt.models.answers import draw_answers, refuse_greedy_copies, sample_row
from smolt.models.conditions import Conditions, conditions_of
from smolt.models.ground import Ground, open_ground
from smolt.models.items import question_list
from smolt.models.roles import Policy
from smolt.models.saving import load_policy
from smolt.runs import Run
from smolt.runs.chunks import Progress, in_chunks

REFILLS = 4  # how often a chunk fills the sampler's slots: with fewer they would stand empty at each chunk's end
UNRATED = ("reward", "components", "abstained")  # columns of sample_row that nobody fills here


@dataclass(frozen=True)
class Asking:
    """What is asked, and how it is answered.

    Attributes:
        questions: in order; a question's place is part of its answers' randomness.
        conditions: prompt, length and stop rule.
        sampling: temperature (0 is greedy) and batch.
        samples: answers to each question.
        seed: of the draws.
    """

    questions: list[Question]
    conditions: Conditions
    sampling: EvaluationSampling
    samples: int
    seed: int

    @property
    def chunk(self) -> int:
        """Questions answered between two checkpoints."""
        return max(1, REFILLS * self.sampling.batch // self.samples)


def write_answers(
    model: Model,
    data: Data,
    sampling: EvaluationSampling,
    *,
    out: Path,
    samples: int = 1,
    seed: int = 0,
    fresh: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Sample answers into OUT/samples.jsonl, chunk by chunk.

    All answers to a question stand in one chunk. Complete chunks stay when the process ends early; the same call then
    continues after them and gives the file it would have given in one go.

    Args:
        model: who answers, where and how precisely.
        data: the questions.
        sampling: how; temperature 0 is greedy.
        out: directory of samples.jsonl, manifest.json and result.json.
        samples: answers to each question.
        seed: of the draws.
        fresh: set what lies at `out` aside and start anew.
        progress: told (questions answered, questions in all) after every chunk.

    Returns:
        status, n (answers), questions, too_long (questions left out), stop_rate, and length (mean tokens).

    Raises:
        UserError: model or data cannot be read, several greedy answers are asked for, or `out` was begun otherwise.
        DirectoryInUse: another process is working there.
        StorageError: the disk is full or failing.
    """
    refuse_greedy_copies(samples, sampling.temperature)
    ground = open_ground(model)
    questions, dropped, digest = question_list(data, ground.renderer, ground.window, sampling.max_tokens)
    blocks = {"model": model, "data": data, "sampling": sampling}
    recipe: dict[str, Any] = {name: block.model_dump(mode="json") for name, block in blocks.items()}
    recipe |= {"stage": "sample", "samples": samples, "seed": seed}
    manifest = {"stage": "sample", "recipe": recipe, **ground.identity, "data": digest}
    asking = Asking(questions, conditions_of(ground.renderer, sampling.max_tokens), sampling, samples, seed)
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.result is not None:
            return {**run.result, "status": "already complete"}
        in_chunks(run, range(len(questions)), asking.chunk, answer_rows(model, ground, asking), progress)
        rows = run.samples()
        facts = {"n": len(rows), "questions": len(questions), "too_long": dropped}
        facts |= {"stop_rate": sum(row["stop"] == "stop" for row in rows) / len(rows)}
        facts |= {"length": sum(row["tokens"] for row in rows) / len(rows)}
        run.complete(facts)
    return {**facts, "status": "complete"}


def answer_rows(model: Model, ground: Ground, asking: Asking) -> Callable[[], Callable[[range], list[dict[str, Any]]]]:
    """What loads the model and gives what answers the questions at some places, as rows of samples.jsonl."""

    def open_work() -> Callable[[range], list[dict[str, Any]]]:
        policy = load_policy(model.path, ground.precision)
        return lambda places: answer_chunk(policy, ground, asking, places)

    return open_work


def answer_chunk(policy: Policy, ground: Ground, asking: Asking, places: range) -> list[dict[str, Any]]:
    """The answers to the questions at some places, as rows."""
    drawing = asking.conditions.drawing(asking.sampling.temperature, asking.sampling.batch)
    asked = asking.questions[places.start : places.stop]
    found = draw_answers(policy, ground.renderer, asked, asking.samples, drawing, (asking.seed,), places.start)
    rows = []
    for question, answer, logprob in zip(found.questions, found.answers, found.logprobs, strict=True):
        row = sample_row(question, answer, Score(None), logprob)
        kept = {name: value for name, value in row.items() if name not in UNRATED}
        rows.append(kept if question.solution is None else {**kept, "solution": question.solution})
    return rows
