"""The order of the rounds, and the arithmetic of the figures."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.bench.sequence.contenders import OURS, STOCK, Contender
from tests.bench.sequence.figures import (
    RATE_COLUMNS,
    Cell,
    Round,
    figures_of,
    rate_rows,
    rates,
    ratio,
    schedule,
)
from tests.bench.sequence.job import Load


def contender(name: str, max_events: int | None = None) -> Contender:
    return Contender(name, module="m", keeps="memory", version=lambda: "1", max_events=max_events)


FEW = Load(1_000_000, 5_000)
MANY = Load(1_000_000, 1_000_000)
EACH = Cell(FEW, "each")
A, B, SLOW = contender("A"), contender("B"), contender("Slow", max_events=1000)


def done(name: str, number: int, seconds: float, cell: Cell = EACH, failure: str = "") -> Round:
    return Round(
        name,
        cell.load.name,
        cell.load.name,
        cell.variant,
        number,
        num_events=cell.load.num_events,
        to_commit_s=seconds,
        to_output_s=seconds / 2,
        failure=failure,
    )


def test_contenders_alternate() -> None:
    cells = [Cell(FEW, "each"), Cell(FEW, "latest")]
    planned = schedule(cells, [A, B], 3)
    order = [(one.number, one.cell.variant, one.contender.name) for one in planned]
    once = [("each", "A"), ("each", "B"), ("latest", "A"), ("latest", "B")]
    assert order == [(number, *what) for number in range(3) for what in once]
    assert len({one.run_name for one in planned}) == len(planned)


def test_a_slow_contender_gets_a_short_load_once_a_round() -> None:
    longer = Cell(Load(5_000_000, 5_000), "each")
    planned = schedule([EACH, longer], [A, SLOW], 2)
    slow = [(one.number, one.cell, one.load) for one in planned if one.contender is SLOW]
    assert slow == [(number, EACH, Load(1000, 5_000)) for number in range(2)]
    assert [one.load for one in planned if one.contender is A] == [FEW, longer.load] * 2


def test_in_full_a_slow_contender_does_all_of_the_first_cell_once() -> None:
    planned = schedule([EACH, Cell(MANY, "each")], [A, SLOW], 3, is_full=True)
    assert [(one.number, one.cell, one.load) for one in planned if one.contender is SLOW] == [(0, EACH, FEW)]
    assert len(planned) == 7


def test_a_contender_does_what_it_can() -> None:
    one_sided = replace(A, variants=("latest",))
    planned = schedule([EACH, Cell(FEW, "latest")], [one_sided, B], 1)
    assert [(one.contender.name, one.cell.variant) for one in planned] == [
        ("B", "each"),
        ("A", "latest"),
        ("B", "latest"),
    ]


def test_ratios_are_taken_round_by_round() -> None:
    figure = ratio({0: 100.0, 1: 300.0, 2: 80.0}, {0: 50.0, 1: 100.0, 2: 80.0}, target=1.5)
    assert figure is not None
    assert (figure.value, figure.spread, figure.reached) == (2.0, (1.0, 3.0), True)


def test_a_round_that_one_of_both_lacks_does_not_count() -> None:
    figure = ratio({0: 100.0, 2: 90.0}, {1: 10.0, 2: 30.0})
    assert figure is not None
    assert (figure.value, figure.spread) == (3.0, (3.0, 3.0))
    assert ratio({0: 1.0}, {1: 1.0}) is None


def test_a_failed_round_has_no_rate() -> None:
    rounds = [done("A", 0, 10), done("A", 1, 5, failure="died")]
    assert rates(rounds, "A", EACH) == {0: 100_000.0}
    assert set(rounds[1].plain()) == {"contender", "cell_load", "load", "variant", "number", "failure"}


def test_targets_stand_where_they_are_meant() -> None:
    many, latest = Cell(MANY, "each"), Cell(FEW, "latest")
    rounds = [
        *(done(OURS, number, seconds) for number, seconds in enumerate([10, 5, 4])),
        *(done(STOCK, number, 300) for number in range(3)),
        *(done("Quix Streams", number, 30) for number in range(3)),
        *(done(OURS, number, 10, many) for number in range(3)),
        *(done(OURS, number, 10, latest) for number in range(3)),
        *(done("Quix Streams", number, 30, latest) for number in range(3)),
    ]
    figures = figures_of([EACH, many, latest], [OURS, STOCK, "Quix Streams"], rounds)
    assert figures[f"{OURS} / {STOCK}, {EACH.name}"].plain() == {
        "value": 60.0,
        "target": 60.0,
        "reached": True,
        "spread": [30.0, 75.0],
    }
    assert figures[f"{OURS} / Quix Streams, {EACH.name}"].target == 4.0
    assert figures[f"{OURS} / Quix Streams, {latest.name}"].target is None
    assert figures[f"{OURS} / Quix Streams, {latest.name}"].value == 3.0
    users = figures[f"1,000,000 / 5,000 users, {many.name}"]
    assert (users.value, users.target, users.reached) == (0.5, 0.6, False)
    assert f"{OURS} / {STOCK}, {many.name}" not in figures


@pytest.mark.parametrize(("failure", "is_sound"), [("", True), ("verified wrong", False)])
def test_a_failed_round_of_ours_is_no_success(failure: str, is_sound: bool) -> None:
    figures = figures_of([EACH], [OURS], [done(OURS, 0, 1), done(OURS, 1, 1, failure=failure)])
    assert figures[f"failed rounds of {OURS}"].reached is is_sound


def test_a_failed_contender_has_no_figures_in_the_table() -> None:
    rounds = [done("A", 0, 10), done("A", 1, 5), done("B", 0, 1, failure="died"), done("B", 1, 1, failure="died")]
    rows = rate_rows(EACH, ["A", "B", "C"], rounds)
    assert rows[0] == ["A", "150,000", "100,000", "200,000", "300,000", "", "", "", "0", "0", "1,000,000"]
    assert rows[1] == ["B", "FAILED", *[""] * (len(RATE_COLUMNS) - 2)]
    assert len(rows) == 2


def test_a_contender_that_failed_at_times_says_so() -> None:
    rows = rate_rows(EACH, ["A"], [done("A", 0, 10), done("A", 1, 5, failure="died")])
    assert rows[0][:2] == ["A (1 of 2 failed)", "100,000"]
