"""Reading runs: an aiokafka consumer that gives columns where the original makes an object for each record."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.consumer.fetcher import READ_COMMITTED, Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import CorruptRecordException

from stream_app.faustkit.run import MAX_RUN_BYTES, MAX_RUN_RECORDS, run_of, split_records

log = logging.getLogger("sliceflow.faustkit")


def every_topic(topic: str) -> bool:
    """All topics are read in runs."""
    return True


class RunConsumer(AIOKafkaConsumer):  # type: ignore[misc]
    """Its `getmany` gives a list of `Run` for each partition of those topics that are read in runs.

    Where retention has overtaken it, it reads on at the log's begin, as aiokafka does, but says aloud (``LOST``) how
    many offsets it could not read. That is seen at the fetch that Kafka refuses: gaps of compaction and transactions
    are not refused.

    Args:
        reads_runs: Which topics are; the others are read record by record, as usual.
        max_run_records: Most records of one run.
        settings: Keyword arguments for the consumer. ``max_poll_records`` has no meaning here.
    """

    def __init__(
        self,
        *topics: str,
        reads_runs: Callable[[str], bool] = every_topic,
        max_run_records: int = MAX_RUN_RECORDS,
        **settings: Any,
    ) -> None:
        super().__init__(*topics, **settings)
        self._reads_runs = reads_runs
        self._max_run_records = max_run_records
        self._held: set[TopicPartition] = set()
        # Each with aiokafka's state of the partition: after a rebalance it has another.
        self._refused: dict[TopicPartition, tuple[Any, int]] = {}
        self._lost: dict[TopicPartition, range] = {}

    async def start(self) -> None:
        """Connect, and take over how fetched bytes become records."""
        await super().start()
        fetcher: Fetcher = self._fetcher
        process, place = fetcher._proc_fetch_request, fetcher._update_fetch_positions

        async def process_as_runs(assignment: Any, node_id: Any, request: Any) -> Any:
            has_new_data = await process(assignment, node_id, request)
            # Nothing runs between the arrival of the bytes and this: they are not unpacked yet.
            for tp, result in fetcher._records.items():
                if type(result) is FetchResult and self._reads_runs(tp.topic):
                    self._as_runs(result)
            self._hold_up_nobody()
            self._note_refused(assignment, request)
            return has_new_data

        async def place_and_tell(assignment: Any, node_id: Any, partitions: Any) -> Any:
            has_new_data = await place(assignment, node_id, partitions)
            self._tell_lost(assignment, partitions)
            return has_new_data

        fetcher._proc_fetch_request = process_as_runs
        fetcher._update_fetch_positions = place_and_tell

    def _note_refused(self, assignment: Any, request: Any) -> None:
        """Note where the partitions were read whose offsets Kafka does not have; their new places are not known yet."""
        for topic, partitions in request.topics:
            for partition, offset, _ in partitions:
                tp = TopicPartition(topic, partition)
                state = assignment.state_value(tp)
                if assignment.active and state.awaiting_reset:
                    self._refused[tp] = state, offset
                else:
                    self._refused.pop(tp, None)

    def _tell_lost(self, assignment: Any, partitions: Any) -> None:
        """Say what lies between where partitions were read and where they are read now."""
        for tp in partitions:
            state = assignment.state_value(tp)
            if not state.has_valid_position or tp not in self._refused:
                continue
            refused_state, offset = self._refused.pop(tp)
            lost = range(offset, state.position)
            # Until something behind it is committed, each rebalance goes back before it. And a place that went back
            # is that of a topic created anew, which is the watchdog's.
            if refused_state is state and lost and not _contains(self._lost.get(tp, range(0)), lost):
                self._lost[tp] = lost
                log.error(
                    "LOST: %d records of %s[%d] (offsets %d to %d) were removed by retention before they were read. "
                    "Reading goes on with what is left. To mend it: give the topic a longer retention.",
                    *(len(lost), tp.topic, tp.partition, lost.start, lost.stop - 1),
                )

    def hold(self, tp: TopicPartition) -> None:
        """Nothing of this partition will be taken for now; to be called in the event loop of this consumer."""
        self._held.add(tp)
        self._hold_up_nobody()
        self._fetcher._notify(self._fetcher._wait_consume_future)

    def release(self, tp: TopicPartition) -> None:
        """The partition is taken from again: whoever waits in `getmany` looks again; to be called as `hold`."""
        self._held.discard(tp)
        for waiter in self._fetcher._fetch_waiters:
            self._fetcher._notify(waiter)

    def _hold_up_nobody(self) -> None:
        # While fetched data is not taken, aiokafka fetches nothing from the same broker for a tenth of a second: it
        # will be taken in a moment, and its partition should not miss the next fetch. Not so what is held.
        for tp in self._held:
            result = self._fetcher._records.get(tp)
            if type(result) is FetchResult:
                result._backoff = 0.0

    def _as_runs(self, result: FetchResult) -> None:
        if type(result._partition_records) is PartitionRecords:
            result._partition_records = RunReader(result._partition_records, self._max_run_records)


def _contains(whole: range, part: range) -> bool:
    return whole.start <= part.start and part.stop <= whole.stop


class RunReader(PartitionRecords):  # type: ignore[misc]
    """Iterates over what one fetch brought of one partition, in runs.

    Control batches and aborted transactions are left out, as by the original.
    """

    next_fetch_offset: int

    def __init__(self, fetched: PartitionRecords, max_run_records: int) -> None:
        # The original has done nothing yet; this goes on in its place, with all that it was told.
        self.__dict__.update(fetched.__dict__)
        # It and its iterator hold each other, and with them the bytes of the fetch, until somebody looks for cycles.
        fetched.__dict__.clear()
        self._max_run_records = max_run_records
        self._records_iterator = self._unpack_records()

    def _unpack_records(self) -> Iterator[Any]:
        gathered: list[Any] = []
        for batch in self._delivered_batches():
            records = list(batch)
            if records and records[0].offset < self.next_fetch_offset:
                # A fetch begins with the whole batch that holds its offset.
                records = [record for record in records if record.offset >= self.next_fetch_offset]
            gathered += records
            # A batch keeps its last offset when compaction has removed the record there.
            self.next_fetch_offset = batch.next_offset
        for piece in split_records(gathered, self._max_run_records, MAX_RUN_BYTES):
            yield run_of(self._tp.topic, self._tp.partition, piece)

    def _delivered_batches(self) -> Iterator[Any]:
        while self._records.has_next():
            batch = self._records.next_batch()
            if self._check_crcs and not batch.validate_crc():
                raise CorruptRecordException(f"Invalid CRC - {self._tp}")
            if self._is_aborted(batch) or batch.is_control_batch:
                self.next_fetch_offset = batch.next_offset
            else:
                yield batch

    def _is_aborted(self, batch: Any) -> bool:
        if self._isolation_level != READ_COMMITTED or batch.producer_id is None:
            return False
        self._consume_aborted_up_to(batch.base_offset)
        if batch.is_control_batch and self._contains_abort_marker(batch):
            self._aborted_producers.discard(batch.producer_id)
        return batch.is_transactional and batch.producer_id in self._aborted_producers
