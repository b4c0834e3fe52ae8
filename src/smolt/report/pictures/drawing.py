"""How every picture of a report is drawn: one figure, as SVG in light and dark (for the page) and PNG (for slides)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import matplotlib
from matplotlib.figure import Figure

WIDTH = 4.6  # inches; small, so that labels stay readable where a phone shrinks the picture


@dataclass(frozen=True)
class Theme:
    """Colours of a picture; `arms` are given out in order, the first to the baseline."""

    ink: str
    muted: str
    grid: str
    arms: tuple[str, ...]


LIGHT = Theme(
    ink="#22252b",
    muted="#6a6f7a",
    grid="#e6e3de",
    arms=("#7d838f", "#cf553b", "#2b7a8c", "#b58a2a", "#7b5a9e", "#5c8746", "#b35c86", "#4a62a8", "#8a6d52"),
)
DARK = Theme(
    ink="#e9e6e1",
    muted="#9a9ea8",
    grid="#34373d",
    arms=("#8f95a1", "#f08a70", "#58b0c2", "#d9b25c", "#ab8bd0", "#8cba74", "#dd8fb4", "#8ba3e0", "#bfa084"),
)


@dataclass(frozen=True)
class Picture:
    """A drawn picture: its file name without suffix, what it shows, and what good looks like (or nothing)."""

    name: str
    arm: str
    title: str
    caption: str
    alt: str
    light: bytes
    dark: bytes
    png: bytes


def picture(
    name: str,
    arm: str,
    title: str,
    caption: str,
    alt: str,
    height: float,
    paint: Callable[[Any], None],
    width: float = WIDTH,
) -> Picture:
    """Draw once; `paint` uses the colours of LIGHT, and the dark picture is the same one in the colours of DARK."""
    with matplotlib.rc_context(_settings()):
        figure = Figure(figsize=(width, height), layout="constrained")
        paint(figure.add_subplot())
        vectors, pixels = BytesIO(), BytesIO()
        figure.savefig(vectors, format="svg", facecolor="none", metadata={"Date": None})
        figure.savefig(pixels, format="png", dpi=200, facecolor="white")
    light = vectors.getvalue()
    return Picture(name, arm, title, caption, alt, light, _darkened(light), pixels.getvalue())


def legend(axes: Any, entries: Sequence[tuple[str, str]]) -> None:
    """Names with their colours above the picture."""
    handles = [axes.scatter([], [], s=26, marker="s", color=colour) for _, colour in entries]
    axes.figure.legend(
        handles,
        [label(name, 30) for name, _ in entries],
        loc="outside upper left",
        ncols=min(3 if all(len(name) < 15 for name, _ in entries) else 2, len(entries)),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.2,
    )


def label(text: str, longest: int = 22) -> str:
    """A name that the font can draw, cut to `longest` characters."""
    drawable = "".join(c if c.isprintable() and ord(c) < 0x500 else f"\\u{ord(c):04x}" for c in text[: 4 * longest])
    return drawable if len(drawable) <= longest else drawable[: longest - 1] + "\u2026"


def file_name(text: str) -> str:
    """The text as part of a file name: letters, digits, dots and hyphens, at most 60."""
    return "".join(c if c.isascii() and (c.isalnum() or c in "-.") else "_" for c in text[:60])


def _darkened(light: bytes) -> bytes:
    text = light.decode("utf-8")
    old_colours = (LIGHT.ink, LIGHT.muted, LIGHT.grid, *LIGHT.arms)
    new_colours = (DARK.ink, DARK.muted, DARK.grid, *DARK.arms)
    for old, new in zip(old_colours, new_colours, strict=True):
        text = text.replace(old, new)
    return text.encode("utf-8")


def _settings() -> dict[str, Any]:
    """Text is drawn as shapes and never read as mathematics, so a name from a recipe cannot become markup."""
    theme = LIGHT
    return {
        "text.parse_math": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "smolt",
        "font.family": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": theme.ink,
        "axes.labelcolor": theme.muted,
        "axes.edgecolor": theme.grid,
        "axes.facecolor": "none",
        "axes.axisbelow": True,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.spines.left": False,
        "axes.unicode_minus": True,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "xtick.color": theme.muted,
        "ytick.color": theme.ink,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
    }
