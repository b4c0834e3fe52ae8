"""The page: five tabs, their style, and what a session leaves behind."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio

from smolt.ui.environment import Face
from smolt.ui.parts import shown
from smolt.ui.runs_tab import runs_tab

STYLE = Path(__file__).parent / "face.css"
QUEUE = 32
"""Requests that wait at most; one more is told that the queue is full (503)."""
AT_ONCE = 8
HEAD = '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
SANS = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Arial", "sans-serif"]
MONO = ["ui-monospace", "SF Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace"]
THEME: Any = gradio.themes.Base(
    primary_hue=gradio.themes.colors.orange,
    neutral_hue=gradio.themes.colors.stone,
    radius_size=gradio.themes.sizes.radius_sm,
    font=SANS,
    font_mono=MONO,
)


@contextlib.contextmanager
def make_page(face: Face) -> Iterator[Any]:
    """The Gradio blocks of a face; what they hold open is closed at the end."""
    with contextlib.ExitStack() as held, gradio.Blocks(title="smolt", analytics_enabled=False, fill_width=True) as page:
        shown("<h1>smolt</h1>", elem_id="head")
        with gradio.Tabs(elem_id="tabs"):
            runs_tab(face)
        page.queue(max_size=QUEUE, default_concurrency_limit=AT_ONCE, api_open=False)
    with held:
        yield page
