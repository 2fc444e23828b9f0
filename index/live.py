"""The index with a life cycle: items come and go while it is searched, and its main segment is rebuilt beside that.

**Lock discipline.** One lock guards the items: every change, and of a search the part that looks at what may change.
The long part of a search, finding candidates in the main segment, runs without it, since main segments do not change;
if another one was installed meanwhile, the search begins again. So nothing that was removed before a search ends its
locked part is ever answered. A second lock lets one compaction or swap run at a time; the order is second, first. FAISS
on the CPU may be searched from several threads, and the delta is touched only under the lock; the GPU's structures have
a lock of their own.

**When it is exact.** While there are no more than `SizeRule.flat` items, there is no main segment, and answers are
those of the exact index, bit for bit. Beyond, candidates of the main segment are those that its structure finds; the
delta stays exact.

Shape suffixes: Q queries, F candidates, K answered, D dimensions, N item numbers, R rows, S sampled queries.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import faiss

from index.attribute_columns import as_columns
from index.checks import (
    check_attributes,
    check_contents,
    check_exclusions,
    check_items,
    check_k,
    check_queries,
    check_shape_of_index,
)
from index.contract import (
    BoolArray,
    Float32Array,
    IndexContents,
    Int32Array,
    Int64Array,
    ItemAttributes,
    ItemFilter,
    Partition,
    SearchResult,
)
from index.errors import SwapRefusedError
from index.main_segment import MainSegment, RecallGoal
from index.rebuilding import rebuilt
from index.sampling import QuerySample
from index.searching import Search
from index.segments import Frozen, SegmentedItems
from index.sizes import SizeRule
from index.structures import StructureKind

log = logging.getLogger(__name__)

Changed = TypeVar("Changed")


@dataclass(frozen=True, slots=True)
class LiveOptions:
    """How a live index works.

    Attributes:
        num_threads: Threads FAISS may use for a batch of queries. A single query uses one.
        build_threads: Threads for building a main segment.
        sizes: Which structure is for how many items.
        goal: The recall that a main segment has to reach.
        apart_from: From so many items on, and while there are others to search, an inverted file is built in a process
            of its own: it takes half a second longer, and searches hardly notice.
        compacts_itself: Whether a thread of its own rebuilds the main segment when that is due; else only `compact`
            does.
    """

    num_threads: int = 1
    build_threads: int = 1
    sizes: SizeRule = field(default_factory=SizeRule)
    goal: RecallGoal = field(default_factory=RecallGoal)
    apart_from: int = 50_000
    compacts_itself: bool = True


@dataclass(frozen=True, slots=True)
class IndexStatus:
    """What state the segments are in.

    Attributes:
        kind: Of the main segment's structure; None while everything is in the delta.
        main_items: Current items in it.
        delta_items: Items in the delta.
        tombstones: Rows of the main segment that count no longer.
        generation: Main segments installed so far.
        recall: What the main segment reached when it was built; 1 where there is none.
        effort: What its structure is asked with.
        last_refusal: Why the newest compaction or swap was refused; empty when it was not.
    """

    kind: str | None
    main_items: int
    delta_items: int
    tombstones: int
    generation: int
    recall: float
    effort: int
    last_refusal: str


class LiveIndex:
    """`ItemIndex` in a main segment and a delta.

    Args:
        dim: Dimensions of every vector.
        release: The release whose vectors this index holds.
        options: How it works.
    """

    def __init__(self, dim: int, release: str, options: LiveOptions | None = None) -> None:
        check_shape_of_index(dim, release)
        self._dim = dim
        self._release = release
        self._options = options or LiveOptions()
        self._version = 0
        self._generation = 0
        self._items = SegmentedItems(dim, self._options.num_threads)
        self._sample = QuerySample(dim)
        self._lock = threading.Lock()
        self._build_lock = threading.Lock()
        self._num_gpus = int(faiss.get_num_gpus())
        self._compactor: threading.Thread | None = None
        self._journal: list[Callable[[SegmentedItems], object]] | None = None
        """What changed since a swap began; None where none is under way."""
        self._num_refusals = 0
        self._last_refusal = ""

    @property
    def dim(self) -> int:
        """Dimensions of every vector."""
        return self._dim

    @property
    def release(self) -> str:
        """The release that all vectors here were made by."""
        return self._release

    @property
    def version(self) -> int:
        """Number of change batches applied so far. Compactions change nothing that a search may answer, so they do not
        count."""
        return self._version

    @property
    def status(self) -> IndexStatus:
        """The state of the segments."""
        with self._lock:
            items = self._items
            main = items.main
            return IndexStatus(
                kind=None if main is None else main.structure.kind,
                main_items=items.num_current,
                delta_items=len(items.delta),
                tombstones=items.num_tombstones,
                generation=self._generation,
                recall=1.0 if main is None else main.recall,
                effort=0 if main is None else main.effort,
                last_refusal=self._last_refusal,
            )

    def __len__(self) -> int:
        return len(self._items)

    def search(
        self,
        queries_QD: Float32Array,
        k: int,
        *,
        release: str | None = None,
        filter: ItemFilter | None = None,
        exclude: Sequence[Collection[str]] | None = None,
    ) -> SearchResult:
        """See `ItemIndex.search`."""
        check_k(k)
        queries = check_queries(queries_QD, dim=self._dim, release=self._release, given_release=release)
        check_exclusions(exclude, len(queries))
        search = Search(queries, k, filter, exclude, self._options.num_threads)
        while True:
            with self._lock:
                items = self._items
                plan = search.plan(items)
            fetched = search.fetch(plan)
            with self._lock:
                if self._items is items and items.main is plan.main:
                    self._sample.add(queries)
                    return search.result(items, plan, fetched, self._version)

    def upsert(self, ids: Sequence[str], vectors_ND: Float32Array, *, release: str | None = None) -> None:
        """See `ItemIndex.upsert`. Costs O(N·D) for the N vectors given, whatever the size of the index."""
        vectors = check_items(ids, vectors_ND, dim=self._dim, release=self._release, given_release=release)
        if not ids:
            return
        with self._lock:
            # The caller may go on to write into what a journal keeps.
            kept = vectors if self._journal is None else vectors.copy()
            self._change(lambda items: items.upsert(ids, kept))
            self._version += 1
            self._compact_if_due()

    def remove(self, ids: Sequence[str]) -> int:
        """See `ItemIndex.remove`. Costs O(len(delta)) per call, O(D) per item."""
        with self._lock:
            num_removed = self._change(lambda items: items.remove(ids))
            self._version += num_removed > 0
            self._compact_if_due()
        return num_removed

    def vectors_of(self, ids: Sequence[str]) -> tuple[Float32Array, BoolArray]:
        """See `ItemIndex.vectors_of`. Costs O(M·D)."""
        with self._lock:
            return self._items.vectors_of(ids)

    def numbers_of(self, ids: Sequence[str]) -> Int64Array:
        """See `ItemIndex.numbers_of`."""
        with self._lock:
            return self._items.numbers_of(ids)

    def vectors_at(self, numbers_M: Int64Array) -> Float32Array:
        """See `ItemIndex.vectors_at`. Costs O(M·D)."""
        with self._lock:
            return self._items.vectors_at(numbers_M)[0]

    def upsert_attributes(self, ids: Sequence[str], attributes: Sequence[ItemAttributes]) -> None:
        """See `ItemIndex.upsert_attributes`."""
        check_attributes(ids, attributes)
        if not ids:
            return
        columns = as_columns(dict(zip(ids, attributes, strict=True)))
        with self._lock:
            self._change(lambda items: items.put_attributes(columns))
            self._version += 1

    def remove_attributes(self, ids: Sequence[str]) -> int:
        """See `ItemIndex.remove_attributes`."""
        with self._lock:
            num_forgotten = self._change(lambda items: items.remove_attributes(ids))
            self._version += num_forgotten > 0
        return num_forgotten

    def contents(self) -> IndexContents:
        """See `ItemIndex.contents`. The lock is held for the delta's part of the work only."""
        with self._lock:
            frozen = self._items.frozen()
            ids_N = self._items.numbers.ids_N.copy()
            told, queries_SD = self._items.attributes.columns(ids_N), self._sample.queries()
        return IndexContents(
            self._release, ids_N[frozen.numbers_R].tolist(), frozen.vectors_RD(), told, frozen.partition(), queries_SD
        )

    def swap(self, contents: IndexContents) -> None:
        """See `ItemIndex.swap`."""
        vectors = check_contents(contents, dim=self._dim, release=self._release)
        with self._build_lock:
            with self._lock:
                self._journal = []
                if contents.queries_SD is not None:
                    self._sample.add_all(contents.queries_SD)
            try:
                items = self._built(contents, vectors)
                with self._lock:
                    for change in self._journal:
                        change(items)
                    self._items = items
                    self._version += 1
            finally:
                self._journal = None

    def _built(self, contents: IndexContents, vectors_ND: Float32Array) -> SegmentedItems:
        """Items of these contents, with the segments that suit their number. The build lock is held."""
        items = SegmentedItems(self._dim, self._options.num_threads)
        items.put_attributes(contents.attributes)
        kind = self._options.sizes.kind_for(len(vectors_ND), self._num_gpus)
        if kind is None:
            items.upsert(contents.ids, vectors_ND)
        else:
            self._build(kind, items, items.expect(contents.ids, vectors_ND.copy()), contents.partition)
        return items

    def _change(self, change: Callable[[SegmentedItems], Changed]) -> Changed:
        """Change the items, and take down the change where others are about to take their place. The lock is held."""
        if self._journal is not None:
            self._journal.append(change)
        return change(self._items)

    def compact(self) -> None:
        """Build a main segment of all items, and install it; no more than that where the items are too few for one.

        Searches and changes go on meanwhile.

        Raises:
            SwapRefusedError: It would miss too much; the old one goes on answering.
        """
        with self._build_lock:
            with self._lock:
                items = self._items
                kind = self._options.sizes.kind_for(len(items), self._num_gpus)
                if kind is None:
                    items.dissolve()
                    return
                frozen = items.freeze()
            self._build(kind, items, frozen, None)

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until no compaction of this index's own is under way; False where that took longer."""
        thread = self._compactor
        if thread is None:
            return True
        thread.join(timeout_s)
        return not thread.is_alive()

    def _build(self, kind: StructureKind, items: SegmentedItems, frozen: Frozen, partition: Partition | None) -> None:
        """Build a main segment of frozen items and install it. The build lock is held, and this lock to install."""
        with self._lock:
            queries_SD = self._sample.queries()
        try:
            main, row_of_N = self._rebuilt(kind, frozen, queries_SD, partition)
        except BaseException as error:
            with self._lock:
                items.forget_frozen()
                self._num_refusals += 1
                self._last_refusal = str(error)
            raise
        with self._lock:
            items.install(main, row_of_N)
            self._generation += 1
            self._num_refusals, self._last_refusal = 0, ""

    def _rebuilt(
        self, kind: StructureKind, frozen: Frozen, queries_SD: Float32Array, partition: Partition | None
    ) -> tuple[MainSegment, Int32Array]:
        options = self._options
        apart = len(frozen.numbers_R) >= options.apart_from and len(self) > 0
        return rebuilt(kind, frozen, queries_SD, partition, options.goal, options.build_threads, apart=apart)

    def _compact_if_due(self) -> None:
        """Start a compaction where one is due and none is under way. The lock is held."""
        items = self._items
        is_busy = self._compactor is not None and self._compactor.is_alive()
        if is_busy or not self._options.compacts_itself:
            return
        num_rows = items.num_current + items.num_tombstones
        if self._options.sizes.is_due(num_rows, items.num_tombstones, len(items.delta), self._num_refusals):
            self._compactor = threading.Thread(target=self._compact_and_tell, name="index-compaction", daemon=True)
            self._compactor.start()

    def _compact_and_tell(self) -> None:
        try:
            self.compact()
        except SwapRefusedError as error:
            log.warning("%s", error)
