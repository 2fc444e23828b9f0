"""What filters know of items, by column, and which items each recent filter keeps.

A filter that was asked for is kept as one bool for each item number, and changes of attributes are entered into it; so
only a filter's first search costs O(N), and a change costs as much as there are filters (`MAX_VIEWS` at most). Not safe
for use from several threads at once.

Shape suffixes: N item numbers, M items told of, C categories of one item.
"""

from __future__ import annotations

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from index.checks import MAX_CATEGORIES
from index.contract import (
    AttributeColumns,
    BoolArray,
    Float64Array,
    Int32Array,
    Int64Array,
    ItemFilter,
)
from index.numbers import grown

MAX_VIEWS = 32
"""Filters kept, the least recently asked for going first: 1 MB each at a million items."""


class FilterView:
    """The item numbers that one filter keeps.

    Args:
        kept_N: Whether it keeps each number.
    """

    def __init__(self, kept_N: BoolArray) -> None:
        self.kept_N = kept_N
        self.num_changes = 0
        """Grows when a number is kept no longer, or newly."""
        self._num_left_out = int(np.count_nonzero(~kept_N))

    @property
    def keeps_all(self) -> bool:
        """Whether it keeps every number: then a search need not look at it."""
        return self._num_left_out == 0

    def grow(self, num_numbers: int) -> None:
        """Have so many numbers; the new ones are not kept."""
        self._num_left_out += num_numbers - len(self.kept_N)
        self.kept_N = grown(self.kept_N, num_numbers, False)

    def enter(self, numbers_M: Int64Array, kept_M: BoolArray) -> None:
        """Keep some numbers, each once, from now on or no longer."""
        before_M = self.kept_N[numbers_M]
        if (before_M != kept_M).any():
            self._num_left_out += int(np.count_nonzero(before_M)) - int(np.count_nonzero(kept_M))
            self.kept_N[numbers_M] = kept_M
            self.num_changes += 1


class AttributeTable:
    """The columns, with a row for each item number."""

    def __init__(self) -> None:
        self._codes_NC: Int32Array = np.empty((0, 1), dtype=np.int32)
        self._prices_N: Float64Array = np.empty(0)
        self._available_N: BoolArray = np.empty(0, dtype=np.bool_)
        self._is_told_N: BoolArray = np.empty(0, dtype=np.bool_)
        self._code_of: dict[str, int] = {}
        self._views: OrderedDict[ItemFilter, FilterView] = OrderedDict()

    def grow(self, num_numbers: int) -> None:
        """Have a row for each number below `num_numbers`; of new ones nothing is told."""
        if num_numbers <= len(self._prices_N):
            return
        self._codes_NC = grown(self._codes_NC, num_numbers, -1)
        self._prices_N = grown(self._prices_N, num_numbers, np.nan)
        self._available_N = grown(self._available_N, num_numbers, True)
        self._is_told_N = grown(self._is_told_N, num_numbers, False)
        for wanted, view in self._views.items():
            num_before = len(view.kept_N)
            view.grow(num_numbers)
            new_M = np.arange(num_before, num_numbers)
            view.enter(new_M, self._kept(wanted, new_M))

    def put(self, numbers_M: Int64Array, columns: AttributeColumns) -> None:
        """Set the attributes of items, each number once, from columns in their order."""
        own_codes = np.array([*(self._code(name) for name in columns.names), -1], dtype=np.int32)
        self._set(numbers_M, own_codes[columns.codes_NC], columns.prices_N, columns.available_N)

    def clear(self, numbers_M: Int64Array) -> None:
        """Forget what was told of items."""
        num_items = len(numbers_M)
        nothing = np.full((num_items, 0), -1, dtype=np.int32)
        self._set(numbers_M, nothing, np.full(num_items, np.nan), np.ones(num_items, dtype=np.bool_))
        self._is_told_N[numbers_M] = False

    def is_told(self, numbers_M: Int64Array) -> BoolArray:
        """Whether something was told of each, bool, shape (M,)."""
        return self._is_told_N[numbers_M]

    def columns(self, ids_N: npt.NDArray[np.object_]) -> AttributeColumns:
        """A copy of what was told of items; `ids_N` gives the id of each number."""
        numbers_M = np.flatnonzero(self._is_told_N)
        return AttributeColumns(
            ids_N[numbers_M].tolist(),
            list(self._code_of),
            self._codes_NC[numbers_M],
            self._prices_N[numbers_M],
            self._available_N[numbers_M],
        )

    def view(self, wanted: ItemFilter) -> FilterView:
        """The numbers that a filter keeps, from now on kept up to date."""
        view = self._views.get(wanted)
        if view is None:
            if len(self._views) == MAX_VIEWS:
                self._views.popitem(last=False)
            view = FilterView(self._kept(wanted, slice(None)))
            self._views[wanted] = view
        self._views.move_to_end(wanted)
        return view

    def _code(self, name: str) -> int:
        return self._code_of.setdefault(name, len(self._code_of))

    def _set(self, numbers_M: Int64Array, codes_MC: Int32Array, prices_M: Float64Array, available_M: BoolArray) -> None:
        num_codes, num_columns = codes_MC.shape[1], self._codes_NC.shape[1]
        if num_codes > num_columns:
            wider = np.full((len(self._codes_NC), min(2 * num_codes, MAX_CATEGORIES)), -1, dtype=np.int32)
            wider[:, :num_columns] = self._codes_NC
            self._codes_NC = wider
        self._codes_NC[numbers_M, :num_codes] = codes_MC
        self._codes_NC[numbers_M, num_codes:] = -1
        self._prices_N[numbers_M] = prices_M
        self._available_N[numbers_M] = available_M
        self._is_told_N[numbers_M] = True
        for wanted, view in self._views.items():
            view.enter(numbers_M, self._kept(wanted, numbers_M))

    def _kept(self, wanted: ItemFilter, rows: Int64Array | slice) -> BoolArray:
        """What `ItemFilter.matches` says, for columns."""
        kept = np.ones(len(self._prices_N[rows]), dtype=np.bool_)
        if wanted.categories is not None:
            codes = [self._code_of[name] for name in wanted.categories if name in self._code_of]
            kept &= np.isin(self._codes_NC[rows], codes).any(axis=1)
        if wanted.available_only:
            kept &= self._available_N[rows]
        if wanted.min_price is not None:
            kept &= self._prices_N[rows] >= wanted.min_price
        if wanted.max_price is not None:
            kept &= self._prices_N[rows] <= wanted.max_price
        return kept
