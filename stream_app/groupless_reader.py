"""Consumers that belong to no group: nothing is committed, nobody is rebalanced."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Final, Literal, Self

from aiokafka import TopicPartition

from stream_app.errors import TopicMismatchError
from stream_app.kafka import REQUEST_TIMEOUT_MS, as_unreachable, connection, start_reading
from stream_app.settings import Settings

IsolationLevel = Literal["read_uncommitted", "read_committed"]
"""What of transactions is read and counts for the end of a partition."""

POLL_MS: Final = 200
"""How long one fetch waits for records, at most."""


class GrouplessReader:
    """A consumer to read with, and where topics begin and end. An asynchronous context manager.

    Args:
        settings: The settings.
        isolation_level: What of transactions is read and counts for the end of a partition.
        new_consumer: Makes the consumer, given its connection and what all readers have in common.

    Raises:
        KafkaUnreachableError: On entering or reading, the broker does not answer, or not in time.
    """

    def __init__(self, settings: Settings, isolation_level: IsolationLevel, new_consumer: Callable[..., Any]) -> None:
        self._settings = settings
        self._isolation_level = isolation_level
        self._new_consumer = new_consumer
        self._consumer: Any = None

    async def __aenter__(self) -> Self:
        self._consumer = self._new_consumer(
            **connection(self._settings),
            enable_auto_commit=False,
            isolation_level=self._isolation_level,
            # A fetch that waits for records holds up every other request of the consumer.
            fetch_max_wait_ms=50,
            request_timeout_ms=REQUEST_TIMEOUT_MS,
        )
        await start_reading(self._settings, self._consumer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._consumer.stop()

    async def num_partitions(self, topic: str) -> int:
        """How many partitions the topic has.

        Raises:
            TopicMismatchError: The topic does not exist.
        """
        with as_unreachable(self._settings):
            # Ask for all: naming a missing topic would create it on many clusters. The consumer's own
            # `partitions_for_topic` only knows topics that were named before.
            cluster = await self._consumer._client.fetch_all_metadata()
        partitions = cluster.partitions_for_topic(topic)
        if not partitions:
            raise TopicMismatchError(f"The topic {topic} does not exist.", mend="run `sliceflow topics --create`")
        return len(partitions)

    async def bounds(self, topic: str, partitions: Iterable[int] | None = None) -> dict[int, tuple[int, int]]:
        """First offset and end offset (that of the next record to come) of each partition, at this moment.

        Raises:
            TopicMismatchError: The topic does not exist.
        """
        count = await self.num_partitions(topic)
        wanted = [TopicPartition(topic, number) for number in (range(count) if partitions is None else partitions)]
        with as_unreachable(self._settings):
            self._consumer.assign(wanted)  # makes the consumer look up where the partitions are
            starts = await self._consumer.beginning_offsets(wanted)
            ends = await self._consumer.end_offsets(wanted)
        return {tp.partition: (starts[tp], ends[tp]) for tp in wanted}
