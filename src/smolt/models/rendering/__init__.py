"""Records to token ids and back: one renderer for training, evaluation, judge and chat."""

from smolt.models.rendering.layouts import STYLES, Style
from smolt.models.rendering.renderer import Renderer, load_renderer
from smolt.models.rendering.vocabularies import train_tokenizer

__all__ = ["STYLES", "Renderer", "Style", "load_renderer", "train_tokenizer"]
