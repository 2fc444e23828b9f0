"""Rows numbered without sorting: against a dictionary, whatever was numbered before."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.stages.row_numbers import RowNumbers

some_rows = st.lists(st.integers(0, 400), max_size=30)


def as_rows(rows: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(rows, dtype=np.int64)


@given(st.lists(st.tuples(some_rows, some_rows), min_size=1, max_size=4))
def test_numbers_are_those_that_a_dictionary_gives(steps: list[tuple[list[int], list[int]]]) -> None:
    numbers = RowNumbers()
    numbers.reserve(401)
    for given_rows, asked in steps:
        rows_S, places_K = numbers.distinct(as_rows(given_rows))
        places = {row: place for place, row in enumerate(dict.fromkeys(given_rows))}
        assert rows_S.tolist() == list(places)
        assert places_K.tolist() == [places[row] for row in given_rows]
        found, is_there = numbers.find(as_rows([*asked, -1]), rows_S)
        assert is_there.tolist() == [row in places for row in [*asked, -1]]
        assert found[is_there].tolist() == [places[row] for row in asked if row in places]
