"""smolt suite: several models on the same prompts, scenario by scenario."""

from pathlib import Path
from typing import Annotated

import typer

from smolt.cli.options import Batch, Device, DType, Limit, MaxTokens, Samples, Seed, Temperature
from smolt.cli.outcomes import Outcome, shared
from smolt.cli.train import Fresh, look_first

Models = Annotated[list[str], typer.Argument(metavar="MODEL...", help="Models; the first is the baseline.")]
Prompts = Annotated[
    list[str] | None,
    typer.Option("--suite", help="scenarios, or a file of prompts (scenarios unless given); may be repeated."),
]
Rater = Annotated[str | None, typer.Option(metavar="MODEL", help="A reward model that rates it.")]


@shared
def suite(
    models: Models,
    out: Annotated[Path, typer.Option("--out", help="Directory for the answers and the report.")],
    prompts: Prompts = None,
    harmlessness: Rater = None,
    helpfulness: Rater = None,
    empathy: Rater = None,
    samples: Samples = 1,
    max_tokens: MaxTokens = 256,
    temperature: Temperature = 0.0,
    batch: Batch = 64,
    seed: Seed = 0,
    limit: Limit = None,
    device: Device = "auto",
    dtype: DType = "auto",
    fresh: Fresh = False,
) -> Outcome:
    """Compare models scenario by scenario: refusal, empathy, sentiment, constraints, and what reward models say."""
    from smolt.cli.progress import counting
    from smolt.config import EvaluationSampling, Model, Suites, make_block

    raters = {"harmlessness": harmlessness, "helpfulness": helpfulness, "empathy": empathy}
    asked = [{"path": path, "limit": limit} for path in prompts or ["scenarios"]]
    suites = make_block(Suites, prompts=asked, **raters)
    who = [make_block(Model, path=path, device=device, dtype=dtype) for path in models]
    look_first(out, *who, suites)
    from smolt.evaluation.suites import run_suites

    with counting("prompts") as show:
        facts = run_suites(
            who,
            suites,
            make_block(EvaluationSampling, max_tokens=max_tokens, temperature=temperature, batch=batch),
            out=out,
            samples=samples,
            seed=seed,
            fresh=fresh,
            tell=show,
        )
    lines = [*facts["findings"], *facts["warnings"], f"{facts['status']}; the report is {facts['report']}"]
    return Outcome(facts, "\n".join(lines))
