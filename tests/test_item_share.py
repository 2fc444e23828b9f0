"""What is published of one partition of the catalogue: only news, and in an order that a crash cannot spoil."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from stream_app.faustkit import OutRecord, Run
from stream_app.item_share import ItemShare, catalogue_news
from stream_app.records import VECTORS_KEY, Item, VectorsCompleteRecord, encode

VECTORS_ND = np.arange(12, dtype=np.float32).reshape(4, 3)


def share(release: str = "r1") -> ItemShare:
    return ItemShare("item-vectors", 0, release, num_trained=2)


def run(records: Sequence[OutRecord]) -> Run:
    num = len(records)
    keys, values = [one.key for one in records], [one.value for one in records]
    return Run("item-vectors", 0, range(num), keys, values, [0] * num, [()] * num)


def published(release: str = "r1", offset: int = 7) -> list[OutRecord]:
    """What a worker writes that begins with nothing: two trained items, and a new one."""
    begun = share(release)
    records = [begun.restart(), *begun.trained(["a", "b"], VECTORS_ND[:2]), begun.marker(0)]
    return [*records, *begun.changes(["c"], VECTORS_ND[2:3], []), begun.marker(offset)]


def again(records: Sequence[OutRecord], release: str = "r1") -> ItemShare:
    """Who takes the partition over."""
    found = share(release)
    found.take_published(run(records))
    return found


def test_who_takes_over_goes_on_behind_what_is_there() -> None:
    found = again(published())
    assert found.next_offset == 7
    assert found.changes(["a", "c"], VECTORS_ND[[0, 2]], ["unheard-of"]) == []
    (changed,) = found.changes(["a", "c"], VECTORS_ND[[1, 2]], [])
    assert changed.key == b"a"
    removed = found.changes([], VECTORS_ND[:0], ["c", "c"])
    assert [(one.key, one.value) for one in removed] == [(b"c", None)]
    assert [one.key for one in found.changes(["c"], VECTORS_ND[2:3], [])] == [b"c"]


def test_a_worker_that_died_before_its_marker_is_not_believed() -> None:
    records = published()
    for length in range(3):
        assert again(records[:length]).next_offset is None
    assert again(records[:-1]).next_offset == 0


def test_another_release_begins_anew_and_so_does_the_first_one_after_it() -> None:
    records = published("r1")
    other = again(records, "r2")
    assert other.next_offset is None
    assert len(other.trained(["a", "b"], VECTORS_ND[:2])) == 2
    began_only = [*records, share("r2").restart()]
    assert again(began_only, "r1").next_offset is None
    assert again([*records, *published("r2")], "r1").next_offset is None


def test_the_marker_tells_release_trained_items_and_offset() -> None:
    marker = share().marker(12)
    assert marker.key == VECTORS_KEY
    told = msgspec.json.decode(marker.value or b"", type=VectorsCompleteRecord)
    assert told == VectorsCompleteRecord(release="r1", num_items=2, items_offset=12)


def test_of_each_item_the_newest_record_counts_and_bad_ones_are_left_out() -> None:
    first, second = Item(item_id="a", title="old"), Item(item_id="a", title="new")
    values = [encode(first), b"{", None, encode(second), encode(first), None]
    keys = [b"a", b"a", b"b", b"a", b"c", b"a"]
    news = catalogue_news(Run("items", 0, range(6), keys, values, [0] * 6, [()] * 6))
    assert (news.told, sorted(news.gone)) == ({}, ["a", "b"])
    assert [(place, why.reason) for place, why in news.refused] == [(1, "not_json"), (4, "key_mismatch")]
    news = catalogue_news(Run("items", 0, range(4), keys[:4], values[:4], [0] * 4, [()] * 4))
    assert (news.told, news.gone, news.places["a"]) == ({"a": second}, ["b"], 3)
