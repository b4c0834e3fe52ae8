"""A tokenizer learned from text, for models trained from nothing."""

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from smolt.errors import UserError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
SMALLEST = 3 + 256
"""Three control tokens and one token per byte."""


def train_tokenizer(texts: Iterable[str], vocab: int, digits: bool = True) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: every text can be encoded, and decodes to itself.

    Args:
        texts: what to learn merges from.
        vocab: number of tokens at most, control tokens and the 256 bytes included; at least 259.
        digits: one token per digit, so that arithmetic sees the same digits everywhere.

    Returns:
        A tokenizer with distinct `<pad>` (id 0), `<bos>` (1) and `<eos>` (2) and no chat template: the renderer's
        style "question" serves it.

    Raises:
        UserError: vocab below 259, or no text.
    """
    if vocab < SMALLEST:
        raise UserError(f"tokenizer.vocab: {vocab} is too small; {SMALLEST} hold the 256 bytes and 3 control tokens")
    seen = False

    def watched() -> Iterable[str]:
        nonlocal seen
        for text in texts:
            seen = seen or bool(text)
            yield text

    tokenizer = Tokenizer(models.BPE())
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    single = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*single, whole])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(watched(), trainer)
    if not seen:
        raise UserError("tokenizer: there is no text to learn from")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        clean_up_tokenization_spaces=False,
    )
