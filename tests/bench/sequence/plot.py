"""The figures of the sequence bench as a picture.

python -m tests.bench.sequence.plot bench/results/sequence.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from statistics import median
from typing import Final

import matplotlib
import msgspec
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from tests.bench.sequence.contenders import OURS
from tests.bench.sequence.figures import NUM_FEW_USERS, NUM_MANY_USERS, Cell, Round, rates, ratio
from tests.bench.sequence.load import parse_load

NUM_COLUMNS: Final = 3
PANEL_INCHES: Final = (4.2, 2.9)
DOTS_PER_INCH: Final = 150
OUR_COLOUR: Final = "#0b6e99"
PEER_COLOUR: Final = "#b4bcc4"
TEXT_COLOUR: Final = "#333333"
RATE_UNIT: Final = "thousand events/s"
RATIO_UNIT: Final = "ratio"

Bar = tuple[str, float, float, float]
"""Name, median, lowest, highest."""


def draw(cells: Sequence[Cell], names: Sequence[str], rounds: Sequence[Round], path: Path) -> None:
    """Write a PNG: rates of all contenders for each cell, and what many users cost each of them.

    All panels of a unit have the same scale and the same order, so that they can be compared.
    """
    panels = [(_title(cell), rate_bars(cell, names, rounds), RATE_UNIT) for cell in cells]
    panels += [(_users_title(cell), many_users_bars(cell, names, rounds), RATIO_UNIT) for cell in cells]
    shown = [panel for panel in panels if panel[1]]
    if not shown:
        return
    limits = {
        unit: 1.2 * max(bar[3] for _, bars, other in shown if other == unit for bar in bars) for *_, unit in shown
    }
    num_columns = min(NUM_COLUMNS, len(shown))
    num_rows = ceil(len(shown) / num_columns)
    with matplotlib.rc_context({"font.size": 9, "text.color": TEXT_COLOUR, "axes.labelcolor": TEXT_COLOUR}):
        picture = Picture((PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows), layout="constrained")
        axes = picture.subplots(num_rows, num_columns, squeeze=False).flatten()
        for ax, (title, bars, unit) in zip(axes, shown, strict=False):
            _panel(ax, title, bars, unit)
            ax.set_xlim(0, limits[unit])
        for ax in axes[len(shown) :]:
            ax.set_axis_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, dpi=DOTS_PER_INCH)


def rate_bars(cell: Cell, names: Sequence[str], rounds: Sequence[Round]) -> list[Bar]:
    """Thousands of events a second, in the order of `names`; a contender without a good round has no bar."""
    bars = []
    for name in names:
        if of_rounds := [rate / 1000 for rate in rates(rounds, name, cell).values()]:
            bars.append((name, median(of_rounds), min(of_rounds), max(of_rounds)))
    return bars


def many_users_bars(cell: Cell, names: Sequence[str], rounds: Sequence[Round]) -> list[Bar]:
    """For a cell with many users: each contender's rate by its rate in the cell that differs in its few users only."""
    if cell.load.num_users != NUM_MANY_USERS:
        return []
    few = Cell(replace(cell.load, num_users=NUM_FEW_USERS), cell.variant)
    bars = []
    for name in names:
        found = ratio(rates(rounds, name, cell), rates(rounds, name, few))
        if found is not None and found.spread is not None:
            bars.append((name, float(found.value), *found.spread))
    return bars


def _panel(ax: Axes, title: str, bars: Sequence[Bar], unit: str) -> None:
    names, middles, lowest, highest = (list(column) for column in zip(*bars, strict=True))
    colours = [OUR_COLOUR if name == OURS else PEER_COLOUR for name in names]
    below = [middle - low for middle, low in zip(middles, lowest, strict=True)]
    above = [high - middle for middle, high in zip(middles, highest, strict=True)]
    ax.barh(names, middles, xerr=[below, above], color=colours, ecolor=TEXT_COLOUR, capsize=2, height=0.7)
    ax.invert_yaxis()
    for place, (middle, high) in enumerate(zip(middles, highest, strict=True)):
        ax.text(max(middle, high), place, f" {middle:,.0f}" if middle >= 100 else f" {middle:.2g}", va="center")
    ax.set_title(title, fontsize=9, loc="left")
    ax.set_xlabel(unit)
    ax.spines[["top", "right", "left"]].set_visible(False)
    ax.tick_params(axis="y", length=0)


def _title(cell: Cell) -> str:
    published = "an output for each event" if cell.variant == "each" else "the newest output of a user and batch"
    return f"{cell.load.num_events:,} events, {cell.load.num_users:,} users, {cell.load.spread}\n{published}"


def _users_title(cell: Cell) -> str:
    load = cell.load
    users = f"rate with {NUM_MANY_USERS:,} by {NUM_FEW_USERS:,} users"
    return f"{users}\n{load.num_events:,} events, {load.spread}, {cell.variant}"


def main(arguments: Sequence[str]) -> int:
    """Draw the picture of a saved result again, beside it; the exit code."""
    path = Path(arguments[0])
    saved = json.loads(path.read_text("utf-8"))
    cells = [Cell(parse_load(load), variant) for load, variant in zip(saved["loads"], saved["variants"], strict=True)]
    draw(cells, list(saved["contenders"]), msgspec.convert(saved["rounds"], list[Round]), path.with_suffix(".png"))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
