"""What filters keep, kept up to date: beside the same told anew."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from index.attribute_columns import as_columns
from index.attributes import AttributeTable
from index.contract import NO_ATTRIBUTES, ItemAttributes, ItemFilter

FILTERS = (ItemFilter(available_only=True), ItemFilter(categories=frozenset("a")), ItemFilter(max_price=2.0))
TOLD = st.builds(
    ItemAttributes,
    st.frozensets(st.sampled_from("ab"), max_size=2),
    st.sampled_from([None, 1.0, 3.0]),
    st.booleans(),
)
CHANGES = st.lists(st.tuples(st.integers(0, 7), st.none() | TOLD, st.integers(0, 3)), max_size=12)
"""An item number, what is told of it (None: nothing any more), and by how much the table grows before."""


@given(CHANGES)
def test_a_view_holds_what_its_filter_matches_and_knows_when_that_is_all(
    changes: list[tuple[int, ItemAttributes | None, int]],
) -> None:
    table, size = AttributeTable(), 8
    table.grow(size)
    views = [table.view(wanted) for wanted in FILTERS]
    known: dict[int, ItemAttributes] = {}
    for number, told, growth in changes:
        size += growth
        table.grow(size)
        if told is None:
            table.clear(np.array([number]))
        else:
            table.put(np.array([number]), as_columns({"any": told}))
        known[number] = told or NO_ATTRIBUTES
        for wanted, view in zip(FILTERS, views, strict=True):
            expected = [wanted.matches(known.get(row, NO_ATTRIBUTES)) for row in range(size)]
            assert view.kept_N.tolist() == expected
            assert view.keeps_all == all(expected)
