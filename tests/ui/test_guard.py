"""What reaches the page: hosts, origins, sizes, paths, the password."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the extra ui is not installed")

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from smolt.errors import UserError
from smolt.serving.address import bound, port_of
from smolt.ui.environment import Face, password_from
from smolt.ui.guard import LARGEST_BODY, Guard
from smolt.ui.server import names_of
from smolt.ui.sign_in import FREE_TRIES, SignIn

HOST = "127.0.0.1:7860"
SECRET = "correct horse"


async def echo(request: Request) -> JSONResponse:
    return JSONResponse({"bytes": len(await request.body())}, headers={"access-control-allow-origin": "*"})


def client(numbers: bool = False, sign_in: SignIn | None = None) -> Any:
    app = Starlette(routes=[Route("/{path:path}", echo, methods=["GET", "POST"])])
    return TestClient(Guard(app, [HOST, "localhost:7860"], numbers, sign_in), base_url=f"http://{HOST}")


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:7860", "127.0.0.1", "127.0.0.1:80", "", "10.0.0.1:7860"]
)
def test_a_foreign_host_is_refused(host: str) -> None:
    assert client().get("/", headers={"host": host}).status_code == 400


def test_our_own_names_are_answered() -> None:
    for host in (HOST, "localhost:7860", "LOCALHOST:7860"):
        assert client().get("/", headers={"host": host}).status_code == 200
    assert client(numbers=True).get("/", headers={"host": "192.168.1.7:7860"}).status_code == 200
    assert client(numbers=True).get("/", headers={"host": "evil.example:7860"}).status_code == 400


def test_another_site_cannot_send_a_form() -> None:
    for origin in ("http://evil.example", "null", "http://[", "http://127.0.0.1:1"):
        assert client().post("/gradio_api/queue/join", headers={"origin": origin}).status_code == 403
    assert client().post("/gradio_api/queue/join", headers={"origin": f"http://{HOST}"}).status_code == 200


def test_a_body_over_a_megabyte_is_refused() -> None:
    """Said by its length or not, 1,000,001 bytes are 413 and 1,000,000 pass whole."""
    path = "/gradio_api/queue/join"
    assert client().post(path, content=b"x" * (LARGEST_BODY + 1)).status_code == 413
    assert client().post(path, content=b"x" * LARGEST_BODY).json() == {"bytes": LARGEST_BODY}

    def pieces() -> Iterator[bytes]:
        yield from [b"x" * 1000] * 1001

    assert client().post(path, content=pieces()).status_code == 413
    assert client().post(path, headers={"content-length": "-1"}).status_code == 413


CLOSED = [
    *("/gradio_api/file=/etc/passwd", "/gradio_api/file=C:/x", "/file=/etc/passwd", "/file/etc/passwd"),
    *("/gradio_api/proxy=http://127.0.0.1:1/x", "/gradio_api/upload", "/gradio_api/upload_progress", "/upload"),
    *("/gradio_api/stream/a/b", "/gradio_api/component_server", "/gradio_api/openapi.json", "/gradio_api/call/look"),
    *("/monitoring", "/gradio_api/monitoring", "/login", "/docs", "/openapi.json", "/gradio_api/vibe-edit"),
    *("/gradio_api/process_recording", "/gradio_api/custom_component/a/b/c/d", "/gradio_api/deep_link", "/robots.txt"),
    *("/assets/../../secret", "/static/%2e%2e/secret", "/assets/..%2fsecret", "/report/"),
    *("/gradio_api/mcp/", "/manifest.json", "/pwa_icon", "/gradio_api/runs", "/gradio_api/run-history/records"),
]


@pytest.mark.parametrize("path", CLOSED)
def test_what_the_page_does_not_ask_for_is_not_there(path: str) -> None:
    assert client().get(path).status_code == 404
    assert client().post(path).status_code == 404


def test_every_answer_carries_the_policy() -> None:
    headers = client().get("/").headers
    assert "default-src 'self'" in headers["content-security-policy"]
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert headers["referrer-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert "content-security-policy" in client().get("/", headers={"host": "x"}).headers


def test_the_password_and_its_back_off() -> None:
    """Without it nothing is served; wrong ones beyond the third wait 1, 2, 4 ... s, the right one included."""
    now = [1000.0]
    sign_in = SignIn(SECRET, clock=lambda: now[0])
    visitor = client(sign_in=sign_in)
    assert visitor.get("/config").status_code == 401
    assert "password" in visitor.get("/").text
    for _ in range(FREE_TRIES):
        assert visitor.post("/sign-in", data={"password": "wrong"}).status_code == 401
    waiting = visitor.post("/sign-in", data={"password": SECRET})
    assert (waiting.status_code, waiting.headers["retry-after"]) == (429, "2")
    waits = []
    for _ in range(10):
        waits.append(sign_in.wait("testclient"))
        now[0] += waits[-1]
        assert visitor.post("/sign-in", data={"password": "wrong"}).status_code == 401
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    now[0] += 300
    entered = visitor.post("/sign-in", data={"password": SECRET}, follow_redirects=False)
    assert entered.status_code == 303
    assert "HttpOnly" in entered.headers["set-cookie"]
    assert "SameSite=strict" in entered.headers["set-cookie"]
    assert visitor.get("/config").status_code == 200
    now[0] += 12 * 3600
    assert visitor.get("/config").status_code == 401


def test_another_address_needs_a_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="--password-env"):
        password_from("0.0.0.0", None)
    monkeypatch.setenv("FACE", "short")
    with pytest.raises(UserError, match="at least 8"):
        password_from("0.0.0.0", "FACE")
    monkeypatch.setenv("FACE", SECRET)
    assert password_from("0.0.0.0", "FACE") == SECRET
    assert password_from("127.0.0.1", None) is None


def test_a_taken_port_is_named() -> None:
    with bound("127.0.0.1", [0]) as first:
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(UserError, match=f"port {port_of(first)}: cannot listen there"):
            bound("127.0.0.1", [port_of(first)])
    with pytest.raises(UserError, match="cannot listen there"):
        bound("192.0.2.1", [0])


def test_hosts_of_a_face(tmp_path: Path) -> None:
    assert names_of(Face((), tmp_path, tmp_path), 1) == ["127.0.0.1:1", "localhost:1", "127.0.0.1:1"]
    assert names_of(Face((), tmp_path, tmp_path, host="box.lan"), 80) == ["box.lan:80", "box.lan"]
