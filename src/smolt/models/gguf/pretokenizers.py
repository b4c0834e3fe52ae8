"""How text is split before a byte-level vocabulary merges it into tokens, by llama.cpp's names of splits."""

import json
from collections.abc import Callable
from functools import cache
from typing import Any

from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Split

from smolt.errors import UserError

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS: dict[str, Callable[[], PreTokenizer]] = {
    "words": lambda: ByteLevel(add_prefix_space=False),
    "digits": lambda: _sequence(Digits(individual_digits=True), ByteLevel(add_prefix_space=False)),
    "qwen2": lambda: _sequence(_split(WORDS % ""), ByteLevel(add_prefix_space=False, use_regex=False)),
    "llama3": lambda: _sequence(_split(WORDS % "{1,3}"), ByteLevel(add_prefix_space=False, use_regex=False)),
}
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "falcon3")
"""Names under which a stretch of text that is a token itself is that token, however its merges would go."""

PRE = {
    **dict.fromkeys(("gpt-2", "olmo", "phi-2", "mpt", "jina-es", "jina-de"), "words"),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), "digits"),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), "qwen2"),
    **dict.fromkeys((*WHOLE_WORDS, "smaug-bpe"), "llama3"),
}
"""`tokenizer.ggml.pre` of a byte-level vocabulary -> how text is split before it is merged into tokens."""

WRITTEN = {"words": "gpt-2", "digits": "smollm", "qwen2": "qwen2", "llama3": "smaug-bpe"}
"""The name that is written for a split, where merges alone make the tokens."""

WRITTEN_WHOLE = {"llama3": "llama-bpe"}
"""The same where whole words come before merges."""


def pre_of(tokenizer: Tokenizer) -> str:
    """The `tokenizer.ggml.pre` under which llama.cpp splits text as this byte-level tokenizer does.

    Raises:
        UserError: there is none; the split is named.
    """
    described = json.loads(tokenizer.to_str())
    form = _form(described["pre_tokenizer"])
    split = _splits_by_form().get(json.dumps(form))
    names = WRITTEN_WHOLE if described["model"].get("ignore_merges") else WRITTEN
    if split is None or split not in names:
        kinds = " + ".join(part["type"] for part in form) or "none"
        whole = ", whole words before merges" if split is not None else ""
        raise UserError(
            f"its tokenizer splits text by {kinds}{whole}, which is none of the splits of llama.cpp that are known "
            f"here: {', '.join(sorted({*WRITTEN.values(), *WRITTEN_WHOLE.values()}))}"
        )
    return names[split]


@cache
def _splits_by_form() -> dict[str, str]:
    """The name of each of SPLITS by its form."""
    found = {}
    for name, split in SPLITS.items():
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = split()
        found[json.dumps(_form(json.loads(tokenizer.to_str())["pre_tokenizer"]))] = name
    return found


def _form(described: dict[str, Any] | None) -> list[dict[str, Any]]:
    """A pre-tokenizer of tokenizer.json as its steps, without what decides offsets only."""
    if described is None:
        return []
    if described["type"] == "Sequence":
        return [step for part in described["pretokenizers"] for step in _form(part)]
    return [{name: value for name, value in sorted(described.items()) if name != "trim_offsets"}]


def _sequence(*parts: PreTokenizer) -> PreTokenizer:
    return pre_tokenizers.Sequence(list(parts))


def _split(pattern: str) -> PreTokenizer:
    return Split(Regex(pattern), behavior="isolated")
