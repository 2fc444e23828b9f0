"""The clock of a partition: it never goes back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.clock import PartitionClock

TIMES = st.lists(st.integers(0, 10**13), max_size=20)


@given(TIMES, st.integers(0, 10**6), st.integers(1, 10**6))
def test_it_shows_the_greatest_time_seen(all_ts: list[int], lateness_ms: int, epoch_ms: int) -> None:
    clock = PartitionClock()
    shown = [(-1, -1)]
    for ts in all_ts:
        clock.advance(ts)
        shown.append((clock.watermark_ms(lateness_ms), clock.epoch(epoch_ms)))
    assert shown == sorted(shown)
    greatest = max(all_ts, default=-1)
    assert clock.newest_ms == greatest
    assert shown[-1] == (max(-1, greatest - lateness_ms), greatest // epoch_ms)


def test_before_the_first_event_there_is_no_time() -> None:
    assert PartitionClock().watermark_ms(0) == -1
    assert PartitionClock().epoch(60_000) == -1
    assert not PartitionClock().strict


def test_an_epoch_begins_at_a_multiple_of_its_length() -> None:
    clock = PartitionClock()
    clock.advance(59_999)
    assert clock.epoch(60_000) == 0
    clock.advance(60_000)
    assert clock.epoch(60_000) == 1
