"""Tokens to text as they come: the pieces of a long answer are its text, whatever the kind of tokenizer."""

import random
from collections.abc import Callable

import pytest
from transformers import PreTrainedTokenizerFast

from smolt.models.conversation import Incremental, continuation
from smolt.models.rendering import Renderer
from smolt.serving.stop_texts import HeldBack
from tests import tokenizers_on_the_spot as kinds

TEXT = "The cat's 1,024 kittens  sat — “naïve” 猫 🐈 on\n\n the mat; def f(x): return x**2 [INST] Hm. <think>\n"
KINDS = [kinds.smollm, kinds.qwen, kinds.thinking, kinds.llama2, kinds.metaspace, kinds.unigram]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_pieces_of_a_long_answer_are_its_text(kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    """The text six times, some 400 tokens: piece by piece what all tokens at once decode to."""
    renderer = Renderer(kind())
    tokens = renderer.tokenizer(TEXT * 6, add_special_tokens=False)["input_ids"]
    tokens = [token for token in tokens if token not in renderer.stop_ids]
    incremental = Incremental(renderer)
    pieces = [incremental.add(token) for token in tokens]
    assert len(tokens) > 150
    assert "".join(pieces) + incremental.rest() == renderer.decode(tokens)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_random_tokens_too(kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    """20 answers of 200 tokens drawn evenly from the vocabulary, broken characters and control tokens among them.

    SentencePiece's tokens of one byte aside: a byte that comes later unmakes characters that were whole before.
    """
    renderer, draw = Renderer(kind()), random.Random(0)
    vocabulary = renderer.tokenizer.get_vocab().items()
    known = [index for text, index in vocabulary if index not in renderer.stop_ids and not text.startswith("<0x")]
    for _ in range(20):
        tokens = draw.choices(known, k=200)
        incremental = Incremental(renderer)
        pieces = [incremental.add(token) for token in tokens]
        assert "".join(pieces) + incremental.rest() == renderer.decode(tokens)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(kind.__name__))
def test_a_continuation_is_what_the_whole_text_has_more(kind: Callable[[], PreTrainedTokenizerFast]) -> None:
    """A text cut between any two of its tokens: the pieces after the cut are the rest, leading spaces included."""
    tokenizer = kind()
    tokens = tokenizer("Once upon a time, two cats.\n  They sat", add_special_tokens=False)["input_ids"]
    whole = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    for cut in range(1, len(tokens)):
        before = tokenizer.decode(tokens[:cut], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        text = continuation(tokenizer, tokens[:cut])
        pieces = [text.add(token) for token in tokens[cut:]]
        assert before + "".join(pieces) + text.rest() == whole


def test_what_may_begin_a_stop_text_is_held_back_by_hand() -> None:
    """Stops "END" and "NDX": "a" goes, "EN" waits, "Q" lets it go; of "xND" the end waits; "X" ends it before "ND"."""
    held = HeldBack(("END", "NDX"))
    assert held.add("a") == ("a", False)
    assert held.add("EN") == ("", False)
    assert held.add("Q") == ("ENQ", False)
    assert held.add("xND") == ("x", False)
    assert held.add("X") == ("", True)


def test_a_stop_text_cut_anywhere_is_found() -> None:
    """Every way to cut "one STOP two" in three: "one " and no more comes out; overlapping stops end at the first."""
    whole = "one STOP two"
    for first in range(len(whole) + 1):
        for second in range(first, len(whole) + 1):
            held, out, over = HeldBack(("STOP", "TOP two")), "", False
            for part in (whole[:first], whole[first:second], whole[second:]):
                if not over:
                    text, over = held.add(part)
                    out += text
            assert (out, over) == ("one ", True)
