"""What a server of answers may say, and what is made of it: its kinds, its requests, its faults by name."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from smolt.config import AnswerServer
from smolt.errors import UserError
from smolt.models.gguf.writer import export_gguf
from smolt.training.online.answer_server import ServedModel, Wanted, Written
from tests.gguf_files import LlamaCpp
from tests.tiny import tiny_model

STOP = 2
ASKED = Wanted("tiny", [5, 6], 2, 4, 1.0, frozenset({STOP}), seed=7)
WHOLE = {"token_ids": [9, 8, STOP], "logprobs": {"token_logprobs": [-1.0, -0.5, -0.25]}, "finish_reason": "stop"}
CUT = {"token_ids": [9, 8, 7, 6], "logprobs": {"token_logprobs": [-1.0, -1, -1, 0]}, "finish_reason": "length"}
Reply = tuple[int, Any]


class Handler(BaseHTTPRequestHandler):
    """Says what its server's script says, and notes what it was asked."""

    def do_GET(self) -> None:
        self._say(vars(self.server)["listed"])

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        vars(self.server)["asked"].append((self.path, body, self.headers.get("authorization")))
        self._say(vars(self.server)["script"](self.path, body))

    def _say(self, reply: Reply) -> None:
        status, document = reply
        content = document.encode() if isinstance(document, str) else json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


Script = Callable[[str, dict[str, Any]], Reply]
Asking = list[tuple[str, dict[str, Any], str | None]]


def models(owner: str, *names: str) -> Reply:
    return 200, {"data": [{"id": name, "owned_by": owner} for name in names or ("tiny",)]}


@contextlib.contextmanager
def saying(script: Script, listed: Reply | None = None) -> Iterator[tuple[str, Asking]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    asked: Asking = []
    vars(server).update(script=script, listed=models("smolt") if listed is None else listed, asked=asked)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def of(*choices: dict[str, Any], model: str = "tiny") -> Script:
    """The same choices for every request."""
    return lambda path, body: (
        200,
        {"model": model, "choices": [{"index": at, **choice} for at, choice in enumerate(choices)]},
    )


def opened(url: str, **settings: Any) -> ServedModel:
    served = ServedModel(AnswerServer(url=url, attempts=1, timeout=5, **settings), rows=10)
    served.open()
    return served


def written(script: Script, asked: Wanted = ASKED) -> list[Written] | None:
    with saying(script) as (url, _):
        return opened(url).answers([asked], lambda come: None)[0]


def test_two_answers_as_smolt_and_vllm_tell_them() -> None:
    """Ids and log-probabilities of both; the one that stopped has its stop token."""
    assert written(of(WHOLE, CUT)) == [
        Written([9, 8, STOP], [-1.0, -0.5, -0.25], True),
        Written([9, 8, 7, 6], [-1.0, -1, -1, 0], False),
    ]


def test_what_follows_a_stop_token_is_no_answer() -> None:
    """A server that goes on after a stop token of the policy is cut there."""
    more = {**CUT, "token_ids": [9, STOP, 7, 6]}
    assert written(of(more, CUT)) == [
        Written([9, STOP], [-1.0, -1], True),
        Written([9, 8, 7, 6], [-1, -1, -1, 0], False),
    ]


def test_a_request_to_vllm_says_all_that_could_change_the_distribution() -> None:
    """By its documented protocol: no truncation, no penalty, ids wanted, and our stop tokens in place of its own."""
    with saying(of(WHOLE, CUT), models("vllm")) as (url, asked):
        opened(url).answers([replace(ASKED, temperature=0.7)], lambda come: None)
    assert asked == [
        (
            "/v1/completions",
            {
                **{"model": "tiny", "prompt": [5, 6], "max_tokens": 4, "stream": False, "temperature": 0.7, "n": 2},
                **{"top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "seed": 7},
                **{"presence_penalty": 0.0, "frequency_penalty": 0.0, "logprobs": 1, "return_token_ids": True},
                **{"ignore_eos": True, "stop_token_ids": [STOP]},
            },
            None,
        )
    ]


def test_vllm_loads_and_unloads_by_name_and_answers_in_words() -> None:
    """Its plain text is no fault; what it refuses names how it must be started."""
    with saying(lambda path, body: (200, "Success: LoRA adapter added."), models("vllm")) as (url, asked):
        served = opened(url)
        served.load("v-0", "/run/pushed/0")
        served.unload("v-0")
    assert [(path, body) for path, body, _ in asked] == [
        ("/v1/load_lora_adapter", {"lora_name": "v-0", "lora_path": "/run/pushed/0"}),
        ("/v1/unload_lora_adapter", {"lora_name": "v-0"}),
    ]
    for status in (404, 400):
        with (
            saying(lambda path, body: (status, {"error": {"message": "no"}}), models("vllm")) as (url, _),  # noqa: B023  (used at once)
            pytest.raises(UserError, match=f"(?s){status}.*VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"),
        ):
            opened(url).load("v-0", "/run/pushed/0")


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        ([WHOLE], "has 1 answers where 2 were asked for"),
        ([{**WHOLE, "token_ids": None}, WHOLE], "gives 0 token ids and 3 log-probabilities"),
        ([{**WHOLE, "logprobs": None}, WHOLE], "gives 3 token ids and 0 log-probabilities"),
        ([{**WHOLE, "token_ids": [9, 10, STOP]}, WHOLE], "gives the token id 10, and the policy's go from 0 to 9"),
        ([{**WHOLE, "token_ids": [9, -1, STOP]}, WHOLE], "gives the token id -1"),
        ([{**WHOLE, "token_ids": [9, "8", STOP]}, WHOLE], "gives the token id '8'"),
        ([{**WHOLE, "logprobs": {"token_logprobs": [-1, None, -1]}}, WHOLE], "log-probabilities that are none"),
        ([{**WHOLE, "logprobs": {"token_logprobs": [-1, 0.5, -1]}}, WHOLE], "log-probabilities that are none"),
        ([{**WHOLE, "token_ids": [9, 8, 7]}, WHOLE], r"ended an answer at the token 7, .* end at \[2\] alone"),
        ([{**CUT, "finish_reason": "abort"}, WHOLE], r"an answer was given up \(abort\)"),
        ([{**WHOLE, "token_ids": [9, 8, 7], "finish_reason": "length"}, WHOLE], "cut an answer at 3 tokens"),
        (
            [{**CUT, "token_ids": [9] * 5, "logprobs": {"token_logprobs": [-1] * 5}}, WHOLE],
            "gives 5 tokens where 4 are the most",
        ),
    ],
)
def test_what_is_no_answer_of_the_policy_is_refused_by_name(choices: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(UserError, match=said):
        written(of(*choices))


def test_another_models_answers_are_refused() -> None:
    with pytest.raises(UserError, match="the reply is of the model 'other', and tiny was asked"):
        written(of(WHOLE, CUT, model="other"))


def test_a_model_that_is_gone_is_no_error_yet() -> None:
    """None stands for what must be pushed again."""
    assert written(lambda path, body: (404, {"error": {"message": "no such model"}})) is None


@pytest.mark.parametrize(
    ("listed", "settings", "said"),
    [
        (models("library"), {}, "its models are owned by 'library'.*smolt serve and vLLM do all of it"),
        ((200, {"data": [{"id": "tiny"}]}), {}, "owned by None"),
        (models("smolt", "a", "b"), {}, "serves a, b; say which one with server.model"),
        (models("smolt", "a"), {"model": "b"}, "serves no model 'b'; there is a"),
        (models("llamacpp"), {}, "llama.cpp's server leaves out the log-probability of each token that ends within a"),
        ((404, "<html>nothing</html>"), {}, r"status 404, no list of models here; check server.url \(most end in /v1"),
        ((401, {"error": {"message": "key"}}), {}, "set the environment variable SMOLT_API_KEY, or .*server.key"),
        ((200, "hello"), {}, "the reply is not JSON"),
        ((200, {"data": 3}), {}, "the reply is no list of models"),
        ((500, "busy"), {}, "status 500.*the same command continues"),
    ],
)
def test_servers_that_cannot_serve_are_refused_by_name(listed: Reply, settings: dict[str, Any], said: str) -> None:
    with saying(of(WHOLE, CUT), listed) as (url, _), pytest.raises(UserError, match=said):
        opened(url, **settings)


def test_the_key_goes_in_the_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMOLT_API_KEY", "secret")
    with saying(of(WHOLE, CUT)) as (url, asked):
        opened(url).answers([ASKED], lambda come: None)
    assert [key for _, _, key in asked] == ["Bearer secret"]
    with pytest.raises(UserError) as error, saying(of(WHOLE, CUT), (401, "secret is wrong")) as (url, _):
        opened(url)
    assert "secret" not in str(error.value)


def test_a_fault_of_one_answer_does_not_wait_for_the_others() -> None:
    """Of 20 contexts the first is refused at once while others would take 3 seconds each."""

    def slowly(path: str, body: dict[str, Any]) -> Reply:
        if body["prompt"] != [5, 6]:
            time.sleep(3)
        return of(WHOLE)(path, body)

    began = time.monotonic()
    others = [replace(ASKED, context=[5, number]) for number in range(7, 10)] * 6
    with saying(slowly) as (url, _), pytest.raises(UserError, match="1 answers where 2"):
        try:
            opened(url).answers([ASKED, *others], lambda come: None)
        finally:
            took = time.monotonic() - began
    assert took < 2.5


@pytest.mark.slow
def test_llama_cpp_leaves_log_probabilities_out(tmp_path: Path) -> None:
    """Why its server is refused: of a byte-level model's answers it tells fewer log-probabilities than tokens."""
    export_gguf(str(tiny_model(tmp_path / "tiny")), tmp_path / "tiny.gguf", "f32")
    engine = LlamaCpp(tmp_path / "tiny.gguf")
    with pytest.raises(UserError, match="ends within a character"):
        opened(f"{engine.server.listening_address}/v1")
    body = {"prompt": [5, 6, 7], "n_predict": 40, "temperature": 1.0, "samplers": ["temperature"], "n_probs": 1}
    found = [engine.ask("completion", **body, seed=seed, return_tokens=True) for seed in range(8)]
    assert any(len(answer["completion_probabilities"]) < len(answer["tokens"]) for answer in found)
