"""Offline means offline: the guard of tests/conftest.py refuses, records, and lets this machine talk to itself."""

import os
import socket

import pytest

from tests import conftest


def test_another_machine_is_refused_and_recorded() -> None:
    """Connecting to 192.0.2.1 (documentation, RFC 5737) and resolving example.org raise; 2 attempts are recorded."""
    with socket.socket() as wire, pytest.raises(conftest.NetworkUsed):
        wire.connect(("192.0.2.1", 80))
    with pytest.raises(conftest.NetworkUsed):
        socket.getaddrinfo("example.org", 443)
    assert conftest.ATTEMPTS == ["('192.0.2.1', 80)", "'example.org'"]
    conftest.ATTEMPTS.clear()


def test_this_machine_may_talk_to_itself() -> None:
    """A connection over loopback arrives: 1 byte sent, 1 received."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname(), timeout=5) as client,
    ):
        client.sendall(b"x")
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(1) == b"x"


def test_the_hub_is_told_to_stay_offline() -> None:
    assert os.environ["HF_HUB_OFFLINE"] == "1"
