"""The question whether a broker is ready, asked of small servers that answer this or that."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from stream_app.broker.config import LOOPBACK
from stream_app.broker.probe import is_ready

CORRELATION = struct.pack(">i", 1)
VERSIONS_OK = CORRELATION + struct.pack(">hi", 0, 0)
VERSIONS_BAD = CORRELATION + struct.pack(">hi", 35, 0)
ONE_BROKER = CORRELATION + struct.pack(">i", 1)
NO_BROKER = CORRELATION + struct.pack(">i", 0)


def framed(*replies: bytes) -> list[bytes]:
    return [struct.pack(">i", len(reply)) + reply for reply in replies]


def read_request(link: socket.socket) -> tuple[int, int] | None:
    """Read one request; return its API key and version."""
    head = link.recv(4, socket.MSG_WAITALL)
    if len(head) < 4:
        return None
    body = link.recv(struct.unpack(">i", head)[0], socket.MSG_WAITALL)
    return struct.unpack_from(">hh", body)


@contextmanager
def server(replies: list[bytes], seen: list[tuple[int, int]]) -> Iterator[int]:
    """Serve one connection: one reply per request, then close it."""

    def serve() -> None:
        link, _ = listener.accept()
        with link:
            for reply in replies:
                if (request := read_request(link)) is None:
                    return
                seen.append(request)
                link.sendall(reply)

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("replies", "ready"),
    [
        (framed(VERSIONS_OK, ONE_BROKER), True),
        (framed(VERSIONS_OK, NO_BROKER), False),
        (framed(VERSIONS_BAD, ONE_BROKER)[:1], False),
        (framed(VERSIONS_OK), False),
        ([], False),
        ([b"HTTP/1.1 400 Bad Request\r\n\r\n"], False),
        ([struct.pack(">i", 2) + b"ab"], False),
        (framed(CORRELATION), False),
    ],
    ids=["ready", "no broker", "error", "closes", "closes at once", "web server", "short", "truncated"],
)
def test_only_a_broker_that_takes_part_is_ready(replies: list[bytes], ready: bool) -> None:
    with server(replies, []) as port:
        assert is_ready(port, timeout_s=5) is ready


def test_what_it_asks() -> None:
    seen: list[tuple[int, int]] = []
    with server(framed(VERSIONS_OK, ONE_BROKER), seen) as port:
        is_ready(port, timeout_s=5)
    assert seen == [(18, 0), (3, 1)]


def test_a_server_that_keeps_silent_is_not_ready() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        assert is_ready(listener.getsockname()[1], timeout_s=0.05) is False


def test_nobody_there_is_not_ready() -> None:
    with socket.create_server((LOOPBACK, 0)) as listener:
        port = listener.getsockname()[1]
    assert is_ready(port, timeout_s=1) is False
