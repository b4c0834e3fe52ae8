"""Rendering: equal to the chat template, inert to typed control tokens, one boundary for training and sampling."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from smolt.data import Context, Turn
from smolt.errors import UserError
from smolt.models.rendering import Renderer, load_renderer, train_tokenizer
from tests import tokenizers_on_the_spot as made
from tests.shared import shared_path

Maker = Callable[[], PreTrainedTokenizerFast]
CHAT: list[Maker] = [made.smollm, made.qwen, made.thinking, made.llama2]
PLAIN: list[Maker] = [made.metaspace, made.unigram]
QUESTION: Context = (Turn("user", "Who are you?\nTell me."),)
DIALOGUE: Context = (Turn("user", "Hi"), Turn("assistant", "Hello there!"), Turn("user", "  Who are you?"))
CONTROLS = ["<|im_end|>", "<|im_start|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "<|im_start|>system\n"]

typed = st.lists(st.sampled_from([*CONTROLS, " ", "\n", "<", "|>", "the fox", "[INST]", "é猫"]), max_size=6).map(
    "".join
)


@pytest.fixture(scope="module")
def renderers() -> dict[str, Renderer]:
    return {maker.__name__: Renderer(maker()) for maker in [*CHAT, *PLAIN]}


def template_ids(renderer: Renderer, turns: Context, opens: bool) -> list[int]:
    """What transformers itself makes of a dialogue."""
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    named = {"add_generation_prompt": opens, "return_dict": False, "enable_thinking": False}
    ids: list[int] = renderer.tokenizer.apply_chat_template(messages, tokenize=True, **named)
    return ids


@pytest.mark.parametrize("maker", CHAT)
@pytest.mark.parametrize("turns", [QUESTION, DIALOGUE])
def test_context_equals_the_chat_template(maker: Maker, turns: Context) -> None:
    renderer = Renderer(maker())
    assert renderer.context(turns) == template_ids(renderer, turns, opens=True)


@pytest.mark.parametrize("maker", CHAT)
@pytest.mark.parametrize("answer", ["Fine, thank you.", "1) a\n2) b\n\n", "", "the  fox é猫", "x <think>"])
def test_context_and_answer_equal_the_whole_dialogue(maker: Maker, answer: str) -> None:
    """Up to the end-of-turn token: what the template writes after it (a newline) is no part of an answer."""
    renderer = Renderer(maker())
    ids = renderer.context(DIALOGUE) + renderer.answer(answer)
    assert template_ids(renderer, (*DIALOGUE, Turn("assistant", answer)), opens=False)[: len(ids)] == ids
    assert ids[-1] == renderer.stop_id


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="<[]"), max_size=30))
@settings(max_examples=60, deadline=None)
def test_any_answer_after_its_first_letter_equals_the_template(text: str) -> None:
    """A letter in front keeps leading white space away from the boundary, the one documented exception."""
    renderer = Renderer(made.qwen())
    ids = renderer.context(QUESTION) + renderer.answer("A" + text)
    assert template_ids(renderer, (*QUESTION, Turn("assistant", "A" + text)), opens=False)[: len(ids)] == ids


def test_a_leading_line_break_is_encoded_apart() -> None:
    """The tokenizer has a token for two newlines; the prompt's newline stays what sampling saw, the answer's is one."""
    tokenizer = train_tokenizer(["a\n\nb\n\n" * 50], vocab=300)
    renderer = Renderer(tokenizer)
    newline, double = renderer.tokenizer("\n")["input_ids"], renderer.tokenizer("\n\n")["input_ids"]
    assert (len(newline), len(double)) == (1, 1)
    assert renderer.context((Turn("user", "a"),))[-1:] == newline
    assert renderer.answer("\nb", stop=False)[:1] == newline


@pytest.mark.parametrize("maker", [*CHAT, *PLAIN])
@given(content=typed, answer=typed)
@settings(max_examples=40, deadline=None)
def test_typed_control_tokens_stay_text(
    renderers: dict[str, Renderer], maker: Maker, content: str, answer: str
) -> None:
    """As many control tokens as with harmless content; and the answer decodes to what was typed."""
    renderer = renderers[maker.__name__]
    controls = {token for token in renderer.tokenizer.all_special_ids if token != renderer.tokenizer.unk_token_id}
    ids = renderer.context((Turn("user", "x" + content + "x"),))
    harmless = renderer.context((Turn("user", "xx"),))
    assert [token for token in ids if token in controls] == [token for token in harmless if token in controls]
    tokens = renderer.answer("x" + answer + "x")
    assert [token for token in tokens if token in controls] == [renderer.stop_id]
    if maker is not made.unigram:  # no byte fallback: é has no piece there
        assert renderer.decode(tokens) == "x" + answer + "x"


@pytest.mark.parametrize("maker", CHAT)
def test_text_beside_a_typed_control_token_is_encoded_as_ever(maker: Maker) -> None:
    """The ids of the tokenizer with split_special_tokens=True: no control token is a piece of these models."""
    renderer = Renderer(maker())
    text = "The fox </s> said <|im_end|> to\n\n the dog"
    apart = renderer.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert Renderer(maker(), style="plain").context((Turn("user", text),))[-len(apart) :] == apart


def test_a_control_token_that_hides_in_the_vocabulary() -> None:
    """Unigram reaches the piece "</s>" from typed text even with split_special_tokens=True; the renderer does not."""
    renderer = Renderer(made.unigram())
    stop = renderer.stop_id
    assert stop in renderer.tokenizer("a</s>", add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert stop not in renderer.answer("a</s>", stop=False)


def test_no_double_bos() -> None:
    """Llama-2's template writes <s>, metaspace gets it from the style; a typed "<s>" adds none: 1 each."""
    for renderer in (Renderer(made.llama2()), Renderer(made.metaspace())):
        ids = renderer.context((Turn("user", "<s> hi"),))
        assert ids.count(renderer.tokenizer.bos_token_id) == 1
        assert ids[0] == renderer.tokenizer.bos_token_id


def test_an_empty_context_is_the_bos() -> None:
    """Without a bos (Qwen) it is the stop token, which separates documents."""
    assert Renderer(made.metaspace()).context(()) == [made.metaspace().bos_token_id]
    assert Renderer(made.qwen()).context(()) == [made.qwen().eos_token_id]


def test_pad_equal_to_eos_keeps_the_stop_token() -> None:
    renderer = Renderer(made.smollm())
    assert renderer.tokenizer.pad_token_id == renderer.stop_id
    assert renderer.answer("Fine.")[-1] == renderer.stop_id


def test_styles_without_a_template() -> None:
    """The text of each style, read back from the ids; the answer starts right after it."""
    tokenizer = made.qwen()
    shown = {
        style: tokenizer.decode(Renderer(tokenizer, style=style).context(QUESTION)) for style in ("plain", "question")
    }
    assert shown == {"plain": "Who are you?\nTell me.", "question": "Who are you?\nTell me.\n"}
    dialogue = Renderer(tokenizer, style="dialogue")
    assert tokenizer.decode(dialogue.context(DIALOGUE)) == (
        "\n\nHuman: Hi\n\nAssistant: Hello there!\n\nHuman:   Who are you?\n\nAssistant:"
    )
    assert tokenizer.decode(dialogue.answer("Fine.", stop=False)) == " Fine."
    assert dialogue.decode(dialogue.answer("Fine.")) == "Fine."


def test_style_plain_refuses_roles() -> None:
    with pytest.raises(UserError, match='use style "dialogue"'):
        Renderer(made.qwen(), style="plain").context(DIALOGUE)


def test_unknown_style_is_refused() -> None:
    with pytest.raises(UserError, match="'chatty' is unknown; choose one of chat, thinking, dialogue, plain, question"):
        Renderer(made.qwen(), style="chatty")


def test_decode_ends_at_the_first_stop() -> None:
    renderer = Renderer(made.smollm())
    assert renderer.decode([*renderer.answer("Fine."), *renderer.answer("More.")]) == "Fine."


def test_template_that_changes_the_prompt_is_refused() -> None:
    """Qwen3's form with thinking on in the prompt only: the dialogue does not continue the prompt."""
    template = made.CHATML.replace("'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>'")
    with pytest.raises(UserError, match=r"not prefix-preserving.*'<think>'"):
        Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|im_end|>"), template)


def test_template_that_writes_before_the_answer_is_refused() -> None:
    template = made.THINKING.replace("enable_thinking is defined", "false")
    with pytest.raises(UserError, match="that its generation prompt leaves out"):
        Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|im_end|>"), template)


def test_template_that_changes_answers_is_refused() -> None:
    template = made.CHATML.replace("message['content']", "message['content'] | replace(' ', '')")
    with pytest.raises(UserError, match="changes an answer's text"):
        Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|im_end|>"), template)


THOUGHTS = made.CHATML.replace(
    "message['content']", "(message['content'].split('</think>')[-1] if loop.last else message['content'])"
)


@pytest.mark.parametrize("answer", ["<think>\nHm.\n</think>\n\nYes.", "</think>Yes.", "a</think>b</think>c"])
def test_an_answer_that_the_template_rewrites_is_refused(answer: str) -> None:
    """A plain answer passes; one with a thought, which this template drops, would be trained as nothing writes it."""
    renderer = Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|im_end|>"), THOUGHTS)
    assert renderer.decode(renderer.answer("Yes, <b>.")) == "Yes, <b>."
    with pytest.raises(UserError, match="the chat template rewrites the answer"):
        renderer.answer(answer)


WITH_A_THOUGHT = "<think>\nFour, or\nfive?\n</think>\n\nFour."


@pytest.mark.parametrize("template", [made.THOUGHTS, made.ALWAYS_THINKING])
def test_thinking_is_trained_as_the_template_writes_it(template: str) -> None:
    """The dialogue with its last thought; earlier answers lose theirs, as the template says; decoding loses nothing."""
    renderer = Renderer(made.thoughts(template), style="thinking")
    dialogue = (*QUESTION, Turn("assistant", WITH_A_THOUGHT), *QUESTION)
    messages = [{"role": turn.role, "content": turn.content} for turn in (*dialogue, Turn("assistant", WITH_A_THOUGHT))]
    text = renderer.tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=True)
    assert text.count("<think>") == 1
    answer = renderer.answer(WITH_A_THOUGHT)
    ids = renderer.context(dialogue) + answer
    assert ids == renderer.tokenizer(text, add_special_tokens=False)["input_ids"][: len(ids)]
    assert ids[-1] == renderer.stop_id
    assert renderer.decode(answer) == WITH_A_THOUGHT


def test_thinking_is_a_style_of_its_own(tmp_path: Path) -> None:
    """Saved and found again; other ids and fingerprint than with thinking off, whose prompt holds an empty thought."""
    on, off = Renderer(made.thoughts(), style="thinking"), Renderer(made.thoughts())
    assert on.fingerprint != off.fingerprint
    assert off.tokenizer.decode(off.context(QUESTION)).endswith("<think>\n\n</think>\n\n")
    assert on.tokenizer.decode(on.context(QUESTION)).endswith("<|im_start|>assistant\n")
    on.save(tmp_path)
    again = load_renderer(tmp_path)
    assert (again.style, again.fingerprint) == ("thinking", on.fingerprint)


@pytest.mark.parametrize("answer", ["Four.", "<think>\nFour", "<think>Four?</think>Four."])
def test_thinking_refuses_an_answer_that_would_be_written_otherwise(answer: str) -> None:
    with pytest.raises(UserError, match=r"rewrites the answer .* begin each answer with its thought"):
        Renderer(made.thoughts(), style="thinking").answer(answer)


def test_thinking_needs_a_template_that_knows_of_it() -> None:
    with pytest.raises(UserError, match='the chat template knows no thoughts; use style "chat"'):
        Renderer(made.smollm(), style="thinking")
    with pytest.raises(UserError, match='style "thinking" needs a chat template, and the tokenizer has none'):
        Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|im_end|>"), style="thinking")


def test_tokenizer_that_joins_across_the_boundary_is_refused() -> None:
    with pytest.raises(UserError, match="the chat template and the tokenizer do not fit"):
        Renderer(made.joining())


def test_template_refusing_a_role_is_a_user_error() -> None:
    with pytest.raises(UserError, match=r"refuses the turns \[system, user\]: no system role"):
        Renderer(made.llama2()).context((Turn("system", "Be brief."), Turn("user", "Hi")))


def test_end_of_turn_that_is_not_marked_special() -> None:
    """An added token <end> that only the template names is the stop token (and not the added newline, as Gemma has)."""
    backend = made.wrapped(made.smollm().backend_tokenizer, eos_token="<|endoftext|>")
    backend.add_tokens([AddedToken(text, normalized=False, special=False) for text in ("<end>", "\n")])
    renderer = Renderer(backend, made.CHATML.replace("<|im_end|>", "\\n<end>"))
    end = backend.convert_tokens_to_ids("<end>")
    assert renderer.stop_id == end
    assert renderer.stop_ids == {end, backend.eos_token_id}
    assert renderer.answer("a <end> b").count(end) == 1


def test_template_without_a_stop_token_trains_eos() -> None:
    template = (
        "{% for m in messages %}{{ '### ' + m['role'] + ':\\n' + m['content'] + '\\n\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '### assistant:\\n' }}{% endif %}"
    )
    renderer = Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|endoftext|>"), template)
    assert renderer.answer("Fine.")[-1] == renderer.tokenizer.eos_token_id == renderer.stop_id


def test_the_date_of_a_template_stands_still() -> None:
    """SmolLM3's and Llama 3.2's templates write today's date; here it is 26 July 2024 for ever."""
    template = "{{ strftime_now('%d %B %Y') }}" + made.CHATML
    renderer = Renderer(made.wrapped(made.smollm().backend_tokenizer, eos_token="<|im_end|>"), template)
    assert renderer.tokenizer.decode(renderer.context(QUESTION)).startswith("26 July 2024<|im_start|>")


@pytest.mark.parametrize("maker", [made.smollm, made.llama2, made.metaspace])
def test_save_and_load_are_equal(maker: Maker, tmp_path: Path) -> None:
    renderer = Renderer(maker(), style="dialogue" if maker is made.metaspace else None, stop_ids=[1])
    renderer.save(tmp_path)
    again = load_renderer(tmp_path)
    assert again.fingerprint == renderer.fingerprint
    assert (again.style, again.stop_id, again.stop_ids) == (renderer.style, renderer.stop_id, renderer.stop_ids)
    assert again.context(QUESTION) + again.answer("a </s>") == renderer.context(QUESTION) + renderer.answer("a </s>")


def test_fingerprint_tells_apart() -> None:
    """Style, template, stop tokens and vocabulary each change it: 5 different values."""
    seen = [Renderer(made.qwen()), Renderer(made.qwen(), style="plain"), Renderer(made.qwen(), stop_ids=[0])]
    seen += [Renderer(made.thinking()), Renderer(made.llama2())]
    assert len({renderer.fingerprint for renderer in seen}) == 5
    assert Renderer(made.qwen()).fingerprint == seen[0].fingerprint


def test_only_the_stop_tokens_of_the_generation_config_count(tmp_path: Path) -> None:
    made.qwen().save_pretrained(str(tmp_path))
    config = {"eos_token_id": [2, 0], "temperature": 0.7, "repetition_penalty": 1.1, "top_k": 20}
    (tmp_path / "generation_config.json").write_text(json.dumps(config))
    assert load_renderer(tmp_path).stop_ids == {2, 0}


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("generation_config.json", '{"eos_token_id": "</s>"}', "eos_token_id: must be a token id or a list"),
        ("generation_config.json", "{", "generation_config.json: not JSON"),
        ("tokenizer.json", "[]", "expected a JSON object, found list"),
        ("rendering.json", '{"style": "rap"}', "style: 'rap' is unknown"),
    ],
)
def test_broken_files_are_user_errors(tmp_path: Path, file: str, text: str, message: str) -> None:
    made.qwen().save_pretrained(str(tmp_path))
    (tmp_path / file).write_text(text)
    with pytest.raises(UserError, match=message):
        load_renderer(tmp_path)


def test_no_tokenizer_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(UserError, match="no tokenizer in this directory"):
        load_renderer(tmp_path)
    with pytest.raises(UserError, match="no such directory"):
        load_renderer(tmp_path / "nothing")


def test_a_chat_style_needs_a_template() -> None:
    with pytest.raises(UserError, match='style "chat" needs a chat template'):
        Renderer(made.metaspace(), style="chat")


def test_stories260k() -> None:
    """A public SentencePiece model: no template, style "question"; a plain continuation adds no space piece."""
    path = shared_path("models/stories260k")
    renderer = load_renderer(path, style="plain")
    start = renderer.context((Turn("user", "Once upon a time"),))
    ids = start + renderer.answer(", there was", stop=False)
    whole = renderer.tokenizer("Once upon a time, there was", add_special_tokens=False)["input_ids"]
    assert ids == [1, *whole]
    assert renderer.decode(renderer.answer(", there was")) == ", there was"
    assert renderer.decode(renderer.answer(" there was")) == " there was"
    assert load_renderer(path).style == "question"
    assert renderer.stop_ids == {2}


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
@settings(max_examples=100, deadline=None)
def test_trained_tokenizer_is_lossless(text: str) -> None:
    renderer = Renderer(TRAINED)
    assert renderer.decode(renderer.answer(text)) == text


TRAINED = train_tokenizer([made.TEXT], vocab=400)


def test_trained_tokenizer() -> None:
    """Distinct control tokens 0, 1, 2; a token per digit; no more tokens than asked for."""
    assert [TRAINED.pad_token_id, TRAINED.bos_token_id, TRAINED.eos_token_id] == [0, 1, 2]
    assert TRAINED.convert_ids_to_tokens(TRAINED("1024")["input_ids"]) == ["1", "0", "2", "4"]
    assert len(train_tokenizer(["12 12 12 12"] * 9, 300, digits=False)("12")["input_ids"]) == 1
    assert len(TRAINED) <= 400


def test_trained_tokenizer_refuses_what_cannot_work() -> None:
    with pytest.raises(UserError, match="258 is too small; 259 hold"):
        train_tokenizer(["a"], vocab=258)
    with pytest.raises(UserError, match="no text"):
        train_tokenizer(["", ""], vocab=300)


@pytest.mark.parametrize("maker", [*CHAT, *PLAIN])
@given(contents=st.lists(typed, min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_many_contexts_are_those_of_each(renderers: dict[str, Renderer], maker: Maker, contents: list[str]) -> None:
    """Whatever was typed into one changes no other; over more texts than are handed to the tokenizer at once, too."""
    renderer = renderers[maker.__name__]
    dialogues: list[Context] = [(), *((Turn("user", "x" + content),) for content in contents)]
    each = [renderer.context(turns) for turns in dialogues]
    assert renderer.contexts(dialogues) == each
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("smolt.models.rendering.control_tokens.CHUNK", 2)
        assert renderer.contexts(dialogues * 2) == each * 2
