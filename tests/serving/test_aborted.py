"""Clients that leave in the midst of an answer, by the dozen: nothing of them is left behind."""

import asyncio
import contextlib
import json
import os
import threading
import time
from pathlib import Path

import httpx
import pytest
from openai import OpenAI

from smolt.serving.engine import Engine
from tests.serving.conftest import Engines, serving

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "Hi."}], "max_tokens": 120, "stream": True}
MOST_SECONDS = 2.0


def open_files() -> int:
    """File descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


def threads() -> set[str]:
    """Threads of this process, those aside that render prompts, which are few and stay."""
    return {thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")}


async def aborted(port: int, number: int, streams: int) -> None:
    """Ask for some answers and leave: before the first byte, within the head, or after some pieces."""
    body = json.dumps({**BODY, "seed": number, "n": streams, "stream": number % 5 != 0}).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    with contextlib.suppress(asyncio.IncompleteReadError, TimeoutError):
        await asyncio.wait_for(reader.readexactly((0, 20, 600, 3000)[number % 4]), 0.2)
    writer.transport.abort()


def leave(engine: Engine, port: int, rounds: int) -> float:
    """Ten clients at a time, all of which leave; the longest time until no answer was under way."""

    async def ten(start: int) -> None:
        await asyncio.gather(*(aborted(port, start + number, 1 + number % 3) for number in range(10)))

    longest = 0.0
    for number in range(rounds):
        asyncio.run(ten(10 * number))
        began = time.monotonic()
        while engine.active("tiny"):
            assert time.monotonic() - began < MOST_SECONDS, f"{engine.active('tiny')} answers are still under way"
            time.sleep(0.002)
        longest = max(longest, time.monotonic() - began)
    return longest


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are counted in /proc")
@pytest.mark.parametrize("rounds", [3, pytest.param(30, marks=pytest.mark.slow)])
def test_nothing_is_left_of_clients_that_left(rounds: int, engines: Engines) -> None:
    """30 and 300 aborted requests: their slots are free within 2 s, and no file and no thread is left of them."""
    engine = engines(slots=4, queue=100)
    with serving(engine) as url:
        port = int(httpx.URL(url).port or 0)
        leave(engine, port, 1)
        before = open_files(), threads()
        assert leave(engine, port, rounds) < MOST_SECONDS
        deadline = time.monotonic() + 5
        while open_files() > before[0] and time.monotonic() < deadline:
            time.sleep(0.05)
        assert open_files() <= before[0]
        assert threads() == before[1]
        with OpenAI(base_url=url, api_key="unused", max_retries=0) as client:
            done = client.chat.completions.create(
                model="tiny", messages=[{"role": "user", "content": "Hi."}], max_tokens=3
            )
        assert done.usage is not None and done.usage.completion_tokens <= 3
