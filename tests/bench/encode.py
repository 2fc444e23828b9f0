"""The encode stage beside the model called plainly, the ways to call the model, and what an event costs long histories.

The stage takes slice records and makes records with slice vectors and merged user vectors, as the role has it do. The
slices are those of the example's log, a revision for each event, `PLAIN_BATCH` at a time. The plain call gets tensors
of the same slices, padded to the longest that a slice may be. All are timed in turn, on one thread; differences are to
the plain call in float32.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from encoders.checkpoint import load_model
from encoders.contract import SliceBatch, SliceCodes
from encoders.runtime import SliceEncoderRuntime
from encoders.transformer import SliceModel
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.event_log import read_events
from stream_app.offline_roles import OfflineRoles
from stream_app.records import SliceRecord, SliceVectorRecord, unpack_vector
from stream_app.settings import Settings, load_settings
from stream_app.slice_encoding import encode_slices
from stream_app.stages.encoding import arrays_of
from stream_app.stages.merging import UserMemory
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish, table
from tests.bench.history_cost import HistoryCosts, history_costs
from tests.bench.plain_model import (
    PLAIN_BATCH,
    Inputs,
    Variant,
    compiled_variant,
    compressed_variant,
    has_bf16,
    largest_difference,
    plain_variants,
)
from tests.bench.run_cost import ENCODE, SEQUENCE, OneByOne, RunCosts, run_costs
from tests.bench.timing import Task, Took, cpu_ratios, in_turn, median_cpu_s, median_wall_s

RATE_TARGET: Final = 0.9
"""Slices per processor second of the stage, over those of the plain call."""
ENCODE_RUN_TARGET_MS: Final = 0.6
SEQUENCE_RUN_TARGET_MS: Final = 0.25
"""Processor time of a run of one event in the roles themselves."""
GROWTH_TARGET: Final = 1.1
"""What an event costs a user of 5,000 events, over one of 50."""

STAGE: Final = "the stage"
BLOCKS: Final = "its encoder alone"
TORCH_BLOCKS: Final = "its encoder in torch"
PLAIN: Final = f"plain, batches of {PLAIN_BATCH}"
COLUMNS: Final = ("way", "cpu us/slice", "wall us/slice", "largest difference", "warm-up s")
HISTORY_COLUMNS: Final = ("events so far", "an event, ms", "last 200 again, ms", "all again, ms")

MODEL: Final = EXAMPLE / "model"


@dataclass(frozen=True)
class Way:
    """One way to make vectors of the slices.

    Args:
        task: Does all of them.
        difference: The largest to the plain call.
        warm_up_s: What the first call took, where that is told.
    """

    task: Task
    difference: float
    warm_up_s: float | None = None


@dataclass(frozen=True)
class Work:
    """The encoder, runs of slices for it, and how the stream is cut."""

    encoder: SliceEncoderRuntime
    runs: Sequence[Sequence[SliceRecord]]
    settings: Settings

    @property
    def num_slices(self) -> int:
        """Of all runs."""
        return sum(map(len, self.runs))

    def staged(self) -> list[SliceVectorRecord]:
        """All runs through the stage, from empty memories on."""
        memories: dict[str, UserMemory] = {}
        weights = self.settings.event_types
        return [vector for run in self.runs for vector in encode_slices(self.encoder, run, memories, weights)]

    def batch(self, run: Sequence[SliceRecord]) -> SliceBatch:
        """The slices of a run as arrays."""
        one = self.encoder
        arrays = arrays_of(run, one.slice_events, one.context_events, one.rows_of, one.type_rows_of)
        return SliceBatch(**vars(arrays))

    def inputs(self) -> Inputs:
        """All slices for the plain call, with made-up memories."""
        shape = (self.num_slices, self.encoder.merge.num_rows, self.encoder.dim)
        merged_SRD = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        rows = self.encoder.inputs(self.batch([record for run in self.runs for record in run])).padded()
        return tuple(map(torch.from_numpy, (*rows, merged_SRD, np.arange(self.num_slices) % 3 > 0)))


def example_work(num_runs: int) -> Work:
    """Runs of `PLAIN_BATCH` slices from the example's log, with its model."""
    settings = load_settings(EXAMPLE / "sliceflow.toml", environ={}, overrides={})
    encoder = SliceEncoderRuntime.load(MODEL, "cpu")
    roles = OfflineRoles(settings, encoder, 1)
    num_slices = num_runs * PLAIN_BATCH
    events = read_events(EXAMPLE / "events.ndjson.gz", settings, limit=2 * num_slices).events
    cut = [roles.cut(0, [(place, event, ())]).slices for place, event in enumerate(events)]
    records = [record for slices in cut for record in slices if record.fresh][:num_slices]
    runs = [records[start : start + PLAIN_BATCH] for start in range(0, len(records), PLAIN_BATCH)]
    return Work(encoder, runs, settings)


def variants_of(model: SliceModel, inputs: Inputs, *, compiles: bool) -> tuple[list[Variant], list[str]]:
    """All ways to call the model; and those that this machine has not, in words."""
    variants, missing = [*plain_variants(model), compressed_variant(model, "int8")], []
    if has_bf16(cpu_flags()):
        variants.append(compressed_variant(model, "bf16"))
    else:
        missing.append("bf16: this processor has no instructions for it")
    compiled = compiled_variant(model, inputs) if compiles else "torch.compile: left out"
    if isinstance(compiled, Variant):
        variants.append(compiled)
    else:
        missing.append(compiled)
    return variants, missing


def ways_of(work: Work, variants: Sequence[Variant], inputs: Inputs) -> dict[str, Way]:
    """All ways by name: the stage, its encoder in numpy and in torch, and the variants."""
    oracle = next(one for one in variants if one.name == PLAIN).all_of(inputs)
    in_torch = SliceEncoderRuntime(load_model(MODEL), work.encoder.device, in_numpy=False)
    batches = [work.batch(run) for run in work.runs]
    ways: dict[str, Way] = {}
    codes_SD = np.stack([unpack_vector(vector.slice_vector) for vector in work.staged()])
    ways[STAGE] = Way(work.staged, float(np.abs(codes_SD - oracle.codes_SD.numpy()).max()))
    for name, encoder in ((BLOCKS, work.encoder), (TORCH_BLOCKS, in_torch)):
        encode = partial(encoded, encoder, batches)
        codes_SD = np.concatenate([codes.codes_SD for codes in encode()])
        ways[name] = Way(encode, float(np.abs(codes_SD - oracle.codes_SD.numpy()).max()))
    for one in variants:
        difference = largest_difference(one.all_of(inputs), oracle)
        ways[one.name] = Way(partial(one.all_of, inputs), difference, one.warm_up_s)
    return ways


def encoded(encoder: SliceEncoderRuntime, batches: Sequence[SliceBatch]) -> list[SliceCodes]:
    """The codes of all batches."""
    return [encoder.encode(batch) for batch in batches]


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's flags as Linux tells them, "" elsewhere."""
    lines = cpuinfo.read_text("utf-8", "replace").splitlines() if cpuinfo.is_file() else []
    return next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "")


def way_rows(ways: Mapping[str, Way], times: Mapping[str, Sequence[Took]], num_slices: int) -> list[list[str]]:
    """A line for each way."""
    return [
        [
            name,
            f"{median_cpu_s(times[name]) / num_slices * 1e6:.1f}",
            f"{median_wall_s(times[name]) / num_slices * 1e6:.1f}",
            f"{way.difference:.1e}",
            "" if way.warm_up_s is None else f"{way.warm_up_s:.1f}",
        ]
        for name, way in ways.items()
    ]


def history_rows(costs: HistoryCosts) -> list[list[str]]:
    """A line for each length of a history."""
    of_each = (costs.by_roles, costs.last_again, costs.all_again)
    return [
        [f"{length:,}", *(f"{median_cpu_s(runs[length]) * 1000:.2f}" for runs in of_each)] for length in costs.by_roles
    ]


def result_of(
    ways: Mapping[str, Way],
    times: Mapping[str, Sequence[Took]],
    num_slices: int,
    costs: HistoryCosts,
    runs: RunCosts,
) -> BenchResult:
    """The figures; each way's own are in the details."""
    ratios = cpu_ratios(times[PLAIN], times[STAGE])
    figures = {
        "stage_rate_over_plain": Figure(
            float(np.median(ratios)), RATE_TARGET, "higher", spread=(min(ratios), max(ratios))
        ),
        "stage_slices_per_cpu_s": Figure(num_slices / median_cpu_s(times[STAGE])),
        "plain_slices_per_cpu_s": Figure(num_slices / median_cpu_s(times[PLAIN])),
        "event_at_5000_over_50": Figure(costs.ratio(5_000, 50), GROWTH_TARGET),
        "last_200_again_over_event_at_5000": Figure(
            median_cpu_s(costs.last_again[5_000]) / median_cpu_s(costs.by_roles[5_000])
        ),
        "all_again_over_event_at_5000": Figure(
            median_cpu_s(costs.all_again[5_000]) / median_cpu_s(costs.by_roles[5_000])
        ),
        "encode_run_of_one_ms": Figure(runs.median_ms(ENCODE), ENCODE_RUN_TARGET_MS, "lower"),
        "sequence_run_of_one_ms": Figure(runs.median_ms(SEQUENCE), SEQUENCE_RUN_TARGET_MS, "lower"),
        "slices": Figure(num_slices),
    }
    details = {
        "ways": [dict(zip(COLUMNS, row, strict=True)) for row in way_rows(ways, times, num_slices)],
        "histories": [dict(zip(HISTORY_COLUMNS, row, strict=True)) for row in history_rows(costs)],
    }
    return BenchResult("encode", figures, details)


def run(options: Any) -> int:
    """Measure; the exit code."""
    work = example_work(options.runs)
    inputs = work.inputs()
    mean_events = float(inputs[3].float().mean())
    print(f"{work.num_slices:,} slices of {mean_events:.1f} events on average; {work.encoder.backend}", flush=True)
    variants, missing = variants_of(load_model(MODEL).model, inputs, compiles=not options.no_compile)
    ways = ways_of(work, variants, inputs)
    times = in_turn({name: way.task for name, way in ways.items()}, options.rounds)
    print(table(COLUMNS, way_rows(ways, times, work.num_slices)))
    print("".join(f"{line}\n" for line in missing), flush=True)
    item_ids, _ = work.encoder.item_vectors()
    costs = history_costs(work.settings, work.encoder, item_ids, options.events, options.again)
    print(f"{table(HISTORY_COLUMNS, history_rows(costs))}\n")
    runs = run_costs(OneByOne(work.settings, work.encoder, options.single), options.rounds)
    result = result_of(ways, times, work.num_slices, costs, runs)
    details = {**result.details, "missing": missing, "mean_events": mean_events, "rounds": options.rounds}
    return finish(BenchResult(result.bench, result.figures, details))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=8, help=f"runs of {PLAIN_BATCH} slices")
    parser.add_argument("--rounds", type=int, default=7, help="of the timing")
    parser.add_argument("--events", type=int, default=160, help="of each length of a history, one at a time")
    parser.add_argument("--again", type=int, default=5, help="times that histories are encoded again")
    parser.add_argument("--single", type=int, default=600, help="events that are runs of their own")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out, which takes a minute")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with terminate_as_interrupt():
        return run(options)
    return 1


if __name__ == "__main__":
    sys.exit(main())
