"""What is sent back: whole answers, pieces of a stream, and counts, in OpenAI's form."""

import math
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import PreTrainedTokenizerBase

from smolt import __version__
from smolt.serving.stream import Piece

LEAST = -9999.0
"""What stands for minus infinity, which JSON cannot say."""

FINGERPRINT = f"smolt-{__version__}"


@dataclass
class Usage:
    """Tokens of the prompts, each counted once, and of the answers, stop tokens included.

    Attributes:
        kept: those of the prompts that had been read for another request.
    """

    prompt: int
    answers: int = 0
    kept: int = 0

    @property
    def document(self) -> dict[str, Any]:
        """The object `usage`."""
        total = self.prompt + self.answers
        details = {"prompt_tokens_details": {"cached_tokens": self.kept}}
        return {"prompt_tokens": self.prompt, "completion_tokens": self.answers, "total_tokens": total, **details}


@dataclass
class ChatDocuments:
    """Answers to /v1/chat/completions.

    Attributes:
        model: its name.
        tokenizer: for tokens as text.
        logprobs: whether they are wanted.
    """

    model: str
    tokenizer: PreTrainedTokenizerBase
    logprobs: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, index: int, pieces: Sequence[Piece], reason: str | None) -> dict[str, Any]:
        """One answer."""
        message = {"role": "assistant", "content": "".join(piece.text for piece in pieces), "refusal": None}
        return {"index": index, "message": message, "logprobs": self._told(pieces), "finish_reason": reason}

    def opening(self, index: int) -> dict[str, Any] | None:
        """What a stream begins with."""
        return self._delta(index, {"role": "assistant", "content": "", "refusal": None}, None)

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """A piece of a stream; None where it says nothing."""
        told = self._told([piece])
        return self._delta(index, {"content": piece.text}, told) if piece.text or told else None

    def closing(self, index: int, reason: str | None) -> dict[str, Any]:
        """What a stream ends with."""
        return self._delta(index, {}, None, reason)

    def document(self, choices: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
        """Some choices in their envelope."""
        kind = "chat.completion.chunk" if stream else "chat.completion"
        return _envelope(self.id, kind, self.created, self.model, choices)

    def _delta(
        self, index: int, delta: dict[str, Any], told: dict[str, Any] | None, reason: str | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": told, "finish_reason": reason}

    def _told(self, pieces: Sequence[Piece]) -> dict[str, Any] | None:
        if not self.logprobs:
            return None
        content = [
            {
                **self._token(piece.token_id, piece.logprob),
                "top_logprobs": [self._token(token, logprob) for token, logprob in piece.likeliest],
            }
            for piece in pieces
            if piece.token_id is not None and piece.logprob is not None
        ]
        return {"content": content, "refusal": None} if content else None

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        text = token_text(self.tokenizer, token)
        known = None if "\ufffd" in text else list(text.encode())  # part of a character: its bytes are not told
        return {"token": text, "logprob": finite(logprob), "bytes": known}


@dataclass
class CompletionDocuments:
    """Answers to /v1/completions.

    Attributes:
        model, tokenizer, logprobs: as of ChatDocuments.
        token_ids: whether choices hold the ids of their tokens, a stop token included, as vLLM's do.
    """

    model: str
    tokenizer: PreTrainedTokenizerBase
    logprobs: bool
    token_ids: bool = False
    id: str = field(default_factory=lambda: f"cmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    _offsets: dict[int, int] = field(default_factory=dict)  # characters that were told of each answer

    def whole(self, index: int, pieces: Sequence[Piece], reason: str | None) -> dict[str, Any]:
        """One answer."""
        return self._choice(index, pieces, reason)

    def opening(self, index: int) -> dict[str, Any] | None:
        """A stream begins with its first piece."""
        return None

    def piece(self, index: int, piece: Piece) -> dict[str, Any] | None:
        """A piece of a stream; None where it says nothing."""
        return self._choice(index, [piece], None) if piece.text or self.logprobs or self.token_ids else None

    def closing(self, index: int, reason: str | None) -> dict[str, Any]:
        """What a stream ends with."""
        return {"index": index, "text": "", "logprobs": None, "finish_reason": reason}

    def document(self, choices: list[dict[str, Any]], stream: bool) -> dict[str, Any]:
        """Some choices in their envelope."""
        return _envelope(self.id, "text_completion", self.created, self.model, choices)

    def _choice(self, index: int, pieces: Sequence[Piece], reason: str | None) -> dict[str, Any]:
        text = "".join(piece.text for piece in pieces)
        told = self._told(index, pieces) if self.logprobs else None
        choice = {"index": index, "text": text, "logprobs": told, "finish_reason": reason}
        if self.token_ids:
            choice["token_ids"] = [piece.token_id for piece in pieces if piece.token_id is not None]
        return choice

    def _told(self, index: int, pieces: Sequence[Piece]) -> dict[str, list[Any]]:
        told: dict[str, list[Any]] = {"tokens": [], "token_logprobs": [], "top_logprobs": [], "text_offset": []}
        for piece in pieces:
            if piece.token_id is not None and piece.logprob is not None:
                told["tokens"].append(token_text(self.tokenizer, piece.token_id))
                told["token_logprobs"].append(finite(piece.logprob))
                listed = {token_text(self.tokenizer, token): finite(value) for token, value in piece.likeliest}
                told["top_logprobs"].append(listed)
                told["text_offset"].append(self._offsets.get(index, 0))
            self._offsets[index] = self._offsets.get(index, 0) + len(piece.text)
        return told


def _envelope(id_: str, kind: str, created: int, model: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": id_,
        "object": kind,
        "created": created,
        "model": model,
        "system_fingerprint": FINGERPRINT,
        "choices": choices,
    }


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """One token as text, control tokens by their names."""
    return str(tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False))


def finite(logprob: float) -> float:
    """The number as JSON can say it."""
    return max(logprob, LEAST) if not math.isnan(logprob) else LEAST
