"""The server: an address of our own choosing, the interface behind its gate, and an orderly end."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from smolt.errors import UserError
from smolt.serving.address import EVERYWHERE, Address
from smolt.serving.engine import Engine
from smolt.serving.gate import Gate
from smolt.serving.openai_api import application

CONNECTIONS = 1000
"""Clients at a time; further ones are told to come again."""


def bound(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: the address is taken, or is none of this machine.
    """
    listening = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((address.host, address.port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        place, reason = f"{address.host}, port {address.port}", error.strerror or error
        raise UserError(f"{place}: cannot listen there ({reason}); give another with --port or --host") from None
    return listening


def url_of(address: Address, listening: socket.socket) -> str:
    """The base address for a client on this machine."""
    host = "127.0.0.1" if address.host in EVERYWHERE else address.host
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/v1"


def guarded(engine: Engine, address: Address, port: int, longest: int) -> ASGIApp:
    """The interface behind its gate."""
    return Gate(application(engine, longest), address.hosts(port), address.host in EVERYWHERE, address.key)


def settings_for(app: ASGIApp) -> uvicorn.Config:
    """Quiet, with limits on connections and on their headers."""
    return uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        limit_concurrency=CONNECTIONS,
        h11_max_incomplete_event_size=65_536,
    )


def serve(engine: Engine, address: Address, longest: int, ready: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; both models and address are seen to be good first.

    Args:
        engine: who answers; it is closed at the end.
        address: where.
        longest: tokens of an answer where a request does not say.
        ready: called with the base address once requests are answered.

    Raises:
        UserError: the address cannot be listened on, or a model cannot be read.
    """
    try:
        with bound(address) as listening:
            for name in engine.names:
                engine.load(name)
            port = int(listening.getsockname()[1])
            server = uvicorn.Server(settings_for(guarded(engine, address, port, longest)))
            ready(url_of(address, listening))  # it listens: what comes before the first answer waits
            server.run([listening])
    finally:
        engine.close()
