"""The commands around a reward: audit a reward model, and look at what a recipe rewards before training on it."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from smolt.cli.options import Device, DType, Format, Limit, Split
from smolt.cli.outcomes import Outcome, delivered
from smolt.cli.train import Overrides, RecipeName, default_directory, look_first
from smolt.errors import UserError

RewardModel = Annotated[str, typer.Argument(metavar="REWARD_MODEL", help="A directory, adapter, run or hub name.")]
Pairs = Annotated[str, typer.Argument(metavar="PAIRS", help="Preferences it was not trained on.")]
Train = Annotated[str | None, typer.Option("--train", help="Its training preferences, for the bag of words.")]
Report = Annotated[Path | None, typer.Option("--out", help="Directory for a report.")]
TooLong = Annotated[bool, typer.Option("--drop-long", help="Leave out pairs that exceed the window.")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command("audit")(audit)
    about = "Look at what a recipe rewards before training on it: made-up answers, and the policy's own."
    app.command("reward-check", help=about)(checked)


@delivered
def audit(
    model: RewardModel,
    pairs: Pairs,
    train: Train = None,
    out: Report = None,
    limit: Limit = None,
    drop_long: TooLong = False,
    record_format: Format = None,
    split: Split = None,
    device: Device = "auto",
    dtype: DType = "auto",
) -> Outcome:
    """Audit a reward model on held-out pairs: baselines, length, calibration, probes."""
    from smolt.config import Data, Model, make_block

    too_long = "drop" if drop_long else "error"
    reading = {"format": record_format, "too_long": too_long}
    who = make_block(Model, path=model, device=device, dtype=dtype)
    held_out = make_block(Data, path=pairs, limit=limit, split=split, **reading)
    learned = None if train is None else make_block(Data, path=train, **reading)
    look_first(None, who, held_out, *([] if learned is None else [learned]))
    from smolt.rewards.audit.audit_panel import audit_panel
    from smolt.rewards.audit.model_audit import audit_model

    found = audit_model(who, held_out, learned)
    panel = audit_panel(found, "audit", f"The reward model in {model}")
    return _with_report({"model": model, **found.facts()}, [panel], model, out)


@delivered
def checked(source: RecipeName, overrides: Overrides = None, out: Report = None) -> Outcome:
    """The X-ray of each reward that a stage learns from of a recipe; one that waits for another section is named.

    Raises:
        UserError: the recipe has no such stage, or its model, data or reward cannot be read.
    """
    from smolt.config import REWARDED, StudyRecipe, load_recipe, section_references, with_directories

    recipe = load_recipe(source, None, overrides or [])
    stages: dict[str, Any] = {}
    if isinstance(recipe, StudyRecipe):
        stages = {section.name: section.recipe for section in recipe.sections}
    rewarded = {name: stage for name, stage in (stages or {recipe.name: recipe}).items() if stage.stage in REWARDED}
    if not rewarded:
        raise UserError(f"{source}: has no {' or '.join(REWARDED)} stage, so nothing in it is trained on a reward")
    places = {name: default_directory(source, recipe).resolve() / name for name in stages}
    facts: dict[str, Any] = {}
    panels: list[Any] = []
    for name, stage in rewarded.items():
        missing = sorted(place for place in section_references(stage) if not (places[place] / "result.json").is_file())
        if missing:
            facts[name] = {"waits_for": missing}
            continue
        settled = with_directories(stage, places)
        look_first(None, settled)
        facts[name], panel = _examined(settled)
        panels.append(panel)
    outcome = _with_report({"rewards": facts}, panels, recipe.name, out)
    waiting = [
        f"{name}: waits for {', '.join(found['waits_for'])}" for name, found in facts.items() if "waits_for" in found
    ]
    return Outcome(outcome.facts, "\n".join([outcome.words, *waiting]).strip("\n"))


def _examined(recipe: Any) -> tuple[dict[str, Any], Any]:
    """One reward's figures and its panel."""
    from smolt.rewards.audit.xray import verdict
    from smolt.training.online.reward_forecast import group_of, look, panel_of
    from smolt.training.online.rolling import open_rollouts

    found, findings = look(open_rollouts(recipe))
    panel = panel_of(recipe, found, findings)
    facts = {
        "answers": found.answers,
        "questions": found.questions,
        "varies": found.varies,
        "no_signal": {str(size): asdict(measure) for size, measure in found.no_signal.items()},
        "stop_rate": found.stop_rate,
        "parts": [asdict(part) for part in found.parts],
        "findings": [asdict(finding) for finding in findings],
        "advice": verdict(found, group_of(recipe)),
    }
    return facts, panel


def _with_report(facts: dict[str, Any], panels: list[Any], name: str, out: Path | None) -> Outcome:
    """The panels as words, and as a report where a directory is given."""
    from smolt.report.terminal import panel_words

    lines = [f"{panel.title}\n\n{panel_words(panel)}" for panel in panels]
    if out is not None and panels:
        from smolt.report.record import StudyRecord
        from smolt.report.report import write_report

        out.mkdir(parents=True, exist_ok=True)
        write_report(out, StudyRecord(name=name, arms=[], panels=panels))
        facts = {**facts, "report": str(out / "report.html")}
        lines.append(f"the report is {out / 'report.html'}")
    return Outcome(facts, "\n\n".join(lines))
