"""What followed an item, in arrays: against a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.followers import Followers

changes = st.lists(st.tuples(st.integers(0, 12), st.booleans(), st.floats(0.1, 9), st.integers(0, 7)), max_size=60)


@given(changes)
def test_they_are_what_a_dictionary_would_keep(steps: list[tuple[int, bool, float, int]]) -> None:
    followers = Followers()
    kept: dict[int, tuple[float, int]] = {}
    for row, is_gone, count, epoch in steps:
        if is_gone and row in kept:
            del kept[row]
            followers.drop(row)
        elif not is_gone:
            kept[row] = count, epoch
            followers.put(row, count, 2 * count, epoch)
    assert len(followers) == len(kept)
    assert sorted(followers.table_4K.T.tolist()) == sorted(
        [row, count, 2 * count, epoch] for row, (count, epoch) in kept.items()
    )
