"""The page: the tabs, their style, and what a session leaves behind."""

import contextlib
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio

from smolt.serving.engine import Engine
from smolt.ui.environment import Face
from smolt.ui.launches import Launches
from smolt.ui.offers import offered
from smolt.ui.tabs.arena_tab import arena_tab
from smolt.ui.tabs.chat_tab import chat_tab
from smolt.ui.tabs.label_desk import LabelDesk
from smolt.ui.tabs.label_tab import label_tab
from smolt.ui.tabs.parts import halting, shown
from smolt.ui.tabs.recipe_tab import recipe_tab
from smolt.ui.tabs.runs_tab import runs_tab
from smolt.ui.talks import Speakers

STYLE = Path(__file__).parent / "face.css"
QUEUE = 32
"""Requests that wait at most; one more is told that the queue is full (503)."""
AT_ONCE = 8
KEYS = (Path(__file__).parent / "keys.js").read_text(encoding="utf-8")
GROUND = (
    "html, body, gradio-app, .gradio-container { background: #fdfcfa !important } @media (prefers-color-scheme: dark) "
    "{ html, body, gradio-app, .gradio-container { background: #17191c !important } }"
)
"""The page's own ground, from before its style has come; Gradio would show its own meanwhile."""
HEAD = (
    '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
    f"<style>{GROUND}</style><script>{KEYS}</script>"
)
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
    desk = LabelDesk(face.store, face.pairs)
    engines = functools.partial(Engine, device=face.device, dtype=face.dtype)
    speakers = Speakers(lambda: offered(face.models, face.runs), engines)
    with gradio.Blocks(title="smolt", analytics_enabled=False, fill_width=True) as page:
        with gradio.Row(elem_id="head"):
            shown("<h1>smolt</h1>")
            name = gradio.Textbox("me", label="Your name", elem_id="name", max_lines=1)
        with gradio.Tabs(elem_id="tabs"):
            chat_tab(speakers)
            arena_tab(face, speakers, name)
            label_tab(desk, name)
            runs_tab(face)
            recipe_tab(face, Launches(face.runs, os.environ if face.environment is None else face.environment))
        page.unload(halting(speakers))
        page.queue(max_size=QUEUE, default_concurrency_limit=AT_ONCE, api_open=False)
    with contextlib.closing(speakers):
        yield page
