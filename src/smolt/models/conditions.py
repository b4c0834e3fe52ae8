"""What answers are written and read under: one object for training and evaluation.

A model trained on one prompt, length and stop rule and measured under others says nothing about the training. So the
same object makes the sampler's limits in both, and is recorded in the manifests of both: where they differ, an
evaluation says so, and one that was begun under others is not continued.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smolt.data.numbers import EXTRACTOR
from smolt.models.rendering import Renderer
from smolt.models.sampling import Drawing
from smolt.runs.identity import run_of


@dataclass(frozen=True)
class Conditions:
    """Prompt, length, stop rule and extractor.

    Attributes:
        template: SHA-256 of all that decides the tokens of a context (Renderer.fingerprint).
        style: the renderer's style, for people.
        stop_ids: the tokens that end an answer, in order.
        max_tokens: longest answer, its stop token included.
        extractor: the version of the rule that reads the final number of an answer.
    """

    template: str
    style: str
    stop_ids: tuple[int, ...]
    max_tokens: int
    extractor: str = EXTRACTOR

    def drawing(self, temperature: float, batch: int) -> Drawing:
        """The sampler's limits under these conditions."""
        return Drawing(self.max_tokens, temperature, batch, frozenset(self.stop_ids))

    def record(self) -> dict[str, Any]:
        """As JSON values, for a manifest."""
        return {**asdict(self), "stop_ids": list(self.stop_ids)}


def conditions_of(renderer: Renderer, max_tokens: int) -> Conditions:
    """The conditions a renderer and a length make."""
    return Conditions(renderer.fingerprint, renderer.style, tuple(sorted(renderer.stop_ids)), max_tokens)


def trained_under(path: str | Path) -> dict[str, Any]:
    """The conditions in which the run at a path (or the run whose model it is) learned to answer; {} if unknown."""
    found = run_of(Path(path).expanduser())[0].get("conditions")
    return found if isinstance(found, dict) else {}


def departures(trained: Mapping[str, Any], now: Conditions) -> list[str]:
    """One line for each condition in which a measurement differs from the training; none where that is unknown."""
    current = now.record()
    return [
        f"{name}: {_short(trained[name])} in training, {_short(current[name])} here"
        for name in current
        if name in trained and trained[name] != current[name]
    ]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 16 else f"{text[:12]}..."
