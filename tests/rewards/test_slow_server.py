"""A judge's server that dawdles: its time limit holds, byte by byte too, and nobody waits for it when all leave."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from smolt.rewards.llm_judge.connection import Connection, Lost


@pytest.fixture
def dawdling() -> Iterator[str]:
    """A server that sends a byte of its headers every tenth of a second, for ever."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        leaving = threading.Event()

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=dawdle, args=(connection,), daemon=True).start()

        def dawdle(connection: socket.socket) -> None:
            with connection:
                for byte in b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 1000:
                    try:
                        connection.send(bytes([byte]))
                    except OSError:
                        return
                    if leaving.wait(0.1):
                        return

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1/chat/completions"
        leaving.set()


def test_the_time_limit_holds_for_all_of_a_reply(dawdling: str) -> None:
    """1 s, although a byte comes every tenth of a second: each of them would begin a library's own limit anew."""
    connection = Connection(dawdling, None, timeout=1.0, attempts=1)
    began = time.monotonic()
    with pytest.raises(Lost, match="no reply within 1 seconds"):
        connection.post({}, check=lambda document: None)
    assert time.monotonic() - began < 10


def test_nobody_waits_when_all_leave(dawdling: str) -> None:
    connection = Connection(dawdling, None, timeout=60.0, attempts=1)
    threading.Timer(0.3, connection.leaving.set).start()
    began = time.monotonic()
    with pytest.raises(Lost):
        connection.post({}, check=lambda document: None)
    assert time.monotonic() - began < 30
