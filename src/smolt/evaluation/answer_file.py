"""A model's answers to a file of questions, as rows of samples.jsonl, unrated; stopped, the same command continues."""

from pathlib import Path
from typing import Any

from smolt.config import Data, EvaluationSampling, Model
from smolt.evaluation.exam import answering_work, open_exam
from smolt.models.answers import refuse_greedy_copies
from smolt.models.ground import open_ground
from smolt.runs import Run
from smolt.runs.chunks import Progress, in_chunks


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
    exam = open_exam(ground, data, None, sampling, samples, seed)
    blocks = {"model": model, "data": data, "sampling": sampling}
    recipe: dict[str, Any] = {name: block.model_dump(mode="json") for name, block in blocks.items()}
    recipe |= {"stage": "sample", "samples": samples, "seed": seed}
    manifest = {"stage": "sample", "recipe": recipe, **ground.identity, "data": exam.sha256}
    with Run.open(out, manifest=manifest, fresh=fresh) as run:
        if run.result is not None:
            return {**run.result, "status": "already complete"}
        in_chunks(run, range(len(exam.questions)), exam.chunk, answering_work(exam, model, ground), progress)
        rows = run.samples()
        facts = {"n": len(rows), "questions": len(exam.questions), "too_long": exam.too_long}
        facts |= {"stop_rate": sum(row["stopped"] for row in rows) / len(rows)}
        facts |= {"length": sum(row["tokens"] for row in rows) / len(rows)}
        run.complete(facts)
    return {**facts, "status": "complete"}
