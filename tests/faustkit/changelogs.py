"""A changelog on the broker, the stores beside it, and changes to write."""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.errors import KafkaError

from stream_app.faustkit.recovery import recover
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from tests.support import DEADLINE_S, create_topics, delete_topics, publish, wait_until

LIMIT_S = DEADLINE_S
"""Recovery of a few records that takes longer waits for something that never comes."""

Change = tuple[int, bytes, int | None, bytes]
"""Partition, key, position and payload; without a position it is a deletion."""

LONG = [(0, b"key %d" % (number % 700), number, b"x" * 400) for number in range(3000)]
"""Changes that take many fetches when these are small."""


class Changelog:
    """A changelog of two partitions, and the stores beside it."""

    def __init__(self, servers: str, topic: str, folder: Path, configs: dict[str, str] | None = None) -> None:
        self.servers = servers
        self.topic = topic
        memory = StoreMemory(4 * 1024 * 1024)
        self.stores = {number: PartitionStore(folder / str(number), memory) for number in range(2)}
        asyncio.run(create_topics(servers, {topic: 2}, {"cleanup.policy": "compact,delete", **(configs or {})}))

    def close(self) -> None:
        """Close the stores."""
        for store in self.stores.values():
            store.close()

    def write(self, *records: Change) -> None:
        """Append changes."""
        sealed = [
            (self.topic, partition, key, None if position is None else seal(position, payload))
            for partition, key, position, payload in records
        ]
        asyncio.run(publish(self.servers, sealed))

    def recreate(self) -> None:
        """Delete the topic and make it again."""
        asyncio.run(delete_topics(self.servers, [self.topic]))

        def made_again() -> bool:
            try:
                asyncio.run(create_topics(self.servers, {self.topic: 2}))
            except KafkaError:
                return False
            return True

        wait_until(made_again, what="the topic to be gone and made again")

    def truncate(self, offset: int) -> None:
        """Delete the records of partition 0 before `offset`."""

        async def scenario() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
            await admin.start()
            try:
                await admin.delete_records({TopicPartition(self.topic, 0): RecordsToDelete(offset)})
            finally:
                await admin.close()

        asyncio.run(scenario())

    def recover(self, *, stalled_s: float = LIMIT_S) -> int:
        """Recover both stores; the number of records read."""

        async def scenario() -> int:
            connection = {"bootstrap_servers": [self.servers]}
            async with asyncio.timeout(LIMIT_S):
                return await recover(connection, self.topic, self.stores, stalled_s=stalled_s)

        return asyncio.run(scenario())

    def held(self, partition: int = 0) -> dict[bytes, Stored]:
        """What a store holds."""
        return dict(self.stores[partition].items())


def folded(changes: list[tuple[int, bytes, int, bytes]]) -> dict[bytes, Stored]:
    """What they leave; their positions grow."""
    return {key: Stored(position, payload) for _, key, position, payload in changes}
