"""Erasing through the roles' processors: whatever dies in between, nothing of an erased user comes again behind it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import msgspec
import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app import tables
from stream_app.agents.choose import ChooseRule, take_choosers
from stream_app.agents.encode import EncodeProcessor, EncodeTopics
from stream_app.agents.recommend import RecommendProcessor, RecommendTopics, take_run
from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.batching import SliceBatcher
from stream_app.erasing import CutAtErasures, FindErasures, erased_records, erasures_of_events, num_together
from stream_app.faustkit import Effects, OutRecord, Processor, Run, Stored, Values
from stream_app.rebuild_folds import Layered, UserFold
from stream_app.records import (
    ErasedRecord,
    Erasure,
    Event,
    SliceVectorRecord,
    decode_erased,
    encode,
    is_erased,
    pack_vector,
)
from stream_app.stages.clean import CleanRules
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ListRule
from stream_app.stages.score_rule import ScoreRule
from tests.examples import examples
from tests.stages.cases import Worker
from tests.test_batching import CountingEncoder

RULES = CleanRules(event_types={"click": 1.0, "buy": 3.0}, max_future_ms=10**6)
ALL_SAMPLED = ScoreRule(epoch_ms=16, scorer_epoch_ms=32, users_share=1.0, choices_per_epoch=9)
SEQUENCE_TOPICS = SequenceTopics("slices", "activity", "dead-letter", "status", 1)
RELEASE = "counting-1"
EXECUTOR = ThreadPoolExecutor(1)


class Row(NamedTuple):
    """A record of an input."""

    key: bytes | None
    value: bytes | None


class Step(NamedTuple):
    """So many records are read; then the worker dies, having kept so many of the changes that wait (None: it lives)."""

    num_records: int
    num_kept: int | None


STEPS = st.lists(st.builds(Step, st.integers(1, 5), st.none() | st.integers(0, 6)), max_size=10)
DIES_BEHIND = [Step(1, None), Step(1, 0), Step(1, None)]
"""The second record is published, then nothing of either is kept, and the first is read again alone."""

USERS = st.sampled_from(["a", "b"])


def run_of(rows: Sequence[Row], start: int, stop: int) -> Run:
    """The records at these offsets."""
    part = rows[start:stop]
    return Run(
        topic="input",
        partition=0,
        offsets=range(start, start + len(part)),
        keys=[row.key for row in part],
        values=[row.value for row in part],
        timestamps_ms=[0] * len(part),
        headers=[()] * len(part),
    )


@dataclass
class Role:
    """A worker without Kafka that keeps its changes late, and may die while it does."""

    new_processor: Callable[[], Processor]
    table: dict[bytes, Stored] = field(default_factory=dict)
    pending: dict[bytes, Stored | None] = field(default_factory=dict)
    outputs: list[OutRecord] = field(default_factory=list)
    committed: int = 0
    position: int = 0

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """Begin where the committed offset and the table are."""
        self.pending, self.position = {}, self.committed
        self.processor = self.new_processor()
        self.processor.restore(iter(list(self.table.items())))

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """As `Values`."""
        return [self.pending.get(key, self.table.get(key)) for key in keys]

    def keep(self, num_kept: int | None = None) -> None:
        """Keep what waits; or only the first `num_kept`, and commit nothing."""
        for key, stored in list(self.pending.items())[:num_kept]:
            self.table.pop(key, None)
            if stored is not None:
                self.table[key] = stored
        if num_kept is None:
            self.pending, self.committed = {}, self.position

    def read(self, rows: Sequence[Row], num_records: int) -> None:
        """Process some records as a run; what the processor leaves of it comes as a run of its own."""
        stop = min(len(rows), self.position + num_records)
        while self.position < stop:
            run = run_of(rows, self.position, stop)
            effects = asyncio.run(self.processor.process(run, self))
            self.outputs += effects.outputs
            for key, change in [*effects.changes.items(), *dict.fromkeys(effects.removed).items()]:
                self.pending.pop(key, None)
                self.pending[key] = change
            self.position += len(run) if effects.num_taken is None else effects.num_taken
            if effects.num_taken is not None:
                self.keep()

    def go(self, rows: Sequence[Row], steps: Iterable[Step]) -> Role:
        """Read everything, dying on the way."""
        for step in steps:
            self.read(rows, step.num_records)
            if step.num_kept is not None:
                self.keep(step.num_kept)
                self.start()
        self.read(rows, len(rows))
        self.keep()
        return self

    def values(self) -> dict[bytes, Stored]:
        """What is kept, without the facts of the partition."""
        return {key: stored for key, stored in self.table.items() if key != tables.PARTITION_KEY}

    def published(self, topic: str) -> list[Row]:
        """What was published on a topic."""
        return [Row(record.key, record.value) for record in self.outputs if record.topic == topic]


class OffsetOnly(msgspec.Struct):
    """The user and the offset on `events` of a record between the roles."""

    user_id: str
    offset: int


def check_nothing_comes_again(rows: Iterable[Row]) -> None:
    """Behind the erasure of a user nothing is published that lies in front of it."""
    erased_at: dict[str, int] = {}
    for row in rows:
        if not row.key or row.value is None:
            continue
        if is_erased(row.value):
            record = decode_erased(row.value)
            assert record.offset >= erased_at.get(record.user_id, -1)
            erased_at[record.user_id] = record.offset
        else:
            told = msgspec.json.decode(row.value, type=OffsetOnly)
            assert told.offset > erased_at.get(told.user_id, -1)


@st.composite
def event_rows(draw: st.DrawFn) -> list[Row]:
    """Events and erasures."""
    entries = st.tuples(USERS, st.sampled_from(["1", "2", "3"]), st.integers(0, 70), st.integers(0, 2))
    return [
        click(user_id, item_id, ts) if kind else erasure(user_id)
        for user_id, item_id, ts, kind in draw(st.lists(entries, max_size=25))
    ]


def click(user_id: str, item_id: str, ts: int) -> Row:
    """An event."""
    return Row(user_id.encode(), encode(Event(user_id=user_id, item_id=item_id, type="click", ts=ts)))


def erasure(user_id: str) -> Row:
    """An erasure."""
    return Row(user_id.encode(), encode(Erasure(user_id=user_id, ts=5)))


ERASED_ONCE = [click("a", "1", 5), erasure("a")]


def sequence_role() -> Role:
    """The role `sequence`."""

    def new_processor() -> Processor:
        processor = SequenceProcessor(Worker(score=ALL_SAMPLED).stage, RULES, SEQUENCE_TOPICS)
        return CutAtErasures(processor, erasures_of_events(RULES))

    return Role(new_processor)


@given(event_rows(), STEPS)
@example(ERASED_ONCE, DIES_BEHIND)
def test_deaths_bring_no_history_back(rows: list[Row], steps: list[Step]) -> None:
    undisturbed, role = sequence_role().go(rows, []), sequence_role().go(rows, steps)
    assert role.table == undisturbed.table
    check_nothing_comes_again(role.published("slices"))
    totals = tables.SEQUENCE_TOTALS.decode(role.table[tables.PARTITION_KEY].payload) if rows else None
    histories = [tables.HISTORY.decode(stored.payload) for stored in role.values().values()]
    counted = sum(history.applied + sum(history.dropped.values()) for history in histories)
    assert totals is None or counted + totals.applied + sum(totals.dropped.values()) == len(rows)


def slice_rows(rows: list[Row], steps: Sequence[Step] = ()) -> list[Row]:
    """What the role `sequence` makes of events."""
    return sequence_role().go(rows, steps).published("slices")


def encode_role() -> Role:
    """The role `encode`, with an encoder that counts."""

    def new_processor() -> Processor:
        encoder: Any = CountingEncoder()
        batcher = SliceBatcher(encoder, EXECUTOR, {"click": 1.0, "buy": 3.0})
        return CutAtErasures(EncodeProcessor(batcher, EncodeTopics("slice-vectors", "drift")), erased_records)

    return Role(new_processor)


def payloads(role: Role) -> dict[bytes, bytes]:
    """The values alone: their positions tell how runs were cut."""
    return {key: stored.payload for key, stored in role.values().items()}


@examples(25)
@given(event_rows(), STEPS, STEPS)
@example(ERASED_ONCE, [], DIES_BEHIND)
def test_deaths_bring_no_memory_back(rows: list[Row], before: list[Step], steps: list[Step]) -> None:
    undisturbed = encode_role().go(slice_rows(rows), [])
    role = encode_role().go(slice_rows(rows, before), steps)
    assert payloads(role) == payloads(undisturbed)
    check_nothing_comes_again(role.published("slice-vectors"))
    erased = {row.key for row in rows if b"$erase" in (row.value or b"")}
    last = {row.key: b"$erase" in (row.value or b"") for row in rows}
    assert role.values().keys() == {key for key, is_gone in last.items() if not is_gone}
    assert (tables.PARTITION_KEY in role.table) == bool(erased)


def vector_rows(parts: Iterable[tuple[str, int]]) -> list[Row]:
    """Slice vectors, one for each user and item; item 0 is an erasure."""
    rows: list[Row] = []
    num_of: Counter[str] = Counter()
    for offset, (user_id, item) in enumerate(parts):
        num_of[user_id] += 1
        made: msgspec.Struct = ErasedRecord(user_id=user_id, partition=0, offset=offset)
        if item:
            made = SliceVectorRecord(
                user_id=user_id,
                seq=num_of[user_id],
                revision=1,
                closed=True,
                fresh=False,
                items=[f"i{item}"],
                last_ts=offset,
                partition=0,
                offset=offset,
                release=RELEASE,
                slice_vector=pack_vector(np.ones(2, np.float32)),
                user_vector=pack_vector(np.full(2, item, np.float32)),
                num_slices_merged=0,
                sampled=True,
            )
        rows.append(Row(user_id.encode(), encode(made)))
    return rows


VECTOR_ROWS = st.lists(st.tuples(USERS, st.integers(0, 3)), max_size=25).map(vector_rows)


def recommend_role() -> Role:
    """The role `recommend`, of which nobody asks for a list."""
    rule = ListRule("events", RELEASE, Scorer(feature_names=["x"], weights=[0.0]), ALL_SAMPLED, 10, 10)
    nobody: Any = None
    processor = RecommendProcessor(rule, RecommendTopics("lists"), nobody, nobody, nobody)
    return Role(lambda: CutAtErasures(processor, erased_records))


class Choosers:
    """The role `choose`, without looking up candidates."""

    def opening(self) -> list[OutRecord]:
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing."""

    async def process(self, run: Run, values: Values) -> Effects:
        taken = take_choosers(run, values, ChooseRule(RELEASE, 10, ALL_SAMPLED))
        told = [OutRecord("choices", 0, b"", b"%d" % choice.record.offset) for choice in taken.choices]
        return Effects(told, taken.changes, taken.removed)


@given(VECTOR_ROWS, STEPS)
@example(vector_rows([("a", 1), ("a", 0)]), DIES_BEHIND)
def test_deaths_bring_no_profile_back_and_lists_end_with_null(rows: list[Row], steps: list[Step]) -> None:
    undisturbed, role = recommend_role().go(rows, []), recommend_role().go(rows, steps)
    assert role.table == undisturbed.table
    last = {row.key: is_erased(row.value or b"") for row in rows}
    assert role.values().keys() == {key for key, is_gone in last.items() if not is_gone}
    erased = {row.key for row in rows if is_erased(row.value or b"")}
    assert {row.key for row in role.published("lists") if row.value is None} == erased


@given(VECTOR_ROWS, STEPS)
def test_deaths_make_no_choices_of_what_was_erased(rows: list[Row], steps: list[Step]) -> None:
    undisturbed = Role(lambda: CutAtErasures(Choosers(), erased_records)).go(rows, [])
    role = Role(lambda: CutAtErasures(Choosers(), erased_records)).go(rows, steps)
    assert role.table == undisturbed.table
    assert set(role.published("choices")) == set(undisturbed.published("choices"))


@given(VECTOR_ROWS, st.lists(st.integers(1, 9), max_size=10))
def test_a_rebuild_folds_what_the_role_keeps(rows: list[Row], sizes: list[int]) -> None:
    async def process(run: Run, values: Values) -> Effects:
        taken = take_run(run, values, RELEASE)
        return Effects(changes=taken.changes, removed=taken.erasures.removed)

    fold, table = UserFold(process, erased_records), dict[bytes, Stored | None]()
    bounds = [0, *accumulate(sizes), len(rows)]
    for start, stop in pairwise(bounds):
        if start < min(stop, len(rows)):
            nothing = Layered({}, _Empty())
            table |= asyncio.run(fold.changes(run_of(rows, start, min(stop, len(rows))), Layered(table, nothing)))
    left = {key: stored for key, stored in table.items() if stored is not None}
    assert left == recommend_role().go(rows, []).table


class _Empty:
    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        return [None] * len(keys)


@given(st.lists(st.tuples(st.sampled_from([b"a", b"b", b""]), st.booleans()), max_size=12), st.booleans())
def test_no_two_records_of_a_user_are_together_with_an_erasure_between(
    rows: list[tuple[bytes, bool]], is_settled: bool
) -> None:
    keys = [key for key, _ in rows]
    erasures = [place for place, (key, is_erasure) in enumerate(rows) if is_erasure and key]
    num = num_together(keys, erasures, is_settled=is_settled)
    together = [place for place in erasures if place < num]
    assert is_settled or not together
    assert all(keys[:num].count(keys[place]) == 1 for place in together)
    if num < len(rows):
        # One more would be too many.
        more = [place for place in erasures if place <= num]
        assert (not is_settled and num in erasures) or any(keys[: num + 1].count(keys[place]) > 1 for place in more)


def test_runs_without_erasures_are_kept_with_others() -> None:
    find: FindErasures = erased_records
    role = Role(lambda: CutAtErasures(Choosers(), find))
    rows = vector_rows([("a", 1), ("b", 2)])
    effects = asyncio.run(role.processor.process(run_of(rows, 0, 2), role))
    assert effects.num_taken is None
