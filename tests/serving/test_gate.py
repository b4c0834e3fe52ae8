"""Who is answered at all, how much at a time, and what a client that leaves or dawdles costs the others."""

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from smolt.errors import UserError
from smolt.serving import openai_api
from smolt.serving.address import Address, named_models
from smolt.serving.engine import Engine
from tests.serving.conftest import Engines, serving

HI: list[Any] = [{"role": "user", "content": "Hi."}]
LONG: dict[str, Any] = {"model": "tiny", "messages": HI, "max_tokens": 100, "temperature": 0.0, "stream": True}
KEY = "a-key-for-a-test"


def port_of(url: str) -> int:
    return int(httpx.URL(url).port or 0)


def asked(url: str, path: str = "/v1/models", **headers: str) -> httpx.Response:
    """A request with headers of its own in place of the usual ones."""
    return httpx.get(
        url.removesuffix("/v1") + path, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:PORT", 200),
        ("localhost:PORT", 200),
        ("LOCALHOST:PORT", 200),
        ("[::1]:PORT", 200),
        ("evil.example", 400),
        ("evil.example:PORT", 400),
        ("127.0.0.1:1", 400),
        ("localhost.evil.example:PORT", 400),
        ("127.0.0.1:PORT@evil.example", 400),
        ("192.0.2.7:PORT", 400),
        ("", 400),
    ],
)
def test_only_a_known_host_is_answered(host: str, status: int, url: str) -> None:
    """A name that was pointed at 127.0.0.1 is another site's; the refusal has OpenAI's form."""
    answer = asked(url, host=host.replace("PORT", str(port_of(url))))
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["code"] == "unknown_host"


def test_no_host_and_two_hosts_are_refused(url: str) -> None:
    for lines in ("", f"Host: localhost:{port_of(url)}\r\nHost: evil.example\r\n"):
        with socket.create_connection(("127.0.0.1", port_of(url)), timeout=10) as wire:
            wire.sendall(f"GET /v1/models HTTP/1.1\r\n{lines}Connection: close\r\n\r\n".encode())
            assert b" 400 " in wire.makefile("rb").readline()


def test_another_site_is_refused(url: str) -> None:
    """A page of another origin, and of the origin `null`: 403; of this one: 200. No header lets a site read answers."""
    for origin, status in (
        ("http://evil.example", 403),
        ("null", 403),
        ("http://[", 403),
        (url.removesuffix("/v1"), 200),
    ):
        answer = asked(url, origin=origin)
        assert answer.status_code == status
        assert not [name for name in answer.headers if name.startswith("access-control")]


def test_a_key_is_asked_for(engines: Engines) -> None:
    """The right one 200; none, a wrong one, half of it, and another scheme 401; /health needs none."""
    with serving(engines(), Address("127.0.0.1", 0, key=KEY)) as url:
        assert asked(url, authorization=f"Bearer {KEY}").status_code == 200
        for given in (
            {},
            {"authorization": "Bearer wrong"},
            {"authorization": f"Bearer {KEY[:-1]}"},
            {"authorization": f"Basic {KEY}"},
            {"authorization": KEY},
        ):
            answer = asked(url, **given)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
            assert answer.headers["www-authenticate"] == "Bearer"
            assert KEY not in answer.text
        assert asked(url, "/health").status_code == 200
        with OpenAI(base_url=url, api_key=KEY, max_retries=0) as client:
            assert client.chat.completions.create(model="tiny", messages=HI, max_tokens=2).choices
        with OpenAI(base_url=url, api_key="no", max_retries=0) as client, pytest.raises(openai.AuthenticationError):
            client.models.list()


def test_bound_for_others_every_number_is_a_host_and_further_names_are_given() -> None:
    """On 0.0.0.0 a Host may be any number, this machine's name, and what --allow-host names; no other name."""
    address = Address("0.0.0.0", 8000, ("models.lan",), KEY)
    address.check()
    assert {"models.lan", "models.lan:8000", "localhost:8000", f"{socket.gethostname().lower()}:8000"} <= set(
        address.hosts(8000)
    )
    with serving(Engine({}), Address("0.0.0.0", 0, ("models.lan",), KEY)) as url:
        for host, status in (("192.0.2.7:1", 200), ("[2001:db8::1]", 200), ("models.lan", 200), ("evil.example", 400)):
            assert asked(url, host=host, authorization=f"Bearer {KEY}").status_code == status


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (Address("0.0.0.0", 0), "--host 0.0.0.0: others could reach this server; give --api-key or SMOLT_API_KEY"),
        (Address("192.0.2.7", 0), "others could reach"),
        (Address("127.0.0.1", 0, key="  "), "--api-key: must be printable"),
        (Address("127.0.0.1", 0, key="schlüssel"), "--api-key: must be printable"),
    ],
)
def test_an_address_for_others_needs_a_key(address: Address, message: str) -> None:
    with pytest.raises(UserError, match=message):
        address.check()


def test_models_are_named_by_their_last_part_or_as_told() -> None:
    """A path, a run's model, a name of one's own; a name twice and an empty one are refused."""
    found = named_models(["/data/smol", "runs/sft/model", "judge=other/dir", "owner/name"])
    assert found == {"smol": "/data/smol", "sft/model": "runs/sft/model", "judge": "other/dir", "name": "owner/name"}
    with pytest.raises(UserError, match=r"b/smol: smol is a/smol already; give it another name: OTHER=b/smol"):
        named_models(["a/smol", "b/smol"])
    for empty in ("=x", "x=", ""):
        with pytest.raises(UserError, match="names no model"):
            named_models([empty])


def test_a_body_over_a_megabyte_is_refused(url: str) -> None:
    """1,000,001 bytes, announced or in chunks: 413; 999,990 bytes are read and refused for what they say."""
    head, tail = b'{"model": "tiny", "messages": [], "user": "', b'"}'
    for size, status in ((1_000_001, 413), (999_990, 400)):
        body = head + b"a" * (size - len(head) - len(tail)) + tail
        assert httpx.post(f"{url}/chat/completions", content=body).status_code == status
        chunked = httpx.post(f"{url}/chat/completions", content=iter([body[:500_000], body[500_000:]]))
        assert chunked.status_code == status
    wire = http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=10)
    wire.putrequest("POST", "/v1/chat/completions")
    wire.putheader("Content-Length", str(10**12))
    wire.endheaders()
    answer = wire.getresponse()
    assert answer.status == 413
    assert "larger than 1,000,000 bytes" in json.loads(answer.read())["error"]["message"]
    wire.close()


def test_a_body_that_does_not_come_is_not_waited_for(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten bytes announced, none sent: 408 after the time for it."""
    monkeypatch.setattr(openai_api, "SLOWEST_BODY", 0.2)
    wire = http.client.HTTPConnection("127.0.0.1", port_of(url), timeout=30)
    wire.putrequest("POST", "/v1/chat/completions")
    wire.putheader("Content-Length", "10")
    wire.endheaders()
    assert wire.getresponse().status == 408
    wire.close()


@contextlib.contextmanager
def streaming(url: str, **changes: Any) -> Iterator[httpx.Response]:
    """A stream whose first bytes have come."""
    with httpx.stream("POST", f"{url}/chat/completions", json={**LONG, **changes}, timeout=60) as answer:
        assert answer.status_code == 200
        yield answer


def wait_until_free(engine: Engine, seconds: float) -> float:
    """How long it took until no answer was under way."""
    began = time.monotonic()
    while engine.active("tiny"):
        assert time.monotonic() - began < seconds, f"{engine.active('tiny')} answers are still under way"
        time.sleep(0.005)
    return time.monotonic() - began


@pytest.fixture
def slow(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> Engine:
    """An engine of one slot and two places that takes a twentieth of a second for each step."""
    from smolt.models.sampling import Slots

    engine, step = engines(slots=1, queue=2), Slots.step

    def stepping(self: Slots) -> Any:
        time.sleep(0.05 if len(self.rows) else 0)
        return step(self)

    engine.load("tiny")
    monkeypatch.setattr(Slots, "step", stepping)
    return engine


def test_a_client_that_leaves_frees_its_slot(slow: Engine) -> None:
    """Streams and whole answers that would take 5 seconds, left after 0.3: their slots are free within 2."""
    with serving(slow) as url:
        for stream in (True, False):
            with socket.create_connection(("127.0.0.1", port_of(url)), timeout=10) as wire:
                body = json.dumps({**LONG, "stream": stream}).encode()
                head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost:{port_of(url)}\r\n"
                wire.sendall(head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body)
                time.sleep(0.3)
                assert slow.active("tiny") == 1
            wait_until_free(slow, 2)


def test_a_full_queue_is_a_503_that_says_when_to_come_again(slow: Engine) -> None:
    """One slot and two places taken: the fourth gets 503 with Retry-After; n = 4 could never fit and is a 400."""
    with serving(slow) as url, streaming(url), streaming(url, seed=1), streaming(url, seed=2):
        answer = httpx.post(f"{url}/chat/completions", json=LONG, timeout=30)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "2"
        assert answer.json()["error"]["code"] == "queue_full"
        wanted = httpx.post(f"{url}/chat/completions", json={**LONG, "n": 4}, timeout=30)
        assert (wanted.status_code, wanted.json()["error"]["param"]) == (400, "n")
    wait_until_free(slow, 2)


def test_some_of_n_are_not_left_behind_when_the_rest_finds_no_place(slow: Engine) -> None:
    """Two places taken, n = 2 wanted: 503, and the one that had found a place is gone again."""
    with serving(slow) as url, streaming(url), streaming(url, seed=1):
        assert httpx.post(f"{url}/chat/completions", json={**LONG, "n": 2}, timeout=30).status_code == 503
        deadline = time.monotonic() + 2
        while slow.active("tiny") > 2:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_client_that_does_not_read_holds_up_nobody(url: str, client: OpenAI) -> None:
    """20 streams of which no byte is read; another client gets its answer, and the 20 can still be read to the end."""
    with contextlib.ExitStack() as held:
        streams = [held.enter_context(streaming(url, seed=seed, temperature=1.0)) for seed in range(20)]
        assert client.chat.completions.create(model="tiny", messages=HI, max_tokens=20).choices
        for answer in streams:
            assert answer.read().endswith(b"data: [DONE]\n\n")


def test_an_answer_that_fails_says_so_in_the_stream_and_outside(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory runs out at a step: an error event, a 500 in their form; the next request is answered."""
    from smolt.models.sampling import Slots

    engine, step, broken = engines(), Slots.step, [True]

    def stepping(self: Slots) -> Any:
        if broken[0] and len(self.rows):
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return step(self)

    monkeypatch.setattr(Slots, "step", stepping)
    with serving(engine) as url:
        with streaming(url) as answer:
            events = answer.read().decode().split("\n\n")
        assert json.loads(events[-3].removeprefix("data: "))["error"]["message"].startswith("out of memory")
        whole = httpx.post(f"{url}/chat/completions", json={**LONG, "stream": False}, timeout=30)
        assert (whole.status_code, whole.json()["error"]["type"]) == (500, "server_error")
        broken[0] = False
        assert httpx.post(f"{url}/chat/completions", json={**LONG, "stream": False}, timeout=30).status_code == 200


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_engine_that_broke_leaves_nobody_waiting(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault nobody foresaw: who waits gets a 500, who comes later a 503, and /health says failed with 503."""
    from smolt.models.sampling import Slots

    def stepping(self: Slots) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(Slots, "step", stepping)
    with serving(engines()) as url:
        for status in (500, 503):
            whole = httpx.post(f"{url}/chat/completions", json={**LONG, "stream": False}, timeout=30)
            assert whole.status_code == status
        health = asked(url, "/health")
        assert (health.status_code, health.json()) == (503, {"status": "failed"})


def test_a_fault_of_ours_is_a_500_in_their_form(
    engines: Engines, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody foresaw in one request: no detail goes out, one line says what it was, and the next is answered."""
    monkeypatch.setattr(Engine, "window", lambda self, name: 1 // 0)
    with serving(engines()) as url:
        answer = httpx.post(f"{url}/chat/completions", json={**LONG, "stream": False}, timeout=30)
        assert (answer.status_code, answer.json()["error"]["type"]) == (500, "server_error")
        assert "division" not in answer.text
        ours = [record.getMessage() for record in caplog.records if record.name == "smolt.serving.openai_api"]
        assert ours == ["POST /v1/chat/completions failed: ZeroDivisionError('integer division or modulo by zero')"]
        monkeypatch.undo()
        assert httpx.post(f"{url}/chat/completions", json={**LONG, "stream": False}, timeout=30).status_code == 200
