"""Who may ask, from where, and how often: token, host and origin, rates, and the headers of every answer."""

from __future__ import annotations

import hmac
import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Final

from aiohttp import web

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.web.buckets import Bucket
from stream_app.web.problems import Problem

MAX_BODY_BYTES: Final = 1024 * 1024
"""Largest body: 500 events of 2 KB each."""

BURST_S: Final = 2.0
"""How many seconds' worth of requests may come at once."""

MAX_CLIENTS: Final = 10_000
"""Addresses whose rate is remembered; the one that was silent longest is forgotten first, and begins anew."""

MIN_TOKEN_CHARS: Final = 16
"""Shorter tokens can be guessed."""

SAFE_METHODS: Final = frozenset({"GET", "HEAD"})

HEADERS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "Server": "sliceflow",
    }
)
"""On every answer that does not say otherwise."""


def put_headers(response: web.StreamResponse) -> web.StreamResponse:
    """The answer, with the headers that each has."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers["Server"] = HEADERS["Server"]
    return response


def token_of(settings: Settings) -> str:
    """The token that requests must bring; empty where none is needed.

    Raises:
        SettingsError: The file cannot be read, the token is too short, or there is none although others than this
            machine can reach the server.
    """
    token = settings.serve_token
    if settings.serve_token_file:
        try:
            token = Path(settings.serve_token_file).expanduser().read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(
                f"serve_token_file names {settings.serve_token_file}, which cannot be read: {error}.",
                mend="correct serve_token_file",
            ) from error
    if token and len(token) < MIN_TOKEN_CHARS:
        raise SettingsError(
            f"The token has {len(token)} characters; expected {MIN_TOKEN_CHARS} or more.",
            mend="make one with `openssl rand -hex 32`",
        )
    if not token and not is_loopback(settings.serve_host):
        raise SettingsError(
            f"serve_host is {settings.serve_host}, which others than this machine can reach, and no token is set.",
            mend="set serve_token_file (or SLICEFLOW_SERVE_TOKEN), or leave serve_host at 127.0.0.1",
        )
    return token


@lru_cache(maxsize=256)
def is_loopback(host: str) -> bool:
    """Whether an address, with or without a port, is this machine's own.

    >>> [is_loopback(host) for host in ("127.0.0.1", "localhost:8360", "[::1]:80", "0.0.0.0", "example.org")]
    [True, True, True, False, False]
    """
    name = host.partition("]")[0].removeprefix("[") if host.startswith("[") else host
    if name.count(":") == 1:
        name = name.partition(":")[0]
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


class Guard:
    """Lets requests through, or says why not.

    Args:
        host: That the server is bound to.
        token: That requests must bring; empty: none.
        requests_per_s: Of one address.
        clock_s: Seconds, rising.
    """

    def __init__(
        self, host: str, token: str, requests_per_s: float, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._checks_host = is_loopback(host)
        self._expected = f"Bearer {token}".encode() if token else b""
        self._rates = Rates(requests_per_s, clock_s)

    def check(self, request: web.BaseRequest, *, cost: float, is_public: bool) -> None:
        """Return where the request may go on.

        Args:
            request: The request.
            cost: For how many it counts.
            is_public: It needs no token.

        Raises:
            Problem: 421 for another host's name, 403 for another origin, 401 without the token, 429 for too many.
        """
        if self._checks_host and not is_loopback(request.host):
            # Else any site could have its own name point here, and read what its visitors' browsers see.
            raise Problem(421, f"The request is for the host {request.host!r}; expected 127.0.0.1 or localhost.")
        self._rates.take(request.remote or "", cost)
        if request.method not in SAFE_METHODS:
            check_origin(request)
        if self._expected and not is_public:
            self._check_token(request.headers.get("Authorization", ""))

    def _check_token(self, given: str) -> None:
        if not hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._expected):
            raise Problem(
                401,
                "The request brings no token, or another one than this server's.",
                mend="send the header `Authorization: Bearer TOKEN` with the token of serve_token or serve_token_file",
                headers={"WWW-Authenticate": "Bearer"},
            )


def check_origin(request: web.BaseRequest) -> None:
    """Return where a write comes from the server's own page, or from no page at all.

    Raises:
        Problem: 403 for another origin.
    """
    origin = request.headers.get("Origin")
    if origin is not None and origin not in (f"http://{request.host}", f"https://{request.host}"):
        raise Problem(403, f"The request comes from a page of {origin!r}; only this server's own page may write.")


class Rates:
    """How much each client has asked for lately: a bucket for each, full at first.

    Args:
        per_s: What flows into each bucket.
        clock_s: Seconds, rising.
    """

    def __init__(self, per_s: float, clock_s: Callable[[], float]) -> None:
        self._per_s = per_s
        self._most = per_s * BURST_S
        self._clock_s = clock_s
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def take(self, client: str, cost: float) -> None:
        """Take `cost` from a client's bucket.

        Raises:
            Problem: 429 where there is not so much in it; says after how many seconds there will be.
        """
        now_s = self._clock_s()
        bucket = self._buckets.get(client)
        if bucket is None:
            bucket = self._buckets[client] = Bucket(self._per_s, self._most, self._most, now_s)
            if len(self._buckets) > MAX_CLIENTS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(client)
        # The dearest request must be possible however low the limit is.
        wait_s = bucket.take(min(cost, self._most), now_s)
        if wait_s > 0:
            raise Problem(
                429,
                f"More requests than {self._per_s:g} a second came from this address.",
                mend="wait as long as Retry-After says, or raise serve_requests_per_s",
                headers={"Retry-After": str(max(1, round(wait_s + 0.5)))},
            )
