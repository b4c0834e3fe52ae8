"""The page and the reports as one application, behind the guard; what it opens it closes."""

import contextlib
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import gradio
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smolt.errors import UserError
from smolt.runs.listing import run_at
from smolt.ui.environment import Face
from smolt.ui.face import HEAD, STYLE, THEME, make_page
from smolt.ui.guard import Guard
from smolt.ui.sign_in import SignIn

CARDS = re.compile(rb'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>')
"""What Gradio's page tells other sites about itself, with addresses outside this machine."""
REPORT = "report.html"
REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; sandbox"
)


@contextlib.contextmanager
def application(face: Face, hosts: Sequence[str], numbers: bool = False) -> Iterator[ASGIApp]:
    """Everything a face serves.

    Args:
        face: what is shown.
        hosts: the Host headers it answers to.
        numbers: whether it answers to every number of an address too.
    """
    with make_page(face) as page:
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.add_api_route("/report/{name:path}", functools.partial(report_of, face.runs), methods=["GET"])
        gradio.mount_gradio_app(
            app,
            page,
            path="/",
            allowed_paths=[],
            blocked_paths=["/"],
            max_file_size=0,
            show_error=False,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            run_history=False,
            footer_links=[],
            theme=THEME,
            css=STYLE.read_text(encoding="utf-8"),
            head=HEAD,
        )
        yield Guard(
            without_advertising(app), hosts, numbers, SignIn(face.password) if face.password is not None else None
        )


def without_advertising(app: ASGIApp) -> ASGIApp:
    """The application, its page without CARDS."""

    async def answered(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await app(scope, receive, send)
            return
        start: Message = {}
        body = b""

        async def cut(message: Message) -> None:
            nonlocal start, body
            if message["type"] == "http.response.start":
                start = message
                return
            body += message.get("body", b"")
            if message.get("more_body"):
                return
            page = CARDS.sub(b"", body)
            if scope["method"] != "HEAD":
                MutableHeaders(scope=start)["content-length"] = str(len(page))
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await app(scope, receive, cut)

    return answered


def report_of(runs: Path, name: str) -> Response:
    """The report of a run, from its own directory alone."""
    try:
        run = run_at(runs, name)
    except UserError:
        return PlainTextResponse("no such run", 404)
    path = run.directory / REPORT
    if path.is_symlink() or not path.is_file():
        return PlainTextResponse("this run has no report", 404)
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})
