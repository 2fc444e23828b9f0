"""Runs cut at erasures, so that nothing of an erased user can come back after a crash.

A role that is started again publishes once more what it had not kept. Were that something of a user in front of the
erasure, those behind would take it for a new history. So an erasure is processed only when everything in front of it
is kept, and is kept before anything behind it is processed; and a record at or before an erasure that a role has kept
is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import msgspec

from stream_app import tables
from stream_app.faustkit import Effects, OutRecord, Processor, Run, Stored, Values
from stream_app.faustkit.run import part_of
from stream_app.marks import without_marks
from stream_app.records import ErasedRecord, Erasure, decode_erased, is_erased
from stream_app.stages.clean import CleanRules, may_be_erasure
from stream_app.stages.intake import read_record

FindErasures = Callable[[Run], Sequence[int]]
"""Gives the places of a run's erasures, in order."""


def erasures_of_events(rules: CleanRules) -> FindErasures:
    """What finds erasures on `events`."""

    def find(run: Run) -> list[int]:
        columns = zip(run.keys, run.values, run.timestamps_ms, run.headers, strict=True)
        return [
            place
            for place, (key, value, timestamp_ms, headers) in enumerate(columns)
            if may_be_erasure(value) and isinstance(read_record(key, value, timestamp_ms, headers, rules), Erasure)
        ]

    return find


def erased_records(run: Run) -> list[int]:
    """The places of a run's erasures, on `slices` and `slice-vectors`."""
    return [place for place, value in enumerate(run.values) if value is not None and is_erased(value)]


def erasure_value(erasure: Erasure, rules: CleanRules) -> bytes:
    """The value of the record on `events`, with the producers' field names."""
    fields = msgspec.to_builtins(erasure)
    return msgspec.json.encode({rules.producer_name(name): value for name, value in fields.items()})


def num_together(keys: Sequence[bytes | None], erasures: Sequence[int], *, is_settled: bool) -> int:
    """How many records may be processed together: up to an erasure that something of its user is in front of, or up to
    a record that an erasure of its user is in front of.

    Args:
        keys: The key of each record; those of users are their ids.
        erasures: Places of the erasures, in order.
        is_settled: Everything in front of these records is kept. Else nothing is known of it, and no erasure may be
            among them.

    >>> num_together([b"a", b"b", b"c", b"b"], [1], is_settled=True)
    3
    >>> num_together([b"a", b"b", b"a"], [2], is_settled=True)
    2
    """
    places, seen, erased = set(erasures), set[bytes | None](), set[bytes | None]()
    for place, key in enumerate(keys):
        if place in places:
            if not is_settled or key in seen:
                return place
            erased.add(key)
        elif key in erased:
            return place
        seen.add(key)
    return len(keys)


def parts_together(keys: Sequence[bytes | None], erasures: Sequence[int]) -> Iterator[range]:
    """The places of what may be processed together, part after part, where all in front of each part is kept.

    >>> list(parts_together([b"a", b"b", b"a", b"a"], [2]))
    [range(0, 2), range(2, 3), range(3, 4)]
    """
    start = 0
    while start < len(keys):
        num = num_together(keys[start:], [place - start for place in erasures if place >= start], is_settled=True)
        yield range(start, start + num)
        start += num


class CutAtErasures:
    """A processor that gets runs in such parts; each is kept on its own.

    Args:
        within: The role's own.
        find: Finds erasures.
    """

    def __init__(self, within: Processor, find: FindErasures) -> None:
        self._within = within
        self._find = find
        self._settled_offset = -1

    def opening(self) -> list[OutRecord]:
        """As the one within."""
        return self._within.opening()

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """As the one within."""
        self._within.restore(items)

    async def process(self, run: Run, values: Values) -> Effects:
        """As the one within, of as many records as may be processed together."""
        erasures = self._find(run)
        if not erasures:
            return await self._within.process(run, values)
        num = num_together(run.keys, erasures, is_settled=run.offsets[0] == self._settled_offset)
        if num < len(run):
            self._settled_offset = run.offsets[num]
        if num == 0:
            return Effects(num_taken=0)
        return replace(await self._within.process(part_of(run, 0, num), values), num_taken=num)


@dataclass(frozen=True)
class Erasures:
    """What a part of a run of `slices` or `slice-vectors` erases.

    Args:
        done: Offset of the newest erasure that was kept before. Records at or before it are done, whether or not
            there is still a value that says so.
        newest: Offset of the newest of all.
        news: The erasures behind `done`.
        removed: Keys of the values that are to be removed. Also a worker that died may have left some.
    """

    done: int
    newest: int
    news: Sequence[ErasedRecord]
    removed: list[bytes]

    def others(self, run: Run) -> list[tuple[int, bytes]]:
        """Offsets and values of the users' other records that are not done yet."""
        return [(at, value) for at, value in without_marks(run) if at > self.done and not is_erased(value)]

    def changes(self) -> dict[bytes, Stored]:
        """What is to be kept behind all other changes, so that it vouches for them."""
        return {tables.PARTITION_KEY: Stored(self.newest, b"")} if self.news else {}


def erasures_in(run: Run, values: Values) -> Erasures:
    """What `run` erases, beside the values that are kept. It is one that `CutAtErasures` has cut."""
    found = [(run.offsets[place], decode_erased(run.values[place] or b"")) for place in erased_records(run)]
    keys = [tables.key_of(record.user_id) for _, record in found]
    mark, *kept = values.get_many([tables.PARTITION_KEY, *keys])
    done = -1 if mark is None else mark.position
    return Erasures(
        done=done,
        newest=max([done, *(offset for offset, _ in found)]),
        news=[record for offset, record in found if offset > done],
        removed=[
            key
            for key, stored, (offset, _) in zip(keys, kept, found, strict=True)
            if stored is not None and stored.position < offset
        ],
    )
