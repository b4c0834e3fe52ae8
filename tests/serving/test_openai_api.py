"""The interface as OpenAI's own client sees it: what it asks comes back, and is what the sampler draws."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from smolt.config import ChatSampling
from smolt.data import Turn
from smolt.models.conversation import Conversation
from smolt.models.rendering import load_renderer
from smolt.models.sampling import Drawing, sample
from tests.serving.conftest import Models, policy_of
from tests.tiny import WINDOW

HI: list[Any] = [{"role": "user", "content": "Hi."}]


def test_the_greedy_text_is_that_of_the_chat(client: OpenAI, models: Models) -> None:
    """Temperature 0: `smolt chat`'s answer, whole and as a stream, with counts of tokens."""
    directory = models("llama")
    renderer = load_renderer(directory)
    sampling = ChatSampling(max_tokens=24, temperature=0.0)
    talk = Conversation(policy_of(directory), renderer, WINDOW, sampling)
    talk.ask("Hi.")
    expected = "".join(talk.answer(lambda: False))
    done = client.chat.completions.create(model="tiny", messages=HI, temperature=0, max_tokens=24)
    choice = done.choices[0]
    assert choice.message.content == expected
    assert choice.message.role == "assistant"
    assert choice.finish_reason == ("length" if talk.cut else "stop")
    assert done.usage is not None
    assert done.usage.prompt_tokens == len(renderer.context((Turn("user", "Hi."),)))
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens
    stream = client.chat.completions.create(
        model="tiny",
        messages=HI,
        temperature=0,
        max_completion_tokens=24,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == expected
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == choice.finish_reason
    usage = chunks[-1].usage
    assert usage is not None and usage.prompt_tokens_details is not None and chunks[-1].choices == []
    assert usage.prompt_tokens_details.cached_tokens == usage.prompt_tokens  # it was read for the first request
    usage.prompt_tokens_details = done.usage.prompt_tokens_details
    assert usage == done.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert len({chunk.id for chunk in chunks}) == 1


def test_system_message_and_several_turns_go_through_the_template(client: OpenAI, models: Models) -> None:
    """Five messages, one in parts, one of a developer: the prompt's tokens are the template's, the text `sample`'s."""
    directory = models("llama")
    renderer = load_renderer(directory)
    turns = (Turn("system", "Be."), Turn("user", "a"), Turn("assistant", "b"), Turn("user", "<|im_end|>\nc"))
    done = client.chat.completions.create(
        model="tiny",
        messages=[
            {"role": "developer", "content": "Be."},
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b"},
            {"role": "user", "content": [{"type": "text", "text": "<|im_end|>"}, {"type": "text", "text": "\nc"}]},
        ],
        seed=5,
        max_tokens=12,
    )
    context = renderer.context(turns)
    drawing = Drawing(12, 1.0, 1, renderer.stop_ids)
    expected = sample(policy_of(directory), [context], 1, drawing, (5, 0)).answers[0].tolist()
    assert done.usage is not None and done.usage.prompt_tokens == len(context)
    assert done.choices[0].message.content == renderer.decode(expected)


def test_n_answers_are_the_samplers_and_come_again_with_the_seed(client: OpenAI, models: Models) -> None:
    """n = 5, temperature 0.8, top_p 0.9, seed 11: copies 0 to 4 of `sample`, twice; another seed gives others."""
    directory = models("llama")
    renderer = load_renderer(directory)
    context = renderer.context((Turn("user", "Hi."),))
    drawing = Drawing(16, 0.8, 8, renderer.stop_ids, top_p=0.9)
    drawn = sample(policy_of(directory), [context], 5, drawing, (11, 0))
    expected = [renderer.decode(answer.tolist()) for answer in drawn.answers]

    def asked(seed: int | None) -> list[str | None]:
        done = client.chat.completions.create(
            model="tiny", messages=HI, n=5, temperature=0.8, top_p=0.9, max_tokens=16, seed=seed
        )
        assert [choice.index for choice in done.choices] == list(range(5))
        assert done.usage is not None and done.usage.prompt_tokens == len(context)
        return [choice.message.content for choice in done.choices]

    assert asked(11) == asked(11) == expected
    assert asked(12) != expected
    assert asked(None) != asked(None)


def test_a_stream_of_several_answers(client: OpenAI) -> None:
    """n = 3: each index's pieces joined are the answers that come without a stream."""
    asked: dict[str, Any] = {"model": "tiny", "messages": HI, "n": 3, "seed": 2, "max_tokens": 20}
    whole = client.chat.completions.create(**asked)
    texts = ["", "", ""]
    for chunk in client.chat.completions.create(**asked, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [choice.message.content for choice in whole.choices]


def test_stop_texts(client: OpenAI) -> None:
    """A text out of the middle, alone and in a list: all before it, finish_reason stop; the stream never shows it."""
    asked: dict[str, Any] = {"model": "tiny", "messages": HI, "temperature": 0, "max_tokens": 40}
    whole = client.chat.completions.create(**asked).choices[0].message.content or ""
    stop = whole[6:9]
    before = whole[: whole.index(stop)]
    for given in (stop, ["not there", stop]):
        choice = client.chat.completions.create(**asked, stop=given).choices[0]
        assert (choice.message.content, choice.finish_reason) == (before, "stop")
    chunks = client.chat.completions.create(**asked, stop=stop, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == before


def test_log_probabilities(client: OpenAI, models: Models) -> None:
    """Of each token within 1e-5 of `sample`'s, 20 likeliest beside it; only where they are asked for."""
    directory = models("llama")
    renderer = load_renderer(directory)
    asked: dict[str, Any] = {"model": "tiny", "messages": HI, "temperature": 0, "max_tokens": 10}
    choice = client.chat.completions.create(**asked, logprobs=True, top_logprobs=20).choices[0]
    drawing = Drawing(10, 0.0, 1, renderer.stop_ids)
    expected = sample(policy_of(directory), [renderer.context((Turn("user", "Hi."),))], 1, drawing, (0, 0))
    told = choice.logprobs.content if choice.logprobs else None
    assert told
    sampled = expected.columns["sampled"][0].tolist()
    assert [token.logprob for token in told] == pytest.approx(sampled[: len(told)], abs=1e-5)
    assert all(len(token.top_logprobs) == 20 for token in told)
    assert all(token.top_logprobs[0].token == token.token for token in told)
    assert all(bytes(token.bytes).decode() == token.token for token in told if token.bytes is not None)
    assert client.chat.completions.create(**asked).choices[0].logprobs is None
    bare = client.chat.completions.create(**asked, logprobs=True).choices[0].logprobs
    assert bare is not None and bare.content is not None
    assert all(token.top_logprobs == [] for token in bare.content)
    streamed: list[float] = []
    for chunk in client.chat.completions.create(**asked, logprobs=True, top_logprobs=2, stream=True):
        part = chunk.choices[0].logprobs
        streamed += [token.logprob for token in (part.content if part else None) or []]
    assert streamed == pytest.approx([token.logprob for token in told], abs=1e-5)


def test_completions_go_on_where_the_prompt_ends(client: OpenAI, models: Models) -> None:
    """Raw text, token ids, and two prompts at once; control tokens in the text are such; leading spaces stay."""
    directory = models("llama")
    tokenizer = load_renderer(directory).tokenizer
    prompt = "<|im_start|>user\nOnce upon"
    ids = tokenizer(prompt)["input_ids"]
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    drawn = sample(policy_of(directory), [ids], 1, Drawing(20, 0.0, 1, frozenset({2})), (0, 0)).answers[0].tolist()
    expected = tokenizer.decode(drawn, skip_special_tokens=True)
    asked: dict[str, Any] = {"model": "tiny", "max_tokens": 20, "temperature": 0}
    assert client.completions.create(prompt=prompt, **asked).choices[0].text == expected
    assert client.completions.create(prompt=ids, **asked).choices[0].text == expected
    both = client.completions.create(prompt=[prompt, "Two"], n=2, **asked)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in both.choices[:2]] == [expected, expected]
    assert both.usage is not None and both.usage.prompt_tokens == len(ids) + len(tokenizer("Two")["input_ids"])
    streamed = client.completions.create(prompt=prompt, stream=True, **asked)
    assert "".join(chunk.choices[0].text for chunk in streamed) == expected


def test_log_probabilities_of_completions(client: OpenAI) -> None:
    """The older form: tokens, their numbers, the 3 likeliest, and where each begins in the text."""
    choice = client.completions.create(model="tiny", prompt="One", max_tokens=8, temperature=0, logprobs=3).choices[0]
    told = choice.logprobs
    assert told is not None and told.tokens and told.token_logprobs and told.top_logprobs and told.text_offset
    assert len(told.tokens) == len(told.token_logprobs) == len(told.top_logprobs) == len(told.text_offset) <= 8
    assert told.text_offset[0] == 0 and told.text_offset == sorted(told.text_offset)
    assert all(1 <= len(listed) <= 3 for listed in told.top_logprobs)


def test_a_model_without_a_template_is_asked_as_the_chat_asks_it(client: OpenAI, models: Models) -> None:
    """The model "plain": its greedy answer to one question is `sample`'s to the renderer's context."""
    directory = models("llama").parent / "plain"
    renderer = load_renderer(directory)
    drawing = Drawing(16, 0.0, 1, renderer.stop_ids)
    drawn = sample(policy_of(directory), [renderer.context((Turn("user", "Hi."),))], 1, drawing, (0, 0))
    done = client.chat.completions.create(model="plain", messages=HI, temperature=0, max_tokens=16)
    assert done.choices[0].message.content == renderer.decode(drawn.answers[0].tolist())


def test_models_are_listed_and_found(client: OpenAI, url: str) -> None:
    """Both by name; another is a 404 that says which there are; health is ok."""
    assert [model.id for model in client.models.list()] == ["tiny", "plain"]
    assert client.models.retrieve("plain").owned_by == "smolt"
    with pytest.raises(openai.NotFoundError, match="the model 'other' is not served here; there is tiny, plain") as no:
        client.chat.completions.create(model="other", messages=HI)
    assert no.value.code == "model_not_found" and no.value.param == "model"
    assert httpx.get(url.removesuffix("/v1") + "/health").json() == {"status": "ok"}


def test_fifty_clients_at_once_get_what_each_gets_alone(url: str, client: OpenAI) -> None:
    """50 streams on 8 slots, prompts, lengths and seeds of their own: every text is the one that comes alone."""

    def asked(number: int) -> dict[str, Any]:
        messages = [{"role": "user", "content": f"{number} " * (1 + number % 9)}]
        return {"model": "tiny", "messages": messages, "seed": number, "max_tokens": 4 + number % 30}

    async def one(asker: AsyncOpenAI, number: int) -> str:
        text = ""
        async for chunk in await asker.chat.completions.create(**asked(number), stream=True):
            text += chunk.choices[0].delta.content or ""
        return text

    async def all_of_them() -> list[str]:
        async with AsyncOpenAI(base_url=url, api_key="unused", max_retries=0, timeout=300) as asker:
            return await asyncio.gather(*(one(asker, number) for number in range(50)))

    found = asyncio.run(all_of_them())
    for number in range(0, 50, 7):
        assert client.chat.completions.create(**asked(number)).choices[0].message.content == found[number]
    assert len(set(found)) > 40


def refusal(url: str, path: str, **body: Any) -> tuple[int, str | None, str]:
    answer = httpx.post(f"{url}/{path}", json=body, timeout=60)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["param"], error["message"]


@pytest.mark.parametrize(
    ("changes", "status", "param", "said"),
    [
        ({"temperature": "hot"}, 400, "temperature", "valid number"),
        ({"temperature": -1}, 400, "temperature", "greater than or equal to 0"),
        ({"temperature": 1e-9}, 400, "temperature", "must be 0"),
        ({"top_p": 0}, 400, "top_p", "greater than 0"),
        ({"top_p": 1.5}, 400, "top_p", "less than or equal to 1"),
        ({"max_tokens": 0}, 400, "max_tokens", "greater than or equal to 1"),
        ({"max_tokens": 2.5}, 400, "max_tokens", "valid integer"),
        ({"n": 0}, 400, "n", "greater than or equal to 1"),
        ({"n": True}, 400, "n", "valid integer"),
        ({"seed": 2**64}, 400, "seed", "less than"),
        ({"seed": 10**30}, 400, "seed", ""),
        ({"stop": ""}, 400, "stop", "at least 1 character"),
        ({"stop": ["a"] * 17}, 400, "stop", "at most 16"),
        ({"stop": [3]}, 400, "stop", ""),
        ({"top_logprobs": 5}, 400, "top_logprobs", "needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, 400, "top_logprobs", "less than or equal to 20"),
        ({"stream_options": {"include_usage": True}}, 400, "stream_options", "needs stream"),
        ({"presence_penalty": 0.5}, 400, "presence_penalty", "not supported"),
        ({"frequency_penalty": -1}, 400, "frequency_penalty", "not supported"),
        ({"logit_bias": {"5": 1}}, 400, "logit_bias", "not supported"),
        ({"response_format": {"type": "json_object"}}, 400, "response_format", "not supported"),
        ({"tools": [{"type": "function"}]}, 400, "tools", "not supported"),
        ({"functions": [{}]}, 400, "functions", "not supported"),
        ({"audio": {}}, 400, "audio", "not supported"),
        ({"temprature": 1}, 400, "temprature", "no field that smolt serve knows"),
        ({"messages": []}, 400, "messages", "at least 1 item"),
        ({"messages": "Hi"}, 400, "messages", "valid list"),
        ({"messages": [{"role": "tool", "content": "x"}]}, 400, "messages[0].role", "input should be"),
        ({"messages": [{"role": "user", "content": None}]}, 400, "messages[0].content", ""),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, 400, "messages[0].content[0].type", ""),
        ({"messages": [{"role": "user", "content": "a " * 200}]}, 400, "messages", f"the model's window is {WINDOW}"),
        ({"model": "other"}, 404, "model", "not served here"),
        ({"model": None}, 400, "model", "valid string"),
    ],
)
def test_what_is_not_understood_is_refused_by_name(
    changes: dict[str, Any], status: int, param: str, said: str, url: str
) -> None:
    """In OpenAI's form, with the field; nothing is answered differently than was asked."""
    found = refusal(url, "chat/completions", **{"model": "tiny", "messages": HI, **changes})
    assert found[:2] == (status, param)
    assert said in found[2]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [99999]}, "prompt"),
        ({"prompt": ["a", 3]}, "prompt"),
        ({"prompt": 7}, "prompt"),
        ({"prompt": "a " * 200}, "prompt"),
        ({"echo": True}, "echo"),
        ({"best_of": 3}, "best_of"),
        ({"suffix": "x"}, "suffix"),
        ({"logprobs": 6}, "logprobs"),
        ({"prompt": ["a"] * 129}, "prompt"),
        ({"prompt": ["a"] * 100, "n": 3}, "n"),
    ],
)
def test_completions_refuse_by_name_too(changes: dict[str, Any], param: str, url: str) -> None:
    status, found, _ = refusal(url, "completions", **{"model": "tiny", "prompt": "a", **changes})
    assert status == 400
    assert found is not None and found.startswith(param)


def test_settings_that_change_nothing_are_taken(client: OpenAI) -> None:
    """Penalties of 0, no tools, plain text, a user: the answer that comes without them."""
    asked: dict[str, Any] = {"model": "tiny", "messages": HI, "seed": 1, "max_tokens": 10}
    plain = client.chat.completions.create(**asked).choices[0].message.content
    idle: dict[str, Any] = {
        "presence_penalty": 0.0,
        "frequency_penalty": 0,
        "tools": [],
        "tool_choice": "none",
        "response_format": {"type": "text"},
        "user": "somebody",
        "logit_bias": {},
        "store": False,
        "top_p": 1,
        "stop": None,
    }
    assert client.chat.completions.create(**asked, **idle).choices[0].message.content == plain


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[1]", "expected a JSON object"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud800"}]}', "half a character"),
        (b'{"model": "tiny", "temperature": NaN, "messages": [{"role": "user", "content": "a"}]}', "temperature"),
    ],
)
def test_what_is_no_request_is_a_400(body: bytes, said: str, url: str) -> None:
    answer = httpx.post(f"{url}/chat/completions", content=body, timeout=60)
    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_other_addresses_and_methods(url: str) -> None:
    """404 and 405 in the same form."""
    for method, path, status in (("GET", "/nowhere", 404), ("GET", "/chat/completions", 405), ("PUT", "/models", 405)):
        answer = httpx.request(method, url + path)
        assert answer.status_code == status
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_random_bodies_never_break_it(url: str, client: OpenAI) -> None:
    """Some 400 bodies with a field replaced by a value of another kind: 200 or 4xx in their form, never a 500."""
    values: list[Any] = [
        None,
        True,
        0,
        -1,
        1.5,
        1e300,
        "",
        "x",
        [],
        [[]],
        {},
        {"a": 1},
        [None],
        "\x00",
        "\ufdd0",
        2**70,
    ]
    fields = [
        *("messages", "n", "seed", "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "stop"),
        *("stream", "stream_options", "logprobs", "top_logprobs", "model", "tools", "response_format", "user"),
        *("presence_penalty", "repetition_penalty", "prompt", "logit_bias"),
    ]
    bodies = [
        {"model": "tiny", "messages": HI, "max_tokens": 2, "n": 1, field: value} for field in fields for value in values
    ]
    inner = [
        {"model": "tiny", "max_tokens": 2, "messages": [{**HI[0], field: value}]}
        for field in ("role", "content", "name", "other")
        for value in values
    ]

    def status(body: dict[str, Any]) -> int:
        return asker.post(f"{url}/chat/completions", content=json.dumps(body).encode()).status_code

    with ThreadPoolExecutor(8) as pool, httpx.Client(timeout=120) as asker:
        found = list(pool.map(status, [*bodies, *inner]))
    assert len(found) > 350
    assert {code for code in found if code != 200} <= {400, 404}
    assert found.count(200) > 20
    assert client.chat.completions.create(model="tiny", messages=HI, max_tokens=2).choices
