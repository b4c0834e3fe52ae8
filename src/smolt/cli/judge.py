"""The command `judge`: AI or rule labels for pairs of answers, with the judge's audit card."""

from pathlib import Path
from typing import Annotated, Any

import typer

from smolt.cli.options import Device, DType, Format, Limit, SkipBad, Split
from smolt.cli.outcomes import Outcome, shared
from smolt.cli.train import Fresh, look_first

Pairs = Annotated[str, typer.Argument(metavar="PAIRS", help="Preferences: JSONL, Parquet or a data set.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        "--model", help="A language or reward model here (directory, run, hub name); with --url its name there."
    ),
]
Url = Annotated[str | None, typer.Option(help="An OpenAI-compatible API, such as http://localhost:8000/v1.")]
Decides = Annotated[
    bool, typer.Option("--decision", help="Ask --model, or the /v1/systemone at --url, for decisions, not for words.")
]
RuleName = Annotated[str | None, typer.Option("--rule", help="longer, shorter or a reward's name, instead of a model.")]

COUNTED = {"showings": "verdicts, each pair in both orders", "probes": "verdicts on tricks"}
"""What is counted on the way, in words."""


@shared
def judge(
    pairs: Pairs,
    out: Annotated[Path, typer.Option("--out", help="Directory for labels, verdicts and card.")],
    model: ModelName = None,
    url: Url = None,
    rule: RuleName = None,
    decision: Decides = False,
    rubric: Annotated[str, typer.Option(help="A shipped rubric's name, or a .yaml or .txt file.")] = "helpful",
    rationale: Annotated[int, typer.Option(min=0, help="Tokens of reasoning before the choice; 0 = none.")] = 0,
    tau: Annotated[float, typer.Option(min=0, help="A tie unless the margin is wider than this.")] = 0.0,
    matched: Annotated[
        float | None, typer.Option(min=0, max=0.99, help="Only pairs whose lengths differ by at most this share.")
    ] = None,
    probes: Annotated[int, typer.Option(min=0, help="Pairs on which the judge is tried; 0 = none.")] = 50,
    drop_inconsistent: Annotated[
        bool, typer.Option("--drop-inconsistent", help="Leave out pairs that are decided otherwise when swapped.")
    ] = False,
    gate: Annotated[
        bool, typer.Option(help="No labels of a language model that may as well toss a coin; --no-gate keeps them.")
    ] = True,
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="Which answer the data call better means nothing.")
    ] = False,
    cache: Annotated[Path | None, typer.Option(help="A file for verdicts that several runs share.")] = None,
    key: Annotated[str | None, typer.Option("--key", help="Environment variable that holds the API key.")] = None,
    rate: Annotated[float | None, typer.Option(help="At most so many requests a minute.")] = None,
    parallel: Annotated[int, typer.Option(min=1, help="Requests under way at once.")] = 4,
    timeout: Annotated[float, typer.Option(help="Seconds for one reply.")] = 60.0,
    attempts: Annotated[int, typer.Option(min=1, help="Tries for one reply.")] = 5,
    limit: Limit = None,
    record_format: Format = None,
    split: Split = None,
    skip_bad: SkipBad = False,
    device: Device = "auto",
    dtype: DType = "auto",
    fresh: Fresh = False,
) -> Outcome:
    """Let a model, an endpoint or a rule say which answer is better; labels and the judge's card go to OUT."""
    from smolt.cli.progress import counting
    from smolt.config import Data, Judging, make_block
    from smolt.rewards.llm_judge.rubrics import load_rubric

    remote = {"key": key, "rate": rate, "parallel": parallel, "timeout": timeout, "attempts": attempts}
    asked = {"rubric": rubric, "rationale": rationale, "tau": tau, "matched": matched, "probes": probes}
    settings = make_block(
        Judging,
        **who(model, url, rule, remote, decision),
        **asked,
        gate=gate,
        inconsistent="drop" if drop_inconsistent else "keep",
    )
    data = make_block(Data, path=pairs, format=record_format, split=split, limit=limit, skip_bad=skip_bad)
    if settings.rule is None:
        load_rubric(settings.rubric)
    look_first(out, settings, data)
    from smolt.preferences.judges.labelling import judge_file

    with counting("verdicts") as show:
        facts = judge_file(
            data,
            settings,
            out=out,
            unlabelled=unlabelled,
            cache=cache,
            device=device,
            dtype=dtype,
            fresh=fresh,
            tell=lambda what, done, total: show(done, total, COUNTED[what]),
        )
    return Outcome({**facts, "out": str(out)}, words(facts, out))


def who(
    model: str | None, url: str | None, rule: str | None, remote: dict[str, Any], decision: bool = False
) -> dict[str, Any]:
    """The judge of the options.

    Raises:
        UserError: none, or more than one.
    """
    from smolt.errors import UserError

    if rule is not None:
        if model is not None or url is not None or decision:
            raise UserError("--rule stands alone: remove --model, --url and --decision")
        return {"rule": rule}
    if decision and url is not None:
        return {"decision": {"url": url, "model": model or "*", **remote}}
    if model is None:
        raise UserError("who judges? give --model MODEL, --url URL with --model NAME, or --rule NAME")
    if url is not None:
        return {"endpoint": {"url": url, "model": model, **remote}}
    return {"decision" if decision else "path": model}


def words(facts: dict[str, Any], out: Path) -> str:
    """The outcome for a person."""
    from smolt.report.wording import counted

    lines = [
        f"{facts['status']}: {counted(facts['preferences'], 'label')} in {out / 'preferences.jsonl'}; the judge's card "
        f"is {out / 'judge-card.md'}",
        f"{counted(facts['n'], 'pair')}: {facts['decided']:,} decided, {counted(facts['ties'], 'tie')}, "
        f"{counted(facts['abstentions'], 'abstention')}, {counted(facts['failures'], 'failure')}",
    ]
    if facts["unreached"]:
        lines.append(f"{facts['unreached']:,} pairs got no reply; the same command asks for them again")
    lines += [f"not judged: {count:,} ({reason})" for reason, count in facts["reasons"].items()]
    return "\n".join([*lines, *(f"unreliable: {warning}" for warning in facts["warnings"])])
