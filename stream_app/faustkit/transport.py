"""Batch delivery: a Faust transport whose consumer hands an agent one partition's fetched run as one event."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import zip_longest
from typing import Any

import faust
import uvloop
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from stream_app.faustkit.lanes import MAX_RUN_BYTES, MAX_RUN_RECORDS
from stream_app.faustkit.run import run_of, split_records

FETCH_WAIT_MS = 500
"""How long Kafka may hold a fetch while there is nothing to deliver."""


class RunSchema(faust.Schema[Any, Any]):
    """Hands keys and runs through undecoded: a record that cannot be decoded is the agent's to judge."""

    def loads_key(self, app: Any, message: Any, **_: Any) -> Any:
        """The key as it came."""
        return message.key

    def loads_value(self, app: Any, message: Any, **_: Any) -> Any:
        """The run as it came."""
        return message.value


class BatchConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread on uvloop, with Kafka gathering records for those who would rather have more at once."""

    def __init__(self, consumer: BatchConsumer, **kwargs: Any) -> None:
        super().__init__(consumer, thread_loop=uvloop.new_event_loop(), **kwargs)
        self._close_thread_loop_on_stop = True

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        gather_ms = transport.app.config.gather_ms
        # Faust offers no setting for these two; aiokafka reads them when the consumer starts.
        consumer._fetch_max_wait_ms = gather_ms or FETCH_WAIT_MS
        consumer._fetch_min_bytes = MAX_RUN_BYTES if gather_ms else 1
        return consumer

    async def on_partitions_assigned(self, assigned: set[TP], generation_id: int = 0) -> None:
        """Leave the changelogs alone from the start: Faust has them assigned, our recovery reads them itself.

        Fetched and never taken they would make aiokafka hold back every other fetch from the same broker.
        """
        consumer = self._ensure_consumer()
        changelogs = self.app.tables.changelog_topics
        consumer.pause(*[tp for tp in consumer.assignment() if tp.topic in changelogs])
        await super().on_partitions_assigned(assigned, generation_id)


class BatchConsumer(driver.Consumer):
    """Delivers runs on batch topics, and commits exactly what was reported done on them.

    Faust's own bookkeeping of acknowledgements is not used for batch topics: it fills gaps by arithmetic and
    counts an input whose processing failed as acknowledged.
    """

    app: Any  # A BatchApp; Faust's interface does not know its methods.

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._next_offsets: dict[TP, int] = {}

    def _new_consumer_thread(self) -> BatchConsumerThread:
        return BatchConsumerThread(self, loop=self.loop, beacon=self.beacon)

    def on_buffer_full(self, tp: TP) -> None:
        """Nothing: leaving out one partition would hold back the fetches of all; the lanes bound what waits."""

    async def wait_empty(self) -> None:
        """Finish the runs in work, then commit; runs that only wait are left to the partition's next owner."""
        await self.app.finish_runs()
        await super().wait_empty()

    def done_up_to(self, tp: TP, next_offset: int) -> None:
        """Everything that the inputs before `next_offset` caused is acknowledged and kept; they may be committed."""
        self._next_offsets[tp] = next_offset

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, Any]]:
        """Fetch, and give one message for each run (or each record, on topics without batch delivery)."""
        records, active = await self._wait_next_records(timeout)
        if not records or self.should_stop:
            return
        if not self.flow_active:
            await self.perform_seek()
            return
        generation_id = self.app.consumer_generation_id
        for tp, message in self._deliveries(records):
            if not self._is_current(generation_id):
                return
            if active is None or tp in active or tp in self._buffered_partitions:
                yield tp, message

    def _is_current(self, generation_id: int) -> bool:
        """Whether delivery may go on: not suspended, and no rebalance since `generation_id`."""
        return bool(self.flow_active) and self.app.consumer_generation_id == generation_id

    def _deliveries(self, records: Mapping[TP, list[Any]]) -> Iterator[tuple[TP, Any]]:
        """Messages of all partitions in turn, so that a full partition does not starve the others."""
        lanes = [self._lane(tp, fetched) for tp, fetched in records.items() if fetched]
        for row in zip_longest(*lanes):
            yield from (delivery for delivery in row if delivery is not None)

    def _lane(self, tp: TP, fetched: list[Any]) -> Iterator[tuple[TP, Any]]:
        if not self.app.is_batch_topic(tp.topic):
            return ((tp, self._to_message(tp, record)) for record in fetched)
        pieces = split_records(fetched, MAX_RUN_RECORDS, MAX_RUN_BYTES)
        return ((tp, self._run_message(tp, piece)) for piece in pieces)

    def _run_message(self, tp: TP, records: Any) -> Any:
        # The message stands for the whole run: it carries the last offset, which Faust takes for "read up to".
        message: Any = self._to_message(tp, records[-1])
        message.key = None
        message.value = run_of(records)
        return message

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        """Forget what was done on partitions that now belong to somebody else."""
        await super().on_partitions_revoked(revoked)
        for tp in revoked:
            self._next_offsets.pop(tp, None)

    def _filter_tps_with_pending_acks(self, topics: Any = None) -> Iterator[TP]:
        for tp in super()._filter_tps_with_pending_acks(topics):
            if not self.app.is_batch_topic(tp.topic):
                yield tp
        for tp in list(self._next_offsets):
            if topics is None or tp in topics or tp.topic in topics:
                yield tp

    def _new_offset(self, tp: TP) -> int | None:
        if not self.app.is_batch_topic(tp.topic):
            offset: int | None = super()._new_offset(tp)
            return offset
        # Faust's lists of acknowledged offsets would grow for ever, since nothing else reads them.
        self._acked.pop(tp, None)
        self._acked_index.pop(tp, None)
        return self._next_offsets.get(tp)

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        if not self.app.is_batch_topic(tp.topic):
            await super()._add_gap(tp, offset_from, offset_to)


class BatchTransport(driver.Transport):
    """Faust's aiokafka transport with our consumer."""

    Consumer = BatchConsumer
