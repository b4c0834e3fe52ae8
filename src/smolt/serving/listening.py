"""The server: an address of our own choosing, the interface behind its gate, and an orderly end."""

from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from smolt.serving.address import EVERYWHERE, Address, bound, port_of, reached_at
from smolt.serving.engine import Engine
from smolt.serving.gate import Gate
from smolt.serving.openai_api import application

CONNECTIONS = 1000
"""Clients at a time; further ones are told to come again."""


def guarded(engine: Engine, address: Address, port: int, longest: int) -> ASGIApp:
    """The interface behind its gate."""
    return Gate(application(engine, longest), address.hosts(port), address.host in EVERYWHERE, address.key)


def settings_for(app: ASGIApp, connections: int = CONNECTIONS) -> uvicorn.Config:
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
        limit_concurrency=connections,
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
        with bound(address.host, [address.port]) as listening:
            for name in engine.names:
                engine.load(name)
            server = uvicorn.Server(settings_for(guarded(engine, address, port_of(listening), longest)))
            ready(f"{reached_at(address.host, listening)}/v1")  # it listens: what comes before the first answer waits
            server.run([listening])
    finally:
        engine.close()
