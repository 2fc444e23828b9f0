"""What all measurements share: figures with their targets, the machine, a table for people and JSON for programs."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

ROOT: Final = Path(__file__).parents[2]
RESULTS: Final = ROOT / "bench" / "results"
EXAMPLE: Final = ROOT / "examples" / "movietweetings"

Better = Literal["lower", "higher", "same"]
SIGNS: Final[Mapping[Better, str]] = {"lower": "<=", "higher": ">=", "same": "="}


@dataclass(frozen=True)
class Figure:
    """One measured figure.

    Args:
        value: What was measured; in the middle where there were several runs.
        target: What it should be; None where nothing is asked.
        better: Which side of the target is good; ``same`` for what must be exactly so.
        spread: Lowest and highest of several runs.
    """

    value: float | bool
    target: float | bool | None = None
    better: Better = "lower"
    spread: tuple[float, float] | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None where there is none.

        >>> Figure(14.0, target=15.0).reached, Figure(14.0, target=15.0, better="higher").reached
        (True, False)
        """
        if self.target is None:
            return None
        if self.better == "same":
            return self.value == self.target
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def plain(self) -> dict[str, Any]:
        """As plain values; ``target`` and ``reached`` only where there is a target."""
        made: dict[str, Any] = {"value": _rounded(self.value)}
        if self.target is not None:
            made |= {"target": self.target, "reached": self.reached}
        if self.spread is not None:
            made["spread"] = [_rounded(bound) for bound in self.spread]
        return made

    def row(self, name: str) -> list[str]:
        """As a line of a table: name, value, spread, target, verdict."""
        spread = "" if self.spread is None else f"{_text(self.spread[0])} .. {_text(self.spread[1])}"
        target = "" if self.target is None else f"{SIGNS[self.better]} {_text(self.target)}"
        verdict = {None: "", True: "reached", False: "MISSED"}[self.reached]
        return [name, _text(self.value), spread, target, verdict]


@dataclass(frozen=True)
class BenchResult:
    """All figures of one measurement; `details` is plain data that goes into the JSON beside them."""

    bench: str
    figures: Mapping[str, Figure]
    details: Mapping[str, Any] = field(default_factory=dict)

    def plain(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """As plain values."""
        figures = {name: figure.plain() for name, figure in self.figures.items()}
        return {"bench": self.bench, "machine": dict(machine), "targets": figures, **self.details}

    @property
    def is_sound(self) -> bool:
        """Whether everything that must be exactly so is."""
        return all(figure.reached for figure in self.figures.values() if figure.better == "same")


def finish(result: BenchResult, results: Path = RESULTS) -> int:
    """Print the figures as a table, save them as ``NAME.json``, and end with the same as one line of JSON.

    Returns:
        The exit code: 1 where something that must be exactly so is not; a missed target is no failure.
    """
    rows = [figure.row(name) for name, figure in result.figures.items()]
    print(table(["figure", "value", "spread", "target", ""], rows))
    plain = result.plain(machine())
    results.mkdir(parents=True, exist_ok=True)
    (results / f"{result.bench}.json").write_text(json.dumps(plain, indent=2) + "\n", "utf-8")
    print(json.dumps(plain), flush=True)
    return 0 if result.is_sound else 1


def machine() -> dict[str, Any]:
    """What the figures were measured on; `load` is the mean of the last minute, so it tells of noisy neighbours."""
    return {
        "cpu": cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "load": round(os.getloadavg()[0], 2),
    }


def cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's name as Linux tells it, elsewhere as Python does."""
    if cpuinfo.is_file():
        for line in cpuinfo.read_text("utf-8", "replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text in aligned columns, the first to the left and the others to the right.

    >>> print(table(["hop", "ms"], [["one", "2.5"], ["another", "10"]]))
    hop       ms
    one      2.5
    another   10
    """
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    return "\n".join(_aligned(line, widths) for line in lines)


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first = line[0].ljust(widths[0])
    others = [text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True)]
    return "  ".join([first, *others]).rstrip()


def _rounded(value: float | bool) -> float | bool:
    """Six significant digits are more than any of these measurements has."""
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _text(value: float | bool) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
