"""What is known of items by row: always what a look by id would say, and looked up once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.trend_view import TrendView
from tests.stages.item_cases import HeldVectors
from tests.stages.test_ranking import ITEMS, RULE, trend, view_of

some_items = st.sets(st.sampled_from(ITEMS))


class CountedVectors(HeldVectors):
    """Counts the ids that were asked for."""

    num_asked = 0

    def numbers_of(self, ids: Sequence[str]) -> npt.NDArray[np.int64]:
        self.num_asked += len(ids)
        return super().numbers_of(ids)


@given(st.lists(st.tuples(some_items, some_items, some_items), min_size=1, max_size=5))
def test_rows_say_what_ids_say_through_every_change(steps: list[tuple[set[str], set[str], set[str]]]) -> None:
    held, hidden, num_changes, view = HeldVectors({}, 2), set[str](), 0, TrendView(RULE)
    columns = ItemColumns(held, lambda item_id: item_id not in hidden, lambda: num_changes)
    for epoch, (touched, with_vector, now_hidden) in enumerate(steps, start=1):
        view.advance(epoch, [trend(item_id, 1.0) for item_id in touched])
        vectors = {item_id: [float(ITEMS.index(item_id)), 1.0] for item_id in with_vector}
        held.put(vectors)
        hidden, num_changes = now_hidden, num_changes + 1
        rows_R = np.arange(len(view))[::-1]
        ids = [view.item_ids[row] for row in rows_R.tolist()]
        found = columns.of(view)
        assert found.available(rows_R).tolist() == [item_id not in hidden for item_id in ids]
        numbers = found.numbers(rows_R)
        assert held.vectors_at(numbers).tolist() == [vectors.get(item_id, [0.0, 0.0]) for item_id in ids]
        assert (numbers >= 0).tolist() == [item_id in vectors for item_id in ids]


def test_an_item_is_looked_up_once_for_each_view_until_something_changes() -> None:
    held = CountedVectors({"i0": [1.0, 2.0]}, 2)
    columns = ItemColumns(held)
    views = [view_of(trend("i0", 1.0), trend("i1", 1.0)) for _ in range(2)]
    for view in [*views, *views]:
        assert columns.of(view).numbers(np.array([1, 0, 1])).tolist() == [-1, 0, -1]
        assert columns.of(view).available(np.array([0, 1])).all()
    assert held.num_asked == 6
    held.put({"i1": [1.0, 2.0]})
    assert columns.of(views[0]).numbers(np.array([0, 1])).tolist() == [-1, 0]
    assert held.num_asked == 8
