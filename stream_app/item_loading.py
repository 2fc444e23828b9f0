"""The items of a namespace, read from its topics for one question, without a group."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from index import IndexKind, build_index
from stream_app.errors import KafkaUnreachableError
from stream_app.faustkit import Run
from stream_app.item_view import ItemView
from stream_app.kafka import connection
from stream_app.models import ServedModel
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import ITEM_VECTORS, ITEMS, prefixed

READ_WITHIN_S: Final = 120.0
"""Deadline of the reading. A million vectors take some ten seconds."""


@dataclass(frozen=True)
class LoadedItems:
    """The index and the catalogue's availability, as far as the topics went at the start of the reading.

    Args:
        view: Holds both.
        ends: Where `items` ended then, by partition.
    """

    view: ItemView
    ends: Mapping[int, int]

    @property
    def catalogue_behind(self) -> int:
        """Records of `items` whose vectors are not on `item-vectors` yet."""
        done = self.view.place.items_offsets
        return sum(max(0, end - done.get(partition, 0)) for partition, end in self.ends.items())


async def load_items(
    settings: Settings, model: ServedModel, kind: IndexKind, take_items_too: Callable[[Run], None] = lambda _: None
) -> LoadedItems:
    """Read `item-vectors` and `items` to where they end now.

    Args:
        settings: Names the broker and the namespace.
        model: Whose release counts.
        kind: Of the index.
        take_items_too: Takes the runs of `items` as well, for those that know more of items than the view.

    Raises:
        TopicMismatchError: A topic does not exist.
        KafkaUnreachableError: The broker did not deliver in time.
    """
    item_vectors, items = prefixed(settings.prefix, ITEM_VECTORS), prefixed(settings.prefix, ITEMS)
    async with TopicReader(settings) as reader:
        await reader.num_partitions(item_vectors)
        ends = {partition: end for partition, (_, end) in (await reader.bounds(items)).items()}
    view = ItemView(build_index(kind, model.dim, model.release), settings.partitions)
    followers = view.followers(connection(settings), item_vectors, items, take_items_too)
    try:
        async with asyncio.timeout(READ_WITHIN_S):
            for follower in followers:
                await follower.start()
            for follower in followers:
                await follower.wait_caught_up()
    except TimeoutError as error:
        raise KafkaUnreachableError(
            f"{item_vectors} and {items} were not read to their ends within {READ_WITHIN_S:g} s.",
            mend="check the broker's load and log, then try again",
        ) from error
    finally:
        for follower in followers:
            await follower.stop()
    return LoadedItems(view, ends)
