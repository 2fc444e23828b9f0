"""The index as recommenders fill it from `item-vectors`: upserts, ends and refusals, in the order of the topic."""

from __future__ import annotations

import asyncio
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import build_index
from index.checks import ALL_ZEROS, NOT_FINITE, WRONG_DIM, WRONG_RELEASE
from stream_app import item_view
from stream_app.faustkit import Run
from stream_app.item_view import NO_VECTOR, ItemView
from stream_app.records import (
    VECTORS_KEY,
    FloatVector,
    Item,
    ItemVectorRecord,
    VectorsCompleteRecord,
    encode,
    pack_vector,
)
from tests.support import DEADLINE_S

DIM = 4
Record = tuple[bytes | None, bytes | None]


def vector(number: float) -> FloatVector:
    return np.array([1.0, 2.0, 3.0, number], dtype=np.float32)


def record(item_id: str, vector_D: FloatVector, release: str = "r1", key: str | None = None) -> Record:
    made = ItemVectorRecord(item_id=item_id, release=release, vector=pack_vector(vector_D))
    return (key or item_id).encode(), encode(made)


def marker(items_offset: int, release: str = "r1") -> Record:
    return VECTORS_KEY, encode(VectorsCompleteRecord(release=release, num_items=1, items_offset=items_offset))


def run(records: list[Record], topic: str = "item-vectors", partition: int = 0, start: int = 0) -> Run:
    num = len(records)
    keys, values = [key for key, _ in records], [value for _, value in records]
    return Run(topic, partition, range(start, start + num), keys, values, [0] * num, [()] * num)


class Refusals:
    """What a view says of refusals."""

    def __init__(self) -> None:
        self.told: list[tuple[int, str]] = []
        self.view = ItemView(build_index("exact", DIM, "r1"), 1, self.take)

    def take(self, run: Run, place: int, reason: str) -> None:
        self.told.append((run.offsets[place], reason))

    def contents(self) -> dict[str, float]:
        """The last number of each vector in the index."""
        held = self.view.index.contents()
        return dict(zip(held.ids, held.vectors_ND[:, -1].tolist(), strict=True))


OPERATIONS = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, -1.0, 1.0, 2.0])), max_size=12)
"""An item, and its new number; None: it ends; -1: a vector that is no good."""


@settings(deadline=None)
@given(OPERATIONS, st.integers(1, 5))
def test_the_index_holds_the_last_good_vector_since_the_items_last_end(
    operations: list[tuple[str, float | None]], size: int
) -> None:
    expected: dict[str, float] = {}
    records: list[Record] = []
    for item, number in operations:
        if number is None:
            expected.pop(item, None)
            records.append((item.encode(), None))
        elif number < 0:
            records.append(record(item, vector(np.nan)))
        else:
            expected[item] = number
            records.append(record(item, vector(number)))
    refusals = Refusals()
    for start in range(0, len(records), size):
        refusals.view._take_vectors(run(records[start : start + size], start=start))
    assert refusals.contents() == expected
    assert [offset for offset, _ in refusals.told] == [place for place, (_, n) in enumerate(operations) if n == -1]
    assert refusals.view.refused.total() == len(refusals.told)


def test_each_bad_record_is_told_by_offset_and_reason() -> None:
    refusals = Refusals()
    refusals.view._take_vectors(
        run(
            [
                record("a", vector(7)),
                record("a", vector(np.inf)),
                record("a", 0 * vector(1)),
                record("a", vector(1)[:3]),
                record("a", vector(2), release="r2"),
                (b"a", b"{"),
                (b"a", encode(ItemVectorRecord(item_id="a", release="r1", vector="???"))),
                record("b", vector(1), key="a"),
                record("c", vector(3)),
            ],
            start=20,
        )
    )
    reasons = [NOT_FINITE, ALL_ZEROS, WRONG_DIM, WRONG_RELEASE, NO_VECTOR, NO_VECTOR, "no item id"]
    assert refusals.told == [(21 + place, reason) for place, reason in enumerate(reasons)]
    assert refusals.contents() == {"a": 7.0, "c": 3.0}


def test_a_vector_that_is_there_already_changes_nothing() -> None:
    view = Refusals().view
    view._take_vectors(run([record("a", vector(1))]))
    version = view.index.version
    view._take_vectors(run([record("a", vector(1)), (b"unheard-of", None), (b"\xffowner", None)]))
    assert view.index.version == version
    view._take_vectors(run([record("a", vector(2)), record("a", vector(1))]))
    assert view.index.version == version


def test_the_version_tells_changes_that_leave_the_number_of_items() -> None:
    view = Refusals().view
    view._take_vectors(run([record("a", vector(1)), marker(0)]))
    assert view.version == "r1/1"
    view._take_vectors(run([record("a", vector(2)), marker(5)]))
    assert view.version == "r1/1@5"


def item_run(partition: int, offset: int, item_id: str = "a") -> Run:
    return run([(item_id.encode(), encode(Item(item_id=item_id)))], "items", partition, offset)


def test_lists_of_a_replay_wait_for_the_vectors_of_the_catalogue() -> None:
    async def story() -> None:
        view = Refusals().view
        await view.catch_up_vectors()
        view._take_items(item_run(0, 4))
        view._take_items(item_run(1, 8))
        waiting = asyncio.create_task(view.catch_up_vectors())
        for partition, records in ((0, [marker(5)]), (1, [marker(9, "r2")]), (1, [marker(8)])):
            view._take_vectors(run(records, partition=partition))
            await asyncio.sleep(0)
            assert not waiting.done()
        view._take_vectors(run([marker(9)], partition=1))
        await asyncio.wait_for(waiting, DEADLINE_S)
        await asyncio.wait_for(view.catch_up_vectors(), DEADLINE_S)

    asyncio.run(story())


def test_vectors_that_never_come_are_waited_for_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(item_view, "VECTORS_WAIT_S", 0.01)

    async def story() -> None:
        view = Refusals().view
        view._take_items(item_run(0, 4))
        await view.catch_up_vectors()
        monkeypatch.setattr(item_view, "VECTORS_WAIT_S", 3600.0)
        await asyncio.wait_for(view.catch_up_vectors(), DEADLINE_S)

    with caplog.at_level(logging.WARNING):
        asyncio.run(story())
    assert len(caplog.records) == 1


def test_a_record_that_is_no_item_says_nothing_of_any() -> None:
    view = Refusals().view
    view._take_items(run([(b"a", b'{"item_id":"a","available":false}'), (b"a", b"{"), (b"b", b"[]")], "items"))
    assert [view.is_available(item) for item in "ab"] == [False, True]
