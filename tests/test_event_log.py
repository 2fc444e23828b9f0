"""Logs for training: what the stream would make a dead letter of is not learned from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given

from stream_app.errors import LogFormatError
from stream_app.event_log import LogEvents, read_events
from stream_app.replay.readers import Row
from stream_app.settings import Settings
from stream_app.stages.clean import MAX_ID_CHARS
from tests.examples import examples
from tests.replay_cases import START_MS, demo_settings, logs, replayed, row_of


def events_of(rows: list[Row], settings: Settings | None = None, **options: Any) -> LogEvents:
    """What is read of a file with these rows."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log.ndjson"
        path.write_bytes(b"\n".join(row if isinstance(row, bytes) else orjson.dumps(row) for row in rows) + b"\n")
        return read_events(path, settings or Settings(), **options)


@pytest.mark.parametrize(
    "wrong",
    [
        {"item_id": "i" * (MAX_ID_CHARS + 1)},
        {"user_id": "u" * (MAX_ID_CHARS + 1)},
        {"item_id": "a\0b"},
        {"ts": -1},
        {"ts": 10**15},
        {"type": "gaze"},
        {"event_id": "e" * (MAX_ID_CHARS + 1)},
        {"price": 1e16},
        {"context": "text"},
        {"query": "q" * 2000},
    ],
)
def test_what_the_stream_refuses_is_refused(wrong: Mapping[str, Any]) -> None:
    good = row_of("ann", "i", START_MS, "click")
    log = events_of([good, {**good, **wrong}])
    assert ([event.ts for event in log.events], log.num_refused) == ([START_MS], 1)


@examples(25)
@given(logs(is_ordered=False))
def test_as_many_are_refused_as_a_replay_makes_dead_letters_of(rows: list[Row]) -> None:
    settings = demo_settings()
    good = row_of("e", "1", START_MS)
    rows = [good, *rows]
    log = events_of(rows, settings)
    recording, _ = replayed(settings, [rows])
    first = next(recording.records())
    num_refused = sum(first.dead_letters.values())  # type: ignore[union-attr]
    assert (log.num_refused, len(log.events)) == (num_refused, len(rows) - num_refused)
    times = [event.ts for event in log.events]
    assert times == sorted(times)


def test_the_producers_field_names_change_nothing() -> None:
    rows: list[Row] = [row_of("ann", "i", START_MS, "click")]
    assert events_of(rows, Settings(fields={"user_id": "visitor"})) == events_of(rows)


def test_a_log_without_any_event_names_the_types_it_saw() -> None:
    with pytest.raises(LogFormatError, match="types seen: gaze"):
        events_of([row_of("ann", "i", START_MS, "gaze"), {**row_of("b", "i", 1, "x"), "item_id": ""}])
    with pytest.raises(LogFormatError, match="no row is an event"):
        events_of([{**row_of("ann", "", START_MS, "click")}])
