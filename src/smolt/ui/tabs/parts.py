"""Pieces that several tabs lay out: text that cannot do anything, and what a tab says to its reader."""

from typing import Any

import gradio
from markupsafe import Markup

from smolt.report.inert import visible
from smolt.report.panels import Panel, Table
from smolt.report.tables import panel_table
from smolt.ui.talks import Speakers

QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""Of an event that is answered at once."""


def shown(value: str = "", **options: Any) -> Any:
    """A place for HTML of ours; it runs nothing."""
    return gradio.HTML(value, js_on_load=None, apply_default_css=False, **options)


def text(content: str) -> Markup:
    """Somebody's text, a model's above all: as it is written, never as what it would mean to a browser."""
    return Markup('<p class="text">{}</p>').format(visible(content))


def alarm(sentence: str) -> Markup:
    """What went wrong, or is missing."""
    return Markup('<p class="alarm" role="alert">{}</p>').format(visible(sentence))


def note(sentence: str) -> Markup:
    """What the reader should know."""
    return Markup('<p class="note" role="status">{}</p>').format(visible(sentence))


def joined(parts: Any) -> Markup:
    """Pieces one after the other."""
    return Markup("").join(parts)


def panel_of(panel: Panel) -> Markup:
    """A finding: its sentences, warnings and tables."""
    said = [Markup("<p>{}</p>").format(visible(sentence)) for sentence in panel.sentences]
    said += [alarm(warning) for warning in panel.warnings]
    return joined([*said, *map(_table, panel.tables)])


def _table(table: Table) -> Markup:
    view = panel_table(table)
    head = joined(Markup("<th>{}</th>").format(visible(column["title"])) for column in view["columns"])
    rows = joined(
        Markup("<tr>{}</tr>").format(
            joined(Markup("<td><bdi>{}</bdi></td>").format(visible(cell.text)) for cell in row)
        )
        for row in view["rows"]
    )
    return Markup(
        '<p class="soft small">{}</p><div class="scroll"><table><thead><tr>{}</tr></thead>{}</table></div>'
    ).format(visible(view["caption"]), head, rows)


def halting(speakers: Speakers) -> Any:
    """What ends a visitor's answers."""

    def halt(request: gradio.Request) -> None:
        speakers.stop(request.session_hash)

    return halt
