"""Reading changelogs into stores: what recovery and standby copies share.

A changelog is read with ``read_uncommitted``, up to the high watermark: everything that Kafka acknowledged to an
owner is in it. Its writers use no transactions, and one that somebody else left open on it would hide acknowledged
changes from a reader of committed records only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaTimeoutError, OffsetOutOfRangeError, UnknownTopicOrPartitionError

from stream_app.faustkit.fetching import RunConsumer
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import POSITION_BYTES, PartitionStore
from stream_app.faustkit.topic_id import topic_id

OWNER_HEADER = "faustkit-owner"
"""Header of the records by which the owner of a partition marks its changelog as its own. They are no values."""

INPUT_HEADER = "faustkit-input"
"""Header of an owner's mark that names the id of the topic whose offsets are the positions in the values."""

BULK_RECORDS = 50_000
"""From so many missing records on (a fifth of a second) a store is filled without its write-ahead log, and flushed
at the end: a quarter less work for each record, and a flush is worth its file."""

_LOWEST = b""
_HIGHEST = b"\xff" * (POSITION_BYTES + 1)


class RecoveryError(Exception):
    """A store cannot be brought up to its changelog; says what was seen and what mends it."""


class ChangelogFold:
    """Takes the changelog of one partition into its store, run by run, each all or nothing with its offset.

    The value with the greatest source position stays: a process that was paused and woke may have written an old
    one late. Asking the store costs more than writing it, so it is asked only where that can matter: a value at or
    above every position taken in before is at least as new as the one in the store.

    Args:
        store: The open store.
        is_bulk: Leave the write-ahead log out until `finish`. A crash leaves the store as it was after some earlier
            run, with that run's offset.
    """

    def __init__(self, store: PartitionStore, *, is_bulk: bool = False) -> None:
        self.store = store
        self.is_bulk = is_bulk
        # Of a store that holds something the greatest position is not known: everything is compared.
        self._greatest = _LOWEST if store.changelog_offset is None else _HIGHEST

    def apply(self, run: Run) -> None:
        """Take in a run.

        Raises:
            RecoveryError: A record is not one that an owner of the partition wrote.
        """
        if (input_id := _input_id(run)) is not None:
            self.store.input_id = input_id
        newest, doubtful = self._newest(run)
        for key, stored in zip(doubtful, self.store.get_many(doubtful), strict=True):
            envelope = newest[key]
            assert envelope is not None, "what is removed is not in doubt"
            if stored is not None and stored.position > int.from_bytes(envelope[:POSITION_BYTES], "big"):
                del newest[key]
        self.store.load(newest, run.offsets[-1], use_log=not self.is_bulk)
        greatest = max(filter(None, run.values), default=_LOWEST)[:POSITION_BYTES]
        self._greatest = max(self._greatest, greatest)

    def finish(self) -> None:
        """Make everything taken in durable; from here on the store may be written as usual."""
        if self.is_bulk:
            self.store.flush()
            self.is_bulk = False

    def _newest(self, run: Run) -> tuple[dict[bytes, bytes | None], list[bytes]]:
        """What the run leaves of each key (None: removed), and the keys of which the store may have a newer value."""
        newest: dict[bytes, bytes | None] = {}
        doubtful: set[bytes] = set()
        greatest = self._greatest
        for place, key, envelope in _entries(run):
            if key is None or (envelope is not None and len(envelope) < POSITION_BYTES):
                raise RecoveryError(_foreign(run, place))
            if envelope is None:
                doubtful.discard(key)
            elif key not in newest:
                if envelope < greatest:
                    doubtful.add(key)
            elif _is_older(envelope, newest[key]):
                continue
            newest[key] = envelope
        return newest, list(doubtful)


def _entries(run: Run) -> Iterable[tuple[int, bytes | None, bytes | None]]:
    """Place, key and value of each record that is a value; those by which owners marked the changelog are not."""
    entries = zip(range(len(run)), run.keys, run.values, strict=True)
    if not any(run.headers):
        return entries
    return (entry for entry in entries if all(name != OWNER_HEADER for name, _ in run.headers[entry[0]]))


def _input_id(run: Run) -> str | None:
    """What the last mark says of the input; None where no mark of the run names it."""
    if not any(run.headers):
        return None
    named = [value for headers in run.headers for name, value in headers if name == INPUT_HEADER and value]
    return named[-1].decode() if named else None


def _is_older(envelope: bytes, known: bytes | None) -> bool:
    return known is not None and envelope[:POSITION_BYTES] < known[:POSITION_BYTES]


def _foreign(run: Run, place: int) -> str:
    value = run.values[place]
    size = "no value" if value is None else f"a value of {len(value)} bytes"
    return (
        f"{run.topic}[{run.partition}] at offset {run.offsets[place]} has key {run.keys[place]!r} and {size}; expected "
        f"were a key and a value of at least {POSITION_BYTES} bytes. To mend it: find out who else writes to this "
        "topic, and rebuild the role from its input."
    )


class ChangelogReader:
    """Reads the changelog of some partitions into their stores, each from the place where its store stands.

    Args:
        connection: Keyword arguments for aiokafka clients.
        changelog: Name of the changelog topic.
        stores: The open store of each partition (at least one).
        partition_bytes: Most bytes of one partition in one fetch.
        fetch_bytes: Most bytes of one fetch: this bounds the memory, and for how long the event loop is held.
    """

    def __init__(
        self,
        connection: Mapping[str, Any],
        changelog: str,
        stores: Mapping[int, PartitionStore],
        *,
        partition_bytes: int,
        fetch_bytes: int,
    ) -> None:
        self._changelog = changelog
        self._stores = stores
        self._folds: dict[TopicPartition, ChangelogFold] = {}
        self._ends: dict[TopicPartition, int] = {}
        self._consumer = RunConsumer(
            **connection,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_uncommitted",
            max_partition_fetch_bytes=partition_bytes,
            fetch_max_bytes=fetch_bytes,
        )

    async def __aenter__(self) -> ChangelogReader:
        """Connect, see that stores and changelog belong together, and take up the place of each store.

        Raises:
            RecoveryError: The changelog is not there, or was truncated or recreated.
        """
        await self._consumer.start()
        try:
            await self._take_place()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._consumer.stop()

    async def read(self, wait_ms: int) -> int:
        """Take in what one fetch brings, waiting for it for at most `wait_ms`, and return how many records it had.

        Raises:
            RecoveryError: The changelog was truncated meanwhile, or holds what does not belong there.
        """
        try:
            fetched = await self._consumer.getmany(timeout_ms=wait_ms)
        except OffsetOutOfRangeError as error:
            raise RecoveryError(_out_of_range(self._changelog, error)) from error
        num_records = 0
        for tp, runs in fetched.items():
            for run in runs:
                self._folds[tp].apply(run)
                num_records += len(run)
                await asyncio.sleep(0)
        return num_records

    async def num_missing(self) -> dict[int, int]:
        """How many offsets each partition still is from the end it had at the start; without those that are there.

        The position counts, not the records: deletions, compaction and marks of transactions leave gaps.
        """
        left = {tp.partition: end - await self._consumer.position(tp) for tp, end in self._ends.items()}
        return {partition: num for partition, num in left.items() if num > 0}

    def finish(self) -> None:
        """Make everything taken in durable."""
        for fold in self._folds.values():
            fold.finish()

    async def _take_place(self) -> None:
        partitions = await self._partitions()
        number = await topic_id(self._consumer._client, self._changelog)
        for store in self._stores.values():
            _adopt(store, self._changelog, None if number is None else str(number))
        self._consumer.assign(partitions)
        try:
            begins = await self._consumer.beginning_offsets(partitions)
            self._ends = await self._consumer.end_offsets(partitions)
        except KafkaTimeoutError as error:
            raise RecoveryError(
                f"Kafka did not say where {self._changelog} begins and ends: {error}. To mend it: see whether all its "
                "partitions have a leader."
            ) from error
        for tp in partitions:
            store = self._stores[tp.partition]
            start = _start(store, tp, begins[tp], self._ends[tp])
            self._consumer.seek(tp, start)
            self._folds[tp] = ChangelogFold(store, is_bulk=self._ends[tp] - start >= BULK_RECORDS)

    async def _partitions(self) -> list[TopicPartition]:
        try:
            known = await self._consumer._client._wait_on_metadata(self._changelog)
        except UnknownTopicOrPartitionError as error:
            raise RecoveryError(
                f"The changelog topic {self._changelog} is missing. To mend it: create it with as many partitions as "
                "the input of its table."
            ) from error
        if strange := sorted(set(self._stores) - known):
            raise RecoveryError(
                f"{self._changelog} has {len(known)} partitions, but {strange} are needed. To mend it: give it as many "
                "partitions as the input of its table."
            )
        return [TopicPartition(self._changelog, partition) for partition in sorted(self._stores)]


def _adopt(store: PartitionStore, changelog: str, number: str | None) -> None:
    """See that the store reflects this very topic; one that reflects nothing yet is given its id."""
    if number is None or store.changelog_id == number:
        return
    if store.changelog_offset is not None and store.changelog_id is not None:
        raise RecoveryError(
            f"{store.path} reflects the topic {changelog} with id {store.changelog_id}, but that name now is a topic "
            f"with id {number}: the changelog was recreated. {_rebuild(store)}"
        )
    store.changelog_id = number


def _start(store: PartitionStore, tp: TopicPartition, begin: int, end: int) -> int:
    """The offset to go on from."""
    stored = store.changelog_offset
    start = 0 if stored is None else stored + 1
    if start > end:
        raise RecoveryError(
            f"{store.path} reflects offset {stored} of {tp.topic}[{tp.partition}], which ends at {end}: the changelog "
            f"was recreated, or lost its end. {_rebuild(store)}"
        )
    if begin > start:
        raise RecoveryError(
            f"{tp.topic}[{tp.partition}] begins at offset {begin}, but {start} is needed: the changelog was truncated. "
            "To mend it: set its cleanup.policy to compact, and rebuild the role from its input."
        )
    return start


def _rebuild(store: PartitionStore) -> str:
    return (
        f"To mend it: restore the topic, or remove {store.path} and let the role's group read its input from the "
        "beginning."
    )


def _out_of_range(changelog: str, error: OffsetOutOfRangeError) -> str:
    return (
        f"{changelog} was truncated while it was read: {error}. To mend it: set its cleanup.policy to compact, and "
        "rebuild the role from its input."
    )
