"""The face as a server: an address of our own choosing, a page behind the guard, and an orderly end."""

import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from smolt.errors import UserError
from smolt.ui.application import application
from smolt.ui.environment import LOOPBACK, Face

EVERYWHERE = ("0.0.0.0", "::")
PORT = 7860
TRIED = 20
"""Ports after the first one that are tried where none was asked for."""


def bound(host: str, port: int | None) -> socket.socket:
    """A listening socket.

    Raises:
        UserError: the address is taken, or is none of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for number in [port] if port is not None else range(PORT, PORT + TRIED):
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, number))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = error.strerror
            continue
        return listening
    what = f"port {port}" if port is not None else f"ports {PORT} to {PORT + TRIED - 1}"
    raise UserError(f"{host}, {what}: cannot listen there ({reason}); give another with --port or --host")


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
    with (
        bound(face.host, face.port) as listening,
        application(face, names_of(face, port_of(listening)), face.host in EVERYWHERE) as guarded,
    ):
        ready(address_of(face, listening))  # it listens: what comes before the first answer waits
        uvicorn.Server(settings_for(guarded)).run([listening])


def port_of(listening: socket.socket) -> int:
    """The port of a listening socket."""
    return int(listening.getsockname()[1])


def address_of(face: Face, listening: socket.socket) -> str:
    """The page's address for a browser on this machine."""
    shown = LOOPBACK if face.host in EVERYWHERE else face.host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port_of(listening)}"


def settings_for(guarded: ASGIApp) -> uvicorn.Config:
    """Quiet, with limits on connections and on their headers."""
    return uvicorn.Config(
        guarded,
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=2,
        limit_concurrency=200,
        h11_max_incomplete_event_size=65_536,
    )
