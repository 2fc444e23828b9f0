"""Where a role process answers Prometheus and probes: a small HTTP server in a thread of its own.

It is not on the app's event loop: a busy role must not look dead, and a scrape must not hold up a run.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from stream_app.errors import UsageError
from stream_app.roles import ROLES

PORTS_PER_ROLE: Final = 100
"""Between the first ports of two roles: so many workers of a role may run on one machine."""

REQUEST_S: Final = 5.0
"""How long a client may take to send its request; a scrape takes milliseconds."""


def metrics_port(first_port: int, role: str, instance: int) -> int:
    """The port of one worker: `first_port` for the first worker of the first role, a hundred more for each next role.

    >>> metrics_port(9400, "trend", 2)
    9502
    """
    return first_port + PORTS_PER_ROLE * ROLES.index(role) + instance


@contextmanager
def serving(
    registry: CollectorRegistry, host: str, port: int, *, is_ready: Callable[[], bool]
) -> Iterator[tuple[str, int]]:
    """Answer ``/metrics``, ``/healthz`` (the process lives) and ``/readyz`` (input is read) while the block runs.

    Gives the address; port 0 takes any free one.

    Raises:
        UsageError: The address is taken, or is none of this machine.
    """
    try:
        server = ThreadingHTTPServer((host, port), _handler(registry, is_ready))
    except (OSError, OverflowError) as error:
        raise UsageError(
            f"The metrics cannot be served at {host}:{port}: {error}.",
            mend="set metrics_port to the first of some free ports, or to 0 for none; and metrics_host to an address "
            "of this machine",
        ) from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        yield str(server.server_address[0]), int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(registry: CollectorRegistry, is_ready: Callable[[], bool]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_S

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(HTTPStatus.OK, generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4)
            elif path == "/healthz":
                self._answer(HTTPStatus.OK, b"alive\n")
            elif path == "/readyz":
                ready = is_ready()
                status = HTTPStatus.OK if ready else HTTPStatus.SERVICE_UNAVAILABLE
                self._answer(status, b"ready\n" if ready else b"not ready: its stores are being recovered\n")
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"there are /metrics, /healthz and /readyz\n")

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a line for each scrape helps nobody."""

        def _answer(self, status: HTTPStatus, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    return Handler
