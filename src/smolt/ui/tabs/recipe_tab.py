"""The form for recipes: fields from the recipes' own classes, checked while one types, started on this machine."""

from typing import Any

import gradio
from markupsafe import Markup

from smolt.config import shipped_recipes
from smolt.config.reference import REQUIRED
from smolt.errors import UserError
from smolt.report.inert import visible
from smolt.runs import StorageError
from smolt.ui.environment import Face
from smolt.ui.launches import Launches
from smolt.ui.tabs.parts import QUIET, alarm, joined, note, shown
from smolt.ui.tabs.recipe_form import TRAINED, FormField, checked, form_fields, shipped_text, text_of

SHIPPED = "shipped: "
FIRST = "sft"


def recipe_tab(face: Face, launches: Launches) -> None:
    """Lay the tab out."""
    starts = [*TRAINED, *(SHIPPED + name for name in shipped_recipes())]
    with gradio.Tab("Recipe", id="recipe", elem_id="tab-recipe"), gradio.Row():
        clock, started = gradio.Timer(2.0, active=False), gradio.State("")
        with gradio.Column(scale=3, min_width=320):
            kind = gradio.Dropdown(starts, value=FIRST, label="Stage, or a shipped recipe to change", elem_id="kind")
            form = gradio.Column(elem_id="form")
        with gradio.Column(scale=3, min_width=320):
            text = gradio.Textbox(
                text_of(FIRST, {}), lines=14, max_lines=24, label="YAML", elem_id="yaml", buttons=["copy"]
            )
            verdict = shown(elem_id="verdict")
            start = gradio.Button("Start", variant="primary", visible=face.alone, interactive=False, elem_id="start")
            log = shown(elem_id="log")

    def look(text: str) -> list[Any]:
        draft = checked(text)
        return [_verdict(face, draft.error, draft.command(face.runs)), gradio.Button(interactive=not draft.error)]

    def run(text: str) -> list[Any]:
        try:
            name = launches.start(text)
        except (UserError, StorageError, OSError) as error:
            return [alarm(str(error)), gradio.skip(), gradio.skip()]
        return [note(f"{name} is started; its curves are under Runs."), name, gradio.Timer(active=True)]

    def follow(name: str) -> Any:
        return _log(launches, name)

    text.change(look, text, [verdict, start], trigger_mode="always_last", **QUIET)
    if face.alone:
        start.click(run, text, [log, started, clock], **QUIET)
        clock.tick(follow, started, log, **QUIET)
    with form:
        _form(kind, text)


def _form(kind: Any, text: Any) -> None:
    """The fields of the stage that is chosen; of a shipped recipe its text."""

    def fields_of(chosen: str) -> None:
        if chosen.startswith(SHIPPED):
            shown(str(note("Change the text on the right; it is checked while you type.")))
            return
        fields = form_fields(chosen)
        made: dict[str, Any] = {}
        for block in dict.fromkeys(_group(field) for field in fields):
            inside = [field for field in fields if _group(field) == block]
            if block in ("", REQUIRED):
                made |= {field.name: _component(field) for field in inside}
                continue
            with gradio.Accordion(block, open=False):
                made |= {field.name: _component(field) for field in inside}

        def write(*given: Any) -> str:
            return text_of(chosen, dict(zip(made, (str(value or "") for value in given), strict=True)))

        for component in made.values():
            component.change(write, list(made.values()), text, trigger_mode="always_last", **QUIET)

    gradio.render(inputs=kind, queue=False, show_progress="hidden")(fields_of)

    def begin(chosen: str) -> str:
        return shipped_text(chosen.removeprefix(SHIPPED)) if chosen.startswith(SHIPPED) else text_of(chosen, {})

    kind.change(begin, kind, text, **QUIET)


def _group(field: FormField) -> str:
    """What it is shown under: what must be filled in, the recipe itself, or its block."""
    if field.default == REQUIRED and field.block in ("model", "data", ""):
        return REQUIRED
    return field.name.split(".")[0] if field.block else ""


def _component(field: FormField) -> Any:
    label = f"{field.name} (required)" if field.default == REQUIRED else field.name
    options: dict[str, Any] = {"label": label, "info": field.about, "elem_id": f"field-{field.name.replace('.', '-')}"}
    if field.choices:
        return gradio.Dropdown(
            [(f"{field.default} (default)", ""), *((one, one) for one in field.choices)], value="", **options
        )
    shown_default = "" if field.default == REQUIRED else field.default
    return gradio.Textbox("", placeholder=shown_default, max_lines=1, **options)


def _verdict(face: Face, error: str, command: str) -> Markup:
    if error:
        lines = joined(Markup("<li>{}</li>").format(visible(line)) for line in error.splitlines())
        return Markup('<ul class="alarm" role="alert">{}</ul>').format(lines)
    end = "" if face.alone else " Start works on the machine itself alone; here is the command for it."
    return note(f"A valid recipe.{end}") + Markup('<pre class="command">{}</pre>').format(visible(command))


def _log(launches: Launches, name: str) -> Markup:
    """What a started run says, and how it ended."""
    said, code = launches.state(name)
    state = f"{name} runs." if code is None else f"{name} has ended with exit code {code}."
    return note(f"{state} Its curves are under Runs.") + Markup('<pre class="command">{}</pre>').format(visible(said))
