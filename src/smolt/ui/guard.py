"""What reaches the page at all, and the headers of every answer. Everything that is not named here is refused.

A page on this machine is open to every web site its user visits, unless it looks at the Host (a name that was pointed
at 127.0.0.1) and at the Origin (a form that another site sends). Gradio brings many more addresses than the page needs
(files, uploads, a proxy, other programs' interfaces); only those that the page asks for are let through.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smolt.serving.address import is_foreign, is_known
from smolt.ui.sign_in import COOKIE, KEPT, PAGE, SignIn

LARGEST_BODY = 1_000_000
"""Bytes."""
OPEN = re.compile(
    r"/|/config/?|/theme\.css|/favicon\.ico|/(assets|static|svelte)/[\w./+-]+|/report/[^?#]+"
    r"|/gradio_api/(info|startup-events|heartbeat/\w+|queue/(join|data)|run/\w+|cancel|reset|app_id)/?"
)
"""The addresses the page asks for."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, whatever is in the page; Gradio's has inline scripts and makes functions of templates."""
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class Guard:
    """An application behind the checks.

    Attributes:
        app: what is guarded.
        hosts: names the page may be asked for by; besides them every number of an address where `numbers`.
        numbers: for a face bound on all addresses: a number cannot be another site's name.
        sign_in: the password, None on the loopback address.
    """

    app: ASGIApp
    hosts: Sequence[str]
    numbers: bool = False
    sign_in: SignIn | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or let the application answer under our headers."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the page opens no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        send = _signed(send, scope)
        body = await _body(scope, receive)
        if body is None:
            await PlainTextResponse("the body is too large", 413)(scope, receive, send)
            return
        given = _replayed(body, receive)
        answer = await self._refused(scope, given)
        await (self.app if answer is None else answer)(scope, given, send)

    async def _refused(self, scope: Scope, receive: Receive) -> Response | None:
        """The answer of a request that does not reach the application, None for one that does."""
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or not is_known(host, self.hosts, self.numbers):
            return PlainTextResponse("this is not the host you are looking for", 400)
        if scope["method"] not in ("GET", "HEAD") and is_foreign(headers.get("origin"), host):
            return PlainTextResponse("a request of another site", 403)
        if self.sign_in is not None and scope["path"] == "/sign-in":
            return await _signing_in(self.sign_in, Request(scope, receive))
        if self.sign_in is not None and not self.sign_in.knows(Request(scope).cookies.get(COOKIE, "")):
            return _form("") if scope["path"] == "/" else PlainTextResponse("sign in first", 401)
        path = scope["path"]
        if not OPEN.fullmatch(path) or ".." in path.split("/") or "\\" in path:
            return PlainTextResponse("not found", 404)
        return None


async def _body(scope: Scope, receive: Receive) -> bytes | None:
    """The whole body, None for one that is too large: no more than LARGEST_BODY of it is read."""
    length = Headers(scope=scope).get("content-length", "0")
    if not length.isdecimal() or int(length) > LARGEST_BODY:
        return None
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        if len(body) > LARGEST_BODY:
            return None
        more = message.get("more_body", False)
    return body


def _replayed(body: bytes, receive: Receive) -> Receive:
    """What the application is given in place of the connection: the body at once, then what else comes."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed


def _signed(send: Send, scope: Scope) -> Send:
    """`send` with our headers; a page that brings a stricter policy of its own, a report, keeps it."""

    async def signed(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            if "access-control-allow-origin" in headers:
                del headers["access-control-allow-origin"]
            if not scope["path"].startswith(("/assets/", "/static/", "/svelte/")):
                headers["cache-control"] = "no-store"
        await send(message)

    return signed


async def _signing_in(sign_in: SignIn, request: Request) -> Response:
    """The form, or what becomes of a password."""
    if request.method != "POST":
        return _form("")
    address = request.client.host if request.client else "?"
    wait = sign_in.wait(address)
    if wait > 0:
        answer = _form(f"Too many wrong passwords: wait {wait:.0f} seconds.", 429)
        answer.headers["retry-after"] = f"{int(wait) + 1}"
        return answer
    typed = parse_qs((await request.body()).decode("utf-8", "replace")).get("password", [""])[0]
    token = sign_in.open(address, typed)
    if token is None:
        return _form("That is not the password.", 401)
    entered = RedirectResponse("/", 303)
    entered.set_cookie(COOKIE, token, max_age=int(KEPT), httponly=True, samesite="strict")
    return entered


def _form(remark: str, status: int = 200) -> HTMLResponse:
    return HTMLResponse(PAGE.format(remark=remark), status)
