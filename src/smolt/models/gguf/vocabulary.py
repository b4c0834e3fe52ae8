"""A tokenizer as a GGUF file holds it: tokens with their types, merges or scores, and what is added around a text.

Two kinds are written: byte-level vocabularies with merges (`gpt2` to llama.cpp), and those of SentencePiece with byte
fallback (`llama`), which llama.cpp merges by scores. A tokenizer of which llama.cpp would make other tokens is refused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import gguf
from gguf import TokenType

from smolt.data import Turn
from smolt.errors import UserError
from smolt.models.gguf.pretokenizers import pre_of
from smolt.models.rendering import Renderer

SPACE = "▁"
TRIAL = (Turn("user", "Hi."),)
STOPS = ("eos", "eot", "eom")
"""Roles of tokens that end an answer, in the order in which they are given."""


@dataclass(frozen=True)
class GgufVocabulary:
    """What the header holds of a tokenizer.

    Attributes:
        model: "gpt2" or "llama".
        pre: the name of the split; "default" for SentencePiece.
        tokens: by id; rows of the embedding without a token have a made-up one.
        types: of the tokens.
        merges: "left right", best first; empty where scores say it.
        scores: of SentencePiece's tokens, the highest is merged first.
        roles: bos, eos, eot, eom, unknown, padding -> id.
        begins: a text begins with bos.
        space: SentencePiece: a text begins with a space of its own.
        template: the chat template.
        notes: what llama.cpp does otherwise.
    """

    model: str
    pre: str
    tokens: list[str]
    types: list[TokenType]
    roles: dict[str, int]
    begins: bool
    template: str | None
    merges: list[str] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    space: bool | None = None
    notes: list[str] = field(default_factory=list)


def vocabulary_of(renderer: Renderer, rows: int) -> GgufVocabulary:
    """The vocabulary of a renderer's tokenizer.

    Args:
        renderer: tokenizer, stop tokens and template.
        rows: of the embedding.

    Raises:
        UserError: llama.cpp has no such tokenizer; what differs is named.
    """
    tokenizer = renderer.tokenizer
    described = json.loads(tokenizer.backend_tokenizer.to_str())
    model = described["model"]
    kind = model.get("type")
    if kind != "BPE":
        raise UserError(f"its tokenizer is {kind}; BPE with bytes (GPT-2's kind or SentencePiece's) is written as GGUF")
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UserError(f"its tokenizer has {name} {model[name]!r}, which llama.cpp has not")
    roles, notes = _roles(renderer)
    notes += _blanks_swallowed(described["added_tokens"])
    tokens, types = _tokens(tokenizer.get_vocab(), described["added_tokens"], rows)
    begins = _begins(renderer)
    if not model.get("byte_fallback"):
        notes += _normalised(described["normalizer"])
        pre, merges = pre_of(tokenizer.backend_tokenizer), [" ".join(pair) for pair in model["merges"]]
        return GgufVocabulary("gpt2", pre, tokens, types, roles, begins, renderer.jinja, merges, notes=notes)
    controls = {token["id"] for token in described["added_tokens"] if token["special"]}
    opened = renderer.template is not None and renderer.context(TRIAL)[0] in controls
    space, said = _space(described, opened)
    scores = _scores(model, {token["content"] for token in described["added_tokens"]}, tokens)
    types = [_type_by_bytes(token, kind, model) for token, kind in zip(tokens, types, strict=True)]
    tokens = [
        token.replace(SPACE, " ") if kind is TokenType.USER_DEFINED else token
        for token, kind in zip(tokens, types, strict=True)
    ]
    return GgufVocabulary(
        "llama", "default", tokens, types, roles, begins, renderer.jinja, [], scores, space, [*notes, *said]
    )


def write_vocabulary(writer: gguf.GGUFWriter, vocabulary: GgufVocabulary) -> None:
    """The tokenizer's fields of the header."""
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.tokens)
    writer.add_token_types(vocabulary.types)
    if vocabulary.merges:
        writer.add_token_merges(vocabulary.merges)
    if vocabulary.scores:
        writer.add_token_scores(vocabulary.scores)
    for role, index in vocabulary.roles.items():
        writer.add_uint32(f"tokenizer.ggml.{role}_token_id", index)
    writer.add_add_bos_token(vocabulary.begins)
    writer.add_add_eos_token(False)
    if vocabulary.space is not None:
        writer.add_add_space_prefix(vocabulary.space)
    if vocabulary.template is not None:
        writer.add_chat_template(vocabulary.template)


def _roles(renderer: Renderer) -> tuple[dict[str, int], list[str]]:
    """The ids of tokens with a part to play, and a note on stop tokens that find no place."""
    tokenizer = renderer.tokenizer
    own = [tokenizer.eos_token_id] if tokenizer.eos_token_id in renderer.stop_ids else []
    stops = list(dict.fromkeys([*own, renderer.stop_id, *sorted(renderer.stop_ids)]))
    given = {
        "bos": tokenizer.bos_token_id,
        **dict(zip(STOPS, stops, strict=False)),
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
    }
    rest = ", ".join(tokenizer.convert_ids_to_tokens(stops[len(STOPS) :]))
    note = [f"the file names three stop tokens; these are left out: {rest}"] if rest else []
    return {role: int(index) for role, index in given.items() if index is not None}, note


def _begins(renderer: Renderer) -> bool:
    """Whether a text begins with bos, so that llama.cpp makes the contexts that the model was trained on."""
    tokenizer = renderer.tokenizer
    bos = tokenizer.bos_token_id
    if bos is None or renderer.template is None:
        return bos is not None
    added = list(tokenizer("a")["input_ids"][:1]) == [bos]
    return added and renderer.context(TRIAL)[0] == bos


def _tokens(
    vocabulary: dict[str, int], added: Sequence[dict[str, Any]], rows: int
) -> tuple[list[str], list[TokenType]]:
    """Every row's token and its type."""
    texts = {index: text for text, index in vocabulary.items()}
    special = {token["id"]: token["special"] for token in added}
    tokens, types = [], []
    for index in range(rows):
        if index not in texts:
            types.append(TokenType.UNUSED)
        elif index in special:
            types.append(TokenType.CONTROL if special[index] else TokenType.USER_DEFINED)
        else:
            types.append(TokenType.NORMAL)
        tokens.append(texts.get(index, f"[PAD{index}]"))
    return tokens, types


def _type_by_bytes(token: str, kind: TokenType, model: dict[str, Any]) -> TokenType:
    """SentencePiece's types beside those of added tokens: the token of what is unknown, and those of single bytes."""
    if token == model.get("unk_token"):
        return TokenType.UNKNOWN
    return TokenType.BYTE if len(token) == 6 and token.startswith("<0x") and token.endswith(">") else kind


def _blanks_swallowed(added: Sequence[dict[str, Any]]) -> list[str]:
    """A note on added tokens that take the blanks beside them, which llama.cpp leaves."""
    found = [token["content"] for token in added if token["lstrip"] or token["rstrip"] or token["single_word"]]
    return [f"llama.cpp does not take the blanks beside {', '.join(found[:5])} into the token"] if found else []


def _normalised(described: dict[str, Any] | None) -> list[str]:
    """A note on text that the tokenizer composes.

    Raises:
        UserError: it changes text in another way.
    """
    if described is None or described == {"type": "Sequence", "normalizers": []}:
        return []
    if described["type"] != "NFC":
        raise UserError(f"its tokenizer changes text by {described['type']}, which llama.cpp does not")
    return ["the tokenizer composes letters and accents (NFC), llama.cpp does not: the same for text that is composed"]


# --- SentencePiece ----------------------------------------------------------------------------------------------------


def _space(described: dict[str, Any], opened: bool) -> tuple[bool, list[str]]:
    """Whether a space is put before a text, and a note where llama.cpp puts it elsewhere.

    Args:
        described: the tokenizer, as in tokenizer.json.
        opened: contexts begin with a control token, so that a space before a text alone never stands in one.

    Raises:
        UserError: spaces become something else than SPACE, or text is split or changed in another way.
    """
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": SPACE}
    prepend = {"type": "Prepend", "prepend": SPACE}
    normalizer, split = described["normalizer"], described["pre_tokenizer"]
    steps = normalizer.get("normalizers", [normalizer]) if normalizer else []
    idle = split is None or (split["type"] == "Split" and split["pattern"] == {"String": " "})
    if steps in ([replace], [prepend, replace]) and idle:
        return prepend in steps, []
    if not steps and split is not None and split["type"] == "Metaspace" and split["replacement"] == SPACE:
        scheme = split.get("prepend_scheme", "always")
        if split.get("split", True):
            raise UserError("its tokenizer splits text at spaces (Metaspace, split), which llama.cpp does not")
        if scheme == "never":
            return False, []
        space = scheme == "always" or not opened
        own = "before a text that begins with none" + (", not after a control token" if scheme == "first" else "")
        theirs = "before every text, after control tokens too" if space else "none"
        return space, [f"the tokenizer puts a space {own}; llama.cpp: {theirs}"]
    kinds = " + ".join(step["type"] for step in [*steps, *([split] if split else [])]) or "nothing"
    raise UserError(f"its tokenizer changes text by {kinds}, which is not what llama.cpp does for SentencePiece")


def _scores(model: dict[str, Any], added: set[str], tokens: Sequence[str]) -> list[float]:
    """Scores that merge as the merges do: the earlier a token is merged, the higher.

    Raises:
        UserError: there are none; the token is named.
    """
    pairs = [tuple(pair) for pair in model["merges"]]
    ranks = {left + right: rank for rank, (left, right) in reversed(list(enumerate(pairs)))}
    previous, done = "", set()
    for left, right in pairs:
        if left + right != previous and left + right in done:
            raise UserError(f"its tokenizer merges {left + right!r} early and late; llama.cpp merges by one score each")
        previous = left + right
        done.add(previous)
    known, given = model["vocab"], set(pairs)
    for token in known:
        for at in range(1, len(token)):
            halves = token[:at], token[at:]
            if token not in added and halves[0] in known and halves[1] in known and halves not in given:
                raise UserError(f"its tokenizer does not merge {halves[0]!r} and {halves[1]!r}; llama.cpp would")
    return [float(-ranks[token]) if token in ranks else 0.0 for token in tokens]
