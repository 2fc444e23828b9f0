"""Which rounds are run in which order, and what the figures of all of them are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, Final

from tests.bench.common import Figure
from tests.bench.sequence.contenders import OURS, STOCK, Contender
from tests.bench.sequence.job import Load, Variant

NUM_FEW_USERS: Final = 5_000
NUM_MANY_USERS: Final = 1_000_000

TARGET_EVENTS: Final = 1_000_000
TARGETS: Final[Mapping[str, float]] = {
    STOCK: 60.0,
    "Quix Streams": 4.0,
    "Kafka Streams": 1.4,
    "bare aiokafka": 0.7,
}
"""How many times the peer's rate ours should have, with `TARGET_EVENTS` of `NUM_FEW_USERS`, each event published."""

MANY_USERS_TARGET: Final = 0.6
"""Our rate with `NUM_MANY_USERS` by that with `NUM_FEW_USERS`, at the same number of events."""


@dataclass(frozen=True)
class Cell:
    """What contenders are compared on: a load and a variant."""

    load: Load
    variant: Variant

    @property
    def name(self) -> str:
        """For tables: ``1000000-5000-skewed each``."""
        return f"{self.load.name} {self.variant}"


@dataclass(frozen=True)
class Planned:
    """A round to come; `load` is the cell's, or a shorter one for a contender that is too slow for it."""

    place: int
    number: int
    cell: Cell
    contender: Contender
    load: Load

    @property
    def run_name(self) -> str:
        """A name that no other round has, for its group and topics."""
        return f"run{self.place}-{self.contender.slug}"


@dataclass(frozen=True)
class Round:
    """What a round showed.

    Args:
        contender: Its name.
        cell_load: The cell's load.
        load: The load that it really was.
        variant: The variant.
        number: Of the round, from 0.
        num_events: Events in the input.
        to_commit_s: From the first record to the last committed offset (or, without a group, until all was
            acknowledged).
        to_output_s: From the first record to the append of the last output.
        num_outputs: Outputs published.
        num_repeats: Outputs published again, byte for byte.
        cpu_s: CPU seconds of the contender meanwhile.
        broker_cpu_s: Those of the broker.
        peak_mib: Most memory the contender held.
        exit_code: After SIGTERM.
        failure: What went wrong; empty: nothing. Of a failed round nothing else is known.
    """

    contender: str
    cell_load: str
    load: str
    variant: str
    number: int
    num_events: int = 0
    to_commit_s: float = 0.0
    to_output_s: float = 0.0
    num_outputs: int = 0
    num_repeats: int = 0
    cpu_s: float | None = None
    broker_cpu_s: float | None = None
    peak_mib: float | None = None
    exit_code: int | None = None
    failure: str = ""

    @property
    def rate(self) -> float:
        """Events a second, to the last commit."""
        return self.num_events / self.to_commit_s

    @property
    def output_rate(self) -> float:
        """Events a second, to the last output."""
        return self.num_events / self.to_output_s

    def plain(self) -> dict[str, Any]:
        """As plain values; of a failed round only what it was and why it failed."""
        known = asdict(self) if not self.failure else {name: getattr(self, name) for name in (*_NAMES, "failure")}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in known.items()}


_NAMES: Final = ("contender", "cell_load", "load", "variant", "number")


def schedule(
    cells: Sequence[Cell], contenders: Sequence[Contender], num_rounds: int, *, is_full: bool = False
) -> list[Planned]:
    """The rounds in order: all contenders on all cells, then again, so that a slow hour of the machine meets all.

    Args:
        cells: What is measured.
        contenders: Who takes part.
        num_rounds: How often.
        is_full: Contenders with a `max_events` are measured once, on all of the first cell. Otherwise on its first
            that many events; where that makes two cells the same, on one of them.
    """
    rounds: list[Planned] = []
    for number in range(num_rounds):
        done: set[tuple[str, Load, Variant]] = set()
        for cell in cells:
            for contender in (one for one in contenders if cell.variant in one.variants):
                if is_full and contender.max_events is not None and (number or cell != cells[0]):
                    continue
                load = cell.load if is_full else shortened(cell.load, contender.max_events)
                if (contender.name, load, cell.variant) not in done:
                    rounds.append(Planned(len(rounds), number, cell, contender, load))
                    done.add((contender.name, load, cell.variant))
    return rounds


def shortened(load: Load, max_events: int | None) -> Load:
    """`load` with at most `max_events`."""
    return load if max_events is None else replace(load, num_events=min(load.num_events, max_events))


def rates(rounds: Iterable[Round], contender: str, cell: Cell) -> dict[int, float]:
    """The rate of each good round of a contender on a cell, by the round's number."""
    return {
        one.number: one.rate
        for one in rounds
        if (one.contender, one.cell_load, one.variant) == (contender, cell.load.name, cell.variant) and not one.failure
    }


def ratio(above: Mapping[int, float], below: Mapping[int, float], target: float | None = None) -> Figure | None:
    """The median of the ratios, round by round, with the lowest and the highest; None where no round has both."""
    ratios = [above[number] / below[number] for number in sorted(above.keys() & below.keys())]
    if not ratios:
        return None
    return Figure(median(ratios), target, "higher", (min(ratios), max(ratios)))


def figures_of(cells: Sequence[Cell], names: Sequence[str], rounds: Sequence[Round]) -> dict[str, Figure]:
    """All figures: our ratios to each peer, our rate with many users by that with few, and that ours never failed.

    Args:
        cells: What was measured.
        names: The contenders that took part.
        rounds: All rounds.
    """
    found: dict[str, Figure | None] = {}
    for cell in cells:
        own = rates(rounds, OURS, cell)
        found[f"events/s of {OURS}, {cell.name}"] = _rate_figure(own)
        for name in names:
            if name != OURS:
                target = TARGETS.get(name) if _has_targets(cell) else None
                found[f"{OURS} / {name}, {cell.name}"] = ratio(own, rates(rounds, name, cell), target)
        if cell.load.num_users == NUM_MANY_USERS:
            few = Cell(replace(cell.load, num_users=NUM_FEW_USERS), cell.variant)
            target = MANY_USERS_TARGET if cell.load.num_events == TARGET_EVENTS and cell.variant == "each" else None
            found[f"{NUM_MANY_USERS:,} / {NUM_FEW_USERS:,} users, {cell.name}"] = ratio(
                own, rates(rounds, OURS, few), target
            )
    failed = sum(bool(one.failure) for one in rounds if one.contender == OURS)
    return {name: figure for name, figure in found.items() if figure} | {
        f"failed rounds of {OURS}": Figure(failed, 0, "same")
    }


def _has_targets(cell: Cell) -> bool:
    is_size = (cell.load.num_events, cell.load.num_users) == (TARGET_EVENTS, NUM_FEW_USERS)
    return is_size and cell.variant == "each"


def _rate_figure(of_rounds: Mapping[int, float]) -> Figure | None:
    if not of_rounds:
        return None
    values = list(of_rounds.values())
    return Figure(median(values), spread=(min(values), max(values)))


RATE_COLUMNS: Final = (
    "contender",
    "events/s",
    "lowest",
    "highest",
    "to last output",
    "CPU s",
    "broker CPU s",
    "MiB",
    "outputs",
    "repeats",
    "events",
)


def rate_rows(cell: Cell, names: Sequence[str], rounds: Sequence[Round]) -> list[list[str]]:
    """The table of one cell: a line for each contender, medians of its good rounds; one that only failed says so."""
    rows = []
    for name in names:
        on_cell = [
            one for one in rounds if (one.contender, one.cell_load, one.variant) == (name, cell.load.name, cell.variant)
        ]
        good = [one for one in on_cell if not one.failure]
        if good:
            failed = f" ({len(on_cell) - len(good)} of {len(on_cell)} failed)" if len(good) < len(on_cell) else ""
            rows.append([name + failed, *_row(good)])
        elif on_cell:
            rows.append([name, "FAILED", *[""] * (len(RATE_COLUMNS) - 2)])
    return rows


def _row(good: Sequence[Round]) -> list[str]:
    of_rounds = [one.rate for one in good]
    return [
        *(f"{value:,.0f}" for value in (median(of_rounds), min(of_rounds), max(of_rounds))),
        f"{median(one.output_rate for one in good):,.0f}",
        *(_median_text([getattr(one, name) for one in good]) for name in ("cpu_s", "broker_cpu_s", "peak_mib")),
        *(f"{median(getattr(one, name) for one in good):,.0f}" for name in ("num_outputs", "num_repeats")),
        f"{good[0].num_events:,}",
    ]


def _median_text(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):,.1f}" if known else ""
