"""Batch delivery: a Faust transport whose consumer gives whole fetched runs of a partition to its lane."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import suppress
from itertools import zip_longest
from typing import Any

import uvloop
from aiokafka.errors import KafkaError
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from mode import Service

from stream_app.faustkit.delivered import Delivered
from stream_app.faustkit.failure import end_process
from stream_app.faustkit.fetching import RunConsumer
from stream_app.faustkit.run import MAX_RUN_BYTES, Run
from stream_app.faustkit.standing import PartitionProgress
from stream_app.faustkit.watchdog import Progress

log = logging.getLogger("sliceflow.faustkit")

FETCH_WAIT_MS = 500
"""How long Kafka may hold a fetch while there is nothing to deliver."""


MAX_FETCH_BYTES = 16 * 1024 * 1024
"""Bytes of one answer of Kafka, over all partitions: it bounds what is held in memory while a role is behind."""

REBALANCE_TIMEOUT_MS = 60_000
"""How long the members of a group may take to let go of their partitions when it is dealt out anew."""

ASKS_PER_LIMIT = 8
"""How often the topics and the ends of the input are asked for within the time that it may stand still: two small
requests each."""

MAX_POLL_INTERVAL_MS = 1000 * 1000
"""The time between two fetches after which aiokafka leaves the group: longer than any run may wait."""


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread on uvloop, with Kafka gathering records for those who would rather have more at once."""

    app: Any  # A BatchApp; Faust's interface does not know its methods.
    consumer: BatchConsumer

    def __init__(self, consumer: BatchConsumer, **kwargs: Any) -> None:
        super().__init__(consumer, thread_loop=uvloop.new_event_loop(), **kwargs)
        self._close_thread_loop_on_stop = True
        self.ends: dict[TP, int] = {}

    async def on_thread_started(self) -> None:
        """Have the watchdog look after this thread and what it reads."""
        await super().on_thread_started()
        # Heartbeats are sent here: without them for a whole session, others get the partitions.
        self.app.watchdog.watch_loop("the consumer", self.app.config.session_timeout_s)
        self.app.watchdog.watch_input(self.consumer.progress)

    def missing_topics(self) -> list[str]:
        """The topics that are subscribed to but that Kafka does not name; may be called from any thread."""
        consumer = self._ensure_consumer()
        cluster = consumer._client.cluster
        return [topic for topic in consumer._subscription.topics if not cluster.partitions_for_topic(topic)]

    def input_states(self) -> list[tuple[TP, Any]]:
        """The assigned input partitions and aiokafka's state of each; may be called from any thread."""
        subscription = self._ensure_consumer()._subscription.subscription
        assignment = subscription and subscription.assignment
        if not assignment:
            return []
        changelogs = self.app.tables.changelog_topics
        return [(tp, assignment.state_value(tp)) for tp in assignment.tps if tp.topic not in changelogs]

    async def seek_uncommitted(self, committed: set[TP]) -> None:
        """Read the input partitions that are not in `committed` from their beginning."""
        await self.call_thread(self._seek_uncommitted, committed)

    async def _seek_uncommitted(self, committed: set[TP]) -> None:
        if fresh := [tp for tp, _ in self.input_states() if tp not in committed]:
            await self._ensure_consumer().seek_to_beginning(*fresh)

    @Service.task
    async def _ask_kafka(self) -> None:
        """Ask where the input ends: what the fetcher knows of it is as old as its last fetch, and it may be dead.

        And which topics there are: nobody notices otherwise that a changelog was deleted, for it is not fetched, nor
        that partitions were added, after which a member that came back under its name deals out nothing.
        """
        consumer = self._ensure_consumer()
        while not self.should_stop:
            await self.sleep(self.app.config.limits.stalled_s / ASKS_PER_LIMIT)
            partitions = [tp for tp, _ in self.input_states()]
            try:
                await consumer._client.force_metadata_update()
                self.ends.update(await consumer.end_offsets(partitions))
                await self.app.end_if_grown(self._num_partitions)
            except KafkaError as error:
                log.warning("Kafka does not say where the input ends: %r", error)

    def _num_partitions(self, topic: str) -> int:
        return len(self._ensure_consumer()._client.cluster.partitions_for_topic(topic) or ())

    def hold(self, tp: TP) -> None:
        """Let this partition wait without holding up the fetches of the others; may be called from any thread."""
        self.thread_loop.call_soon_threadsafe(self._ensure_consumer().hold, tp)

    def release(self, tp: TP) -> None:
        """Let the fetch that waits look again at what it may take; may be called from any thread."""
        self.thread_loop.call_soon_threadsafe(self._ensure_consumer().release, tp)

    def _create_worker_consumer(self, transport: Any) -> RunConsumer:
        self._assignor = self.app.assignor
        config = transport.app.config
        session_ms = round(config.session_timeout_s * 1000)
        return RunConsumer(
            **config.connection,
            reads_runs=transport.app.is_batch_topic,
            max_run_records=config.max_run_records,
            client_id=config.app_id,
            group_id=config.app_id,
            group_instance_id=config.instance_id or None,
            partition_assignment_strategy=[self._assignor],
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            # What a producer took back has never happened.
            isolation_level="read_committed",
            max_partition_fetch_bytes=MAX_RUN_BYTES,
            fetch_max_bytes=MAX_FETCH_BYTES,
            fetch_max_wait_ms=config.gather_ms or FETCH_WAIT_MS,
            fetch_min_bytes=MAX_RUN_BYTES if config.gather_ms else 1,
            session_timeout_ms=session_ms,
            heartbeat_interval_ms=session_ms // 5,
            rebalance_timeout_ms=REBALANCE_TIMEOUT_MS,
            # The watchdog ends a process that does not get on; Kafka need not watch it too.
            max_poll_interval_ms=MAX_POLL_INTERVAL_MS,
        )

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Leave the changelogs alone from the start: Faust has them assigned, our recovery reads them itself.

        Fetched and never taken they would make aiokafka hold back every other fetch from the same broker.
        """
        consumer = self._ensure_consumer()
        changelogs = self.app.tables.changelog_topics
        consumer.pause(*[tp for tp in consumer.assignment() if tp.topic in changelogs])
        await super().on_partitions_assigned(assigned, generation_id)


class BatchConsumer(driver.Consumer):
    """Delivers runs on batch topics and single records on the others, and commits exactly what is done.

    Faust's own bookkeeping of offsets is not used: it fills gaps by arithmetic, so that what was never done may be
    committed. On batch topics its acknowledgements mean nothing either; there `done_up_to` counts.
    """

    app: Any  # A BatchApp; Faust's interface does not know its methods.
    _thread: BatchConsumerThread

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next_offsets: dict[TP, int] = {}
        self._held: set[TP] = set()
        self._is_committing = False
        self._is_released = asyncio.Event()
        self._delivered: dict[TP, Delivered] = {}
        self._fetched: dict[TP, int] = {}
        self._acknowledged: dict[TP, int] = {}
        self._num_polls = 0
        self._is_polling = False

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: leaving out one partition would hold back the fetches of all; the lanes bound what waits."""

    async def wait_empty(self) -> None:
        """Finish the runs in work, then commit; runs that only wait are left to the partition's next owner."""
        await self.app.finish_runs()
        await super().wait_empty()

    def hold(self, tp: TP) -> None:
        """Take nothing more of this partition for now."""
        self._held.add(tp)
        self.pause_partitions([tp])
        self._thread.hold(tp)

    def release(self, tp: TP) -> None:
        """Take from this partition again, at once."""
        if tp in self._held:
            self._held.discard(tp)
            self.resume_partitions([tp])
            self._is_released.set()
            self._thread.release(tp)

    async def _wait_next_records(self, timeout: float) -> Any:
        # Faust sleeps for a second when there is nothing to ask for.
        if self.flow_active and self._held and not self._get_active_partitions():
            self._is_released.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._is_released.wait(), timeout)
            return {}, None
        return await super()._wait_next_records(timeout)

    def done_up_to(self, tp: TP, next_offset: int) -> None:
        """Everything that the inputs before `next_offset` caused is acknowledged and kept; they may be committed.

        When nothing else is in work that is done at once: there is nothing to gather commits for.
        """
        self._next_offsets[tp] = next_offset
        is_all_done = all(self._next_offsets.get(other, -1) >= end for other, end in self._fetched.items())
        if is_all_done and self.flow_active and not self._is_committing:
            self._is_committing = True
            self.add_future(self._commit_now())

    async def _commit_now(self) -> None:
        try:
            await self.commit()
        finally:
            self._is_committing = False

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch: runs go to their lanes; of topics without batch delivery this gives one message for each record."""
        self._num_polls += 1
        self._is_polling = True
        try:
            records, active = await self._wait_next_records(timeout)
        finally:
            self._is_polling = False
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        generation_id = self.app.consumer_generation_id
        for tp, fetched in self._in_turn(records):
            if not self._is_current(generation_id):
                return
            # What was taken of a partition before it was held has to be handed on: it is not fetched again.
            if active is None or tp in active or tp in self._held:
                if isinstance(fetched, Run):
                    # Not as an event of a stream: Faust would do for each run what it does for a message.
                    self.app.put_run(fetched)
                else:
                    self._delivered.setdefault(tp, Delivered()).deliver(fetched.offset)
                    yield tp, self._to_message(tp, fetched)

    def _is_current(self, generation_id: int) -> bool:
        """Whether delivery may go on: not suspended, and no rebalance since `generation_id`."""
        return bool(self.flow_active) and self.app.consumer_generation_id == generation_id

    def _in_turn(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Runs and records of all partitions in turn, so that a full partition does not starve the others."""
        for tp, fetched in records.items():
            if fetched:
                self._fetched[tp] = (
                    fetched[-1].next_offset if self.app.is_batch_topic(tp.topic) else fetched[-1].offset + 1
                )
        lanes = [[(tp, one) for one in fetched] for tp, fetched in records.items()]
        for row in zip_longest(*lanes):
            yield from (delivery for delivery in row if delivery is not None)

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was done on partitions that now belong to somebody else, once it is committed."""
        for tp in revoked:
            self._count_acknowledged(tp)  # Faust drops what it noted, and only then commits for the last time.
        await super().on_partitions_revoked(revoked)
        while self._held:
            self._thread.release(self._held.pop())
        for tp in revoked:
            self._next_offsets.pop(tp, None)
            self._delivered.pop(tp, None)
            self._fetched.pop(tp, None)
            self._acknowledged.pop(tp, None)

    async def perform_seek(self) -> None:
        """Go back to the committed offsets, and to the beginning where nothing is committed.

        aiokafka leaves a partition without a commit where it stands. Records that were fetched of it while partitions
        were dealt out, and not handed on, would never come again.
        """
        await super().perform_seek()
        committed = {tp: offset for tp, offset in self._committed_offset.items() if offset}
        await self._thread.seek_uncommitted(set(committed))
        await self._compare_commits(committed)
        self._acknowledged.update({tp: offset for tp, offset in self._committed_offset.items() if offset is not None})

    async def _compare_commits(self, committed: Mapping[TP, int]) -> None:
        """End the process where less is there than was committed; that some is there no more, a fetch will tell."""
        ends = await self.highwaters(*committed) if committed else {}
        for tp, offset in committed.items():
            if offset > ends[tp]:
                end_process(
                    f"{tp.topic}[{tp.partition}] ends at offset {ends[tp]}, but {offset} is committed: the topic has "
                    "lost records or was created anew. To mend it: restore the topic, or let the group begin anew with "
                    "empty stores and changelogs."
                )

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        is_done: bool = await super()._commit(offsets)
        if is_done:
            self._acknowledged.update(offsets)
        return is_done

    @Service.task
    async def _commit_livelock_detector(self) -> None:
        """Nothing: it compares times of two clocks, and the watchdog does more than to write to the log."""

    def progress(self) -> Progress:
        """How far the assigned input partitions have come; may be called from any thread, and does not wait."""
        return Progress(
            generation_id=self.app.consumer_generation_id,
            is_opening=self.app.is_opening,
            is_flowing=bool(self.flow_active),
            num_polls=self._num_polls,
            is_polling=self._is_polling,
            missing=self._thread.missing_topics(),
            partitions=[self._partition_progress(tp, state) for tp, state in self._thread.input_states()],
        )

    def _partition_progress(self, tp: TP, state: Any) -> PartitionProgress:
        # In this order: offsets that are read later are never below those that were read before.
        committed, fetched = self._acknowledged.get(tp, -1), self._fetched.get(tp, -1)
        position = state._position
        end = self._thread.ends.get(tp, -1)
        stable, is_held = -1 if state.lso is None else state.lso, tp in self._held
        return PartitionProgress(tp.topic, tp.partition, committed, fetched, position, end, is_held, stable)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for tp in [*self._next_offsets, *self._delivered]:
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        delivered = self._delivered.get(tp)
        self._count_acknowledged(tp)
        return self._next_offsets.get(tp) if delivered is None else delivered.next_offset

    def _count_acknowledged(self, tp: TP) -> None:
        # Faust's lists would grow for ever, since nothing else reads them.
        offsets = self._acked.pop(tp, ())
        self._acked_index.pop(tp, None)
        if (delivered := self._delivered.get(tp)) is not None:
            delivered.acknowledge(offsets)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Nothing: what is not delivered is not waited for."""


class IdempotentProducer(driver.Producer):
    """Faust's producer, for what agents of per-message topics send: connected as the others, repeating nothing."""

    app: Any  # A BatchApp; Faust's interface does not know its configuration.

    def _settings_extra(self) -> Mapping[str, Any]:
        return {**self.app.config.connection, "acks": "all", "enable_idempotence": True}


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with our consumer and an idempotent producer."""

    Consumer = BatchConsumer
    Producer = IdempotentProducer
