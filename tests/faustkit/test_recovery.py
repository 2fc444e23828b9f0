"""Recovery: the store becomes what its changelog says, only what is new is read, and it tells how far it has come."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit import changelog as reading
from stream_app.faustkit import recovery
from stream_app.faustkit.changelog import RecoveryError
from stream_app.faustkit.recovery import REPORT_S, Breakable, Progress, recover
from stream_app.faustkit.store import PartitionStore, Stored
from tests.faustkit.changelogs import LONG, Changelog

pytestmark = pytest.mark.kafka


@pytest.fixture
def changelog(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Iterator[Changelog]:
    """An empty changelog and empty stores."""
    made = Changelog(broker.bootstrap_servers, topic_prefix + "changelog", tmp_path)
    yield made
    made.close()


def test_from_nothing(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (1, b"b", 2, b"y"), (0, b"a", 3, b"z"), (0, b"c", 3, b""))
    assert changelog.recover() == 4
    assert changelog.held(0) == {b"a": Stored(3, b"z"), b"c": Stored(3, b"")}
    assert changelog.held(1) == {b"b": Stored(2, b"y")}
    assert changelog.stores[0].changelog_offset == 2


def test_only_what_is_new_is_read(changelog: Changelog) -> None:
    changelog.write((0, b"a", 1, b"x"), (0, b"b", 2, b"y"))
    assert changelog.recover() == 2
    assert changelog.recover() == 0
    changelog.write((0, b"a", 5, b"z"))
    assert changelog.recover() == 1
    assert changelog.held() == {b"a": Stored(5, b"z"), b"b": Stored(2, b"y")}


def test_an_empty_changelog_is_done_at_once(changelog: Changelog) -> None:
    assert changelog.recover() == 0
    assert changelog.stores[0].changelog_offset is None


def test_the_greatest_source_position_stays(changelog: Changelog) -> None:
    # A process that was paused and woke writes what it had, after its successor went on.
    changelog.write((0, b"a", 9, b"new"), (0, b"a", 4, b"late"))
    changelog.recover()
    assert changelog.held() == {b"a": Stored(9, b"new")}
    changelog.write((0, b"a", 5, b"later still"), (0, b"b", 5, b"fine"))
    changelog.recover()
    assert changelog.held() == {b"a": Stored(9, b"new"), b"b": Stored(5, b"fine")}


def test_no_stores_need_no_broker() -> None:
    assert asyncio.run(recover({"bootstrap_servers": ["127.0.0.1:1"]}, "none", {})) == 0


def test_much_is_filled_in_bulk_and_is_durable_at_the_end(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BULK_RECORDS", 3000)
    loads: list[bool] = []
    load, flush = PartitionStore.load, PartitionStore.flush

    def watched_load(store: PartitionStore, *args: Any, use_log: bool) -> None:
        loads.append(use_log)
        load(store, *args, use_log=use_log)

    def watched_flush(store: PartitionStore) -> None:
        flush(store)
        loads.append(True)

    monkeypatch.setattr(PartitionStore, "load", watched_load)
    monkeypatch.setattr(PartitionStore, "flush", watched_flush)
    changelog.write(*LONG)
    changelog.recover()
    assert not any(loads[:-1])
    assert loads[-1]
    changelog.write((0, b"a", 4000, b"x"))
    changelog.recover()
    assert loads[-2:] == [True, True]


def test_it_tells_how_far_it_has_come(
    changelog: Changelog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recovery, "REPORT_S", 0.0)
    monkeypatch.setattr(recovery, "PARTITION_BYTES", 16 * 1024)
    changelog.write(*LONG)
    with caplog.at_level(logging.INFO, "sliceflow.recovery"):
        changelog.recover()
    lines = [record.getMessage() for record in caplog.records if record.name == "sliceflow.recovery"]
    assert len(lines) > 10
    assert all(f"recovering {changelog.topic}: " in line and " of 3,000 offsets (" in line for line in lines)
    assert "3,000 of 3,000 offsets (100 %)" in lines[-1]


def test_progress_in_figures() -> None:
    progress = Progress("log", 1000, now_s=10.0)
    assert progress.line(10.0 + REPORT_S - 0.1) is None
    assert progress.stalled_s(1000, 12.0) == 2.0
    assert progress.line(12.0) == "recovering log: 0 of 1,000 offsets (0 %), 0/s, no end in sight"
    assert progress.stalled_s(600, 13.0) == 0.0
    assert progress.line(13.0) is None
    assert progress.stalled_s(600, 14.0) == 1.0
    assert progress.line(14.0) == "recovering log: 400 of 1,000 offsets (40 %), 100/s, about 6 s to go"


def test_work_that_is_broken_off_lets_go_of_what_it_holds() -> None:
    events: list[str] = []

    async def work() -> None:
        try:
            events.append("begun")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            events.append("let go")

    async def scenario() -> None:
        breakable = Breakable()
        await breakable.break_off()  # nothing to break off
        running = asyncio.create_task(breakable.run(work()))
        while not events:
            await asyncio.sleep(0)
        await breakable.break_off()
        assert events == ["begun", "let go"]
        assert await running is False
        assert await breakable.run(asyncio.sleep(0)) is True
        await breakable.break_off()

    asyncio.run(scenario())


def test_work_that_fails_says_so_and_goes_with_who_waits_for_it() -> None:
    async def failing() -> None:
        raise RecoveryError("why")

    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def scenario() -> None:
        with pytest.raises(RecoveryError, match="why"):
            await Breakable().run(failing())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(Breakable().run(endless()), 0.01)
        assert ended.is_set()

    asyncio.run(scenario())
