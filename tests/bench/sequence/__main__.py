"""The sequence job by several systems, side by side: how many events a second each works off.

One run has several rounds, and in each all contenders do the same job on the same input, one after the other, on
one broker. A rate counts only after everything that the contender published and kept was compared with the oracle.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, get_args

from aiokafka.admin import AIOKafkaAdminClient

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from tests.bench.common import RESULTS, BenchResult, finish, table
from tests.bench.sequence.contenders import CONTENDERS, Contender, chosen
from tests.bench.sequence.figures import RATE_COLUMNS, Cell, Planned, Round, figures_of, rate_rows, schedule
from tests.bench.sequence.job import Load, Variant
from tests.bench.sequence.load import parse_load, put_load
from tests.bench.sequence.measure import Stage, run_round
from tests.bench.sequence.plot import draw
from tests.bench.sequence.verify import expect

LOADS: Final = ("1000000-5000-skewed", "1000000-1000000-skewed", "1000000-5000-uniform", "1000000-1000000-uniform")
FULL_LOADS: Final = (*LOADS, "5000000-5000-skewed", "5000000-1000000-uniform")
QUICK_LOADS: Final = ("200000-5000-skewed",)
QUICK_CONTENDERS: Final = ("faustkit", "bare-aiokafka", "kafka-streams")

BROKER_HEAP_MB: Final = 1024
BROKER_CONFIG: Final = {
    # The topics of a round go away with it: the next one finds the disk as this one did.
    "log.segment.delete.delay.ms": "1000",
}
"""On top of the embedded broker's own settings (no retention, one node); the same for all contenders."""


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    cells: tuple[Cell, ...]
    contenders: tuple[Contender, ...]
    num_rounds: int
    is_full: bool
    json: Path


def options_of(arguments: Sequence[str] | None) -> Options:
    """The command line, read. Ends the process with exit code 2 where it makes no sense."""
    parser = argparse.ArgumentParser(prog="sequence", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="200,000 events, three contenders; saves sequence-quick")
    parser.add_argument("--full", action="store_true", help="also 5,000,000 events, and stock Faust on all, once")
    parser.add_argument("--loads", nargs="+", metavar="LOAD", help=f"EVENTS-USERS-SPREAD; usual: {' '.join(LOADS)}")
    parser.add_argument(
        "--contenders", nargs="+", metavar="NAME", help=" ".join(contender.slug for contender in CONTENDERS)
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=get_args(Variant),
        help="of all loads; default: each of all loads, latest of the first",
    )
    parser.add_argument("--json", type=Path, help="where the figures go; the plot goes beside them")
    given: Any = parser.parse_args(arguments)
    try:
        usual = FULL_LOADS if given.full else QUICK_LOADS if given.quick else LOADS
        loads = [parse_load(name) for name in given.loads or usual]
        contenders = chosen(given.contenders or (QUICK_CONTENDERS if given.quick else ()))
    except ValueError as error:
        parser.error(str(error))
    return Options(
        cells=cells_of(loads, given.variants),
        contenders=contenders,
        num_rounds=given.rounds,
        is_full=given.full,
        json=given.json or RESULTS / ("sequence-quick.json" if given.quick else "sequence.json"),
    )


def cells_of(loads: Sequence[Load], variants: Sequence[Variant] | None) -> tuple[Cell, ...]:
    """What is measured; without `variants`: ``each`` of every load, and ``latest`` of the first."""
    if variants:
        return tuple(Cell(load, variant) for load in loads for variant in variants)
    return (*(Cell(load, "each") for load in loads), Cell(loads[0], "latest"))


async def measure(servers: str, broker_pid: int, planned: Sequence[Planned]) -> list[Round]:
    """Put every load onto a topic, then run the rounds in order."""
    expected = {}
    for load in dict.fromkeys(one.load for one in planned):
        print(f"load {load.name}: onto its topic, and through the oracle", flush=True)
        await put_load(servers, load)
        expected[load] = await asyncio.to_thread(expect, load)
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        stage = Stage(servers, broker_pid, admin)
        rounds = []
        for one in planned:
            rounds.append(await run_round(stage, one, expected[one.load]))
            print(f"{one.place + 1} of {len(planned)}: {told_of(rounds[-1])}", flush=True)
        return rounds
    finally:
        await admin.close()


def told_of(done: Round) -> str:
    """One round in a line, or in more where it failed."""
    what = f"{done.contender}, {done.load} {done.variant}, round {done.number + 1}"
    if done.failure:
        return f"{what}: FAILED: {done.failure}"
    return f"{what}: {done.rate:,.0f} events/s in {done.to_commit_s:.1f} s"


def result_of(options: Options, left_out: Mapping[str, str], rounds: Sequence[Round]) -> BenchResult:
    """The figures, and in the details everything they were made of."""
    present = [contender for contender in options.contenders if contender.name not in left_out]
    details = {
        "contenders": {one.name: {"version": one.version(), "keeps": one.keeps} for one in present},
        "left_out": dict(left_out),
        "loads": [cell.load.name for cell in options.cells],
        "variants": [cell.variant for cell in options.cells],
        "rounds": [one.plain() for one in rounds],
    }
    figures = figures_of(options.cells, [one.name for one in present], rounds)
    return BenchResult(options.json.stem, figures, details)


def show(options: Options, left_out: Mapping[str, str], rounds: Sequence[Round]) -> None:
    """Print a table for each cell, and who the contenders are."""
    names = [contender.name for contender in options.contenders]
    for cell in options.cells:
        if rows := rate_rows(cell, names, rounds):
            print(f"\n{cell.name}\n{table(RATE_COLUMNS, rows)}\n")
    for contender in options.contenders:
        if contender.name in left_out:
            print(f"{contender.name} was left out: {left_out[contender.name]}")
            continue
        limit = f", on at most {contender.max_events:,} events (see --full)" if contender.max_events else ""
        print(f"{contender.name}: {contender.version()}, {contender.keeps}{'' if options.is_full else limit}")
    print()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    options = options_of(arguments)
    left_out = {contender.name: reason for contender in options.contenders if (reason := contender.lacks())}
    for name, reason in left_out.items():
        print(f"{name} is left out: {reason}", flush=True)
    present = [contender for contender in options.contenders if contender.name not in left_out]
    planned = schedule(options.cells, present, options.num_rounds, is_full=options.is_full)
    with (
        terminate_as_interrupt(),
        EmbeddedBroker(None, heap_mb=BROKER_HEAP_MB, extra_config=BROKER_CONFIG) as broker,
    ):
        rounds = asyncio.run(measure(broker.bootstrap_servers, broker.pid, planned))
    show(options, left_out, rounds)
    exit_code = finish(result_of(options, left_out, rounds), options.json.parent)
    draw(options.cells, [contender.name for contender in present], rounds, options.json.with_suffix(".png"))
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
