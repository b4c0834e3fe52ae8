"""A small OpenAI-compatible server on loopback whose judge knows the good answer, with faults to order."""

import contextlib
import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.judge_stubs import GOOD

MARKED = re.compile(r"^[0-9a-f]{6} Answer ([AB])\n(.*?)\n(?=[0-9a-f]{6} )", re.MULTILINE | re.DOTALL)


@dataclass
class Script:
    """What the server does.

    Attributes:
        logprobs: whether it gives them; asked for them all the same, "refuse" answers 422.
        fault: called with the request's number (from 1) and its body; a status, a (status, headers), "garbage",
            "truncated", "hang", "empty" or a text to say instead of a verdict; None for a verdict.
        certain: log-odds of the good answer.
    """

    logprobs: bool | str = True
    fault: Callable[[int, dict[str, Any]], Any] = lambda number, body: None
    certain: float = 2.0
    seen: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def verdict(body: dict[str, Any], certain: float) -> tuple[str, float]:
    """A or B, and the log-odds of A."""
    answers = dict(MARKED.findall(body["messages"][0]["content"]))
    odds = certain * (answers["A"].startswith(GOOD) - answers["B"].startswith(GOOD))
    return ("A" if odds >= 0 else "B"), odds


def completion(text: str, odds: float | None) -> dict[str, Any]:
    """A reply; with log-odds also the two letters' log-probabilities among others."""
    choice: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if odds is not None:
        for_a = -math.log1p(math.exp(-odds)) - 0.1
        entries = [("A", for_a), ("B", for_a - odds), ("The", -8.0)]
        listed = [{"token": token, "logprob": value, "bytes": None} for token, value in entries]
        choice["logprobs"] = {"content": [{"token": text, "logprob": for_a, "top_logprobs": listed}]}
    return {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 50, "completion_tokens": 1}}


class Handler(BaseHTTPRequestHandler):
    """Answers by the server's script."""

    protocol_version = "HTTP/1.1"
    NO = b'{"error": {"message": "no"}}'  # the body of every refusal
    wbufsize = 1 << 16  # headers and body in one packet

    def do_POST(self) -> None:
        script: Script = vars(self.server)["script"]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with script.lock:
            script.seen.append(body)
            script.headers.append(dict(self.headers))
            number = len(script.seen)
        fault = script.fault(number, body)
        if script.logprobs == "refuse" and "logprobs" in body:
            fault = 422
        if isinstance(fault, int | tuple):
            status, headers = (fault, {}) if isinstance(fault, int) else fault
            self.reply(status, self.NO, headers)
        elif fault in BROKEN:
            self.reply(200, BROKEN[fault], {})
        elif fault == "hang":
            time.sleep(1.0)
            self.close_connection = True
        elif fault == "truncated":
            self.reply(200, b'{"choices": [', {}, length=1000)
            self.close_connection = True
        elif fault is not None:
            self.reply(200, json.dumps(completion(fault, None)).encode(), {})
        else:
            letter, odds = verdict(body, script.certain)
            soft = script.logprobs is True and "logprobs" in body
            self.reply(200, json.dumps(completion(letter, odds if soft else None)).encode(), {})

    def reply(self, status: int, content: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content) if length is None else length)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


BROKEN = {"garbage": b"<html>busy</html>", "empty": b'{"choices": []}'}


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """The server's base address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    vars(server)["script"] = script
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
