"""Small tokenizers of the kinds people bring: byte-level with ChatML, Qwen's and Llama-2's templates, metaspace."""

from functools import cache

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

TEXT = (
    "The quick brown fox jumps over the lazy dog.\n\nHello there! Who are you? I am fine, thank you.\n"
    "user system assistant <|im_start|> [INST] [/INST] <s> </s> 1 2 3 42 1,024 answer is the number.\n"
) * 4

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""SmolLM2's form."""

QWEN = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}" + CHATML
)
"""Qwen2.5's form: a system prompt of its own when the dialogue has none."""

LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'] | trim + ' [/INST]' }}"
    "{% elif message['role'] == 'system' %}{{ raise_exception('no system role') }}"
    "{% else %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endif %}{% endfor %}"
)
"""Llama-2's form: a space on either side of an answer, and no mark of its own for the assistant's turn."""

THINKING = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' and loop.last %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{{ message['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
"""Qwen3's form: an empty thought before the last answer, in the prompt only when thinking is off."""


THOUGHTS = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% set parts = message['content'].split('</think>') %}"
    "{% set thought = parts[0].split('<think>')[-1].strip('\\n') if parts | length > 1 else '' %}"
    "{% if loop.last %}{{ '<think>\\n' + thought + '\\n</think>\\n\\n' }}{% endif %}{{ parts[-1].lstrip('\\n') }}"
    "{% else %}{{ message['content'] }}{% endif %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}"
    "{% if enable_thinking is defined and enable_thinking is false %}{{ '<think>\\n\\n</think>\\n\\n' }}{% endif %}"
    "{% endif %}"
)
"""Qwen3's form whole: the last answer's thought is read and written again, those of earlier answers are left out."""

ALWAYS_THINKING = (
    THOUGHTS.split("{% if enable_thinking")[0].replace("assistant\\n' }}", "assistant\\n<think>\\n' }}") + "{% endif %}"
)
"""The form of models that always think: the prompt itself opens the thought."""


def wrapped(tokenizer: Tokenizer, template: str | None = None, **named: str) -> PreTrainedTokenizerFast:
    made = PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named)
    made.chat_template = template
    return made


def _bytes(controls: tuple[str, ...]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=list(controls), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    return tokenizer


@cache
def smollm() -> PreTrainedTokenizerFast:
    """ChatML, pad == eos == the end-of-turn token, as SmolLM2-Instruct ships it."""
    tokenizer = _bytes(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    return wrapped(tokenizer, CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>")


@cache
def qwen() -> PreTrainedTokenizerFast:
    """Qwen2.5: no bos, eos is the end of turn, `<think>` is an added token that is not special."""
    tokenizer = _bytes(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    tokenizer.add_tokens([AddedToken("<think>", normalized=False, special=False)])
    return wrapped(tokenizer, QWEN, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def thoughts(template: str = THOUGHTS) -> PreTrainedTokenizerFast:
    return wrapped(
        _bytes(("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
        template,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )


@cache
def thinking() -> PreTrainedTokenizerFast:
    tokenizer = _bytes(("<|endoftext|>", "<|im_start|>", "<|im_end|>"))
    return wrapped(tokenizer, THINKING, eos_token="<|im_end|>", pad_token="<|endoftext|>")


def _sentencepiece(legacy: bool, joined: tuple[tuple[str, str], ...] = ()) -> Tokenizer:
    """A SentencePiece-like BPE with byte fallback; `legacy` puts a space piece before every stretch of text."""
    controls = ["<unk>", "<s>", "</s>"]
    pieces = [*controls, *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = sorted({*TEXT.replace(" ", "▁"), "▁"} - {"\n"})
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("▁", "H"), ("▁H", "e"), ("l", "l"), ("▁", "▁"), *joined]
    words = ["".join(pair) for pair in merges]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys([*pieces, *letters, *words]))}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if legacy:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tokenizer.decoder = decoders.Sequence(steps)
    tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in controls])
    return tokenizer


@cache
def llama2() -> PreTrainedTokenizerFast:
    return wrapped(_sentencepiece(True), LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def joining() -> PreTrainedTokenizerFast:
    """Llama-2's template with a tokenizer that joins "]" and the space after it: answers have no start of their own."""
    tokenizer = _sentencepiece(True, joined=(("]", "▁"),))
    return wrapped(tokenizer, LLAMA2, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@cache
def metaspace() -> PreTrainedTokenizerFast:
    """SentencePiece as newer checkpoints write it, without a template, pad == eos."""
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "</s>"}
    return wrapped(_sentencepiece(False), None, **named)


@cache
def unigram() -> PreTrainedTokenizerFast:
    """A Unigram model whose control tokens are pieces of its vocabulary, which ordinary text could reach."""
    letters = sorted({*TEXT.replace(" ", "▁"), "▁"} - {"\n"})
    scores = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("\n", -3.0), ("▁the", -2.0)]
    scores += [(letter, -4.0) for letter in letters if letter not in {"\n"}]
    tokenizer = Tokenizer(models.Unigram(scores, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="first")
    return wrapped(tokenizer, None, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
