"""The bench of many users: every run is news to its users, and is kept."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from stream_app import tables
from tests.bench.encode import example_work
from tests.bench.scale import Users, numbers_of, result_of, rows_of
from tests.bench.timing import Took


def test_every_event_is_news_and_its_memory_is_kept(tmp_path: Path) -> None:
    users = Users(tmp_path / "store", 30, example_work(1))
    try:
        assert [users.run(8), users.run(8)] == [8, 8]
        kept = {key: stored for key, stored in users.store.items()}
        memories = [tables.MEMORY.decode(stored.payload) for stored in kept.values() if stored.position == 2]
    finally:
        users.store.close()
    assert len(kept) == 30
    assert len(memories) == 8
    assert len({memory.newest.revision for memory in memories if memory.newest is not None}) == 1


def test_figures_are_by_event() -> None:
    times = {1000: [Took(0.512, 1.024)], 10: [Took(0.256, 0.512)]}
    result = result_of(times)
    assert result.figures["cpu_us_per_event_at_1000"].value == pytest.approx(1000.0)
    assert result.figures["most_over_fewest"].value == 2.0
    assert rows_of(times)[0] == ["1,000", "1000.0", "2000.0"]


@pytest.mark.parametrize("text", ["", "a", "1000,-1", "511"])
def test_numbers_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="expected numbers from 512 on"):
        numbers_of(text)
