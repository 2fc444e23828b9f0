"""Writers: who writes to Kafka, as Kafka knows them, and whole record batches in their name.

Kafka numbers the batches that a producer sends to a partition, so that one sent twice is kept once (KIP-98,
idempotent producer). A producer id that was asked for under a name is given again to whoever asks under the same name
later, with a greater epoch, and from then on Kafka refuses batches of smaller epochs. That is how the former owner of a
partition is fenced off: no transaction is needed for it, and it costs nothing while all goes well.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any

from aiokafka import errors
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.protocol.transaction import InitProducerIdRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.structs import TopicPartition

from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.request_line import Batch, Outcomes, RequestLine, Target

log = logging.getLogger("sliceflow.faustkit")

MAX_BATCH_BYTES = 1000 * 1000
"""Largest record batch we build. Below the brokers' usual limit of 1 MiB + overhead for topics that set none; one
record (a big history) may exceed it, and stands in a batch of its own."""

NUM_SEQUENCES = 2**31
"""Kafka counts a producer's records of a partition up to here, then from 0 again."""

RETRY_S = 0.1
"""Time between two tries while a partition has no leader or a broker is gone."""

TRANSACTION_TIMEOUT_MS = 60_000
"""Kafka wants one with a name, though no transaction is ever begun."""

_NO_HEADERS: list[tuple[str, bytes]] = []


class SendError(Exception):
    """A record batch was not acknowledged; the input that caused it must not be committed."""


class FencedError(SendError):
    """Somebody else writes under this name now; this process has lost its partition and must end."""


@dataclass
class Writer:
    """A producer's id and epoch, and for each partition the number of its next record there."""

    name: str
    producer_id: int
    epoch: int
    next_sequences: dict[Target, int] = field(default_factory=dict)
    locks: dict[Target, asyncio.Lock] = field(default_factory=dict)

    def lock(self, target: Target) -> asyncio.Lock:
        """Held while a batch for `target` is on its way: the next must not overtake it."""
        return self.locks.setdefault(target, asyncio.Lock())

    def batch(self, target: Target, records: Sequence[OutRecord], start: int) -> Batch:
        """A batch of as many of `records[start:]` as fit (at least one)."""
        sequence = self.next_sequences.get(target, 0)
        builder = DefaultRecordBatchBuilder(2, 0, 0, self.producer_id, self.epoch, sequence, MAX_BATCH_BYTES)
        append = builder.append
        now_ms = time.time_ns() // 1_000_000
        num_records = 0
        for record in islice(records, start, None):
            headers = list(record.headers) if record.headers else _NO_HEADERS
            if append(num_records, now_ms, record.key, record.value, headers) is None:
                break
            num_records += 1
        self.next_sequences[target] = (sequence + num_records) % NUM_SEQUENCES
        return Batch(target, bytes(builder.build()), num_records)


class BatchClient:
    """Sends record batches, several partitions in one request, until each is acknowledged by all in-sync replicas.

    Args:
        connection: Keyword arguments for aiokafka clients.
        client_id: How the broker's logs and quotas name this client.
        delivery_s: How long a batch may take, all tries together.
    """

    def __init__(self, connection: dict[str, Any], *, client_id: str, delivery_s: float) -> None:
        self._connection = connection
        self._client_id = client_id
        self._delivery_s = delivery_s
        self._new_topics: set[str] = set()
        self._lines: dict[int, RequestLine] = {}
        self._kafka: AIOKafkaClient | None = None

    async def start(self) -> None:
        """Connect."""
        self._kafka = AIOKafkaClient(**self._connection, client_id=self._client_id)
        await self._kafka.bootstrap()

    async def stop(self) -> None:
        """Disconnect."""
        if self._kafka is not None:
            await self._kafka.close()

    async def new_writer(self, name: str = "") -> Writer:
        """A new writer; under a name, all earlier ones of that name are fenced off wherever the new one writes.

        Raises:
            SendError: Kafka gave no producer id.
        """
        deadline_s = time.monotonic() + self._delivery_s
        while True:
            try:
                return await self._init_writer(name)
            except errors.KafkaError as error:
                if not _is_transient(error) or time.monotonic() > deadline_s:
                    raise SendError(f"Kafka gave no producer id for {name or 'this process'!r}: {error!r}") from error
            await self._refresh(RETRY_S)

    async def _init_writer(self, name: str) -> Writer:
        kafka = self._client()
        node = kafka.get_random_node()
        if name:
            node = await kafka.coordinator_lookup(CoordinationType.TRANSACTION, name)
        request = InitProducerIdRequest(name or None, TRANSACTION_TIMEOUT_MS)
        answer = await kafka.send(node, request)
        if answer.error_code:
            raise errors.for_code(answer.error_code)()
        return Writer(name, answer.producer_id, answer.producer_epoch)

    async def send(self, batches: Sequence[Batch]) -> dict[Target, int]:
        """Send one batch for each of several partitions; the offset of the first record of each.

        Raises:
            FencedError: The writer of a batch has been replaced.
            SendError: A batch was refused, or not acknowledged in time.
        """
        deadline_s = time.monotonic() + self._delivery_s
        waiting = {batch.target: batch for batch in batches}
        offsets: dict[Target, int] = {}
        while True:
            failed: dict[Target, errors.KafkaError] = {}
            groups = self._by_leader(waiting.values(), failed)
            answers = [self._line(node).send(group) for node, group in groups.items()]
            for outcome in await asyncio.gather(*answers):
                for target, result in outcome.items():
                    if isinstance(result, int):
                        offsets[target] = result
                        del waiting[target]
                    else:
                        failed[target] = result
            if not waiting:
                return offsets
            for target, error in failed.items():
                _raise_if_final(waiting[target], error, time.monotonic() > deadline_s)
            # Where only a topic is new to this client, its leader is known after asking once.
            is_new = all(topic in self._new_topics for topic, _ in failed)
            await self._refresh(0.0 if is_new else RETRY_S)

    def _by_leader(self, batches: Any, failed: dict[Target, errors.KafkaError]) -> dict[int, list[Batch]]:
        """Batches by the broker that leads their partition; those without one are in `failed`."""
        groups: dict[int, list[Batch]] = {}
        for batch in batches:
            cluster = self._client().cluster
            leader = cluster.leader_for_partition(TopicPartition(*batch.target))
            if cluster.partitions_for_topic(batch.target[0]) is None:
                failed[batch.target] = errors.UnknownTopicOrPartitionError()
                self._new_topics.add(batch.target[0])
            elif leader is None or leader < 0:
                failed[batch.target] = errors.LeaderNotAvailableError()
            else:
                groups.setdefault(leader, []).append(batch)
        return groups

    def _line(self, node: int) -> RequestLine:
        """What waits for a broker."""
        line = self._lines.get(node)
        if line is None:
            line = self._lines[node] = RequestLine(partial(self._request, node))
        return line

    async def _request(self, node: int, batches: Sequence[Batch]) -> Outcomes:
        """One produce request: for each partition the offset, or what went wrong."""
        topics: dict[str, list[tuple[int, bytes]]] = {}
        for batch in batches:
            topics.setdefault(batch.target[0], []).append((batch.target[1], batch.data))
        kafka = self._client()
        request = ProduceRequest(None, -1, kafka._request_timeout_ms, list(topics.items()))
        try:
            answer = await kafka.send(node, request)
        except errors.KafkaError as error:
            return {batch.target: error for batch in batches}
        return {
            (topic, partition): errors.for_code(code)() if code else offset
            for topic, partitions in answer.topics
            for partition, code, offset, *_ in partitions
        }

    async def _refresh(self, pause_s: float) -> None:
        """Ask for the leaders anew, after a pause; it is made where the answer is still missing, too."""
        kafka = self._client()
        await asyncio.sleep(pause_s)
        for topic in self._new_topics:
            kafka.add_topic(topic)
        await kafka.force_metadata_update()
        self._new_topics = {topic for topic in self._new_topics if kafka.cluster.partitions_for_topic(topic) is None}
        if self._new_topics:
            await asyncio.sleep(RETRY_S)

    def _client(self) -> AIOKafkaClient:
        assert self._kafka is not None, "used before start"
        return self._kafka


def _is_transient(error: errors.KafkaError) -> bool:
    """Whether trying again may help: a broker is gone, a leader not elected yet, a coordinator not loaded."""
    return bool(getattr(error, "retriable", False)) or isinstance(
        error, errors.ConcurrentTransactions | errors.KafkaConnectionError
    )


def _raise_if_final(batch: Batch, error: errors.KafkaError, is_late: bool) -> None:
    topic, partition = batch.target
    what = f"{batch.num_records} records, {len(batch.data)} bytes, for {topic}[{partition}]"
    if isinstance(error, errors.InvalidProducerEpoch | errors.ProducerFenced):
        raise FencedError(
            f"Kafka refused {what}: another process has taken over this partition. "
            "Start this one again; it will get partitions of its own."
        ) from error
    if is_late or not _is_transient(error):
        raise SendError(f"Kafka did not acknowledge {what}: {error!r}") from error
    if not isinstance(error, errors.UnknownTopicOrPartitionError):  # at first every topic is unknown
        log.warning("Kafka did not acknowledge %s: %r. Trying again.", what, error)
