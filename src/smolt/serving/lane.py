"""One model's answers: those that wait, those whose prompts are being read, and those that are decoded side by side.

A turn reads a piece of the prompts and then takes one decoding step, so that a long prompt does not hold up
answers under way for longer than it takes to read so much. A prompt stands once for all answers to it.
"""

import itertools
import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smolt import randomness
from smolt.errors import UserError
from smolt.models.conversation import Incremental, continuation
from smolt.models.forward.adapter import take_off
from smolt.models.forward.trunk import Trunk
from smolt.models.ground import Ground
from smolt.models.roles import Policy
from smolt.models.sampling import Book, Drawing, Singles, Slots, answer_in_int8
from smolt.models.saving import load_policy
from smolt.serving.read_prompts import ReadPrompts
from smolt.serving.stop_texts import HeldBack
from smolt.serving.stream import AnswerStream, Piece, Request
from smolt.training.memory.system import free_memory

PIECE, CARD_PIECE = 128, 2048
"""Tokens of prompts that are read between two decoding steps, on a processor and on a card.

Always as many, so that the same prompt is computed in the same way however much there is to do. On a processor 128 take
a tenth longer a token than 256, and half as long in all.
"""

WIDEST = 2**17
"""The window of a model without a limit."""

REMEMBERED = 8
"""Prompts that were read may take one part in so many of the memory for keys and values, beside it."""


NUMBERS = itertools.count()
"""Of adapters on networks, by which the library knows them."""


@dataclass
class Job:
    """An answer that is wanted.

    Attributes:
        request, stream: what was asked, and where it goes.
        text: tokens to characters.
        held: characters on their way out.
        row: where the book writes it; -1 while it waits.
        number: of its context.
    """

    request: Request
    stream: AnswerStream
    text: Incremental
    held: HeldBack
    row: int = -1
    number: int = -1

    def add(self, token: int, logprob: float, likeliest: tuple[tuple[int, float], ...]) -> bool:
        """One more token of the text; whether it completed a stop text."""
        self.stream.tokens += 1
        text, found = self.held.add(self.text.add(token))
        wanted = self.request.logprobs
        self.stream.put(Piece(text, token, logprob if wanted else None, likeliest if wanted else ()))
        return found

    def add_stop(self, token: int, logprob: float, likeliest: tuple[tuple[int, float], ...]) -> None:
        """A stop token, which is no text."""
        self.stream.tokens += 1
        if self.request.stop_token:
            wanted = self.request.logprobs
            self.stream.put(Piece("", token, logprob if wanted else None, likeliest if wanted else ()))

    def end(self, reason: str) -> None:
        """The text that still waits, and the end."""
        text, found = self.held.add(self.text.rest())
        text += self.held.waiting
        if text:
            self.stream.put(Piece(text))
        self.stream.end("stop" if found else reason)


@dataclass
class Unread:
    """A prompt that is not read, or not to its end.

    Attributes:
        tokens: int64.
        done: how many of them were read.
        held: what the sampler keeps of these.
        after: the logits after the last token, where all were read before.
    """

    tokens: Tensor
    done: int = 0
    held: Any = None
    after: Tensor | None = None


@dataclass
class Lane:
    """One model's answers.

    Attributes:
        ground: the model's files, precision, renderer and window.
        path: as it was given.
        size: answers decoded side by side.
        memory: bytes that keys and values may take; None = half of what is free when the model is loaded.
        base: whose network carries this lane's adapter; None = a network of its own.
        int8: few answers at a time are decoded from weights in int8.
        note: what that changes, in a sentence.
        waiting: not begun.
        live: begun, by row.
        gone: whether it was given up, and takes nothing more.
    """

    ground: Ground
    path: str
    size: int
    memory: int | None = None
    base: "Lane | None" = None
    int8: bool = False
    note: str = ""
    waiting: deque[Job] = field(default_factory=deque)
    live: dict[int, Job] = field(default_factory=dict)
    gone: bool = False
    _unread: dict[int, Unread] = field(default_factory=dict)
    _numbers: dict[tuple[int, ...], int] = field(default_factory=dict)
    _left: dict[int, int] = field(default_factory=dict)
    _next: int = 0
    _token_bytes: int = 0  # of keys and values
    _read_before: ReadPrompts | None = None
    _book: Book | None = None
    _slots: Slots | Singles | None = None
    _policy: Policy | None = None

    @property
    def window(self) -> int:
        """Most tokens of a prompt and its answer."""
        return min(self.ground.window, WIDEST)

    def load(self) -> None:
        """Read the weights, unless they are there.

        Raises:
            UserError: they cannot be read.
        """
        if self._slots is not None:
            return
        with torch.inference_mode(False):  # weights are ordinary tensors
            self._policy = policy = self._opened()
            policy.trunk.use(policy.adapter)
        self.memory = self.memory or _spare(self.ground.precision.device)
        self._book, slots = self._made(policy)
        with torch.inference_mode():
            held, _ = slots.read(torch.tensor([self.ground.renderer.stop_id]), None)
        if isinstance(slots, Slots):
            self._read_before = ReadPrompts(self.memory // REMEMBERED, self._piece)
        self._token_bytes, self._slots = slots.size_of(held), slots

    def _opened(self) -> Policy:
        """The model with a network of its own, or as one more adapter of another lane's."""
        if self.base is None:
            return self._rounded(load_policy(self.path, self.ground.precision))
        self.base.load()
        directory, beside = self.ground.located.adapter, self.base._policy
        if directory is None or beside is None:
            raise RuntimeError("a lane over another one without an adapter, or without that one's model")
        name = f"served_{next(NUMBERS)}"
        try:
            beside.trunk.load_adapter(name, directory)
            return self._rounded(Policy(beside.trunk, name))
        except UserError:
            _take_off(beside.trunk, name)
            raise

    def _rounded(self, policy: Policy) -> Policy:
        if self.int8:
            self.note = answer_in_int8(policy, self.ground.renderer, self.window, self.path)
        return policy

    def give_up(self, lock: threading.Lock) -> None:
        """End what is asked of it, and take its adapter off the network it shares."""
        with lock:
            self.gone = True
        self.end(lock, "the adapter was unloaded")
        policy, self._policy, self._book, self._slots, self._read_before = self._policy, None, None, None, None
        if policy is not None and policy.adapter is not None:
            _take_off(policy.trunk, policy.adapter)

    @property
    def _piece(self) -> int:
        """Tokens of prompts that are read between two decoding steps."""
        return PIECE if self.ground.precision.device.type == "cpu" else CARD_PIECE

    def _made(self, policy: Policy) -> tuple[Book, Slots | Singles]:
        book = Book(self.size, self.window, self.ground.renderer.stop_ids)
        if policy.trunk.packed and policy.trunk.own_head:
            slots = Slots(policy, book, self.size, self._left, self.window)
            if slots.lean is not None and self.base is None:
                slots.lean.share(policy.trunk.network)
            return book, slots
        return book, Singles(policy, book, self.size, self._left)

    def job(self, request: Request) -> Job:
        """What a request becomes."""
        stream, renderer = AnswerStream(request), self.ground.renderer
        text = continuation(renderer.tokenizer, request.context) if request.continues else Incremental(renderer)
        return Job(request, stream, text, HeldBack(request.stop))

    def turn(self, lock: threading.Lock) -> None:
        """Forget who left, begin what fits, read a piece, and take one step.

        Args:
            lock: held while `waiting` changes.

        Raises:
            UserError: the model cannot be loaded.
        """
        self.load()
        if self._book is None or self._slots is None or self._policy is None:
            raise RuntimeError("a lane without its model")
        if self._policy.trunk.peft is not None and self._policy.trunk.used[0] != self._policy.adapter:
            self._policy.trunk.use(self._policy.adapter)
        self._forget(lock, self._slots)
        self._begin(lock, self._book)
        self._read(self._slots)
        rows = [
            row for row, job in self.live.items() if job.number in self._slots.ready and row not in self._slots.rows
        ]
        if rows:
            seated = np.array(rows)
            self._hand_out(seated, self._slots.admit(seated), self._book, self._slots)
        self._hand_out(*self._slots.step(), self._book, self._slots)
        for key in [key for key, number in self._numbers.items() if not self._left[number]]:
            del self._left[self._numbers.pop(key)]

    def end(self, lock: threading.Lock, error: str) -> None:
        """End every answer with this error, or as cancelled where it is empty, and forget what was decoded."""
        with lock:
            jobs = [*self.waiting, *self.live.values()]
            self.waiting.clear()
            self.live.clear()
        for held in (self._left, self._unread, self._numbers):
            held.clear()
        if self._slots is not None:
            self._slots.clear()
        for job in jobs:
            job.stream.end(None if error else "cancelled", error or None)

    def _forget(self, lock: threading.Lock, slots: Slots | Singles) -> None:
        """Take out what was cancelled."""
        with lock:
            gone = [job for job in self.waiting if job.stream.cancelled]
            for job in gone:
                self.waiting.remove(job)
        for row, job in list(self.live.items()):
            if job.stream.cancelled:
                gone.append(job)
                self._take_out(row, slots)
        for job in gone:
            job.stream.end("cancelled")

    def _take_out(self, row: int, slots: Slots | Singles) -> None:
        """An answer that is given up before its sampler ended it."""
        job = self.live.pop(row)
        if row in slots.rows:
            slots.drop(np.array([row]))
        else:
            slots.release(np.array([row]))
        if not self._left[job.number]:
            self._unread.pop(job.number, None)

    def _begin(self, lock: threading.Lock, book: Book) -> None:
        """Give rows to those who have waited longest, as long as their keys and values will fit."""
        with lock:
            while self.waiting and len(self.live) < self.size and self._fits(self.waiting[0].request):
                job = self.waiting.popleft()
                job.row = next(row for row in range(self.size) if row not in self.live)
                self.live[job.row] = job
                self._enter(job, book)

    def _enter(self, job: Job, book: Book) -> None:
        """The first lines of an answer: its context, limits and randomness."""
        request, key = job.request, tuple(job.request.context)
        if not self._left.get(self._numbers.get(key, -1)):
            self._left.pop(self._numbers.get(key, -1), None)
            self._numbers[key], self._next = self._next, self._next + 1
            self._unread[self._numbers[key]] = self._begun(key)
        job.number = self._numbers[key]
        unread = self._unread.get(job.number)
        # Another answer's prompt stands; of an own one as much was read as is known from before.
        job.stream.kept = len(key) if unread is None else unread.done
        self._left[job.number] = self._left.get(job.number, 0) + 1
        drawing = Drawing(
            min(request.max_tokens, self.window - len(key)),
            request.temperature,
            1,
            self.ground.renderer.stop_ids,
            top_p=request.top_p,
            top_k=request.top_k,
            repetition=request.repetition,
            listed=request.top_logprobs,
        )
        book.begin(job.row, randomness.key(request.seed, 0, 0, request.copy), job.number, drawing)

    def _begun(self, key: tuple[int, ...]) -> Unread:
        """A prompt, as far as it was read before."""
        unread, read = Unread(torch.tensor(key, dtype=torch.int64)), None
        if self._read_before is not None:
            read = self._read_before.find(key)
        if read is not None:
            unread.done, unread.held, unread.after = read.done, read.pairs, read.after
        return unread

    def _fits(self, request: Request) -> bool:
        """Whether the keys and values of all answers, at their longest, fit the memory; one alone always may try."""
        if not self.live:
            return True
        asked = [*(job.request for job in self.live.values()), request]
        contexts = {job.number: len(job.request.context) for job in self.live.values()}
        contexts[self._numbers.get(tuple(request.context), -1)] = len(request.context)
        read = len(contexts) * max(contexts.values())
        written = len(asked) * max(min(one.max_tokens, self.window - len(one.context)) for one in asked)
        return (read + written) * self._token_bytes <= (self.memory or 0)

    def _read(self, slots: Slots | Singles) -> None:
        """So many tokens of prompts: several short ones at once, or a piece of a long one."""
        for number, reading in list(self._unread.items()):
            if reading.after is not None:
                self._stand(number, reading.held, reading.after, slots)
        most, short = self._piece, list[int]()
        for number, reading in self._unread.items():
            if len(reading.tokens) > most - sum(len(self._unread[other].tokens) for other in short):
                break
            short.append(number)
        if short:
            found = slots.read_whole([self._unread[number].tokens for number in short])
            for number, (held, after) in zip(short, found, strict=True):
                self._stand(number, held, after, slots)
        elif self._unread:
            number, reading = next(iter(self._unread.items()))
            piece = reading.tokens[reading.done : reading.done + most]
            reading.held, after = slots.read(piece, reading.held)
            reading.done += len(piece)
            if reading.done == len(reading.tokens):
                self._stand(number, reading.held, after, slots)

    def _stand(self, number: int, held: Any, after: Tensor, slots: Slots | Singles) -> None:
        tokens = self._unread.pop(number).tokens
        if self._read_before is not None:
            self._read_before.keep(tuple(tokens.tolist()), held, after)
        slots.stand(number, held, after)

    def _hand_out(self, rows: NDArray[np.int64], over: NDArray[np.bool_], book: Book, slots: Slots | Singles) -> None:
        """Each answer's newest token to whoever waits for it."""
        for row, ended in zip(rows.tolist(), over.tolist(), strict=True):
            job, last = self.live[row], int(book.lengths[row]) - 1
            token, logprob = int(book.tokens[row, last]), float(book.logprobs[row, last])
            likeliest = tuple(book.listed.get(row, ()))
            found = False
            if book.stopped[row]:
                job.add_stop(token, logprob, likeliest)
            else:
                found = job.add(token, logprob, likeliest)
            if ended:
                del self.live[row]
            elif found:
                self._take_out(row, slots)
            if ended or found:
                job.end("stop" if book.stopped[row] or found else "length")


def _take_off(trunk: Trunk, name: str) -> None:
    """Take an adapter off a network; the next forward switches to the one it needs."""
    if trunk.peft is not None and name in trunk.peft.peft_config:
        take_off(trunk.peft, name)
        trunk.use(None)


def _spare(device: torch.device) -> int:
    """Half of the bytes that are free."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return (free_memory() or 2**33) // 2
