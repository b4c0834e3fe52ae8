"""One request over HTTP, tried again while there is hope; the key appears in the header and nowhere else."""

import email.utils
import json
import queue
import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import urllib3

from smolt import __version__
from smolt.errors import UserError
from smolt.rewards.llm_judge.replies import Malformed

AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
"""Statuses after which the same request may succeed."""

FIRST_PAUSE = 0.5  # seconds, doubled after each try
LONGEST_PAUSE = 60.0
LONGEST_ASKED = 300.0  # a server may ask for this long a pause, not for more
LARGEST = 1 << 23  # bytes of a reply
PIECE = 1 << 16
LOOK = 0.1  # seconds between two looks whether everybody leaves
SHOWN = 200

TROUBLES: dict[type[Exception], str] = {
    urllib3.exceptions.NameResolutionError: "there is no such host",
    urllib3.exceptions.NewConnectionError: "nobody listens there",
    urllib3.exceptions.SSLError: "no secure connection; is it http?",
}


class Lost(Exception):
    """No usable reply after all tries: nothing is known about the question."""


class Refused(Exception):
    """The server will not answer this request, however often it is sent."""


class Absent(UserError):
    """There is nothing of this kind at the address, or nothing of the name that was asked for."""


class Connection:
    """Requests to one address. Redirects are not followed: they would carry the key elsewhere.

    Attributes:
        url: the address.
        who: what the server is to us, in messages.
        field: where the recipe says the address and the key's variable, in messages.
        variable: the usual variable of its key.
        read: a reply's bytes to a document; raises ValueError for what is none.
        leaving: once set, nobody pauses and nothing is tried again.
    """

    def __init__(
        self,
        url: str,
        key: str | None,
        timeout: float,
        attempts: int,
        offers: str = "chat completions",
        who: str = "judge",
        field: str = "endpoint",
        variable: str = "SMOLT_JUDGE_KEY",
        read: Callable[[bytes], Any] = json.loads,
    ) -> None:
        self.url = url
        self.who = who
        self.field = field
        self.variable = variable
        self.read = read
        self._offers = offers
        self._key = key
        self._timeout = timeout
        self._attempts = attempts
        self.leaving = threading.Event()
        self._pool = urllib3.PoolManager(maxsize=64, retries=False)

    def post(self, body: dict[str, Any] | None, check: Callable[[Any], object]) -> Any:
        """The document that the server replies with.

        Args:
            body: the request's JSON; None asks with GET.
            check: raises Malformed for a document that is no reply; it is asked for again.

        Raises:
            Lost: no usable reply after all tries.
            Refused: the server refuses this request.
            Absent: there is nothing of this kind at the address, or it leads elsewhere.
            UserError: it refuses every request: the key.
        """
        reason = ""
        for attempt in range(self._attempts):
            reason, wanted, document = self._try(body, check)
            if document is not None:
                return document
            if attempt + 1 < self._attempts:
                own = min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt) * random.uniform(0.75, 1.25)
                self.pause(own if wanted is None else min(max(wanted, 0.0), LONGEST_ASKED))
            if self.leaving.is_set():
                break
        raise Lost(f"{reason}, {self._attempts} tries")

    def pause(self, seconds: float) -> None:
        """Wait, or go on at once when everybody leaves."""
        self.leaving.wait(seconds)

    def _try(self, body: dict[str, Any] | None, check: Callable[[Any], object]) -> tuple[str, float | None, Any]:
        """Why it failed and the pause the server asks for, or a document."""
        try:
            status, headers, content = self._exchange(body)
        except urllib3.exceptions.HTTPError as error:
            return self._trouble(error), None, None
        if status in AGAIN:
            return f"status {status}{self._words(content)}", asked_pause(headers.get("retry-after")), None
        if status != 200:
            self._refuse(status, content)
        try:
            document = self.read(content)
            check(document)
        except UserError:
            raise
        except (ValueError, RecursionError) as error:
            what = str(error) if isinstance(error, Malformed) else "the reply is not JSON"
            return what, None, None
        return "", None, document

    def _exchange(self, body: dict[str, Any] | None) -> tuple[int, Any, bytes]:
        """Send once and read all of the reply, within the timeout as a whole, or less when everybody leaves.

        A library's timeout begins anew with every byte, so a thread of its own waits for them; one whose server
        dawdles is left behind, and ends with the process.
        """
        found: queue.SimpleQueue[tuple[int, Any, bytes] | Exception] = queue.SimpleQueue()

        def exchange() -> None:
            try:
                found.put(self._exchanged(body))
            except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:  # raised where it is waited for
                found.put(error)

        threading.Thread(target=exchange, daemon=True).start()
        deadline = monotonic() + self._timeout + LOOK
        while not self.leaving.is_set():
            try:
                outcome = found.get(timeout=LOOK)
            except queue.Empty:
                if monotonic() > deadline:
                    raise urllib3.exceptions.TimeoutError("the reply does not end") from None
                continue
            if isinstance(outcome, Exception):
                raise outcome
            return outcome
        raise urllib3.exceptions.TimeoutError("nobody waits any longer")

    def _exchanged(self, body: dict[str, Any] | None) -> tuple[int, Any, bytes]:
        headers = {"Content-Type": "application/json", "User-Agent": f"smolt/{__version__}"}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        deadline = monotonic() + self._timeout
        reply = self._pool.request(
            "GET" if body is None else "POST",
            self.url,
            body=None if body is None else json.dumps(body).encode(),
            headers=headers,
            timeout=urllib3.Timeout(connect=self._timeout, read=self._timeout),
            redirect=False,
            preload_content=False,
        )
        content = b""
        try:
            while piece := reply.read1(PIECE):
                content += piece
                if len(content) > LARGEST or monotonic() > deadline:
                    raise urllib3.exceptions.TimeoutError("the reply does not end")
        except BaseException:
            reply.close()
            raise
        reply.release_conn()
        return reply.status, reply.headers, content

    def _refuse(self, status: int, content: bytes) -> None:
        said = self._words(content)
        if status in (401, 403):
            what = "the key is refused" if self._key else "a key is needed"
            named = "--key, endpoint.key" if self.field == "endpoint" else f"{self.field}.key"
            hint = f"set the environment variable {self.variable}, or name another one ({named})"
            raise UserError(f"{self.who}: {self.url}: {what} (status {status}{said}): {hint}")
        if status in (404, 405) or 300 <= status < 400:
            hint = f"no {self._offers} here; check {self.field}.url (most end in /v1)"
            raise Absent(f"{self.who}: {self.url}: status {status}, {hint}{said}")
        raise Refused(f"refused with status {status}{said}")

    def _trouble(self, error: urllib3.exceptions.HTTPError) -> str:
        """Why nothing came, in words; the library's own name of it where it has no other."""
        for kind, words in TROUBLES.items():
            if isinstance(error, kind):
                return words
        if isinstance(error, urllib3.exceptions.TimeoutError):
            return f"no reply within {self._timeout:g} seconds"
        return type(error).__name__

    def _words(self, content: bytes) -> str:
        """What the server says of it, after a colon; of JSON as OpenAI's the sentence alone, of a web page nothing."""
        text = content.decode("utf-8", "replace")
        try:
            found = json.loads(text)
            text = found.get("detail") or found["error"].get("message") or text
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError):
            pass
        page = str(text).lstrip().startswith("<")
        said = "" if page else self._safe(" ".join(str(text).split()))[:SHOWN]
        return f": {said}" if said else ""

    def _safe(self, text: str) -> str:
        return text.replace(self._key, "(key)") if self._key else text


def asked_pause(header: str | None) -> float | None:
    """The seconds of a Retry-After header, written as a number or as a date."""
    if header is None:
        return None
    try:
        return float(header)
    except ValueError:
        pass
    try:
        moment = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return None
    return (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
