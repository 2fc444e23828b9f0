"""Asks a broker whether it is ready, in Kafka's own protocol and without a client library.

Two requests, both in a version that every Kafka of this decade speaks: ApiVersions 0, which is answered only
once the broker handles requests, and Metadata 1 for no topics, which lists the brokers that take part in the
cluster.
"""

from __future__ import annotations

import socket
import struct
from typing import Final

from stream_app.broker.config import LOOPBACK

CONNECT_TIMEOUT_S: Final = 1.0
_API_VERSIONS: Final = 18
_METADATA: Final = 3
_MAX_REPLY_BYTES: Final = 1_000_000
"""A larger length is no reply of Kafka, but another server on the port."""


def is_ready(port: int, *, timeout_s: float) -> bool:
    """Say whether a broker on a loopback port answers requests and is itself part of the cluster.

    Args:
        port: The client port.
        timeout_s: Bound for each wait for bytes; a starting broker accepts the connection and keeps silent.
    """
    try:
        with socket.create_connection((LOOPBACK, port), timeout=min(CONNECT_TIMEOUT_S, timeout_s)) as link:
            link.settimeout(timeout_s)
            versions = _ask(link, _API_VERSIONS, 0, b"")
            if struct.unpack_from(">h", versions, 4)[0] != 0:
                return False
            brokers = _ask(link, _METADATA, 1, struct.pack(">i", 0))
            return bool(struct.unpack_from(">i", brokers, 4)[0] >= 1)
    except (OSError, struct.error):
        return False


def _ask(link: socket.socket, api_key: int, version: int, body: bytes) -> bytes:
    """Send one request (no client id) and return the reply, which starts with the 4-byte correlation id."""
    request = struct.pack(">hhih", api_key, version, 1, -1) + body
    link.sendall(struct.pack(">i", len(request)) + request)
    num_bytes = struct.unpack(">i", _read(link, 4))[0]
    if not 4 <= num_bytes <= _MAX_REPLY_BYTES:
        raise ConnectionError(f"a reply of {num_bytes} bytes is not Kafka's")
    return _read(link, num_bytes)


def _read(link: socket.socket, num_bytes: int) -> bytes:
    received = bytearray()
    while len(received) < num_bytes:
        piece = link.recv(num_bytes - len(received))
        if not piece:
            raise ConnectionError("the connection was closed within a reply")
        received += piece
    return bytes(received)
