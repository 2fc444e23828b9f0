"""The picture: what its bars are, and that it is one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.sequence.figures import Cell, Round
from tests.bench.sequence.job import Load
from tests.bench.sequence.plot import draw, main, many_users_bars, rate_bars

FEW, MANY = (Cell(Load(1_000_000, users), "each") for users in (5_000, 1_000_000))


def done(name: str, number: int, seconds: float, cell: Cell, failure: str = "") -> Round:
    load = cell.load
    return Round(name, load.name, load.name, "each", number, load.num_events, seconds, seconds, failure=failure)


ROUNDS = [
    *(done("faustkit", number, seconds, FEW) for number, seconds in enumerate([5, 4, 10])),
    *(done("faustkit", number, 10, MANY) for number in range(3)),
    done("stock Faust", 0, 250, FEW),
    done("stock Faust", 1, 1, FEW, failure="died"),
]
NAMES = ["stock Faust", "faustkit", "nobody"]


def test_bars_are_medians_with_spread() -> None:
    assert rate_bars(FEW, NAMES, ROUNDS) == [("stock Faust", 4.0, 4.0, 4.0), ("faustkit", 200.0, 100.0, 250.0)]


def test_many_users_are_set_against_few() -> None:
    assert many_users_bars(MANY, NAMES, ROUNDS) == [("faustkit", 0.5, 0.4, 1.0)]
    assert many_users_bars(FEW, NAMES, ROUNDS) == []


@pytest.mark.parametrize("cells", [[FEW], [FEW, MANY]])
def test_a_png_is_written(cells: list[Cell], tmp_path: Path) -> None:
    draw(cells, NAMES, ROUNDS, tmp_path / "figures" / "made.png")
    assert (tmp_path / "figures" / "made.png").read_bytes().startswith(b"\x89PNG")


def test_a_saved_result_is_drawn_again(tmp_path: Path) -> None:
    saved = {
        "loads": [cell.load.name for cell in (FEW, MANY)],
        "variants": ["each", "each"],
        "contenders": {name: {} for name in NAMES},
        "rounds": [one.plain() for one in ROUNDS],
    }
    (tmp_path / "sequence.json").write_text(json.dumps(saved), "utf-8")
    assert main([str(tmp_path / "sequence.json")]) == 0
    draw([FEW, MANY], NAMES, ROUNDS, tmp_path / "same.png")
    assert (tmp_path / "sequence.png").read_bytes() == (tmp_path / "same.png").read_bytes()


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    draw([FEW], NAMES, [], tmp_path / "made.png")
    assert not (tmp_path / "made.png").exists()
