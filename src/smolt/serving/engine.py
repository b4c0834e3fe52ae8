"""The engine: one thread decodes for all requests, answers of one model side by side; new ones join between two steps.

An answer is a function of its request alone: `Request` says which answer of `sample` it is.

That thread reads the weights too, so that no other computes: each thread that does keeps a team of OpenMP threads, and
where these are more than the cores they sleep at every barrier, which nearly doubles a decoding step of one answer.
"""

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from smolt.config import Model, make_block
from smolt.errors import UserError, out_of_memory
from smolt.models.ground import Ground, open_ground
from smolt.models.locating import Located
from smolt.models.rendering import Renderer
from smolt.serving.lane import Lane
from smolt.serving.stream import AnswerStream, QueueFull, Request


class Engine:
    """Models by name, each loaded when it is first asked.

    Args:
        models: name -> hub name, model directory, adapter or run.
        slots: answers of one model that are decoded side by side.
        queue: answers of one model that may wait for a slot.
        device, dtype, threads: as in a recipe's model block.
        memory: GiB that keys and values of one model may take; None = half of what is free when it is loaded.
        adapters: how many may be loaded beside while it runs; the one that was asked longest ago makes room.
        int8: decode few answers at a time from weights in int8.
    """

    def __init__(
        self,
        models: Mapping[str, str | Path],
        slots: int = 16,
        queue: int = 64,
        *,
        device: str = "auto",
        dtype: str = "auto",
        threads: int | None = None,
        memory: float | None = None,
        adapters: int = 0,
        int8: bool = False,
    ) -> None:
        self.slots, self.queue, self.most_adapters = slots, queue, adapters
        self._memory = None if memory is None else int(memory * 2**30)
        self._int8 = int8
        self._machine: dict[str, Any] = {"device": device, "dtype": dtype, "threads": threads}
        self._models = {name: make_block(Model, path=str(path), **self._machine) for name, path in models.items()}
        self._lanes: dict[str, Lane] = {}
        self._adapters: OrderedDict[str, Lane] = OrderedDict()  # asked for longest ago first
        self._loading: deque[tuple[Callable[[], None], Future[None]]] = deque()
        self._opening = threading.Lock()
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="smolt-engine", daemon=True)
        self._thread.start()

    @property
    def names(self) -> list[str]:
        """What may be asked: the models, then the adapters that were loaded beside."""
        return [*self._models, *list(self._adapters)]

    def base_of(self, name: str) -> str | None:
        """The model whose network carries an adapter that was loaded beside; None for another name."""
        lane = self._adapters.get(name)
        found = (known for known, own in list(self._lanes.items()) if lane is not None and own is lane.base)
        return next(found, None)

    @property
    def alive(self) -> bool:
        """Whether answers are still to be had."""
        return self._thread.is_alive() and not self._closed

    def renderer(self, name: str) -> Renderer:
        """A model's way from turns to token ids and back.

        Raises:
            UserError: there is no such model, or it cannot be opened.
        """
        return self._lane(name).ground.renderer

    def window(self, name: str) -> int:
        """Most tokens of a prompt and its answer.

        Raises:
            UserError: as `renderer`.
        """
        return self._lane(name).window

    def note(self, name: str) -> str:
        """What weights in int8 change in a model's answers, in a sentence, once it is loaded; empty without."""
        return self._lane(name).note

    def load(self, name: str) -> None:
        """Read a model's weights now rather than at its first request.

        Raises:
            UserError: there is no such model, or it cannot be read.
            CancelledError: the engine has ended.
        """
        self._by_engine(self._lane(name).load)

    def load_adapter(self, name: str, path: str, anew: bool = False) -> None:
        """Answer by a further name: that of an adapter on a model that is served.

        Args:
            name: the further name.
            path: an adapter directory, or a run that holds one.
            anew: let go of an adapter that has this name.

        Raises:
            UserError: no adapters are taken, the name is taken, or the directory holds no adapter of a served model.
            CancelledError: the engine has ended.
        """
        if not self.most_adapters:
            raise UserError("this server takes no adapters; start it with --adapters 2")
        if name in self._models or (name in self._adapters and not anew):
            raise UserError(f"lora_name: {name!r} is served already; unload it first, or send load_inplace: true")
        ground = open_ground(make_block(Model, path=path, **self._machine))
        if ground.located.adapter is None:
            raise UserError(f"lora_path: {path}: is no adapter directory")
        carrier = self._carrier(ground, path)
        ground = replace(ground, precision=carrier.ground.precision)
        lane = Lane(ground, path, self.slots, self._memory, base=carrier, int8=self._int8)
        self._by_engine(lane.load)
        with self._opening:
            gone = [self._adapters.pop(name)] if name in self._adapters else []
            self._adapters[name] = lane
            while len(self._adapters) > self.most_adapters:
                gone.append(self._adapters.popitem(last=False)[1])
        for other in gone:
            self._by_engine(partial(other.give_up, self._lock))

    def unload_adapter(self, name: str) -> None:
        """Forget an adapter that was loaded beside.

        Raises:
            UserError: there is none of this name.
        """
        with self._opening:
            lane = self._adapters.pop(name, None)
        if lane is None:
            raise UserError(f"lora_name: {name!r} is no adapter that was loaded here")
        self._by_engine(partial(lane.give_up, self._lock))

    def _carrier(self, ground: Ground, path: str) -> Lane:
        """The lane of the served model that an adapter is for."""
        for name in self._models:
            own = self._lane(name)
            if own.ground.located == Located(ground.located.base):
                return own
        raise UserError(f"lora_path: {path}: is for {ground.located.base}, which is not served here")

    def _by_engine(self, work: Callable[[], None]) -> None:
        """Have the engine's thread do something between two turns.

        Raises:
            UserError: what it raised.
            CancelledError: the engine has ended.
        """
        done = Future[None]()
        with self._work:
            if self._closed:
                done.cancel()
            else:
                self._loading.append((work, done))
                self._work.notify()
        done.result()

    def active(self, name: str) -> int:
        """Answers of a model that are being written or waited for."""
        lane = self._lane(name)
        return len(lane.waiting) + len(lane.live)

    def submit(self, request: Request) -> AnswerStream:
        """Ask for an answer.

        Raises:
            UserError: the request cannot be answered; the message names the field.
            QueueFull: as many answers as are allowed are under way; nothing was asked.
        """
        lane = self._lane(request.model)
        request.check(lane.window, len(lane.ground.renderer.tokenizer))
        job = lane.job(request)
        with self._work:
            if self._closed:
                raise QueueFull("the engine has ended")
            if lane.gone:
                raise UserError(f"the model {request.model!r} was unloaded")
            if len(lane.waiting) + len(lane.live) >= self.slots + self.queue:
                raise QueueFull(f"{self.slots} answers are being written and {self.queue} more are waiting")
            lane.waiting.append(job)
            self._work.notify()
        return job.stream

    def close(self) -> None:
        """End all answers, as cancelled, and the thread."""
        with self._work:
            self._closed = True
            self._work.notify()
        self._thread.join()

    def _lane(self, name: str) -> Lane:
        with self._opening:
            if name in self._adapters:
                self._adapters.move_to_end(name)
                return self._adapters[name]
            if name not in self._models:
                raise UserError(f"the model {name!r} is not served here; there is {', '.join(self.names)}")
            if name not in self._lanes:
                model = self._models[name]
                lane = Lane(open_ground(model), model.path, self.slots, self._memory, int8=self._int8)
                self._lanes[name] = lane
            return self._lanes[name]

    def _all(self) -> list[Lane]:
        return [*list(self._lanes.values()), *list(self._adapters.values())]

    def _busy(self) -> list[Lane]:
        return [lane for lane in self._all() if lane.waiting or lane.live]

    def _run(self) -> None:
        """Turns of the models that have work, one after the other, until the end."""
        error = "the engine failed; its own error output says why"
        try:
            with torch.inference_mode():
                while True:
                    with self._work:
                        self._work.wait_for(lambda: self._closed or self._loading or self._busy())
                        if self._closed:
                            error = ""
                            return
                    self._load_first()
                    for lane in self._busy():
                        self._turn(lane)
        finally:  # whatever happened, nobody waits for ever
            with self._lock:
                self._closed = True
                lanes = self._all()
            for _, loaded in self._loading:
                loaded.cancel()
            for lane in lanes:
                lane.end(self._lock, error)

    def _load_first(self) -> None:
        """Do what `_by_engine` is asked for."""
        while self._loading:
            work, loaded = self._loading[0]
            try:
                work()
            except (UserError, RuntimeError, MemoryError) as error:
                loaded.set_exception(error)
            else:
                loaded.set_result(None)
            self._loading.popleft()

    def _turn(self, lane: Lane) -> None:
        try:
            lane.turn(self._lock)
        except UserError as error:
            lane.end(self._lock, str(error))
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            lane.end(self._lock, "out of memory; ask for shorter or fewer answers at a time")
