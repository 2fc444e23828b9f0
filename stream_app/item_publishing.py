"""The encode role's other half: `items` becomes `item-vectors`, beside the users' slices and behind them.

Whoever owns partition p of `slices` follows partition p of `items` and writes partition p of `item-vectors`; all have
equal counts. Nothing is committed to a group: the marker on `item-vectors` says how far `items` is reflected there, and
is published behind what it vouches for, so a crash repeats a run at most. At each assignment:

1. A producer id is claimed under the name `group:item-vectors:partition`, and a record is written under it. From then
   on Kafka refuses whatever an earlier owner still sends.
2. What is there is read back.
3. Where the release's vectors are not all there, those of the trained items are published, and the marker.
4. `items` is followed from the marker's offset on: new and changed items get their vectors, deleted ones a null.

Texts and pictures are read in a thread of their own, some at a time; the encoder's thread is asked for a few
milliseconds each time, between the users' slices.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from aiokafka import TopicPartition

from stream_app import tables
from stream_app.dead_letters import dead_letter
from stream_app.faustkit import OutRecord, Run
from stream_app.faustkit.failure import end_process
from stream_app.faustkit.fetching import RunConsumer
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import Writer
from stream_app.item_contents import item_content
from stream_app.item_reading import ITEMS_AT_ONCE, TowerVectors, judged
from stream_app.item_share import CatalogueNews, ItemShare, catalogue_news
from stream_app.kafka import partition_of
from stream_app.stages.clean import Rejection
from stream_app.stages.parts import in_parts

if TYPE_CHECKING:  # torch takes seconds to import
    from encoders.item_reader import ItemReader

log = logging.getLogger("sliceflow.items")

FETCH_MS = 200
"""Longest wait of one fetch; records that are there come at once."""

TRAINED_AT_ONCE: Final = 4096
"""Trained items published in one go: about 2 MB."""

FENCE_KEY: Final = b"\xffowner"
"""Key of a null that is written for its producer id alone."""


@dataclass(frozen=True)
class ItemTopics:
    """Full names of the topics of items, and how many partitions those that are cut by item have."""

    items: str
    item_vectors: str
    dead_letter: str
    num_partitions: int


@dataclass(frozen=True)
class _Owned:
    """A partition of this process, and the writer that holds it against earlier owners."""

    share: ItemShare
    writer: Writer
    trained: Sequence[int]


class ItemPublisher:
    """Publishes the vectors of the items of the partitions that this process owns.

    Args:
        reader: Makes vectors of items.
        trained: Ids and vectors (N, D) of the trained items.
        release: Theirs.
        topics: Names of topics.
        outbox: Where to publish.
        group: The role's consumer group.
        connection: Keyword arguments for aiokafka clients.
        encoder_thread: Where the encoder is used.
    """

    def __init__(
        self,
        reader: ItemReader,
        trained: tuple[Sequence[str], npt.NDArray[np.float32]],
        release: str,
        topics: ItemTopics,
        outbox: Outbox,
        group: str,
        connection: dict[str, Any],
        encoder_thread: Executor,
    ) -> None:
        self._reader = reader
        self._ids, self._vectors_ND = trained
        self._release = release
        self._topics = topics
        self._outbox = outbox
        self._group = group
        self._connection = connection
        self._encoder_thread = encoder_thread
        self._reading_thread = ThreadPoolExecutor(1, thread_name_prefix="items")
        self._trained_of: dict[int, list[int]] = {number: [] for number in range(topics.num_partitions)}
        for place, item_id in enumerate(self._ids):
            self._trained_of[partition_of(tables.key_of(item_id), topics.num_partitions)].append(place)
        self._task: asyncio.Task[None] | None = None

    async def restart(self, partitions: Sequence[int]) -> None:
        """Begin anew, with these partitions, in the background."""
        await self.stop()
        if partitions:
            self._task = asyncio.create_task(self._run(partitions), name="item vectors")

    async def stop(self) -> None:
        """Stop. What is on its way to Kafka may still come, until somebody else claims the partition."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None

    async def _run(self, partitions: Sequence[int]) -> None:
        try:
            owned = {partition: await self._claim(partition) for partition in partitions}
            async with aclosing(self._runs(self._topics.item_vectors, dict.fromkeys(partitions, 0), ends=True)) as runs:
                async for run in runs:
                    owned[run.partition].share.take_published(run)
            for one in owned.values():
                await self._publish_trained(one)
            places = {partition: one.share.next_offset or 0 for partition, one in owned.items()}
            async with aclosing(self._runs(self._topics.items, places)) as runs:
                async for run in runs:
                    await self._take(owned[run.partition], run)
        except Exception as error:
            end_process(f"{self._topics.items} could not be followed: {type(error).__name__}: {error}", error)

    async def _claim(self, partition: int) -> _Owned:
        topic, trained = self._topics.item_vectors, self._trained_of[partition]
        writer = await self._outbox.claim(f"{self._group}:{topic}:{partition}")
        await self._outbox.publish([OutRecord(topic, partition, FENCE_KEY, None)], writer)
        return _Owned(ItemShare(topic, partition, self._release, len(trained)), writer, trained)

    async def _publish_trained(self, owned: _Owned) -> None:
        """The trained items' vectors, where the release is not on the topic yet."""
        share = owned.share
        if share.next_offset is not None:
            return
        await self._outbox.publish([share.restart()], owned.writer)
        for places in in_parts(owned.trained, TRAINED_AT_ONCE):
            records = share.trained([self._ids[place] for place in places], self._vectors_ND[places])
            await self._outbox.publish(records, owned.writer)
        await self._outbox.publish([share.marker(0)], owned.writer)

    async def _take(self, owned: _Owned, run: Run) -> None:
        """Publish what follows from a run of `items`, and behind it that it is all there.

        The last part goes together with the marker: one wait for Kafka less until an item is found. Dead letters go
        before, since they lie on a topic of their own.
        """
        share, news = owned.share, catalogue_news(run)
        refused, vectors = list(news.refused), share.changes([], self._vectors_ND[:0], news.gone)
        for ids in in_parts(list(news.told), ITEMS_AT_ONCE):
            await self._outbox.publish(vectors, owned.writer)
            made = await self._encoded(ids, news)
            vectors = share.changes(made.ids, made.vectors_ND, made.nothing)
            refused += [(news.places[item_id], Rejection(*why)) for item_id, why in made.refused.items()]
        letters = (dead_letter(self._topics.dead_letter, run, place, why) for place, why in refused)
        await self._outbox.publish(letters, owned.writer)
        await self._outbox.publish([*vectors, share.marker(run.next_offset)], owned.writer)
        log.info("%s[%d] is reflected up to offset %d, %d items", run.topic, run.partition, run.next_offset, len(share))

    async def _encoded(self, ids: Sequence[str], news: CatalogueNews) -> TowerVectors:
        loop = asyncio.get_running_loop()
        contents = [item_content(news.told[item_id]) for item_id in ids]
        features, unusable = await loop.run_in_executor(self._reading_thread, self._reader.read, contents)
        vectors_ND = await loop.run_in_executor(self._encoder_thread, self._reader.vectors, ids, features)
        return judged(ids, vectors_ND, unusable)

    async def _runs(self, topic: str, places: dict[int, int], *, ends: bool = False) -> AsyncGenerator[Run, None]:
        """The runs of some partitions from their offsets on; without end, or to where they end now."""
        consumer = RunConsumer(**self._connection, enable_auto_commit=False, auto_offset_reset="earliest")
        await consumer.start()
        try:
            at = {TopicPartition(topic, partition): offset for partition, offset in places.items()}
            consumer.assign(list(at))
            # The first offset that is there need not be 0; whoever seeks before it is told of a loss.
            await consumer.seek_to_beginning(*(tp for tp, offset in at.items() if offset == 0))
            for tp, offset in at.items():
                if offset:
                    consumer.seek(tp, offset)
            last = await consumer.end_offsets(list(at)) if ends else {}
            while not ends or any([await consumer.position(tp) < end for tp, end in last.items()]):
                for runs in (await consumer.getmany(timeout_ms=FETCH_MS)).values():
                    for run in runs:
                        yield run
        finally:
            await consumer.stop()
