"""A judge behind an address: any server that speaks OpenAI's /v1/chat/completions.

Of several processes the first one asks, so that its pace and its number of requests at once hold for all. The key
comes from an environment variable and is never stored or shown. A reply that does not come is asked for again,
with growing pauses or the one the server names; a judge that is gone ends the command, and what it has said is kept.
"""

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from time import monotonic
from typing import Any

from smolt.config import Endpoint
from smolt.data import Context, Turn
from smolt.data.nouns import as_messages
from smolt.errors import UserError
from smolt.processes import as_first_says
from smolt.rewards.llm_judge.asking import Asker, Reply
from smolt.rewards.llm_judge.connection import Connection, Lost, Refused
from smolt.rewards.llm_judge.prompts import Prompt
from smolt.rewards.llm_judge.replies import first_message, read_reply, usage

KEY = "SMOLT_JUDGE_KEY"
GIVE_UP = 3
"""So many requests in a row without a reply, each after all its tries, mean that the judge is gone."""

CUT = "the answer ran into its limit of tokens"
REPLY_TOKENS = 8
TOP = 20
BODY = {"temperature": 0, "stream": False}


def open_endpoint(settings: Endpoint, rationale: int) -> Asker:
    """A judge behind an address; nothing is sent yet.

    Args:
        settings: the recipe's block.
        rationale: tokens of reasoning before the choice, a request of its own; 0 = none.

    Raises:
        UserError: the environment variable that is named for the key is not set.
    """
    address = settings.url + "/chat/completions"
    connection = Connection(address, api_key(settings.key), settings.timeout, settings.attempts)
    chat = ChatCompletions(settings.model, connection, rationale, Pace(settings.rate, connection.pause))
    identity = {"endpoint": settings.url, "model": settings.model, "rationale": rationale, **BODY}
    ask = asking_remotely(chat.asked, connection, settings.parallel)
    return Asker(f"{settings.model} at {settings.url}", identity, ask, (settings.model,))


def asking_remotely(
    asked: Callable[[Any], Reply], connection: Connection, parallel: int
) -> Callable[[Sequence[Any]], Iterator[list[tuple[int, Reply]]]]:
    """Ask a server as an Asker does, several requests at once; of several processes the first one asks.

    Args:
        asked: sends one question; may raise Lost, Refused and UserError.
        connection: to the server.
        parallel: requests under way at once.
    """
    judge = RemoteJudge(asked, connection)

    def heard(prompts: Sequence[Any]) -> Iterator[list[tuple[int, Reply]]]:
        connection.leaving.clear()
        yield from _side_by_side(judge.reply, prompts, parallel, connection.leaving)
        judge.require_heard()

    return lambda prompts: as_first_says(lambda: heard(prompts))


def api_key(variable: str | None, who: str = "judge.endpoint", usual: str = KEY) -> str | None:
    """The key in an environment variable; None where no variable is named and the usual one is not set.

    Raises:
        UserError: the variable is not set, or holds what no header can carry.
    """
    key = os.environ.get(variable or usual, "").strip()
    if variable is not None and not key:
        raise UserError(f"{who}.key: the environment variable {variable} is not set")
    if key and not (key.isascii() and key.isprintable() and " " not in key):
        raise UserError(f"{who}.key: the environment variable {variable or usual} holds no usable key")
    return key or None


def _side_by_side(
    reply: Callable[[Any], Reply], prompts: Sequence[Any], parallel: int, leaving: threading.Event
) -> Iterator[list[tuple[int, Reply]]]:
    """Replies as they come. When one ends it all, those under way are still handed on before the error is.

    The next question is asked only when a reply has been handed on, and so kept: a kill loses at most `parallel`.
    """
    coming, waiting = iter(range(len(prompts))), dict[Future[Reply], int]()
    trouble: UserError | None = None
    with ThreadPoolExecutor(parallel) as pool:
        try:
            while True:
                free = 0 if trouble else parallel - len(waiting)
                waiting |= {pool.submit(reply, prompts[place]): place for place in itertools.islice(coming, free)}
                if not waiting:
                    break
                part = []
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    place = waiting.pop(future)
                    try:
                        part.append((place, future.result()))
                    except UserError as error:
                        trouble = trouble or error
                        leaving.set()
                yield part
        finally:
            leaving.set()
    if trouble is not None:
        raise trouble


class Pace:
    """At most so many requests a minute, evenly spaced; None is as fast as they come."""

    def __init__(self, rate: float | None, pause: Callable[[float], None]) -> None:
        self._gap = 0.0 if rate is None else 60.0 / rate
        self._pause = pause
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        """Until it is this request's turn."""
        if not self._gap:
            return
        with self._lock:
            now = monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        if turn > now:
            self._pause(turn - now)


class RemoteJudge:
    """Whether a server is there: replies, and why there are none."""

    def __init__(self, asked: Callable[[Any], Reply], connection: Connection) -> None:
        self._asked = asked
        self._connection = connection
        self._server = f"{connection.who}: {connection.url}"
        self._lock = threading.Lock()
        self._silent = 0
        self._heard = False
        self._trouble = ""

    def reply(self, prompt: Any) -> Reply:
        """One reply, or why there is none.

        Raises:
            UserError: the judge is gone, or refuses everything (a wrong key, model or address).
        """
        leaving = self._connection.leaving
        if leaving.is_set():
            return Reply(status="unreached", reason=f"not asked: the {self._connection.who} is gone")
        try:
            found = self._asked(prompt)
        except UserError:
            leaving.set()
            raise
        except Lost as error:
            if leaving.is_set():  # another request ended it all, and this one was not waited for
                return Reply(status="unreached", reason=f"not waited for: the {self._connection.who} is gone")
            self._count_silence(str(error))
            return Reply(status="unreached", reason=str(error))
        except Refused as error:
            if not self._heard:
                self._count_silence(str(error))
                return Reply(status="unreached", reason=str(error))
            return Reply(status="abstained", reason=str(error))
        with self._lock:
            self._silent, self._heard = 0, True
        return found

    def require_heard(self) -> None:
        """After few questions, without a single reply: as if the judge were gone.

        Raises:
            UserError: nothing that was asked has had a usable reply.
        """
        if self._trouble and not self._heard:
            raise UserError(
                f"{self._server}: no request got a usable reply ({self._trouble}). Does the server run, "
                "and does it have a model of this name?"
            )

    def _count_silence(self, reason: str) -> None:
        with self._lock:
            self._silent += 1
            self._trouble = reason
            gone = self._silent >= GIVE_UP
        if gone:
            self._connection.leaving.set()
            raise UserError(
                f"{self._server}: {GIVE_UP} requests in a row got no usable reply ({reason}). What it "
                "has said before is kept; when it is there again, the same command continues"
            )


class ChatCompletions:
    """Prompts to requests; what it learns of the server (no log-probabilities) holds for all requests."""

    def __init__(self, model: str, connection: Connection, rationale: int, pace: Pace) -> None:
        self._model = model
        self._connection = connection
        self._rationale = rationale
        self._pace = pace
        self._fields: dict[str, Any] = {"logprobs": True, "top_logprobs": TOP}

    def asked(self, prompt: Prompt) -> Reply:
        """One reply; errors as of `Connection.post`."""
        turns, text, spent = prompt.turns, "", (0, 0)
        if self._rationale:
            document = self._send(turns, self._rationale, {})
            text, spent = first_message(document)[1], usage(document)
            turns = (*turns, Turn("assistant", text.strip() or "..."), Turn("user", prompt.last))
        reply = read_reply(self._choose(turns), prompt)
        tokens = spent[0] + reply.tokens[0], spent[1] + reply.tokens[1]
        told = "\n".join(part for part in (text, reply.text) if part)
        return Reply(reply.logprobs, reply.choice, reply.status, reply.reason, told, tokens)

    def _choose(self, turns: Context) -> Any:
        """Ask for the choice, with log-probabilities unless the server has refused to give them before."""
        fields = self._fields
        try:
            return self._send(turns, REPLY_TOKENS, fields)
        except Refused:
            if not fields:
                raise
        document = self._send(turns, REPLY_TOKENS, {})
        self._fields = {}
        return document

    def _send(self, turns: Context, longest: int, fields: dict[str, Any]) -> Any:
        self._pace.wait()
        body = {"model": self._model, "messages": as_messages(turns), "max_tokens": longest, **BODY, **fields}
        return self._connection.post(body, check=first_message)


def open_writer(settings: Endpoint, longest: int, temperature: float) -> Asker:
    """A model behind an address that is asked for answers: contexts in, texts out; nothing is sent yet.

    A reply's `reason` is CUT where its answer ran into the limit.

    Raises:
        UserError: the environment variable that is named for the key is not set.
    """
    address, key = settings.url + "/chat/completions", api_key(settings.key, "answers.endpoint")
    connection = Connection(address, key, settings.timeout, settings.attempts, who="answers")
    pace = Pace(settings.rate, connection.pause)
    limits = {"max_tokens": longest, "temperature": temperature, "stream": False}

    def asked(turns: Context) -> Reply:
        pace.wait()
        document = connection.post({"model": settings.model, "messages": as_messages(turns), **limits}, first_message)
        choice, text = first_message(document)
        reason = CUT if choice.get("finish_reason") == "length" else ""
        return Reply(reason=reason, text=text, tokens=usage(document))

    identity = {"endpoint": settings.url, "model": settings.model, **limits}
    ask = asking_remotely(asked, connection, settings.parallel)
    return Asker(f"{settings.model} at {settings.url}", identity, ask, (settings.model,))
