"""What measurements share that train a model on every log, one training to a process."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Final, TypeVar

import pyarrow.parquet as parquet

from encoders.sampling import SliceReader
from encoders.trained import TrainedModel
from encoders.validation import ValidationPlan, plan_validation
from stream_app.offline import history_slices
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.training import training_histories
from tests.bench.datasets import DATA, DATASETS, Dataset

SEQUENCES: Final = DATA / "ml1m_sequences" / "sequences.txt.gz"
LEAVE_ONE_OUT: Final = "ml1m_sequences"
"""Sequences without times: of each the last item is held out."""

USERS_SHARE: Final = {"globo": 0.1}
"""Of larger logs a share of the users is taken."""

Part = TypeVar("Part")
Result = TypeVar("Result")


def is_quick() -> bool:
    """Whether the short form is asked for (QUICK=1)."""
    return os.environ.get("QUICK", "") not in ("", "0")


def that_are_there(bench: str, names: Sequence[str]) -> list[str]:
    """The logs that lie beside this project's folder; where none does, a line says so."""
    there = [name for name in names if (SEQUENCES if name == LEAVE_ONE_OUT else DATASETS[name].path).is_file()]
    if not there:
        print(f"{bench}: skipped, none of {', '.join(names)} is beside this project's folder", flush=True)
    return there


def sequence_settings(folder: Path) -> Settings:
    """The settings for the sequences."""
    return Dataset(LEAVE_ONE_OUT, {"item": 1.0}).settings(folder)


def log_of(data: str, folder: Path) -> tuple[Path, Settings]:
    """A log, of some of its users where it is large, and its settings; `folder` is for what is written."""
    dataset = DATASETS[data]
    return _some_users(dataset.path, folder, USERS_SHARE.get(data, 1.0)), dataset.settings(folder)


def _some_users(path: Path, folder: Path, share: float) -> Path:
    """The log of some users only, chosen by a hash."""
    if share == 1:
        return path
    table = parquet.read_table(path)
    chosen = [zlib.crc32(str(user).encode()) % 1000 < 1000 * share for user in table.column("user").to_pylist()]
    parquet.write_table(table.filter(chosen), folder / path.name)
    return folder / path.name


def plan_from(
    trained: TrainedModel, events: Sequence[Event], settings: Settings, from_ms: int, max_targets: int, seed: int
) -> ValidationPlan:
    """What a model is judged on: a log's targets from a time on."""
    histories = training_histories(history_slices(events, settings), trained.vocabulary, settings)
    dims = trained.model.dims
    reader = SliceReader(histories, dims.gap_edges_ms, dims.slice_events, dims.context_events)
    return plan_validation(reader, from_ms, max_targets, seed)


def in_processes(
    work: Callable[[Part], Result], parts: Sequence[Part], num_processes: int
) -> Iterator[tuple[Part, Result]]:
    """Each part and what came of it, in a process of its own, in the order in which they end."""
    with ProcessPoolExecutor(num_processes, mp_context=get_context("spawn")) as pool:
        waiting = {pool.submit(work, part): part for part in parts}
        for done in as_completed(waiting):
            yield waiting[done], done.result()
