"""Some at a time: all of them, in their order."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.parts import in_parts


@given(st.lists(st.text(max_size=2), max_size=9), st.integers(1, 4))
def test_parts_are_the_whole(items: list[str], size: int) -> None:
    parts = [list(part) for part in in_parts(items, size)]
    assert [item for part in parts for item in part] == items
    assert all(0 < len(part) <= size for part in parts)
