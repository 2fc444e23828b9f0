"""Outputs of one identity: repeats pass, differences are named with both places."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from stream_app.audit.findings import Check
from stream_app.audit.repeats import Output, Repeats, list_output, slice_output, slice_vector_output
from stream_app.records import (
    RankedItem,
    Recommendation,
    SliceEvent,
    SliceRecord,
    SliceVectorRecord,
    encode,
    pack_vector,
)
from tests.audit.cases import Record, new_check, run

LIST = Recommendation(
    recommendation_id="r1",
    user_id="ann",
    event_ts=5,
    partition=0,
    offset=7,
    release="m",
    index_version="m/3",
    epoch=2,
    has_vector=True,
    items=[RankedItem(item_id="book", score=0.5, sources=["index"])],
)
SLICE = SliceRecord(
    user_id="ann",
    seq=3,
    revision=2,
    closed=False,
    fresh=True,
    events=[SliceEvent("book", "click", 5, -1)],
    partition=0,
    offset=7,
)
VECTOR = SliceVectorRecord(
    user_id="ann",
    seq=3,
    revision=2,
    closed=False,
    fresh=True,
    items=["book"],
    last_ts=5,
    partition=0,
    offset=7,
    release="m",
    slice_vector=pack_vector(np.array([1, 2], dtype=np.float32)),
    user_vector=pack_vector(np.array([3, 4], dtype=np.float32)),
    num_slices_merged=1,
)

Read = Callable[[bytes], Output]
Changed = tuple[msgspec.Struct, dict[str, object]]


def audited(read: Read, *records: msgspec.Struct | Record) -> Check:
    """The findings about these records, which lie in turn in partitions 0 and 1."""
    check = new_check()
    repeats = Repeats(check, read)
    for offset, record in enumerate(records):
        lying = record if isinstance(record, Record) else Record(offset, b"ann", encode(record))
        repeats.take(run([lying], "topic", partition=offset % 2))
    return check


@pytest.mark.parametrize(
    ("read", "record", "changes"),
    [
        (list_output, LIST, {}),
        (list_output, LIST, {"recommendation_id": "r2", "items": []}),
        (slice_output, SLICE, {"fresh": False, "join_epoch": 4}),
        (slice_output, SLICE, {"revision": 1, "events": []}),
        (slice_output, SLICE, {"seq": 4, "events": []}),
        (slice_vector_output, VECTOR, {"user_vector": VECTOR.slice_vector, "num_slices_merged": 9, "fresh": False}),
        (slice_vector_output, VECTOR, {"release": "n", "slice_vector": VECTOR.user_vector}),
        (slice_vector_output, VECTOR, {"revision": 1, "items": []}),
    ],
)
def test_what_may_be_published_again_passes(read: Read, record: msgspec.Struct, changes: dict[str, object]) -> None:
    check = audited(read, record, msgspec.structs.replace(record, **changes), record)
    assert (check.status, check.num_checked) == ("pass", 3)


@pytest.mark.parametrize(
    ("read", "record", "changes"),
    [
        (list_output, LIST, {"items": []}),
        (list_output, LIST, {"epoch": 3}),
        (slice_output, SLICE, {"closed": True}),
        (slice_output, SLICE, {"events": [SliceEvent("book", "click", 6, -1)]}),
        (slice_output, SLICE, {"before": [SliceEvent("pen", "click", 1, -1)]}),
        (slice_vector_output, VECTOR, {"slice_vector": VECTOR.user_vector}),
        (slice_vector_output, VECTOR, {"items": []}),
    ],
)
def test_other_content_under_one_identity_is_named_with_both_places(
    read: Read, record: msgspec.Struct, changes: dict[str, object]
) -> None:
    check = audited(read, record, record, record, msgspec.structs.replace(record, **changes), record)
    (breach,) = check.breaches
    assert (breach.topic, breach.partition, breach.offset) == ("topic", 1, 3)
    assert breach.expected.startswith("what is at partition 0 offset 0")


def test_bytes_count_not_values() -> None:
    check = audited(list_output, LIST, Record(1, b"ann", encode(LIST).replace(b'"epoch":2', b'"epoch": 2')))
    assert check.num_breaches == 1


def test_deletions_are_no_outputs() -> None:
    assert audited(list_output, Record(0, b"ann", None)).num_checked == 0


@pytest.mark.parametrize(
    "record", [Record(0, b"ann", b"{}"), Record(0, b"ann", b"\xff"), Record(0, b"bob", encode(LIST))]
)
def test_what_is_no_list_of_its_user_is_named(record: Record) -> None:
    assert [breach.offset for breach in audited(list_output, record).breaches] == [0]
