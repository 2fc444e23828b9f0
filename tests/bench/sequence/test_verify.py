"""Verifying finds what is missing, swapped, repeated or wrong, and names it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.sequence.job import HISTORY_EVENTS, Load, oracle
from tests.bench.sequence.verify import (
    MAX_TOLD,
    Expected,
    FinalStates,
    Published,
    State,
    StateFormat,
    check_each,
    check_latest,
    check_states,
    examine,
    expect,
    fold,
    outputs_of,
    told,
)

LOAD = Load(num_events=400, num_users=6)
OTHERS = [b"1", b"2", b"3", b"4", b"5"]


@dataclass
class Record:
    """What verifying needs of a record."""

    key: bytes
    value: bytes | None
    timestamp: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


@pytest.fixture(scope="module")
def expected() -> Expected:
    return expect(LOAD)


def right_outputs() -> list[Record]:
    keys = [key for key, _ in LOAD.records()]
    outputs = zip(keys, oracle(LOAD.records()), strict=True)
    return [Record(key, value, number) for number, (key, value) in enumerate(outputs)]


def published(records: Sequence[Record]) -> Published:
    found = Published()
    for start in range(0, len(records), 7):
        found.take(records[start : start + 7])
    return found


def by_user(records: Sequence[Record]) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for record in records:
        found.setdefault(record.key, []).append(record.value or b"")
    return found


def problems_of(records: Sequence[Record], expected: Expected) -> tuple[int, list[str]]:
    suspects = published(records).suspects(expected, "each")
    assert suspects, "nothing was noticed"
    seen = {user: outputs for user, outputs in by_user(records).items() if user in suspects}
    return check_each(seen, outputs_of(LOAD, suspects))


def places_of(records: Sequence[Record], user: bytes) -> list[int]:
    return [place for place, record in enumerate(records) if record.key == user]


def test_right_outputs_are_right(expected: Expected) -> None:
    found = published(right_outputs())
    assert not found.suspects(expected, "each")
    assert not found.suspects(expected, "latest")
    assert (found.num_outputs, found.last_append_ms) == (400, 399)


def test_users_may_come_in_any_order(expected: Expected) -> None:
    records = sorted(right_outputs(), key=lambda record: record.key)
    assert not published(records).suspects(expected, "each")


@pytest.mark.parametrize("which", [0, 3, -1])
def test_a_missing_output_is_named(which: int, expected: Expected) -> None:
    records = right_outputs()
    lost = records.pop(places_of(records, b"u1")[which])
    num_repeats, problems = problems_of(records, expected)
    assert num_repeats == 0
    assert len(problems) == 1
    assert problems[0].startswith("user u1: ")
    assert "missing" in problems[0]
    assert str(lost.value) in problems[0]


def test_swapped_outputs_are_named(expected: Expected) -> None:
    records = right_outputs()
    first, second = places_of(records, b"u2")[4:6]
    records[first], records[second] = records[second], records[first]
    _, problems = problems_of(records, expected)
    assert len(problems) == 1
    assert problems[0].startswith("user u2: ")
    assert "out of order" in problems[0]


def test_exact_repeats_are_counted_and_are_no_problem(expected: Expected) -> None:
    records = right_outputs()
    place = places_of(records, b"u0")[10]
    again = [record for record in records[: place + 1] if record.key == b"u0"][-3:]
    assert problems_of([*records[: place + 1], *again, *records[place + 1 :]], expected) == (3, [])


def test_a_wrong_byte_is_named(expected: Expected) -> None:
    records = right_outputs()
    place = places_of(records, b"u3")[2]
    wrong = (records[place].value or b"").replace(b"i", b"j", 1)
    records[place] = Record(b"u3", wrong)
    _, problems = problems_of(records, expected)
    assert problems == [f"user u3: output 3 is {wrong!r}, which the oracle never gives"]


def test_a_wrong_byte_in_a_repeat_is_named(expected: Expected) -> None:
    records = right_outputs()
    again = (records[-1].value or b"").replace(b"{", b"{ ")
    _, problems = problems_of([*records, Record(records[-1].key, again)], expected)
    assert len(problems) == 1
    assert "which the oracle never gives" in problems[0]


def test_a_user_nobody_knows_is_named(expected: Expected) -> None:
    _, problems = problems_of([*right_outputs(), Record(b"u99", b"{}")], expected)
    assert problems == ["user u99: there is no such user in the input"]


def test_a_user_without_any_output_is_named(expected: Expected) -> None:
    records = [record for record in right_outputs() if record.key != b"u4"]
    _, problems = problems_of(records, expected)
    assert len(problems) == 1
    assert "user u4" in problems[0]
    assert f"{expected.states.get(b'u4')[0]} outputs are missing" in problems[0]  # type: ignore[index]


@given(st.lists(st.sampled_from([*OTHERS, b"unknown"]), max_size=12), st.integers(0, len(OTHERS)))
def test_outputs_are_right_where_their_first_times_are(seen: list[bytes], num_wanted: int) -> None:
    wanted = OTHERS[:num_wanted]
    num_repeats, problem = examine(seen, wanted)
    assert (problem == "") == (list(dict.fromkeys(seen)) == wanted)
    if not problem:
        assert num_repeats == len(seen) - len(wanted)


def test_only_the_last_output_counts_for_latest(expected: Expected) -> None:
    records = right_outputs()
    few = [records[place] for user in expected.lasts for place in places_of(records, user)[-1:]]
    assert not published(few).suspects(expected, "latest")
    stale = published([*few, records[places_of(records, b"u1")[-2]]])
    suspects = stale.suspects(expected, "latest")
    assert suspects == {b"u1"}
    problems = check_latest(suspects, stale.lasts, expected.lasts)
    assert len(problems) == 1
    assert "user u1: the last output is" in problems[0]


def encoded(state: State) -> bytes:
    return "|".join([str(state[0]), *state[1]]).encode()


def decoded(value: bytes) -> State:
    number, *items = value.decode().split("|")
    return int(number), items


FORMAT = StateFormat(decoded, marker_header="owner")


def right_states() -> dict[bytes, bytes]:
    """From the oracle's own outputs, so that `FinalStates` has something of another make beside it."""
    counts: dict[bytes, int] = {}
    items: dict[bytes, list[str]] = {}
    for (key, value), _ in zip(LOAD.records(), oracle(LOAD.records()), strict=True):
        counts[key] = counts.get(key, 0) + 1
        items[key] = [*items.get(key, []), value.split(b'"item_id":"')[1].split(b'"')[0].decode()][-HISTORY_EVENTS:]
    return {key: encoded((counts[key], items[key])) for key in counts}


def test_right_states_are_right() -> None:
    states = FinalStates(LOAD)
    assert len(states) == 6
    assert max(decoded(value)[0] for value in right_states().values()) > HISTORY_EVENTS
    assert check_states(right_states(), FORMAT, states) == []
    assert states.get(b"u99") is None


def test_wrong_states_are_named() -> None:
    newest = right_states()
    del newest[b"u0"]
    count, items = decoded(newest[b"u1"])
    newest[b"u1"] = encoded((count, items[1:]))
    newest[b"u2"] = encoded((decoded(newest[b"u2"])[0] + 1, decoded(newest[b"u2"])[1]))
    newest[b"u7"] = encoded((1, ["i1"]))
    problems = check_states(newest, FORMAT, FinalStates(LOAD))
    assert [problem.split(":")[0] for problem in problems] == ["user u1", "user u2", "user u7", "user u0"]
    assert problems[2].endswith("expected None")
    assert problems[3].endswith("holds nothing")


def test_the_newest_value_of_a_key_is_its_state() -> None:
    newest: dict[bytes, bytes] = {}
    fold([Record(b"a", b"1"), Record(b"b", b"2"), Record(b"a", b"3")], FORMAT, newest)
    fold([Record(b"b", None), Record(b"x", b"9", headers=[("owner", b"")])], FORMAT, newest)
    assert newest == {b"a": b"3"}


def test_many_problems_are_counted() -> None:
    assert told(["a", "b"]) == ("a", "b")
    problems = [str(number) for number in range(MAX_TOLD + 1234)]
    assert told(problems)[-2:] == (str(MAX_TOLD - 1), "and 1,234 more")
