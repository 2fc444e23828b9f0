"""Small event logs, and a way to drive the sequence stage over them as a worker does."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import msgspec
from hypothesis import strategies as st

from stream_app.records import ActivityRecord, ErasedRecord, Event, ProgressRecord, SliceRecord, StatusRecord
from stream_app.stages.score_rule import ScoreRule
from stream_app.stages.sequence import KeptHistory, PartitionTotals, SequenceStage
from stream_app.stages.slicing import SlicingRule, UserHistory

RULE = SlicingRule(slice_events=3, gap_ms=10, span_ms=20, history_events=9, repair_slices=4)
EPOCH_MS = 16
LATENESS_MS = 4
NOBODY_SAMPLED = ScoreRule(epoch_ms=EPOCH_MS, scorer_epoch_ms=2 * EPOCH_MS, users_share=0.0, choices_per_epoch=9)
PARTITION = 2


@dataclass(frozen=True)
class Tick:
    """A tick of the replay clock."""

    ts: int
    last: bool = False


@dataclass(frozen=True)
class Dead:
    """A record that is no valid event."""

    reason: str


Entry = Event | Tick | Dead


@dataclass(frozen=True)
class Erase:
    """The erasure of a user."""

    user_id: str


Log = Sequence[Entry | Erase]
"""Offsets are places in the list."""


def event(user_id: str, item_id: str, ts: int, type: str = "click", event_id: str | None = None) -> Event:
    """An event in few words."""
    return Event(user_id=user_id, item_id=item_id, type=type, ts=ts, event_id=event_id)


def events(max_ts: int = 70, users: str = "ab") -> st.SearchStrategy[Event]:
    """Events that often repeat, come late or fall silent."""
    return st.builds(
        event,
        st.sampled_from(users),
        st.sampled_from("pqr"),
        st.integers(0, max_ts),
        st.sampled_from(["click", "buy"]),
        st.sampled_from([None, None, "1", "2", "3", "4"]),
    )


def logs(max_size: int = 30) -> st.SearchStrategy[list[Entry]]:
    """Logs of events, some ticks and some rejected records; time moves on in the long run."""
    entries = st.one_of(
        events(),
        events(),
        events(),
        st.builds(Tick, st.integers(0, 90), st.booleans()),
        st.builds(Dead, st.sampled_from(["not_json", "no_user"])),
    )
    return st.lists(entries, max_size=max_size)


def pieces(length: int, cuts: Iterable[int]) -> Iterator[range]:
    """The offsets of a log of `length` entries, cut before each of `cuts`."""
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < length}), length]
    for start, end in pairwise(bounds):
        if start < end:
            yield range(start, end)


@dataclass
class Worker:
    """A sequence worker without Kafka: its table holds bytes, so nothing is shared with the stage by accident."""

    rule: SlicingRule = RULE
    score: ScoreRule = NOBODY_SAMPLED
    table: dict[str, tuple[int, bytes]] = field(default_factory=dict)
    totals: tuple[int, bytes] | None = None
    slices: list[SliceRecord] = field(default_factory=list)
    published: list[SliceRecord | ErasedRecord | ProgressRecord] = field(default_factory=list)
    activity: list[ActivityRecord] = field(default_factory=list)
    stage: SequenceStage = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything but the table."""
        self.stage = SequenceStage(
            PARTITION,
            self.rule,
            epoch_ms=EPOCH_MS,
            allowed_lateness_ms=LATENESS_MS,
            weights_milli={"click": 1000, "buy": 3000},
            score=self.score,
        )
        totals = msgspec.msgpack.decode(self.totals[1], type=PartitionTotals) if self.totals else None
        self.stage.restore(self.histories().items(), totals)

    def histories(self) -> dict[str, UserHistory]:
        """The kept histories."""
        return {user_id: kept.history for user_id, kept in self.load(list(self.table)).items()}

    def load(self, users: Sequence[str]) -> dict[str, KeptHistory]:
        """Fresh copies of kept histories."""
        return {
            user_id: KeptHistory(
                msgspec.msgpack.decode(self.table[user_id][1], type=UserHistory), self.table[user_id][0]
            )
            for user_id in users
            if user_id in self.table
        }

    def run(self, log: Log, offsets: range, *, lost: frozenset[str] | None = None) -> None:
        """Take a run. With `lost` the worker dies in the middle of keeping it: these users and the totals are lost."""
        totals_position = -1 if self.totals is None else self.totals[0]
        entries = [log[offset] for offset in offsets]
        users = [entry.user_id for entry in entries if isinstance(entry, Event)]
        self.stage.begin_run(list(dict.fromkeys(users)), self.load)
        for offset, entry in zip(offsets, entries, strict=True):
            is_counted = offset <= totals_position
            if isinstance(entry, Event):
                self.stage.take_event(entry, offset, strict=offset % 2 == 0, is_counted=is_counted)
            elif isinstance(entry, Erase):
                self.stage.take_erasure(entry.user_id, offset, is_counted=is_counted)
            elif isinstance(entry, Tick):
                self.stage.take_tick(entry.ts, offset, last=entry.last)
            elif not is_counted:
                self.stage.take_dead_letter(entry.reason)
        effects = self.stage.end_run(offsets[-1], 1)
        self.slices += effects.slices
        self.published += [*effects.published(), *([] if effects.progress is None else [effects.progress])]
        self.activity += effects.activity
        for user_id, kept in effects.changed.items():
            if lost is None or user_id not in lost:
                self.table[user_id] = (kept.position, msgspec.msgpack.encode(kept.history))
        for user_id in effects.removed:
            self.table.pop(user_id, None)
        if lost is None:
            position = max(totals_position, offsets[-1])
            self.totals = (position, msgspec.msgpack.encode(self.stage.totals))
        else:
            self.restart()

    def run_all(self, log: Log, cuts: Iterable[int] = ()) -> Worker:
        """Take a whole log, cut into runs."""
        for offsets in pieces(len(log), cuts):
            self.run(log, offsets)
        return self

    def status(self) -> StatusRecord:
        """The totals."""
        return self.stage.status(0)

    def touches(self) -> list[ActivityRecord]:
        """The activity without marks of progress."""
        return [record for record in self.activity if record.item_id is not None]


def newest(slices: Iterable[SliceRecord]) -> Mapping[tuple[str, int], SliceRecord]:
    """The newest revision of each slice, without what says when a list is due."""
    known: dict[tuple[str, int], SliceRecord] = {}
    for record in slices:
        key = (record.user_id, record.seq)
        if key not in known or record.revision > known[key].revision:
            known[key] = msgspec.structs.replace(record, fresh=False, join_epoch=None)
    return known


def asked(slices: Iterable[SliceRecord]) -> dict[str, tuple[int, int, int | None]]:
    """What the last list of each user answers: offset, slice and epoch."""
    return {record.user_id: (record.offset, record.seq, record.join_epoch) for record in slices if record.fresh}
