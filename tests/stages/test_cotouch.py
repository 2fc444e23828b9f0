"""Items without a vector: against sums taken one after the other, and what makes an item one that can be listed."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import TrendRecord
from stream_app.stages.cotouch import NUM_NEAREST, cotouched
from stream_app.stages.popularity import TrendRule
from stream_app.stages.trend_view import TrendView
from tests.stages.item_cases import items_of

RULE = TrendRule(epoch_ms=60_000, half_lives_ms=(900_000.0, 3_600_000.0))
ITEMS = [f"i{number}" for number in range(14)]


def trend(item_id: str, *predecessors: tuple[str, float, float], epoch: int = 5) -> TrendRecord:
    """The trend of an item in few words."""
    return TrendRecord(item_id=item_id, epoch=epoch, first_epoch=5, counts=[3.0, 4.0], predecessors=list(predecessors))


def view_of(records: Sequence[TrendRecord]) -> TrendView:
    """A view a while later."""
    view = TrendView(RULE)
    view.advance(9, records)
    return view


def found(nearest: Sequence[str], view: TrendView, known: Collection[str]) -> dict[str, float]:
    """What is found, by item."""
    columns = items_of({item_id: [1.0, 0.0] for item_id in known}, 2).of(view)
    made = cotouched(nearest, view, columns)
    assert len(set(made.rows_S.tolist())) == len(made.rows_S)
    return {view.item_ids[row]: share for row, share in zip(made.rows_S.tolist(), made.shares_S.tolist(), strict=True)}


@st.composite
def trends(draw: st.DrawFn) -> list[TrendRecord]:
    """Trends of some items, after items that were touched or not."""
    counts = st.floats(0.01, 5)
    before = st.lists(st.sampled_from(ITEMS), unique=True, max_size=5)
    touched = draw(st.lists(st.sampled_from(ITEMS), unique=True))
    return [trend(item, *((other, draw(counts), draw(counts)) for other in draw(before))) for item in touched]


@given(trends(), st.lists(st.sampled_from(ITEMS), unique=True), st.sets(st.sampled_from(ITEMS)))
def test_an_item_without_a_vector_counts_by_the_nearest_that_stood_before_it(
    records: list[TrendRecord], nearest: list[str], known: set[str]
) -> None:
    view = view_of(records)
    expected: dict[str, float] = {}
    for near in nearest[:NUM_NEAREST]:
        after = view.after([near])
        for row, shares_M in zip(after.rows_K.tolist(), after.shares_MK.T.tolist(), strict=True):
            item_id = view.item_ids[row]
            if item_id not in known:
                expected[item_id] = expected.get(item_id, 0.0) + sum(shares_M)
    assert found(nearest, view, known) == expected
    # The same to the last bit, however the items came.
    assert found(nearest, view_of(records[::-1]), known) == expected


def test_by_hand() -> None:
    # Both shares of q after p are 3 / (1 + touches of p), which are 3 and 4 less what decayed since.
    view = view_of([trend("p"), trend("q", ("p", 3.0, 3.0)), trend("r", ("p", 1.0, 1.0)), trend("s", ("t", 1.0, 1.0))])
    short, long = (0.5 ** (4 * RULE.epoch_ms / half_life_ms) for half_life_ms in RULE.pair_half_lives_ms)
    share = 3 * short / (1 + 3 * short) + 3 * long / (1 + 4 * long)
    assert found(["p", "unheard of"], view, ["p", "r"]) == {"q": pytest.approx(share)}


def test_one_touch_is_enough_and_the_next_ones_move_the_item() -> None:
    view = view_of([trend("p"), trend("q")])
    assert found(["p"], view, "pq") == {}
    view.advance(10, [trend("new", ("p", 1.0, 1.0), epoch=10)])
    first = found(["p"], view, "pq")["new"]
    view.advance(11, [trend("new", ("q", 3.0, 3.0), ("p", 0.9, 0.9), epoch=11)])
    assert found(["q"], view, "pq")["new"] > first > found(["p"], view, "pq")["new"]
    # It has a vector now, and no need of others.
    assert found(["q"], view, ["p", "q", "new"]) == {}
