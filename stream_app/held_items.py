"""The items as the roles that look up candidates ask for them, one run after the other.

Shapes: U users or choices, D dimensions.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Executor

from stream_app.item_search import nearest_items
from stream_app.item_view import ItemView
from stream_app.records import SliceVectorRecord
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.listing import KnownItems, Search
from stream_app.topic_ends import TopicEnds


class HeldItems:
    """The item index and the catalogue of a process, for all its partitions.

    Args:
        view: Holds both.
        catalogue: Tells where the topic of the catalogue ends.
        executor: One thread, for the index.
        note_search: Told of each search of the index: for how many vectors, in how many seconds.
    """

    def __init__(
        self,
        view: ItemView,
        catalogue: TopicEnds,
        executor: Executor,
        note_search: Callable[[int, float], None],
    ) -> None:
        self._view = view
        self._catalogue = catalogue
        self._executor = executor
        self._note_search = note_search
        self._columns = ItemColumns(view.index, view.is_available, lambda: view.num_item_changes)

    async def catch_up(self, records: Iterable[SliceVectorRecord]) -> None:
        """Wait for the catalogue as it is now, and for the vectors that follow from it, where any of the records is
        replayed: it was sent before the events.
        """
        if any(record.join_epoch is not None for record in records):
            await self._view.catch_up(await self._catalogue.ends())
            await self._view.catch_up_vectors()

    def known(self) -> KnownItems:
        """The items as a list may use them now."""
        return KnownItems(self._view.version, self._columns)

    async def search(self, search: Search) -> list[list[str]]:
        """The available items nearest to each vector (U, D), best first; see `nearest_items`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._nearest, search)

    def _nearest(self, search: Search) -> list[list[str]]:
        begun_s = time.perf_counter()
        found = nearest_items(self._view.index, search)
        self._note_search(len(search.vectors_UD), time.perf_counter() - begun_s)
        return found
