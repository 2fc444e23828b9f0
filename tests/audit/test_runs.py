"""Parts of runs."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.audit.runs import before, cut_after, digest
from tests.audit.cases import Record, run

OFFSETS = st.sets(st.integers(0, 30), min_size=1).map(sorted)


@given(OFFSETS, st.lists(st.integers(-2, 33)))
def test_parts_end_where_they_are_cut_and_lose_nothing(offsets: list[int], cuts: list[int]) -> None:
    parts = list(cut_after(run([Record(offset, b"k", b"%d" % offset) for offset in offsets]), cuts))
    assert [offset for part in parts for offset in part.offsets] == offsets
    assert [value for part in parts for value in part.values] == [b"%d" % offset for offset in offsets]
    for part in parts:
        assert not any(part.offsets[0] <= cut < part.offsets[-1] for cut in cuts)


@given(OFFSETS, st.integers(-1, 32))
def test_what_lies_before_an_end(offsets: list[int], end: int) -> None:
    found = before(run([Record(offset, b"k", b"v") for offset in offsets]), end)
    assert ([] if found is None else list(found.offsets)) == [offset for offset in offsets if offset < end]


def test_a_fingerprint_tells_where_parts_end() -> None:
    assert len({digest(b"ab", b"c"), digest(b"a", b"bc"), digest(b"abc"), digest(b"abc", b"")}) == 4
    assert digest(b"ab", b"c") == digest(b"ab", b"c")
