"""The intake: what is a tick, what an event, and that a dead letter counts once."""

from __future__ import annotations

import orjson
import pytest

from stream_app.records import STRICT_HEADER, TICK_HEADER, Event
from stream_app.stages.clean import CleanRules, Rejection
from stream_app.stages.intake import Content, Tick, read_record, take_record
from tests.stages.cases import EPOCH_MS, event
from tests.stages.cases import Worker as SequenceWorker

RULES = CleanRules(event_types={"click": 1.0}, max_future_ms=1000)
GOOD = orjson.dumps({"user_id": "a", "item_id": "p", "type": "click", "ts": 5})
STRICT = ((STRICT_HEADER, b"1"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"1700000000000", Tick(1_700_000_000_000, last=False)),
        (b"20 last", Tick(20, last=True)),
        (b"20 lasting", Tick(20, last=False)),
        (b"9" * 15, Tick(10**15 - 1, last=False)),
    ],
)
def test_a_tick_is_known_by_its_header_alone(text: bytes, expected: Tick) -> None:
    assert read_record(None, b"{", 0, [("other", b""), (TICK_HEADER, text)], RULES) == expected


@pytest.mark.parametrize("text", [b"", b"soon", b"-5", b"1.5", b"9" * 16, "²".encode()])
def test_what_is_no_tick_is_judged_as_an_event(text: bytes) -> None:
    headers = [(TICK_HEADER, text)]
    assert isinstance(read_record(b"a", GOOD, 5, headers, RULES), Event)
    assert isinstance(read_record(b"b", GOOD, 5, headers, RULES), Rejection)


def test_a_record_without_headers_is_an_event_or_refused() -> None:
    assert read_record(b"a", GOOD, 5, (), RULES) == event("a", "p", 5)
    assert isinstance(read_record(b"a", None, 5, (), RULES), Rejection)


def test_only_a_strict_event_moves_no_clock_and_a_dead_letter_counts_once() -> None:
    stage = SequenceWorker().stage

    def take(content: Content, offset: int, *headers: tuple[str, bytes], is_counted: bool = False) -> int:
        stage.begin_run([], lambda _: {})
        take_record(stage, content, offset, headers, is_counted=is_counted)
        return stage.totals.clock.epoch(EPOCH_MS)

    assert take(event("a", "p", 3 * EPOCH_MS), 0, *STRICT) == -1
    assert take(event("a", "p", 3 * EPOCH_MS), 1) == 3
    assert take(Tick(5 * EPOCH_MS, last=False), 2) == 5
    assert stage.totals.clock.strict
    take(Tick(5 * EPOCH_MS, last=True), 3)
    assert not stage.totals.clock.strict
    take(Rejection("not_json", ""), 4)
    take(Rejection("not_json", ""), 4, is_counted=True)
    assert stage.totals.dead_lettered == {"not_json": 1}
