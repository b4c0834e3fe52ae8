"""OpenAI's interface over the engine: models, chat completions, completions; whole or as server-sent events.

A client that leaves takes its answers with it. A slow one holds up nobody: its pieces wait for it, the engine does not.
"""

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from smolt.errors import UserError
from smolt.runs import jsontext
from smolt.runs.storage import StorageError
from smolt.serving.bodies import AdapterBody, ChatBody, CompletionBody, Refusal, read_body
from smolt.serving.documents import ChatDocuments, CompletionDocuments, Usage
from smolt.serving.engine import Engine
from smolt.serving.stream import AnswerStream, Piece, QueueFull, Request

LOG = logging.getLogger(__name__)
LARGEST_BODY = 1_000_000
"""Bytes of a request."""
SLOWEST_BODY = 30.0
"""Seconds in which a request's body has to come."""
RETRY = "2"
"""Seconds after which a client that found the queue full may ask again."""
MOST_PROMPTS = 128

Documents = ChatDocuments | CompletionDocuments


@dataclass(frozen=True)
class Api:
    """The routes.

    Attributes:
        engine: who answers.
        longest: tokens of an answer where the request does not say.
        began: when the models were offered, seconds since 1970.
    """

    engine: Engine
    longest: int
    began: int

    async def models(self, request: HttpRequest) -> Response:
        """GET /v1/models."""
        return JSONResponse({"object": "list", "data": [self._model(name) for name in self.engine.names]})

    async def model(self, request: HttpRequest) -> Response:
        """GET /v1/models/NAME."""
        return JSONResponse(self._model(self._known(request.path_params["name"])))

    async def health(self, request: HttpRequest) -> Response:
        """GET /health: 503 once the engine has ended."""
        lives = self.engine.alive
        return JSONResponse({"status": "ok" if lives else "failed"}, 200 if lives else 503)

    async def chat(self, request: HttpRequest) -> "Answering":
        """POST /v1/chat/completions."""
        body = read_body(await _json(request), ChatBody)
        name = self._known(body.model)
        renderer = self.engine.renderer(name)
        turns = tuple(message.turn for message in body.messages)
        try:
            context = await asyncio.to_thread(renderer.context, turns)
        except UserError as error:
            raise Refusal(400, f"messages: {error}", "messages") from None
        documents = ChatDocuments(name, renderer.tokenizer, body.listed is not None)
        return self._answer(body, [context], documents, "messages")

    async def completions(self, request: HttpRequest) -> "Answering":
        """POST /v1/completions."""
        body = read_body(await _json(request), CompletionBody)
        name = self._known(body.model)
        if not 1 <= len(body.prompts) <= MOST_PROMPTS:
            raise Refusal(400, f"prompt: must be 1 to {MOST_PROMPTS} prompts", "prompt")
        contexts = [
            prompt if isinstance(prompt, list) else await asyncio.to_thread(self._encoded, name, prompt)
            for prompt in body.prompts
        ]
        tokenizer, ids = self.engine.renderer(name).tokenizer, bool(body.return_token_ids)
        documents = CompletionDocuments(name, tokenizer, body.listed is not None, ids)
        return self._answer(body, contexts, documents, "prompt")

    async def load_adapter(self, request: HttpRequest) -> Response:
        """POST /v1/load_lora_adapter: an adapter directory that this machine can read, by a name of its own."""
        body = read_body(await _json(request), AdapterBody)
        if body.lora_path is None:
            raise Refusal(400, "lora_path: field required", "lora_path")
        return await self._adapted(self.engine.load_adapter, body, body.lora_path, bool(body.load_inplace))

    async def unload_adapter(self, request: HttpRequest) -> Response:
        """POST /v1/unload_lora_adapter."""
        return await self._adapted(self.engine.unload_adapter, read_body(await _json(request), AdapterBody))

    async def _adapted(self, change: Callable[..., None], body: AdapterBody, *arguments: object) -> Response:
        """The engine's adapters changed, and said so in a line as vLLM does.

        Raises:
            Refusal: they cannot be.
        """
        try:
            await asyncio.to_thread(change, body.lora_name, *arguments)
        except (UserError, StorageError) as error:
            raise Refusal(400, str(error), "lora_path" if arguments else "lora_name") from None
        except CancelledError:
            raise Refusal(503, "the engine has ended", kind="server_error") from None
        done = "added" if arguments else "removed"
        return PlainTextResponse(f"Success: LoRA adapter '{body.lora_name}' {done} successfully.")

    def _encoded(self, name: str, prompt: str) -> list[int]:
        """A raw prompt as tokens: control tokens in it are such, and the beginning-of-sequence token stands once."""
        renderer = self.engine.renderer(name)
        tokenizer = renderer.tokenizer
        ids: list[int] = list(tokenizer(prompt, verbose=False)["input_ids"])
        begin = tokenizer.bos_token_id
        if renderer.template is None and begin is not None and ids[:1] != [begin]:
            ids = [begin, *ids]
        while begin is not None and ids[:2] == [begin, begin]:
            ids = ids[1:]
        return ids or [begin if begin is not None else renderer.stop_id]

    def _answer(
        self, body: ChatBody | CompletionBody, contexts: list[list[int]], documents: Documents, field: str
    ) -> "Answering":
        """Ask the engine, n times for each context.

        Raises:
            Refusal: a context does not fit the window (400), or the queue is full (503).
        """
        window, n = self.engine.window(body.model), body.n or 1
        for context in contexts:
            if len(context) >= window:
                said = f"{field}: {len(context)} tokens; the model's window is {window}, with one for the answer"
                raise Refusal(400, said, field, "context_length_exceeded")
        if n * len(contexts) > self.engine.slots + self.engine.queue:
            most = self.engine.slots + self.engine.queue
            raise Refusal(400, f"n: {n * len(contexts)} answers are wanted; this server takes {most} at most", "n")
        seed = secrets.randbits(63) if body.seed is None else body.seed
        streams: list[AnswerStream] = []
        try:
            for context in contexts:
                for copy in range(n):
                    streams.append(self.engine.submit(self._request(body, context, seed, copy)))
        except (QueueFull, UserError) as error:
            for stream in streams:
                stream.cancel()
            raise _unanswered(error, field) from None
        options = body.stream_options
        return Answering(
            streams,
            documents,
            Usage(sum(map(len, contexts))),
            bool(body.stream),
            bool(options and options.include_usage),
        )

    def _request(self, body: ChatBody | CompletionBody, context: Sequence[int], seed: int, copy: int) -> Request:
        return Request(
            model=body.model,
            context=context,
            max_tokens=body.longest or self.longest,
            temperature=1.0 if body.temperature is None else body.temperature,
            top_p=1.0 if body.top_p is None else body.top_p,
            top_k=body.top_k or 0,
            repetition=body.repetition_penalty or 1.0,
            seed=seed,
            copy=copy,
            stop=body.stop_texts,
            logprobs=body.listed is not None,
            top_logprobs=body.listed or 0,
            continues=isinstance(body, CompletionBody),
            stop_token=isinstance(body, CompletionBody) and bool(body.return_token_ids),
        )

    def _known(self, name: str) -> str:
        if name not in self.engine.names:
            said = f"the model {name!r} is not served here; there is {', '.join(self.engine.names)}"
            raise Refusal(404, said, "model", "model_not_found")
        return name

    def _model(self, name: str) -> dict[str, Any]:
        base = self.engine.base_of(name)
        parent = {} if base is None else {"parent": base}
        return {"id": name, "object": "model", "created": self.began, "owned_by": "smolt", **parent}


@dataclass(frozen=True)
class Answering:
    """Answers on their way to one client.

    Attributes:
        streams: from the engine.
        documents: how they are said.
        usage: tokens; those of the answers are counted as these end.
        as_events: server-sent events, else one JSON object.
        with_usage: whether the events end with the tokens.
    """

    streams: Sequence[AnswerStream]
    documents: Documents
    usage: Usage
    as_events: bool
    with_usage: bool

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer until the end, or until the client leaves."""
        answer = asyncio.create_task(self._events(send) if self.as_events else self._whole(scope, receive, send))
        left = asyncio.create_task(_left(receive))
        try:
            await asyncio.wait({answer, left}, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                answer.result()
        finally:
            for stream in self.streams:
                stream.cancel()
            for task in (answer, left):
                task.cancel()

    async def _whole(self, scope: Scope, receive: Receive, send: Send) -> None:
        pieces: list[list[Piece]] = [[] for _ in self.streams]
        try:
            async for index, new, _ in self._coming():
                pieces[index] += new
        except UserError as error:
            await _failed(error)(scope, receive, send)
            return
        answers = zip(pieces, self.streams, strict=True)
        choices = [self.documents.whole(index, part, stream.reason) for index, (part, stream) in enumerate(answers)]
        document = {**self.documents.document(choices, stream=False), "usage": self.usage.document}
        await JSONResponse(document)(scope, receive, send)

    async def _events(self, send: Send) -> None:
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-store")]
        headers.append((b"x-accel-buffering", b"no"))  # a proxy in between hands pieces on as they come
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        begun = [self.documents.opening(index) for index in range(len(self.streams))]
        await self._say(send, [choice for choice in begun if choice is not None])
        try:
            async for index, pieces, over in self._coming():
                said = [choice for piece in pieces if (choice := self.documents.piece(index, piece)) is not None]
                if over:
                    said.append(self.documents.closing(index, self.streams[index].reason))
                await self._say(send, said)
        except UserError as error:
            await send(_part(_event(Refusal(500, str(error), kind="server_error").document)))
        else:
            if self.with_usage:
                await send(_part(_event({**self.documents.document([], stream=True), "usage": self.usage.document})))
        await send(_part(b"data: [DONE]\n\n"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _say(self, send: Send, choices: list[dict[str, Any]]) -> None:
        """Each choice as an event of its own."""
        if choices:
            usage = {"usage": None} if self.with_usage else {}
            said = (_event({**self.documents.document([choice], stream=True), **usage}) for choice in choices)
            await send(_part(b"".join(said)))

    async def _coming(self) -> AsyncIterator[tuple[int, list[Piece], bool]]:
        """What comes of each answer, as it comes: its number, pieces, and whether it is over.

        Raises:
            UserError: an answer failed.
        """
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the server has ended, and its loop with it
                loop.call_soon_threadsafe(changed.set)

        for stream in self.streams:
            stream.listen(tell)
        going = dict(enumerate(self.streams))
        while going:
            await changed.wait()
            changed.clear()
            for index, stream in list(going.items()):
                pieces, over = stream.take()
                if over:
                    self.usage.answers += stream.tokens
                    self.usage.kept += 0 if stream.request.copy else stream.kept
                    del going[index]
                if pieces or over:
                    yield index, pieces, over


async def _left(receive: Receive) -> None:
    """Returns when the client has left."""
    message: Message = {"type": ""}
    while message["type"] != "http.disconnect":
        message = await receive()


def _event(document: dict[str, Any]) -> bytes:
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return f"data: {text}\n\n".encode("utf-8", "replace")


def _part(body: bytes) -> Message:
    return {"type": "http.response.body", "body": body, "more_body": True}


async def _json(request: HttpRequest) -> dict[str, Any]:
    """The body of a request.

    Raises:
        Refusal: it is too large (413), too slow (408), or no JSON object (400).
    """
    length = request.headers.get("content-length", "0")
    body = b""
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            async for part in request.stream() if length.isdecimal() and int(length) <= LARGEST_BODY else _nothing():
                body += part
                if len(body) > LARGEST_BODY:
                    break
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {SLOWEST_BODY:g} seconds") from None
    except ClientDisconnect:
        raise Refusal(400, "the client left") from None
    if len(body) > LARGEST_BODY or not length.isdecimal() or int(length) > LARGEST_BODY:
        raise Refusal(413, f"the body is larger than {LARGEST_BODY:,} bytes", headers={"connection": "close"})
    try:
        given = jsontext.decode_object(body, "the body")
        json.dumps(given, ensure_ascii=False).encode()
    except UserError as error:
        raise Refusal(400, str(error)) from None
    except UnicodeEncodeError:
        raise Refusal(400, "the body holds half a character (a lone surrogate)") from None
    return given


async def _nothing() -> AsyncIterator[bytes]:
    """No body."""
    return
    yield b""


def _unanswered(error: QueueFull | UserError, field: str) -> Refusal:
    """Why a request was not taken."""
    if isinstance(error, QueueFull):
        return Refusal(
            503, f"{error}; try again", code="queue_full", kind="server_error", headers={"retry-after": RETRY}
        )
    return Refusal(400, f"{field}: {error}", field)


def _failed(error: UserError) -> JSONResponse:
    """An answer that began and failed: the model could not be loaded, or memory ran out."""
    return JSONResponse(Refusal(500, str(error), kind="server_error").document, 500)


def application(engine: Engine, longest: int) -> Starlette:
    """The routes, and errors in OpenAI's form."""
    api = Api(engine, longest, int(time.time()))

    async def refused(request: HttpRequest, error: Exception) -> Response:
        refusal = error if isinstance(error, Refusal) else Refusal(500, "smolt serve failed", kind="server_error")
        return JSONResponse(refusal.document, refusal.status, refusal.headers)

    async def not_there(request: HttpRequest, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        said = {404: "there is nothing at this address", 405: "this address does not take this method"}.get(status)
        return JSONResponse(Refusal(status, f"{request.method} {request.url.path}: {said or error}").document, status)

    async def broken(request: HttpRequest, error: Exception) -> Response:
        LOG.error("%s %s failed: %r", request.method, request.url.path, error)
        return JSONResponse(Refusal(500, "smolt serve failed at this request", kind="server_error").document, 500)

    return Starlette(
        routes=[
            Route("/health", api.health),
            Route("/v1/models", api.models),
            Route("/v1/models/{name:path}", api.model),
            Route("/v1/chat/completions", api.chat, methods=["POST"]),
            Route("/v1/completions", api.completions, methods=["POST"]),
            Route("/v1/load_lora_adapter", api.load_adapter, methods=["POST"]),
            Route("/v1/unload_lora_adapter", api.unload_adapter, methods=["POST"]),
        ],
        exception_handlers={Refusal: refused, HTTPException: not_there, Exception: broken},
    )
