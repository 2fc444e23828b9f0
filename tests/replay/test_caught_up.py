"""Waiting for the roles: the arithmetic, and against groups on a real broker whose commits the test makes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from stream_app.errors import CaughtUpError
from stream_app.lag import group_name
from stream_app.preflight import ensure_topics
from stream_app.recorded_topics import output_ends
from stream_app.records import StatusRecord, encode
from stream_app.replay.caught_up import (
    Lag,
    ProgressWatch,
    Totals,
    behind_of,
    read_totals,
    sum_of,
    users_with_list,
    wait_caught_up,
)
from stream_app.replay.report import LINE_EVERY_S, LinePrinter
from stream_app.roles import ROLE_INPUTS, ROLES
from stream_app.settings import KafkaSettings, Settings
from tests.support import publish

NUM_PARTITIONS = 2


def settings_for(broker: EmbeddedBroker, prefix: str) -> Settings:
    """Settings of one test, with all topics there."""
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    settings = Settings(kafka=kafka, prefix=prefix, partitions=NUM_PARTITIONS)
    ensure_topics(settings, create=True)
    return settings


def status(partition: int, applied: int, dead: int = 0, **dropped: int) -> StatusRecord:
    """A status whose counts balance."""
    return StatusRecord(
        partition=partition,
        offset=0,
        events=applied + dead + sum(dropped.values()),
        applied=applied,
        dead_lettered=dead,
        dropped=dropped,
        users=0,
        watermark_ms=0,
    )


async def commit(settings: Settings, role: str, offsets: Sequence[int]) -> None:
    """Commit offsets as a worker of `role` would, partition by partition."""
    consumer = AIOKafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap_servers,
        group_id=group_name(settings, role),
        enable_auto_commit=False,
    )
    topic = settings.prefix + ROLE_INPUTS[role]
    await consumer.start()
    try:
        consumer.assign([TopicPartition(topic, number) for number in range(len(offsets))])
        await consumer.commit({TopicPartition(topic, number): at for number, at in enumerate(offsets)})
    finally:
        await consumer.stop()


async def fill(settings: Settings, name: str, *counts: int) -> None:
    """Put so many records into each partition of a topic."""
    records = [
        (settings.prefix + name, number, b"k", b"v") for number, count in enumerate(counts) for _ in range(count)
    ]
    await publish(settings.kafka.bootstrap_servers, records)


@pytest.mark.kafka
def test_roles_are_waited_for_in_the_order_of_the_flow(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_for(broker, topic_prefix)
    lags: list[Lag] = []

    async def story() -> None:
        await fill(settings, "events", 3, 1)
        waiting = asyncio.create_task(wait_caught_up(settings, on_lag=lags.append))
        # Committing the first role lets it give the second one work, which must be waited for too.
        async with asyncio.timeout(60):
            while not lags:
                await asyncio.sleep(0.01)
            await fill(settings, "slices", 2, 0)
            await commit(settings, "sequence", [3, 1])
            while lags[-1].role != "encode":
                await asyncio.sleep(0.01)
            assert not waiting.done()
            await commit(settings, "encode", [2, 0])
            await waiting

    asyncio.run(story())
    assert list(dict.fromkeys(lag.role for lag in lags)) == list(ROLES)
    assert (lags[0], lags[-1].behind) == (Lag("sequence", 4, 0), 0)
    assert Lag("encode", 2, 0) in lags


@pytest.mark.kafka
def test_a_role_that_does_not_move_is_named(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_for(broker, topic_prefix)

    async def story() -> None:
        await fill(settings, "events", 2, 1)
        await commit(settings, "sequence", [2, 0])
        await wait_caught_up(settings, no_progress_s=0.5)

    with pytest.raises(CaughtUpError, match="sequence is 1 records behind") as caught:
        asyncio.run(story())
    assert "sliceflow up" in caught.value.mend


@pytest.mark.kafka
@pytest.mark.slow
def test_marks_and_aborted_records_of_transactions_are_not_waited_for(
    broker: EmbeddedBroker, topic_prefix: str
) -> None:
    settings = settings_for(broker, topic_prefix)
    topic = f"{topic_prefix}events"

    async def story() -> None:
        async with AIOKafkaProducer(bootstrap_servers=broker.bootstrap_servers, transactional_id=topic) as producer:
            for is_kept in (True, False):  # 0 kept, 1 mark, 2 taken back, 3 mark
                await producer.begin_transaction()
                await producer.send_and_wait(topic, b"v", partition=0)
                await (producer.commit_transaction() if is_kept else producer.abort_transaction())
        await fill(settings, "events", 0, 2)
        lags: list[Lag] = []
        waiting = asyncio.create_task(wait_caught_up(settings, no_progress_s=20.0, on_lag=lags.append))
        async with asyncio.timeout(60):
            while Lag("sequence", 6, 0) not in lags:
                await asyncio.sleep(0.01)
            await commit(settings, "sequence", [1, 1])
            while Lag("sequence", 1, 2) not in lags:  # what is kept in the other partition has to be read
                await asyncio.sleep(0.01)
            await commit(settings, "sequence", [1, 2])
            await waiting

    asyncio.run(story())


@pytest.mark.kafka
def test_the_newest_status_of_each_partition_counts(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_for(broker, topic_prefix)
    assert asyncio.run(read_totals(settings)) == Totals()
    records = [status(0, 1), status(1, 5), status(0, 3, 2, late=1)]
    sent = [(f"{topic_prefix}status", 0, b"%d" % one.partition, encode(one)) for one in records]
    asyncio.run(publish(broker.bootstrap_servers, sent))
    assert asyncio.run(read_totals(settings)) == Totals(11, 8, 2, {"late": 1})


@pytest.mark.kafka
def test_users_count_once_and_only_for_new_lists(broker: EmbeddedBroker, topic_prefix: str) -> None:
    settings = settings_for(broker, topic_prefix)
    topic = f"{topic_prefix}recommendations"

    async def story() -> int:
        await publish(broker.bootstrap_servers, [(topic, 0, b"old", b"{}")])
        since = (await output_ends(settings)).lists
        records = [(topic, 0, b"ann", b"{}"), (topic, 1, b"bob", b"{}"), (topic, 0, b"ann", b"{}")]
        await publish(broker.bootstrap_servers, [*records, (topic, 1, b"other", b"{}"), (topic, 0, b"cat", None)])
        return await users_with_list(settings, {b"ann", b"bob", b"cat", b"old", b"dan"}, since)

    assert asyncio.run(story()) == 2


def test_lag_counts_what_is_there_and_not_committed() -> None:
    bounds = {0: (0, 10), 1: (5, 8), 2: (3, 3)}
    assert behind_of(bounds, {}) == 13
    assert behind_of(bounds, {0: 10, 1: 8}) == 0
    # Records that retention took before anybody read them are no lag.
    assert behind_of(bounds, {0: 4, 1: 2}) == 6 + 3


def test_totals_of_a_replay_are_differences() -> None:
    before = sum_of([status(0, 10, 1, late=2), status(1, 5)])
    after = sum_of([status(0, 12, 1, late=2, duplicate=1), status(1, 5, 3)])
    assert after.since(before) == Totals(6, 2, 3, {"duplicate": 1})
    assert after.since(before).balances(6)
    assert not after.since(before).balances(5)
    assert not Totals(6, 2, 3, {}).balances(6)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(0, 2)), max_size=40))
def test_only_standing_still_for_too_long_is_a_stall(steps: list[tuple[float, int]]) -> None:
    """Beside a slow oracle: the time since the state last became another one."""
    watch = ProgressWatch(6.0, 0.0)
    now_s = changed_s = 0.0
    state: int | None = None
    for pause_s, seen in steps:
        now_s += pause_s
        if seen != state:
            state, changed_s = seen, now_s
        assert watch.is_stalled(seen, now_s) == (now_s - changed_s > 6.0)


def test_lines_of_progress_keep_their_distance() -> None:
    now_s = [0.0]
    lines: list[str] = []
    show = LinePrinter(lines.append, lambda: now_s[0])
    for step in range(12):
        now_s[0] = step * LINE_EVERY_S / 5
        show(str(step))
    assert lines == ["5", "10"]
