"""A model's answers to a file of questions, as rows of samples.jsonl; stopped, the same command continues."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolt.config import Data, EvaluationSampling, Model
from smolt.errors import UserError
from smolt.models import Policy
from smolt.preparation import Ground, open_ground, question_list
from smolt.records import Question, Score
from smolt.runs import Run
from smolt.sampling import Drawing, sample
from smolt.saving import load_policy
from smolt.streams import as_answers, sample_row

REFILLS = 4  # how often a chunk fills the sampler's slots: with fewer they would stand empty at each chunk's end
UNRATED = ("reward", "components", "abstained")  # columns of sample_row that nobody fills here

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Asking:
    """What is asked, and how it is answered.

    Attributes:
        questions: in order; a question's place is part of its answers' randomness.
        sampling: how; temperature 0 is greedy.
        samples: answers to each question.
        seed: of the draws.
    """

    questions: list[Question]
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
    if samples > 1 and sampling.temperature == 0:
        raise UserError(f"samples: {samples} greedy answers to a question are all the same; set a temperature above 0")
    ground = open_ground(model)
    questions, dropped, digest = question_list(data, ground.renderer, ground.window, sampling.max_tokens)
    blocks = {"model": model, "data": data, "sampling": sampling}
    recipe: dict[str, Any] = {name: block.model_dump(mode="json") for name, block in blocks.items()}
    recipe |= {"stage": "sample", "samples": samples, "seed": seed}
    manifest = {"stage": "sample", "recipe": recipe, **ground.identity, "data": digest}
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.result is not None:
            return {**run.result, "status": "already complete"}
        checkpoint = run.load_checkpoint()
        done = {"questions": 0, "n": 0, "stopped": 0, "tokens": 0} if checkpoint is None else checkpoint.state
        asking = Asking(questions, sampling, samples, seed)
        policy = load_policy(model.path, ground.precision)
        while done["questions"] < len(questions):
            done = _add(done, answer_chunk(policy, ground, asking, done["questions"], run))
            run.save_checkpoint(done["questions"], {}, done, keep=1)
            if progress is not None:
                progress(done["questions"], len(questions))
        facts = {"n": done["n"], "questions": len(questions), "too_long": dropped}
        facts |= {"stop_rate": done["stopped"] / done["n"], "length": done["tokens"] / done["n"]}
        run.complete(facts)
    return {**facts, "status": "complete"}


def answer_chunk(policy: Policy, ground: Ground, asking: Asking, start: int, run: Run) -> dict[str, int]:
    """Answer the questions from `start` on and hand the rows to the run; what was done, counted."""
    asked = asking.questions[start : start + asking.chunk]
    places = range(start, start + len(asked))
    limits = asking.sampling
    drawing = Drawing(limits.max_tokens, limits.temperature, limits.batch, ground.renderer.stop_ids)
    contexts = [ground.renderer.context(question.context) for question in asked]
    groups = sample(policy, contexts, asking.samples, drawing, (asking.seed,), ids=places)
    answers = as_answers(groups, ground.renderer)
    logprobs = groups.columns["sampled"].sum(dim=1)
    for owner, answer, logprob in zip(groups.owners, answers, logprobs, strict=True):
        row = sample_row(asked[owner], answer, Score(None), logprob)
        solution = asked[owner].solution
        run.sample(
            {
                "step": start + len(asked),
                **{name: value for name, value in row.items() if name not in UNRATED},
                **({"solution": solution} if solution is not None else {}),
            }
        )
    return {
        "questions": len(asked),
        "n": len(answers),
        "stopped": sum(answer.stopped for answer in answers),
        "tokens": sum(answer.tokens for answer in answers),
    }


def _add(done: dict[str, int], more: dict[str, int]) -> dict[str, int]:
    return {name: value + more[name] for name, value in done.items()}
