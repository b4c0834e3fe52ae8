"""`smolt data`: audit preferences before training on them; how much more data would help."""

import shlex
from pathlib import Path
from typing import Annotated

import typer

from smolt.cli.options import Split
from smolt.cli.outcomes import Outcome, delivered
from smolt.cli.train import Fresh, Overrides, RecipeName

app = typer.Typer(no_args_is_help=True, help="Audit preference data; measure how much more of it would help.")


@app.command("audit", help="Duplicates, contradictions, bias, leakage and doubtful labels; shows no text unless asked.")
@delivered
def audit(
    preferences: Annotated[str, typer.Argument(metavar="PREFERENCES", help="JSONL, Parquet or a data set.")],
    test: Annotated[str | None, typer.Option(help="Test questions or preferences, to look for in PREFERENCES.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory to write the audit into.")] = None,
    show: Annotated[int, typer.Option(min=0, help="Print the texts of so many most doubted pairs.")] = 0,
    model: Annotated[str | None, typer.Option(help="Rank by this reward model, trained on other pairs.")] = None,
    source: Annotated[str | None, typer.Option(help="Column of the sources (a.b for one inside another).")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first so many pairs.")] = None,
    record_format: Annotated[str | None, typer.Option("--format", help="Format of PREFERENCES.")] = None,
    split: Split = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable rows out, counted.")] = False,
    device: Annotated[str, typer.Option(help="For --model: auto, cpu, cuda or mps.")] = "auto",
) -> Outcome:
    """What a preference file holds that a model should not learn."""
    from smolt.data import Source
    from smolt.errors import UserError
    from smolt.preferences.audit import AuditOptions, audit_panel, audit_preferences
    from smolt.preferences.audit.audit_files import audit_facts, suspects_text, write_audit
    from smolt.report.terminal import panel_words

    if out is not None and out.is_file():
        raise UserError(f"{out}: is a file, not a directory; choose another --out")
    rank = None
    if model is not None:
        from smolt.models.forward.precision import choose_precision
        from smolt.preferences.audit.judged import ranker

        rank = ranker(model, choose_precision(device, "auto", None))
    options = AuditOptions(None if test is None else Source(test), source, rank, seed)
    data = Source(preferences, split=split, format=record_format, limit=limit, skip_bad=skip_bad)
    found = audit_preferences(data, options)
    panel = audit_panel(found)
    if out is not None:
        write_audit(found, panel, out)
    texts = f"\n\n{suspects_text(found, show)}" if show else ""
    where = f"\n\nwritten to {out}" if out is not None else ""
    return Outcome(audit_facts(found, panel), panel_words(panel) + texts + where)


@app.command("gym", help="Problems of reasoning-gym as questions, each with its own verifier (reward gym).")
@delivered
def gym(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which problems, such as chain_sum.")],
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Settings of these problems, the value in YAML.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", help="The file of questions to write.")] = Path("gym.jsonl"),
    size: Annotated[int, typer.Option(min=1, help="How many.")] = 500,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems: another seed for another part.")] = 0,
) -> Outcome:
    """Make a file of questions."""
    from smolt.config.yaml_reader import read_text
    from smolt.data.writing import write_questions
    from smolt.errors import UserError
    from smolt.rewards.gym_problems import gym_questions

    given = [setting.partition("=") for setting in settings or []]
    if wrong := [key for key, mark, _ in given if not mark or not key]:
        raise UserError(f"{wrong[0]}: give settings as KEY=VALUE, such as min_terms=4")
    chosen = {key: read_text(f"value: {text}", key).data["value"] for key, _, text in given}
    questions = gym_questions(name, size, seed, chosen)
    write_questions(out, questions)
    facts = {"out": str(out), "questions": len(questions), "first": questions[0].context[-1].content}
    command = f"smolt grpo RECIPE {shlex.quote(f'data={out}')} reward=gym"
    return Outcome(facts, f"{len(questions):,} questions in {out}", commands=[command])


@app.command("formats", help="List the formats of records that are read: their columns, and what each gives.")
@delivered
def formats() -> Outcome:
    """Every format, the most telling columns first, as they are tried; columns in brackets may be absent."""
    from smolt.data import FORMATS

    found = [
        {"name": form.name, "required": form.required, "optional": form.optional, "gives": form.kinds}
        for form in FORMATS
    ]
    width = max(len(form.name) for form in FORMATS)
    lines = [f"{form.name:<{width}}  {form.columns()}: {', '.join(form.kinds)}" for form in FORMATS]
    return Outcome({"formats": found}, "\n".join(lines))


@app.command("decisions", help="Make decisions to learn from: of pairs, feedback, a judge's verdicts, answers, labels.")
@delivered
def decisions(
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSONL, Parquet or a data set.")],
    out: Annotated[Path, typer.Option("--out", help="The file of decisions to write.")],
    made_of: Annotated[
        str | None,
        typer.Option("--from", help="pairs, feedback, verdicts, answers or column; as DATA looks unless given."),
    ] = None,
    rubric: Annotated[
        str, typer.Option(help="pairs, verdicts: what is asked; a shipped rubric's name or a file.")
    ] = "helpful",
    instructions: Annotated[str | None, typer.Option(help="feedback, answers, column: what is asked.")] = None,
    state: Annotated[str, typer.Option(help="column: the column with the text.")] = "text",
    label: Annotated[str, typer.Option(help="column: the column with the label.")] = "label",
    limit: Annotated[int | None, typer.Option(min=1, help="Use only the first so many rows.")] = None,
    record_format: Annotated[str | None, typer.Option("--format", help="Format of DATA.")] = None,
    split: Split = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable rows out, counted.")] = False,
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> Outcome:
    """Rows of a state, typed questions and what is expected."""
    from smolt.data import Source, write_rows
    from smolt.errors import UserError
    from smolt.report.wording import counted
    from smolt.rewards.llm_judge import labelled_decisions as made
    from smolt.rewards.llm_judge.rubrics import load_rubric

    if out.exists() and not replace:
        raise UserError(f"{out}: is there already; --replace writes over it")
    source = Source(data, split=split, format=record_format, limit=limit, skip_bad=skip_bad)
    kind = made_of or made.kind_of(source)
    makers = {
        "pairs": lambda: made.from_pairs(source, load_rubric(rubric)),
        "feedback": lambda: made.from_feedback(source, instructions or "Is the answer good?"),
        "verdicts": lambda: made.from_verdicts(source, load_rubric(rubric)),
        "answers": lambda: made.from_answers(source, instructions or "Is the answer right?"),
        "column": lambda: made.from_column(source, state, label, instructions or f"Which {label}?"),
    }
    if kind not in makers:
        raise UserError(f"--from: {kind!r} is unknown; there are {', '.join(makers)}")
    found = makers[kind]()
    if not found:
        raise UserError(f"{data}: holds nothing that was judged, so no decision can be made of it")
    write_rows(out, [decision.row for decision in found])
    facts = {"decisions": len(found), "from": kind, "out": str(out)}
    return Outcome(facts, f"{counted(len(found), 'decision')} made of {kind}, in {out}")


@app.command("best", help="Make demonstrations of the best of several answers to each question: rejection sampling.")
@delivered
def best(
    answers: Annotated[str, typer.Argument(metavar="ANSWERS", help="candidates.jsonl, samples.jsonl or the like.")],
    out: Annotated[Path, typer.Option("--out", help="The file of demonstrations to write.")],
    reward: Annotated[
        list[str] | None,
        typer.Option(
            "--reward", help="Who rates them anew: a rule's name, file.py:function, a reward model; may be repeated."
        ),
    ] = None,
    least: Annotated[float | None, typer.Option(help="The lowest reward that is worth imitating.")] = None,
    keep: Annotated[str, typer.Option(help="best: one answer to each question; all: every one of --least.")] = "best",
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that is there.")] = False,
) -> Outcome:
    """Of answers that were drawn before, those that a reward likes best."""
    from dataclasses import asdict

    from smolt.cli.train import look_first
    from smolt.config import RewardMix
    from smolt.data.writing import write_demonstrations
    from smolt.errors import UserError
    from smolt.rewards.shorthand import asked_reward

    if out.exists() and not replace:
        raise UserError(f"{out}: is there already; --replace writes over it")
    if keep not in ("best", "all"):
        raise UserError(f"--keep: {keep!r} is unknown; there are best and all")
    rater = asked_reward(reward or None)
    rater = rater if isinstance(rater, RewardMix) else None
    look_first(None, *([] if rater is None else [rater]))
    from smolt.preferences.best_answers import best_of_file

    found = best_of_file(answers, rater, "best" if keep == "best" else "all", least, out.parent)
    write_demonstrations(out, found.demonstrations)
    facts = {**asdict(found), "demonstrations": len(found.demonstrations), "out": str(out)}
    return Outcome(facts, found.words(str(out)), commands=[f"smolt sft RECIPE {shlex.quote(f'data={out}')}"])


@app.command("pilot", help="Train a reward recipe on 5, 10, 25, 50 and 100 % of its pairs: the learning curve.")
@delivered
def pilot(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option("--out", help="Directory; runs/<name>-pilot unless given.")] = None,
    fresh: Fresh = False,
) -> Outcome:
    """Whether more pairs would make the reward model better."""
    from dataclasses import asdict

    from smolt.cli.train import default_directory, finish_shown, look_first
    from smolt.config import RewardRecipe, load_recipe
    from smolt.errors import UserError
    from smolt.report.terminal import panel_words

    checked = load_recipe(recipe, "reward", overrides or [])
    if not isinstance(checked, RewardRecipe):
        raise UserError(f"{recipe}: is a {checked.stage} recipe; the pilot trains reward models")
    chosen = default_directory(recipe, checked)
    directory = out if out is not None else chosen.with_name(f"{chosen.name}-pilot")
    look_first(None, checked)
    from smolt.study.learning_curve import pilot_panel, run_pilot, write_pilot

    points = run_pilot(checked, directory, finish_shown, fresh)
    panel = pilot_panel(points)
    write_pilot(points, panel, directory)
    facts = {"points": [asdict(point) for point in points], "out": str(directory), "sentences": panel.sentences}
    return Outcome(facts, f"{panel_words(panel)}\n\nwritten to {directory}")
