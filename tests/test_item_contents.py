"""Records of the catalogue as contents for the item tower."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoders.item_features import ItemContent
from stream_app.item_contents import MAX_ITEM_BYTES, item_contents, read_item
from stream_app.records import Item
from stream_app.stages.clean import MAX_ID_CHARS, Rejection


def test_every_field_arrives_and_the_newest_record_counts() -> None:
    records = [
        (b"a", b'{"item_id":"a","title":"old"}'),
        (b"b", b'{"item_id":"b","title":"gone"}'),
        (
            b"a",
            b'{"item_id":"a","title":"Heat","description":"Two men.","category":"crime","tags":["noir"],'
            b'"price":9.5,"image":"heat.jpg","available":false}',
        ),
        (b"b", None),
        (b"c", b'{"item_id":"c"}'),
    ]

    contents, num_refused = item_contents(records)

    assert contents == {"a": ItemContent("Heat", "Two men.", "crime", ("noir",), 9.5, "heat.jpg"), "c": ItemContent()}
    assert num_refused == 0


def test_records_that_are_no_items_are_counted_and_change_nothing() -> None:
    good = (b"a", b'{"item_id":"a","title":"kept"}')
    bad = [
        (b"a", b"not json"),
        (b"a", b'{"title":"no id"}'),
        (b"a", b'{"item_id":"a","price":"nine"}'),
        (b"\xff\xfe", b'{"item_id":"x"}'),
        (b"a", b'{"item_id":"a","title":"\xff"}'),
    ]

    contents, num_refused = item_contents([good, *bad])

    assert contents == {"a": ItemContent(title="kept")}
    assert num_refused == len(bad)


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        (None, b"{}", "null_key"),
        (b"\xff", None, "bad_utf8"),
        (b"", None, "empty_id"),
        (b"i" * (MAX_ID_CHARS + 1), None, "text_too_long"),
        (b"a", b'{"item_id":"a","description":"' + b"x" * MAX_ITEM_BYTES + b'"}', "value_too_large"),
        (b"a", b'{"item_id":"a"', "not_json"),
        (b"a", b'{"item_id":"a","title":"\xff"}', "not_json"),
        (b"a", b'{"item_id":"a","x":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "too_deep"),
        (b"a", b'{"item_id":"a","price":"nine"}', "wrong_type"),
        (b"a", b"[]", "wrong_type"),
        (b"a", b'{"item_id":"b"}', "key_mismatch"),
    ],
)
def test_what_is_no_item_is_refused_by_name(key: bytes | None, value: bytes | None, reason: str) -> None:
    refused = read_item(key, value)
    assert isinstance(refused, Rejection)
    assert refused.reason == reason and refused.detail


@settings(deadline=None)
@given(st.one_of(st.none(), st.binary(max_size=20)), st.one_of(st.none(), st.binary(max_size=60)))
def test_no_bytes_raise(key: bytes | None, value: bytes | None) -> None:
    read = read_item(key, value)
    assert isinstance(read, Rejection) or read[0].encode() == key


def test_an_item_and_its_end_are_told_apart() -> None:
    assert read_item(b"a", b'{"item_id":"a","price":2}') == ("a", Item(item_id="a", price=2))
    assert read_item(b"a", None) == ("a", None)
