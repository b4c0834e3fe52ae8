"""Records to token ids and back: one renderer for training, evaluation, judge and chat."""

from smolt.rendering.layouts import STYLES, Style
from smolt.rendering.renderer import Renderer, load_renderer
from smolt.rendering.vocabularies import train_tokenizer

__all__ = ["STYLES", "Renderer", "Style", "load_renderer", "train_tokenizer"]
