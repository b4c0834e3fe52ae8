"""Models behind an address: one thread decodes for all who ask.

engine   requests in, streams of text out
lane     one model's answers: which wait, are read, are decoded
stream   what one asks and gets
"""

from smolt.serving.engine import Engine
from smolt.serving.stream import AnswerStream, Piece, QueueFull, Request

__all__ = ["AnswerStream", "Engine", "Piece", "QueueFull", "Request"]
