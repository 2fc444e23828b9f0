"""Records of the catalogue as contents for the item tower."""

from __future__ import annotations

from encoders.item_features import ItemContent
from stream_app.item_contents import item_contents


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
