"""Inputs to begin with: good ones, and some of every kind of bad ones; a fuzzer finds the way from one to the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from stream_app.records import ActivityRecord, Event, Item, SliceEvent, SliceRecord, StatusRecord, TrendRecord, encode
from tests.fuzz.targets import NOW_MS


def _event(**fields: object) -> bytes:
    """A line with an event of the user `u`."""
    known: dict[str, object] = {"user_id": "u", "item_id": "i", "type": "click", "ts": NOW_MS}
    return b"u\t" + encode(Event(**{**known, **fields}))  # type: ignore[arg-type]


_EVENTS: Final = [
    _event(),
    _event(event_id="1", session_id="s", query="q", price=9.5, quantity=2, recommendation_id="r", context={"a": [1]}),
    _event(ts=NOW_MS + 700_000),
    _event(type="gaze"),
    _event(item_id='😀\\"\n'),
    b'u\t{"visitor":"u","item_id":"i","type":"buy","time":"2024-05-31T12:00:00.123+02:00","ts":1}',
    b'u\t{"user_id":"u","item_id":"\\ud83d\\ude00","type":"click" , "ts":1e3}',
    b'u\t{"user_id":"u","user_id":"u","item_id":"i","type":"click","ts":1,"x":[[[{"y":NaN}]]]}',
    b'u\t{"type":"$erase","user_id":"u","ts":5}',
    b'u\t{"type":"\\u0024erase","user_id":"u","item_id":"i","ts":5}',
    b"-\t{}",
    b"u\t-",
    b"\xff\t[1]",
    b"u\t#1700000000000 last",
]

SEEDS: Final[Mapping[str, Sequence[bytes]]] = {
    "event": _EVENTS,
    "log": [
        b"\n".join(_event(ts=ts, item_id="abc"[ts % 3]) for ts in (1, 5, 3, 5, 40, 41, 2, 90)),
        b"\n".join([_event(ts=7), b"u\t#64", *_EVENTS, b"u\t#90 last"]),
    ],
    "record": [
        encode(Item(item_id="i", title="t", tags=["a"], price=1.0)),
        encode(
            SliceRecord(
                user_id="u",
                seq=0,
                revision=1,
                closed=False,
                fresh=True,
                events=[SliceEvent("i", "click", 1, -1)],
                partition=0,
                offset=0,
            )
        ),
        encode(ActivityRecord(partition=0, offset=1, epoch=2, item_id="i", before=("j",))),
        encode(TrendRecord(item_id="i", epoch=1, first_epoch=0, counts=[0.5], predecessors=[("j", 1.0, 2.0)])),
        encode(
            StatusRecord(
                partition=0, offset=1, events=2, applied=1, dead_lettered=1, dropped={}, users=1, watermark_ms=-1
            )
        ),
    ],
}
"""For each target."""
