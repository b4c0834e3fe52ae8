"""The face as a server: an address of our own choosing, a page behind the guard, and an orderly end."""

import socket
from collections.abc import Callable

import uvicorn

from smolt.serving.address import EVERYWHERE, bound, port_of, reached_at
from smolt.serving.listening import settings_for
from smolt.ui.application import application
from smolt.ui.environment import LOOPBACK, Face

CONNECTIONS = 200
PORT = 7860
TRIED = 20
"""Ports after the first one that are tried where none was asked for."""


def names_of(face: Face, port: int) -> list[str]:
    """What the page may be asked for by: Host headers, in small letters."""
    hosts = [face.host, "localhost", "127.0.0.1"] if face.host in (LOOPBACK, *EVERYWHERE) else [face.host]
    if face.host in EVERYWHERE:
        hosts.append(socket.gethostname().lower())
    written = [f"[{host}]" if ":" in host else host for host in hosts]
    return [f"{host}:{port}" for host in written] + (written if port == 80 else [])


def serve_face(face: Face, ready: Callable[[str], None]) -> None:
    """Serve the page until SIGINT or SIGTERM.

    Args:
        face: what is shown, and where.
        ready: called with the page's address when it answers.

    Raises:
        UserError: a model's name is taken twice, the pairs cannot be read, or the address cannot be listened on.
    """
    ports = [face.port] if face.port is not None else range(PORT, PORT + TRIED)
    with (
        bound(face.host, ports) as listening,
        application(face, names_of(face, port_of(listening)), face.host in EVERYWHERE) as guarded,
    ):
        ready(reached_at(face.host, listening))  # it listens: what comes before the first answer waits
        uvicorn.Server(settings_for(guarded, CONNECTIONS)).run([listening])
