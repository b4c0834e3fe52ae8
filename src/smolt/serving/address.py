"""Where a server listens, who may ask it, and by which names its models; loads no library."""

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from smolt.errors import UserError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
EVERYWHERE = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Address:
    """Where a server listens, and who may ask it.

    Attributes:
        host, port: the address; port 0 takes a free one.
        names: further names it may be asked by, `NAME` or `NAME:PORT`.
        key: what clients must send; None only on the loopback address.
    """

    host: str
    port: int
    names: tuple[str, ...] = ()
    key: str | None = None

    def check(self) -> None:
        """Refuse an address that others reach without a key.

        Raises:
            UserError: there is no key, or one that no header can carry.
        """
        if self.key is not None and not (self.key.isascii() and self.key.isprintable() and self.key.strip(" ")):
            raise UserError("--api-key: must be printable ASCII characters, and not empty")
        if self.host not in LOOPBACK and self.key is None:
            raise UserError(f"--host {self.host}: others could reach this server; give --api-key or SMOLT_API_KEY")

    def hosts(self, port: int) -> list[str]:
        """The Host headers that are answered, in small letters."""
        here = (*LOOPBACK, socket.gethostname()) if self.host in EVERYWHERE else LOOPBACK
        known = {self.host, *self.names, *(here if self.host in (*LOOPBACK, *EVERYWHERE) else ())}
        names = [f"[{name}]" if name.count(":") > 1 and not name.startswith("[") else name for name in known]
        return [host.lower() for name in names for host in (f"{name}:{port}", name)]


def bound(host: str, ports: Sequence[int]) -> socket.socket:
    """A socket that listens at the first of some ports that is free; port 0 takes any.

    Raises:
        UserError: all are taken, or the address is none of this machine.
    """
    reason: object = "no port"
    for port in ports:
        listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
            listening.listen(128)
        except OSError as error:
            listening.close()
            reason = error.strerror or error
            continue
        return listening
    what = f"port {ports[0]}" if len(ports) == 1 else f"ports {ports[0]} to {ports[-1]}"
    raise UserError(f"{host}, {what}: cannot listen there ({reason}); give another with --port or --host")


def port_of(listening: socket.socket) -> int:
    """The port of a listening socket."""
    return int(listening.getsockname()[1])


def reached_at(host: str, listening: socket.socket) -> str:
    """The address for a client on this machine."""
    shown = LOOPBACK[0] if host in EVERYWHERE else host
    return f"http://{f'[{shown}]' if ':' in shown else shown}:{port_of(listening)}"


def is_known(host: str, hosts: Sequence[str], numbers: bool) -> bool:
    """Whether a Host header is one of `hosts`, or with `numbers` any address's: none can be another site's name."""
    if host.lower() in hosts:
        return True
    try:
        return numbers and bool(ipaddress.ip_address(urlsplit(f"//{host}").hostname or ""))
    except ValueError:
        return False


def is_foreign(origin: str | None, host: str) -> bool:
    """Whether a request comes from a page of another site: its Origin header, if it has one, is not its Host."""
    try:
        return origin is not None and urlsplit(origin).netloc.lower() != host.lower()
    except ValueError:  # no address at all
        return True


def named_models(given: Sequence[str]) -> dict[str, str]:
    """Name -> where the model lies.

    Args:
        given: `PATH` or `NAME=PATH` each; a path alone is named by its last part, or the last two of a run's model.

    Raises:
        UserError: two models have one name, or a name or a path is empty.
    """
    found: dict[str, str] = {}
    for one in given:
        name, path = _named(one)
        if not name or not path:
            raise UserError(f"{one!r}: names no model; give PATH or NAME=PATH")
        if found.get(name, path) != path:
            raise UserError(f"{one}: {name} is {found[name]} already; give it another name: OTHER={path}")
        found[name] = path
    return found


def _named(one: str) -> tuple[str, str]:
    name, equals, path = one.partition("=")
    if equals and "/" not in name:
        return name.strip(), path.strip()
    parts = [part for part in Path(one).parts if part not in ("/", ".")]
    short = parts[-2:] if parts and parts[-1] == "model" else parts[-1:]
    return "/".join(short), one
