"""Control tokens come from the template only: what a person typed stays text (trap 23)."""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from smolt.errors import SelfCheckError, UserError

PROBE = "The cat's 1,024 kittens (3.5 % of ~29k)\n\n  sat — “naïve” \tπ 猫 🐈; def f(x): return x**2\n"
"""Text whose encoding shows how a tokenizer normalises, splits and merges."""

CHUNK = 1000  # texts handed to the tokenizer at once


class ControlEncoder:
    """Encodes rendered text in which the control tokens are known to be the template's own.

    `shield` marks the control strings inside content before a template sees it; `encode` turns what the template wrote
    into ids, the shielded strings as ordinary text. Text without a shielded string is encoded whole by the tokenizer
    itself. Text with one goes through a twin of the tokenizer in which every control token has an unguessable name:
    one pass over the whole text, so that spacing rules (SentencePiece's leading piece, whitespace swallowed by a
    control token) act as they do everywhere else.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, controls: Mapping[str, int]) -> None:
        self._tokenizer = tokenizer
        self._controls = dict(controls)
        self._control_ids = frozenset(controls.values())
        longest_first = sorted(self._controls, key=len, reverse=True)
        self.pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        secret = secrets.token_hex(8)
        self._shields = {text: f"\ue0f0{secret}s{index}\ue0f1" for index, text in enumerate(self._controls)}
        self._names = {text: f"\ue0f0{secret}n{index}\ue0f1" for index, text in enumerate(self._controls)}
        self._shielded = re.compile("|".join(self._shields.values()) or r"(?!)")
        self._behind = {shield: text for text, shield in self._shields.items()}

    def shield(self, content: str) -> str:
        """The content with every control string in it replaced by a mark that `encode` turns back into text."""
        return self.pattern.sub(lambda found: self._shields[found[0]], content)

    def unshield(self, text: str) -> str:
        """The text as it was before `shield`."""
        return self._shielded.sub(lambda found: self._behind[found[0]], text)

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text: unshielded control strings are control tokens, shielded ones are text."""
        return self.encode_all([text])[0]

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """The same of many texts, in a third of the time."""
        found: list[list[int]] = []
        for start in range(0, len(texts), CHUNK):
            part = texts[start : start + CHUNK]
            encoded = self._tokenizer(list(part), add_special_tokens=False, verbose=False)["input_ids"]
            for text, ids in zip(part, encoded, strict=True):
                found.append(ids if self._agree(text, ids) else self._apart(text))
        return found

    def _agree(self, text: str, ids: list[int]) -> bool:
        """Whether the tokenizer saw as control tokens what the template wrote, and nothing else."""
        if self._shielded.search(text) is not None:
            return False
        # A tokenizer may also see a control token in "<EOS>" when it lowercases first: then count and ids disagree.
        return sum(token in self._control_ids for token in ids) == sum(1 for _ in self.pattern.finditer(text))

    def _apart(self, text: str) -> list[int]:
        """Token ids by the twin, to which nothing but the template's own is a control token."""
        renamed = self.pattern.sub(lambda found: self._names[found[0]], text)
        return list(self._twin.encode(self.unshield(renamed), add_special_tokens=False).ids)

    @cached_property
    def _twin(self) -> Tokenizer:
        """The tokenizer with its control tokens renamed; nobody can type the names."""
        data = json.loads(self._tokenizer.backend_tokenizer.to_str())
        data["post_processor"] = data["truncation"] = data["padding"] = None
        for token in data["added_tokens"]:
            token["content"] = self._names.get(token["content"], token["content"])
        _rename_in_model(data["model"], self._names)
        twin = Tokenizer.from_str(json.dumps(data))
        for text, name in self._names.items():
            if twin.encode(name, add_special_tokens=False).ids[-1:] != [self._controls[text]]:
                raise SelfCheckError(f"the tokenizer's twin does not know the control token {text!r}; please report it")
        plain = self._tokenizer(PROBE, add_special_tokens=False, verbose=False)["input_ids"]
        if twin.encode(PROBE, add_special_tokens=False).ids != plain:
            raise SelfCheckError("the tokenizer's twin encodes ordinary text differently; please report the tokenizer")
        return twin


def _rename_in_model(model: dict[str, Any], names: Mapping[str, str]) -> None:
    """Rename control tokens in a tokenizer's model, and forget merges that would build one from typed characters."""
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): index for piece, index in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    unknown = model.get("unk_token")
    if unknown is not None:
        model["unk_token"] = names.get(unknown, unknown)
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if names.keys().isdisjoint({*pair, "".join(pair)})]


def control_tokens(tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    """Every control token of a tokenizer, text to id: added tokens marked special, and its named ones (eos, pad ...).

    Added tokens that are not special (`<think>`, `<tool_call>`) are words of the answer's language, not controls.

    Raises:
        UserError: the tokenizer is not one of the `tokenizers` library (no tokenizer.json).
    """
    if not tokenizer.is_fast:
        raise UserError(f"{tokenizer.name_or_path}: needs a tokenizer with a tokenizer.json (the `tokenizers` library)")
    added = tokenizer.added_tokens_decoder
    found = {str(token): index for index, token in added.items() if token.special}
    for text in tokenizer.all_special_tokens:
        found[str(text)] = tokenizer.convert_tokens_to_ids(str(text))
    return {text: index for text, index in found.items() if text and index is not None}
