"""`smolt recipe`: list the shipped recipes, show one, check any, explain every field."""

from typing import Annotated

import typer

from smolt.cli.outcomes import Json, Outcome, deliver, delivered
from smolt.cli.train import Overrides, RecipeName
from smolt.errors import UserError

app = typer.Typer(no_args_is_help=True, help="List, show and check recipes; explain every field.")
Stage = Annotated[str | None, typer.Option("--stage", help="The stage, where the recipe does not say it.")]


@app.command("list", help="List the shipped recipes.")
@delivered
def listed() -> Outcome:
    """The shipped recipes, each with the first line of its file."""
    from smolt.config import shipped_recipes
    from smolt.config.yaml_reader import read_yaml

    found = []
    for name, path in shipped_recipes().items():
        document = read_yaml(path)
        about, stage = document.text.splitlines()[0].strip("# "), document.data.get("stage", "study")
        found.append({"name": name, "stage": stage, "about": about, "path": str(path)})
    width = max((len(entry["name"]) for entry in found), default=0)
    lines = [f"{entry['name']:<{width}}  {entry['stage']:<9}  {entry['about']}" for entry in found]
    return Outcome({"recipes": found}, "\n".join(lines) or "no recipes are shipped")


@app.command("show")
def show(name: RecipeName, as_json: Json = False) -> None:
    """Print a recipe as it is written; with --json every field with its value."""
    deliver(lambda: shown(name, as_json), as_json)


def shown(name: str, fields: bool) -> Outcome:
    """The text of a recipe, with `fields` also every field and its value.

    Raises:
        UserError: there is none of this name, or with `fields` it is wrong, or leaves a value to the command line.
    """
    from smolt.config import find_recipe, load_recipe
    from smolt.config.yaml_reader import read_yaml

    path = find_recipe(name)
    values = load_recipe(path).model_dump(mode="json") if fields else {}
    return Outcome(values, read_yaml(path).text.rstrip("\n"), verbatim=True)


@app.command("check", help="Check a recipe and its rewards, and that its local files are there, without loading them.")
@delivered
def checked(source: RecipeName, overrides: Overrides = None, stage: Stage = None) -> Outcome:
    """Whether a recipe is valid, and its hash.

    Raises:
        UserError: with all its mistakes, or with all rewards that are none and files that are not there.
    """
    from smolt.config import StudyRecipe, load_recipe, recipe_hash
    from smolt.data.inputs import hub_names, missing_inputs
    from smolt.rewards.shorthand import reward_faults

    recipe = load_recipe(source, stage, overrides or [])
    faults = [*reward_faults(recipe), *missing_inputs(recipe)]
    if faults:
        raise UserError("\n".join(faults))
    names: list[str] = []
    if isinstance(recipe, StudyRecipe):
        recipe.require_exam()
        names = [section.name for section in recipe.sections]
    facts = {"valid": True, "stage": recipe.stage, "name": recipe.name, "sections": names, "hash": recipe_hash(recipe)}
    parts = f" with the sections {', '.join(names)}" if names else ""
    words, hub = f"{source}: a valid {recipe.stage} recipe{parts}", hub_names(recipe)
    if hub:
        words += f"\nnot here, so taken for names of models on the hub: {', '.join(hub)}"
    return Outcome({**facts, "hub": hub}, words)


@app.command("fields", help="Print every field of a stage's recipe, or the whole reference as Markdown.")
@delivered
def explained(
    stage: Annotated[
        str | None,
        typer.Argument(
            metavar="[STAGE]", help="sft, reward, dpo, kto, decide, ppo, grpo, online_dpo, distill, study, ..."
        ),
    ] = None,
) -> Outcome:
    """The fields of a stage's recipe; without a stage the page docs/reference/recipes-reference.md.

    Raises:
        UserError: there is no such stage.
    """
    from smolt.config.reference import recipe_classes, reference_page, stage_fields, stage_lines

    stages = [stage] if stage is not None else list(recipe_classes())
    facts = {
        name: [
            {"name": field.name, "values": field.values, "default": field.default, "about": field.about}
            for field in stage_fields(name)
        ]
        for name in stages
    }
    return Outcome(facts, stage_lines(stage) if stage is not None else reference_page().rstrip("\n"))
