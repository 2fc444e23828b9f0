"""Attributes of items as columns, and back.

Shape suffixes: N items, C categories of one item.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from index.contract import AttributeColumns, ItemAttributes


def as_columns(told: Mapping[str, ItemAttributes]) -> AttributeColumns:
    """The columns of some items' attributes.

    >>> as_columns({"a": ItemAttributes(frozenset({"tea"}))}).names
    ['tea']
    """
    code_of: dict[str, int] = {}
    codes = [_codes(one, code_of) for one in told.values()]
    codes_NC = np.full((len(codes), max(map(len, codes), default=0)), -1, dtype=np.int32)
    for row, of_item in enumerate(codes):
        codes_NC[row, : len(of_item)] = of_item
    prices_N = np.array([np.nan if one.price is None else one.price for one in told.values()], dtype=np.float64)
    available_N = np.array([one.available for one in told.values()], dtype=np.bool_)
    return AttributeColumns(list(told), list(code_of), codes_NC, prices_N, available_N)


def from_columns(columns: AttributeColumns) -> dict[str, ItemAttributes]:
    """The attributes that columns hold, by item."""
    rows = zip(
        columns.ids,
        columns.codes_NC.tolist(),
        columns.prices_N.tolist(),
        columns.available_N.tolist(),
        strict=True,
    )
    return {
        item_id: ItemAttributes(
            frozenset(columns.names[code] for code in codes if code >= 0), None if np.isnan(price) else price, available
        )
        for item_id, codes, price, available in rows
    }


def _codes(one: ItemAttributes, code_of: dict[str, int]) -> Sequence[int]:
    # Sorted, so that the columns do not depend on how Python hashes text.
    return [code_of.setdefault(name, len(code_of)) for name in sorted(one.categories)]
