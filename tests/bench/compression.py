"""What smaller arithmetic and pruning make of a model: quality, distance from the oracle, speed and size, in one table.

One small model is trained there and then. Every variant is judged on the same validation targets, and timed in turn
with the others through the runtime with the same blocks, in processor time of one thread: encoding and user vectors,
512 slices at once and one at a time. "tuned" is one epoch more, for the whole model too, so that pruned ones are
compared with what that epoch alone brings.

Shapes: S slices, L events of a slice, C events before it, T validation targets.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from encoders.block_stages import CPU_BLOCK_SIZES
from encoders.block_trial import BlockShapes
from encoders.checkpoint import LoadedModel, load_model, save_model
from encoders.compression import CompressionKind, compressed, num_bytes
from encoders.contract import Float64Array, Int64Array, SliceBatch
from encoders.histories import TrainingHistories
from encoders.pruning import calibration_batch, finetuned, pruned
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.sampling import SliceReader
from encoders.train import use_threads
from encoders.trained import TrainedModel
from encoders.training_config import TrainConfig
from encoders.transformer import SliceModel
from encoders.validation import NDCG_DEPTH, ValidationPlan, validation_ranks
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.event_log import read_events
from stream_app.settings import Settings, load_settings
from stream_app.training import split_time_ms, train_encoder
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish, table
from tests.bench.datasets import DATASETS, require, skipped_without_data
from tests.bench.trainings import plan_from
from tests.encoders.closeness import Closeness, closeness, user_vectors

SAMPLE: Final = "sample"
VALIDATION_SHARE: Final = 0.1
MAX_TARGETS: Final = 5000
BATCH_SLICES: Final = 512
SINGLES: Final = 64
"""Slices encoded one at a time in each round."""
ORACLE_SLICES: Final = 64
TUNING_RATE_SHARE: Final = 0.25
"""Of the training's learning rate: the weights are nearly where they should be."""

COLUMNS: Final = (
    "variant",
    "NDCG@10",
    "error",
    "difference",
    "cosine",
    "slices/s",
    "one, ms",
    "KiB",
    "of items",
    "same bytes",
)


@dataclass(frozen=True)
class Variant:
    """A model to be measured: in float32, and what is made of it when it is loaded."""

    name: str
    model: SliceModel
    kind: CompressionKind | None = None


@dataclass(frozen=True)
class Round:
    """Processor time of one variant in one round."""

    batch_s: float
    single_s: float


@dataclass(frozen=True)
class Measured:
    """What was found of a variant.

    Args:
        gains_T: of each validation target, whose mean is NDCG@10.
        ndcg10_error: standard error of the difference of NDCG@10 to the whole model's, over the same targets.
        closeness: to the oracle of the whole model.
        rounds: timings.
        num_bytes: of all weights.
        num_item_bytes: of the item table among them.
        has_equal_bytes: whether slices give the same bytes alone as they do in a batch.
    """

    gains_T: Float64Array
    ndcg10_error: float
    closeness: Closeness
    rounds: Sequence[Round]
    num_bytes: int
    num_item_bytes: int
    has_equal_bytes: bool

    @property
    def ndcg10(self) -> float:
        """Over the validation targets."""
        return float(self.gains_T.mean())

    @property
    def slices_per_s(self) -> float:
        """Of batches, in the middle round."""
        return BATCH_SLICES / float(np.median([one.batch_s for one in self.rounds]))

    @property
    def single_ms(self) -> float:
        """Of one slice alone, in the middle round."""
        return 1000 * float(np.median([one.single_s for one in self.rounds]))

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "ndcg10": self.ndcg10,
            "ndcg10_difference_standard_error": self.ndcg10_error,
            "largest_difference": self.closeness.largest,
            "lowest_cosine": self.closeness.lowest_cosine,
            "slices_per_cpu_s": self.slices_per_s,
            "single_slice_cpu_ms": self.single_ms,
            "bytes": self.num_bytes,
            "item_bytes": self.num_item_bytes,
            "equal_rows_equal_bytes": self.has_equal_bytes,
        }

    def row(self, name: str) -> list[str]:
        """As a line of the table."""
        return [
            name,
            f"{self.ndcg10:.4f}",
            f"{self.ndcg10_error:.4f}",
            f"{self.closeness.largest:.2g}",
            f"{self.closeness.lowest_cosine:.5f}",
            f"{self.slices_per_s:,.0f}",
            f"{self.single_ms:.3f}",
            f"{self.num_bytes / 1024:,.0f}",
            f"{self.num_item_bytes / 1024:,.0f}",
            "yes" if self.has_equal_bytes else "no",
        ]


def result_of(measured: Mapping[str, Measured], details: Mapping[str, Any]) -> BenchResult:
    """Figures of the first variant, and of each other one in relation to it; time ratios are of the same round."""
    names = list(measured)
    whole = measured[names[0]]
    figures = {
        "ndcg10": Figure(whole.ndcg10, better="higher"),
        "slices_per_cpu_s": Figure(whole.slices_per_s, better="higher"),
        "single_slice_cpu_ms": Figure(whole.single_ms),
    }
    for name in names[1:]:
        one, slug = measured[name], name.replace(",", "").replace(" ", "_")
        pairs = list(zip(whole.rounds, one.rounds, strict=True))
        figures[f"{slug}: ndcg10"] = Figure(one.ndcg10 / whole.ndcg10, better="higher")
        figures[f"{slug}: speed"] = _ratio([first.batch_s / other.batch_s for first, other in pairs])
        figures[f"{slug}: speed_of_one"] = _ratio([first.single_s / other.single_s for first, other in pairs])
    plain = {name: one.plain() for name, one in measured.items()}
    return BenchResult("compression", figures, {"variants": plain, **details})


def _ratio(values: Sequence[float]) -> Figure:
    return Figure(float(np.median(values)), better="higher", spread=(min(values), max(values)))


def variants_of(trained: TrainedModel, histories: TrainingHistories, seed: int) -> list[Variant]:
    """The whole model first, then all that is made of it."""
    model, dims = trained.model, trained.model.dims
    num_heads, num_layers = max(1, dims.num_heads // 2), max(1, dims.num_layers - 1)
    batch = calibration_batch(histories.before(trained.split_ms), dims, seed=seed)

    def smaller(heads: int, layers: int) -> SliceModel:
        return pruned(model, batch, num_heads=heads, num_layers=layers)

    def tuned(one: SliceModel) -> SliceModel:
        optimisation = trained.config.optimisation
        gentle = replace(optimisation, learning_rate=optimisation.learning_rate * TUNING_RATE_SHARE)
        config = replace(trained.config, optimisation=gentle)
        return finetuned(one, histories, trained.vocabulary, config, trained.split_ms)

    fewer_heads, fewer_layers = smaller(num_heads, dims.num_layers), smaller(dims.num_heads, num_layers)
    both = tuned(smaller(num_heads, num_layers))
    heads, layers = f"{num_heads} of {dims.num_heads} heads", f"{num_layers} of {dims.num_layers} layers"
    return [
        Variant("whole", model),
        Variant("whole, bf16", model, "bf16"),
        Variant("whole, int8", model, "int8"),
        Variant("whole, tuned", tuned(model)),
        Variant(heads, fewer_heads),
        Variant(f"{heads}, tuned", tuned(fewer_heads)),
        Variant(layers, fewer_layers),
        Variant(f"{layers}, tuned", tuned(fewer_layers)),
        Variant(f"{heads}, {layers}, tuned", both),
        Variant(f"{heads}, {layers}, tuned, bf16", both, "bf16"),
    ]


def loaded(variant: Variant, trained: TrainedModel, folder: Path) -> LoadedModel:
    """The variant by way of its model folder."""
    save_model(replace(trained, model=variant.model), folder)
    found = load_model(folder)
    return found if variant.kind is None else replace(found, model=compressed(found.model, variant.kind))


def slice_batch(reader: SliceReader, slices_S: Int64Array, slice_events: int) -> SliceBatch:
    """Slices of a log as the encode role hands them over."""
    padded, histories = reader.padded(slices_S), reader.histories
    places_SL, lengths_S = reader.places(slices_S)
    missing = ((0, 0), (0, slice_events - places_SL.shape[1]))
    places_SC = np.maximum(histories.slice_starts_S1[slices_S][:, None] + np.arange(-reader.context_events, 0), 0)
    return SliceBatch(
        np.pad(padded.item_rows_SL.numpy(), missing),
        np.pad(padded.type_rows_SL.numpy(), missing),
        np.pad(histories.gaps_ms_E[places_SL], missing),
        lengths_S,
        padded.context_item_rows_SC.numpy(),
        padded.context_type_rows_SC.numpy(),
        histories.gaps_ms_E[places_SC],
    )


def timed(runtimes: Sequence[SliceEncoderRuntime], batch: SliceBatch, num_rounds: int) -> list[list[Round]]:
    """Processor times of each runtime, all of them in turn in each round; a first round does not count."""
    singles = [_rows(batch, slice(row, row + 1)) for row in range(SINGLES)]
    rounds = [[Round(_cpu_s(one, [batch]), _cpu_s(one, singles)) for one in runtimes] for _ in range(num_rounds + 1)]
    return [list(of_one) for of_one in zip(*rounds[1:], strict=True)]


def _cpu_s(runtime: SliceEncoderRuntime, batches: Sequence[SliceBatch]) -> float:
    """Mean of the batches."""
    started_s = time.process_time()
    for batch in batches:
        merged_SRD = np.zeros((len(batch), runtime.merge.num_rows, runtime.dim), dtype=np.float32)
        user_vectors(runtime, batch, merged_SRD, np.ones(len(batch), dtype=np.bool_))
    return (time.process_time() - started_s) / len(batches)


def gains_of(ranks_T: Int64Array) -> Float64Array:
    """(T,) float64 gain of each target, whose mean is NDCG@10."""
    return np.where(ranks_T <= NDCG_DEPTH, 1.0 / np.log2(ranks_T + 1.0), 0.0)


def has_equal_bytes(runtime: SliceEncoderRuntime, batch: SliceBatch) -> bool:
    """Whether the first slices of a batch give the same bytes without the others, as a replay needs."""
    together = runtime.encode(batch)
    return all(
        (alone.codes_SD.tobytes(), alone.locals_SD.tobytes())
        == (together.codes_SD[row].tobytes(), together.locals_SD[row].tobytes())
        for row in range(SINGLES)
        for alone in (runtime.encode(_rows(batch, slice(row, row + 1))),)
    )


def _rows(batch: SliceBatch, rows: slice) -> SliceBatch:
    return SliceBatch(**{name: array[rows] for name, array in vars(batch).items()})


def measure(
    variants: Sequence[Variant], trained: TrainedModel, plan: ValidationPlan, num_rounds: int
) -> dict[str, Measured]:
    """Judge, compare and time all variants."""
    reader, slice_events = plan.reader, trained.model.dims.slice_events
    slices_S = np.random.default_rng(0).choice(reader.histories.num_slices, BATCH_SLICES)
    batch = slice_batch(reader, slices_S, slice_events)
    few = _rows(batch, slice(0, ORACLE_SLICES))
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        models = [loaded(one, trained, Path(folder) / str(number)) for number, one in enumerate(variants)]
    runtimes = [SliceEncoderRuntime(one, one.model.device, in_numpy=False) for one in models]
    oracle = ReferenceEncoder(models[0])
    for runtime in runtimes:
        runtime.blocks.shapes = BlockShapes(CPU_BLOCK_SIZES, runtime.blocks.shapes.places[-1:])
    times = timed(runtimes, batch, num_rounds)
    gains = [gains_of(validation_ranks(one.model, plan)) for one in models]
    return {
        variant.name: Measured(
            gains_T,
            float((gains_T - gains[0]).std() / len(gains_T) ** 0.5),
            closeness(runtime, oracle, few),
            rounds,
            num_bytes(model.model),
            num_bytes(model.model.items),
            has_equal_bytes(runtime, batch),
        )
        for variant, model, runtime, rounds, gains_T in zip(variants, models, runtimes, times, gains, strict=True)
    }


def run(path: Path, settings: Settings, config: TrainConfig, options: Any) -> int:
    """Train, make the variants and measure them; the exit code."""
    events = read_events(path, settings, limit=options.limit).events
    split_ms = split_time_ms(events, VALIDATION_SHARE)
    trained = train_encoder(events, settings, config=config, split_ms=split_ms, report=print)
    plan = plan_from(trained, events, settings, split_ms, MAX_TARGETS, config.seed)
    measured = measure(variants_of(trained, plan.reader.histories, config.seed), trained, plan, options.rounds)
    print(f"\n{table(COLUMNS, [one.row(name) for name, one in measured.items()])}\n")
    details = {
        "data": options.data,
        "num_events": len(events),
        "num_targets": len(plan.events_T),
        "num_items": len(trained.vocabulary.item_ids),
        "epochs": len(trained.curve),
        "rounds": options.rounds,
        "seed": config.seed,
    }
    return finish(result_of(measured, details))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=[SAMPLE, *sorted(DATASETS)], default=SAMPLE)
    parser.add_argument("--limit", type=int, help="take the first so many events only")
    parser.add_argument("--epochs", type=int, default=12, help="of the training, at most")
    parser.add_argument("--rounds", type=int, default=9, help="of the timing")
    parser.add_argument("--seed", type=int, default=0)
    options: Any = parser.parse_args(arguments)
    use_threads(1)
    config = TrainConfig(max_epochs=options.epochs, seed=options.seed)
    with terminate_as_interrupt(), skipped_without_data("bench-compression"):
        if options.data == SAMPLE:
            settings = load_settings(EXAMPLE / "sliceflow.toml", environ={}, overrides={})
            path = EXAMPLE / "events.ndjson.gz"
        else:
            path, settings = require(DATASETS[options.data]), DATASETS[options.data].settings(EXAMPLE)
        return run(path, settings, replace(config, slice_events=settings.slice_events), options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
