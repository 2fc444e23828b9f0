"""Who may ask: token, host, origin, rates."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from stream_app.errors import SettingsError
from stream_app.settings import Settings
from stream_app.web.problems import Problem
from stream_app.web.security import BURST_S, MAX_CLIENTS, Guard, Rates, is_loopback, token_of

TOKEN = "a-token-of-24-characters"


def ask(guard: Guard, method: str = "GET", *, is_public: bool = False, cost: float = 1.0, **headers: str) -> int:
    """The status that a guard lets a request have; 200 where it may go on."""
    given = {"Host": "127.0.0.1:8360", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        guard.check(make_mocked_request(method, "/", headers=given), cost=cost, is_public=is_public)
    except Problem as problem:
        return problem.status
    return 200


def test_a_server_that_others_can_reach_needs_a_token(tmp_path: Path) -> None:
    assert token_of(Settings()) == ""
    with pytest.raises(SettingsError, match=r"0\.0\.0\.0"):
        token_of(Settings(serve_host="0.0.0.0"))
    assert token_of(Settings(serve_host="0.0.0.0", serve_token=TOKEN)) == TOKEN
    file = tmp_path / "token"
    file.write_text(TOKEN + "\n")
    assert token_of(Settings(serve_token_file=str(file))) == TOKEN
    with pytest.raises(SettingsError, match="cannot be read"):
        token_of(Settings(serve_token_file=str(tmp_path / "none")))
    with pytest.raises(SettingsError, match="5 characters"):
        token_of(Settings(serve_token="short"))


def test_the_token_is_in_no_print() -> None:
    assert TOKEN not in repr(Settings(serve_token=TOKEN))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3:80", True),
        ("localhost", True),
        ("localhost:8360", True),
        ("[::1]:8360", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1:8360", False),
        ("localhost.example.org", False),
        ("127.0.0.1.example.org:80", False),
        ("", False),
    ],
)
def test_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_the_token_is_asked_for() -> None:
    guard = Guard("10.0.0.1", TOKEN, 1000)
    assert ask(guard, Host="10.0.0.1") == 401
    for wrong in ("", TOKEN, f"Bearer {TOKEN}x", f"bearer {TOKEN}", "Bearer ", f"Basic {TOKEN}", "Bearer Ä"):
        assert ask(guard, Host="10.0.0.1", Authorization=wrong) == 401
    assert ask(guard, Host="10.0.0.1", Authorization=f"Bearer {TOKEN}") == 200
    assert ask(guard, Host="10.0.0.1", is_public=True) == 200


def test_another_hosts_name_is_refused_on_loopback() -> None:
    assert ask(Guard("127.0.0.1", "", 1000), Host="evil.example.org") == 421
    assert ask(Guard("10.0.0.1", TOKEN, 1000), Host="shop.example.org", Authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_pages_of_other_origins_may_not_write(method: str) -> None:
    guard = Guard("127.0.0.1", "", 1000)
    assert ask(guard, method) == 200
    assert ask(guard, method, Origin="http://127.0.0.1:8360") == 200
    for origin in ("http://evil.example.org", "null", "", "http://127.0.0.1:8361", "http://127.0.0.1:8360.evil.org"):
        assert ask(guard, method, Origin=origin) == 403
    assert ask(guard, "GET", Origin="http://evil.example.org") == 200


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def is_taken(rates: Rates, client: str, cost: float) -> bool:
    """Whether the bucket holds so much."""
    try:
        rates.take(client, cost)
    except Problem as problem:
        assert problem.status == 429
        assert int(problem.headers["Retry-After"]) >= 1
        return False
    return True


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 8), st.booleans()), max_size=60), st.integers(1, 10))
def test_rates_are_those_of_a_bucket_that_is_filled_each_tenth(steps: list[tuple[int, int, bool]], per_s: int) -> None:
    """The oracle counts in tenths of a request and of a second, so it never rounds."""
    clock = Clock()
    rates = Rates(per_s, clock)
    full = int(per_s * BURST_S) * 10
    buckets, tenths = {"a": full, "b": full}, 0
    for passed, cost, is_first in steps:
        tenths += passed
        clock.now_s = tenths / 10
        buckets = {name: min(full, left + passed * per_s) for name, left in buckets.items()}
        name, wanted = "a" if is_first else "b", min(cost * 10, full)
        # A difference below a millionth is the clock's.
        if abs(buckets[name] - wanted) > 1e-6 or buckets[name] == full:
            assert is_taken(rates, name, cost) == (buckets[name] >= wanted)
            buckets[name] -= wanted if buckets[name] >= wanted else 0
        else:
            return


def test_the_wait_that_is_told_is_long_enough() -> None:
    clock = Clock()
    rates = Rates(2, clock)
    assert [is_taken(rates, "a", 1) for _ in range(5)] == [True] * 4 + [False]
    clock.now_s += 1
    assert is_taken(rates, "a", 1)
    assert is_taken(rates, "b", 100)  # the dearest request is possible


def test_rates_of_many_clients_take_bounded_memory() -> None:
    rates = Rates(1, Clock())
    for number in range(MAX_CLIENTS + 10):
        rates.take(str(number), 1)
    assert len(rates._buckets) == MAX_CLIENTS
