"""Where a topic ends, asked beside those who read it."""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition


class TopicEnds:
    """Asks where a topic ends, over a connection of its own: others wait behind their own fetches.

    Args:
        connection: Keyword arguments for aiokafka clients.
        topic: Full name of the topic.
        num_partitions: How many partitions it has.
    """

    def __init__(self, connection: dict[str, Any], topic: str, num_partitions: int) -> None:
        self._connection = connection
        self._partitions = [TopicPartition(topic, number) for number in range(num_partitions)]
        self._consumer: Any = None

    async def start(self) -> None:
        """Connect."""
        self._consumer = AIOKafkaConsumer(**self._connection, enable_auto_commit=False)
        await self._consumer.start()
        self._consumer.assign(self._partitions)
        self._consumer.pause(*self._partitions)

    async def ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition, now."""
        found = await self._consumer.end_offsets(self._partitions)
        return {tp.partition: end for tp, end in found.items()}
