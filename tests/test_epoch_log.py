"""What is kept of epochs on a topic, and what is read next when that is too much. The runs are handed over by hand."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app import epoch_log, trend_log
from stream_app.faustkit import Run
from stream_app.records import MARK_KEY, TrendEpochRecord, TrendRecord, encode
from stream_app.stages.popularity import TrendRule
from stream_app.trend_log import TrendLog

RULE = TrendRule(10_000, (60_000.0, 3_600_000.0))
PARTITIONS = 2


def new_log(max_kept_bytes: int | None = None) -> TrendLog:
    """A log of two partitions that reads from nowhere."""
    with pytest.MonkeyPatch.context() as patch:
        if max_kept_bytes is not None:
            patch.setattr(trend_log, "MAX_KEPT_BYTES", max_kept_bytes)
        return TrendLog({}, "item-trends", PARTITIONS, RULE)


def touched(item_id: str, epoch: int, count: float = 1.0) -> tuple[bytes, bytes]:
    record = TrendRecord(item_id=item_id, epoch=epoch, first_epoch=0, counts=[count, count], predecessors=[])
    return item_id.encode(), encode(record)


def complete(epoch: int) -> tuple[bytes, bytes]:
    return MARK_KEY, encode(TrendEpochRecord(epoch=epoch))


def take(log: TrendLog, partition: int, *records: tuple[bytes, bytes]) -> None:
    """What the follower does with what it has read."""
    keys, values = zip(*records, strict=True)
    num = len(records)
    log._take(Run("item-trends", partition, range(num), keys, values, [0] * num, [()] * num))


def within_a_minute(story: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story

    asyncio.run(bounded())


def test_an_epoch_is_complete_when_every_partition_is_past_it() -> None:
    log = new_log()
    assert log.complete_epoch == -1
    take(log, 0, complete(7))
    assert log.complete_epoch == -1, "of the other partition nothing is known"
    take(log, 1, complete(5))
    assert log.complete_epoch == 5
    take(log, 1, complete(3))
    assert log.complete_epoch == 5, "a marker that comes again takes nothing back"


def test_a_list_sees_its_epoch_and_nothing_later() -> None:
    async def story() -> None:
        log = new_log()
        log.add_view(0)
        waiting = asyncio.create_task(log.view_for(0, 5))
        await asyncio.sleep(0)
        take(log, 0, touched("a", 4), touched("b", 6), complete(6))
        await asyncio.sleep(0)
        assert not waiting.done(), "partition 1 may still have something for epoch 5"
        take(log, 1, touched("c", 5), complete(5))
        view = await waiting
        assert (view.epoch, sorted(view.item_ids)) == (5, ["a", "c"])

    within_a_minute(story())


def test_an_epoch_that_never_comes_is_given_up(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(epoch_log, "EPOCH_WAIT_S", 0.01)

    async def story() -> None:
        log = new_log()
        for partition in range(PARTITIONS):
            take(log, partition, touched(f"item{partition}", 2), complete(2))
        assert (await log.view_for(0, 9)).epoch == 2

    within_a_minute(story())
    assert "epoch 9 of item-trends did not come; lists use epoch 2" in caplog.text


def test_a_replay_that_keeps_too_much_reads_on_only_where_a_list_waits() -> None:
    async def story() -> None:
        log = new_log(max_kept_bytes=100)
        log.add_view(0)
        take(log, 0, touched("a", 1), complete(1))
        assert not log._held(), "little is kept yet"
        take(log, 0, touched("b", 2), touched("c", 3), complete(3))
        assert set(log._held()) == {0}
        waiting = asyncio.create_task(log.view_for(0, 4))
        await asyncio.sleep(0)
        assert not log._held(), "epoch 4 is waited for, and no partition is there"
        take(log, 0, complete(4))
        assert set(log._held()) == {0}, "partition 0 is there, partition 1 is not"
        take(log, 1, complete(4))
        assert len(await waiting) == 3
        assert log._num_kept_bytes() == 0
        assert not log._held(), "the only list that needed them has passed them"

    within_a_minute(story())


def test_live_lists_give_up_old_epochs_but_no_item() -> None:
    async def story() -> None:
        bounded, unbounded = new_log(max_kept_bytes=1), new_log()
        for log in (bounded, unbounded):
            log.add_view(0)
            log.add_view(1)
            await log.view_for(1, None)  # a list that is not replayed: from here on nothing is exact
            for epoch in range(1, 6):
                take(log, 0, touched("a", epoch, float(epoch)), touched(f"only-{epoch}", epoch), complete(epoch))
                take(log, 1, touched("b", epoch), complete(epoch - 1))
        assert bounded._num_kept_bytes() < unbounded._num_kept_bytes()
        assert not bounded._held()
        views = [await log.view_for(0, None) for log in (bounded, unbounded)]
        assert [view.epoch for view in views] == [4, 4]
        ids = sorted(views[1].item_ids)
        assert ids == ["a", "b", "only-1", "only-2", "only-3", "only-4"]
        shown = [view.popularity(view.rows_of(ids)) for view in views]
        np.testing.assert_array_equal(shown[0], shown[1])

    within_a_minute(story())


Story = list[tuple[str, int, int]]
STORIES: st.SearchStrategy[Story] = st.lists(
    st.tuples(st.sampled_from(["touch-a", "touch-b", "complete", "ask"]), st.integers(0, 1), st.integers(0, 6)),
    max_size=40,
)


@given(STORIES)
def test_a_view_is_what_a_fold_of_the_records_gives(story: Story) -> None:
    """And the bytes that are kept are those of the epochs that some view has not passed."""

    async def told() -> None:
        log, records, ends = new_log(), dict[tuple[int, str], float](), {0: -1, 1: -1}
        for partition in range(PARTITIONS):
            log.add_view(partition)
        for number, (what, partition, epoch) in enumerate(story):
            if what == "complete":
                ends[partition] = max(ends[partition], epoch)
                take(log, partition, complete(epoch))
            elif what == "ask" and min(ends.values()) >= epoch:
                expected = folded(records, max(epoch, log._views[partition].epoch))
                view = await log.view_for(partition, epoch)
                records_now = [view.record_of(name) for name in view.item_ids]
                assert {record.item_id: record.counts[0] for record in records_now if record} == expected
            elif what.startswith("touch") and epoch > ends[partition]:
                # One partition holds an item, and nothing comes for an epoch that is complete.
                name = f"{what}-{partition}"
                records[epoch, name] = float(number + 1)
                take(log, partition, touched(name, epoch, float(number + 1)))
        oldest = min(view.epoch for view in log._views.values())
        left = [encoded_size(*record) for record in records.items() if record[0][0] > oldest]
        assert log._num_kept_bytes() == sum(left)

    within_a_minute(told())


def folded(records: dict[tuple[int, str], float], up_to: int) -> dict[str, float]:
    """The newest count of each item up to an epoch."""
    newest: dict[str, tuple[float, float]] = {}
    for (epoch, name), count in records.items():
        if epoch <= up_to and epoch >= newest.get(name, (-math.inf, 0.0))[0]:
            newest[name] = (epoch, count)
    return {name: count for name, (_, count) in newest.items()}


def encoded_size(place: tuple[int, str], count: float) -> int:
    epoch, name = place
    return len(touched(name, epoch, count)[1])
