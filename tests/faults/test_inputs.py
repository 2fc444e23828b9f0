"""Everything that may come in on `events`, live: applied, dead-lettered or dropped, each by a name."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

import pytest

from stream_app.dead_letters import MAX_DEAD_BYTES
from stream_app.stages.clean import MAX_ID_CHARS, MAX_VALUE_BYTES
from stream_app.topics import DEAD_LETTER
from tests.bench.stack import peak_memory_mib
from tests.faults.conftest import MakeRig, Scale
from tests.faults.feeds import ODD_TEXTS, START_MS, click, clicks
from tests.faults.rig import Rig, Sent
from tests.faults.verify import Expected, check

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

HOUR_S: Final = 3600
MIB: Final = 1024 * 1024

BOMB_BYTES: Final = 100 * MIB
"""What a record of 100 KiB unpacks to."""

BOMB_MIB: Final = 700.0
"""Memory that a worker may have taken once one was unpacked: what it has anyway (80 MiB), the packed bytes, and the
unpacked ones a few times."""


def _event(**fields: Any) -> bytes:
    """An event with some fields changed or left out (None)."""
    event = {"user_id": "u", "item_id": "i", "type": "click", "ts": START_MS, **fields}
    return json.dumps({name: value for name, value in event.items() if value is not None}).encode()


def _swapped(old: str, new: str, **fields: Any) -> bytes:
    """An event in whose bytes something was replaced."""
    value = _event(**fields)
    assert old.encode() in value
    return value.replace(old.encode(), new.encode("utf-8", "surrogateescape"))


POISON: Final[dict[str, list[tuple[bytes | None, bytes | None]]]] = {
    "not_json": [(b"u", b""), (b"u", b"click!"), (b"u", _event()[:-1]), (b"u", _event() + b"}"), (b"u", b"\0" * 9)],
    "not_an_object": [(b"u", b"[1]"), (b"u", b"null"), (b"u", b'"u"'), (b"u", b"7")],
    "null_value": [(b"u", None)],
    "null_key": [(None, _event())],
    "bad_utf8": [
        (b"u", _swapped('"i"', '"\udcff\udcfe"')),
        (b"\xff", _event()),
        (b"u", _swapped('"i"', '"\\ud800"')),
        (b"u", "\ufeff".encode("utf-16")),
    ],
    "key_mismatch": [(b"v", _event()), (b"", _event()), (b"u ", _event())],
    "missing_field": [(b"u", _event(item_id=None)), (b"u", _event(ts=None)), (b"u", b"{}")],
    "wrong_type": [
        (b"u", _event(item_id=7)),
        (b"u", _event(user_id=["u"])),
        (b"u", _event(ts=True)),
        (b"u", _event(ts=START_MS + 0.5)),
        (b"u", _event(price="cheap")),
        (b"u", _event(context=[1])),
    ],
    "duplicate_key": [(b"u", _swapped('"item_id"', '"type": "click", "item_id"'))],
    "not_finite": [(b"u", _swapped("1.5", "NaN", price=1.5)), (b"u", _swapped("1.5", "-Infinity", price=1.5))],
    "number_out_of_range": [
        (b"u", _event(price=1e300)),
        (b"u", _swapped(str(START_MS), "9" * 400)),
        (b"u", _swapped("1.5", "1e999", quantity=1.5)),
        (b"u", _swapped("1.5", "9" * 30, context={"n": 1.5})),
    ],
    "unknown_type": [(b"u", _event(type="gaze")), (b"u", _event(type=""))],
    "empty_id": [(b"", _event(user_id="")), (b"u", _event(item_id="")), (b"u", _event(session_id=""))],
    "text_too_long": [(b"u", _event(item_id="i" * (MAX_ID_CHARS + 1))), (b"u", _event(query="q" * 1025))],
    "nul_character": [(b"u", _event(item_id="i\0")), (b"u", _event(context={"a\0": 1}))],
    "too_deep": [
        (b"u", _swapped('"i"', '"i", "context": ' + '{"a":' * 9 + "1" + "}" * 9)),
        (b"u", b"[" * 30_000),
        (b"u", _swapped('"i"', '"i", "x": ' + "[" * 40 + "]" * 40)),
    ],
    "bad_timestamp": [(b"u", _event(ts="yesterday")), (b"u", _event(ts="2024-02-30T00:00:00Z"))],
    "negative_ts": [(b"u", _event(ts=-1))],
    "ts_in_future": [(b"u", _event(ts=START_MS + 1000 * HOUR_S)), (b"u", _event(ts="9999-12-31T23:59:59Z"))],
    "value_too_large": [(b"u", _event(query="q" * MAX_VALUE_BYTES)), (b"u", b" " * (7 * MIB))],
}
"""Key and value of records that are no events, by the rule that must refuse them."""


def _through_worker(rig: Rig, records: list[Sent], partition: int | None = None) -> Expected:
    """Let a worker take records, and check all it made of them."""
    with rig.worker() as worker:
        rig.send(records, partition=partition)
        rig.wait_caught_up(worker)
        worker.stop()
    return check(rig)


def _totals(expected: Expected) -> Counter[str]:
    """The totals of all partitions."""
    totals: Counter[str] = Counter()
    for status in expected.statuses.values():
        totals += Counter({name: status[name] for name in ("events", "applied", "dead_lettered")})
        totals += Counter(status["dropped"])
    return totals


def test_each_kind_of_poison_is_a_dead_letter_under_its_rule(rig: Rig) -> None:
    assert len(POISON) >= 15
    poison = [(Sent(key, value, START_MS), reason) for reason, kinds in POISON.items() for key, value in kinds]
    records = [record for bad, _ in poison for record in (*clicks(0, 1), bad)]
    expected = _through_worker(rig, [*records, click("u", 1)], partition=0)
    assert expected.letters == {(0, 2 * place + 1): reason for place, (_, reason) in enumerate(poison)}
    assert _totals(expected)["applied"] == 2


def test_what_unpacks_to_far_more_than_the_topic_takes_is_a_dead_letter_too(rig: Rig) -> None:
    bombs = [Sent(b"u", b" " * BOMB_BYTES), Sent(b"u" * BOMB_BYTES, b"{}")]
    with rig.worker() as worker:
        for bomb in bombs:
            rig.send([bomb, *clicks(0, 5)], partition=0, compression="gzip")
            rig.wait_caught_up(worker)
        peak = peak_memory_mib(worker.pid)
        worker.stop()
    assert check(rig).letters == {(0, 0): "value_too_large", (0, 6): "missing_field"}
    assert peak is None or peak < BOMB_MIB  # None: this system does not tell
    first, second = rig.read(DEAD_LETTER)
    assert (first.value, second.key) == (b" " * MAX_DEAD_BYTES, b"u" * MAX_DEAD_BYTES)
    assert dict(first.headers)["truncated-from-bytes"] == b"%d" % BOMB_BYTES
    assert dict(second.headers)["key-truncated-from-bytes"] == b"%d" % BOMB_BYTES


def test_clocks_that_are_an_hour_off_doubles_and_disorder_are_counted_by_name(rig: Rig) -> None:
    good = clicks(0, 100, num_users=1)
    day = 24 * HOUR_S
    records = [
        *good,
        *good[-3:],  # at least once, as producers send
        click("u0", 98, item_id="late"),  # between two others; the slice it belongs to is open
        click("u0", 60, item_id="full"),  # into a slice that has all it may have
        click("u0", 99 - HOUR_S, item_id="an hour behind"),  # before everything there is
        click("u0", 100, item_id="ahead", ts=START_MS + 1000 * (100 + HOUR_S)),  # its record says otherwise
        click("u0", 100 + day, item_id="an hour ahead"),  # with its record: so it is, and what follows is a day late
        click("u1", 100, item_id="in time"),  # another user's clock is not wrong
        click("u0", 101),  # though it still finds its slice
        click("u0", 102 + day, event_id="one"),
        click("u0", 103 + day, event_id="one"),
    ]
    expected = _through_worker(rig, records, partition=0)
    assert _totals(expected) == Counter(
        events=112, applied=105, dead_lettered=1, duplicate=4, late_slice_full=1, late_too_old=1
    )
    assert list(expected.letters.values()) == ["ts_in_future"]


def test_a_hot_user_is_counted_like_any_other(rig: Rig, scale: Scale) -> None:
    num = 4 * scale.num_events
    hot = clicks(0, num, num_users=1)
    others = clicks(0, num // 10, num_users=100)
    records = [record for place, record in enumerate(hot) for record in (record, *others[place : place + 1])]
    expected = _through_worker(rig, records)
    # The first of a hundred is the hot one: what the others send of it is there already.
    num_doubles = num // 10 // 100
    assert _totals(expected) == Counter(
        events=num + num // 10, applied=num + num // 10 - num_doubles, duplicate=num_doubles
    )


def test_the_longest_history_there_can_be_fits_every_topic(rig: Rig) -> None:
    widest = "😀" * (MAX_ID_CHARS - 8)
    records = [
        click(widest, second, item_id=f"{second:08}{widest}", event_id=f"{second:08}{widest}") for second in range(300)
    ]
    totals = _totals(_through_worker(rig, records))
    assert totals == Counter(events=300, applied=300)
    largest = max(len(record.value or b"") for record in rig.read("user-histories-changelog"))
    # Of 128 events that may be kept, the oldest slice of 16 may just have been forgotten.
    assert largest > (128 - 16) * 2 * len(widest.encode("utf-8"))


def test_odd_texts_are_kept_wherever_a_text_goes(make_rig: MakeRig) -> None:
    types = {text: 1.0 for text in ODD_TEXTS}
    rig = make_rig(event_types=types, fields={"item_id": "\u202eitem", "query": "query"})
    records = []
    for second, text in enumerate(ODD_TEXTS):
        other = ODD_TEXTS[-1 - second]
        optional = {"session_id": text, "query": other, "context": {text: [other]}, "recommendation_id": other}
        event = {"user_id": text, "\u202eitem": other, "type": text, "ts": START_MS + second, "event_id": other}
        value = json.dumps({**event, **optional}, ensure_ascii=second % 2 == 0).encode("utf-8")
        records.append(Sent(text.encode("utf-8"), value, START_MS + second))
    expected = _through_worker(rig, records)
    assert _totals(expected) == Counter(events=len(ODD_TEXTS), applied=len(ODD_TEXTS))
    kept = {key.decode("utf-8"): history.slices[0].events[0] for (_, key), history in expected.histories.items()}
    assert {user: (event.type, event.item_id, event.event_id) for user, event in kept.items()} == {
        text: (text, other, other) for text, other in zip(ODD_TEXTS, reversed(ODD_TEXTS), strict=True)
    }
