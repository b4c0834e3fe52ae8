"""A server that answers in a thread while a test asks it."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import uvicorn


@contextlib.contextmanager
def answering(settings: uvicorn.Config, listening: socket.socket) -> Iterator[None]:
    """While entered, what is asked at a listening socket is answered."""
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(20)
