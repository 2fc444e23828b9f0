"""Recall against queries a processor second, one panel for each set of items."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Picture

from tests.bench.index.points import K

NUM_COLUMNS: Final = 3
PANEL_INCHES: Final = (4.6, 3.4)
DOTS_PER_INCH: Final = 150
OURS: Final = "ours"
LEAST_RECALL: Final = 0.5


def draw(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], path: Path) -> None:
    """Write a PNG. Contenders have the same colour in every panel; ours are solid, the others dashed."""
    if not cells:
        return
    names = list(dict.fromkeys(name for curves in cells.values() for name in curves))
    colours = {name: f"C{place}" for place, name in enumerate(names)}
    num_columns = min(NUM_COLUMNS, len(cells))
    num_rows = ceil(len(cells) / num_columns)
    with matplotlib.rc_context({"font.size": 9}):
        picture = Picture((PANEL_INCHES[0] * num_columns, PANEL_INCHES[1] * num_rows), layout="constrained")
        axes = picture.subplots(num_rows, num_columns, squeeze=False).flatten()
        for ax, (title, curves) in zip(axes, cells.items(), strict=False):
            _panel(ax, title, curves, colours)
        for ax in axes[len(cells) :]:
            ax.set_axis_off()
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.savefig(path, dpi=DOTS_PER_INCH)


def _panel(ax: Axes, title: str, curves: Mapping[str, Mapping[str, Any]], colours: Mapping[str, str]) -> None:
    for name, curve in curves.items():
        points = sorted((point["recall"], point["queries_per_cpu_s"]) for point in curve["points"])
        recalls, rates = [point[0] for point in points], [point[1] for point in points]
        style = "-" if name.startswith(OURS) else "--"
        ax.plot(recalls, rates, style, color=colours[name], marker="o", markersize=3, label=name)
    ax.set(title=title, xlabel=f"recall@{K}", ylabel="queries / processor second", yscale="log")
    ax.set_xlim(LEAST_RECALL, 1.005)
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)
