"""Tasks timed in turn, so that what else the machine does meets all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

Task = Callable[[], object]
Key = TypeVar("Key")


@dataclass(frozen=True)
class Took:
    """Seconds of one run of a task: of the processor, all threads of this process together, and by the clock."""

    cpu_s: float
    wall_s: float


def took(task: Task) -> Took:
    """Run a task once."""
    started_s, started_cpu_s = time.perf_counter(), time.process_time()
    task()
    return Took(time.process_time() - started_cpu_s, time.perf_counter() - started_s)


def in_turn(tasks: Mapping[Key, Task], num_rounds: int) -> dict[Key, list[Took]]:
    """Each task once in each round, by its key; a first round does not count."""
    rounds = [{name: took(task) for name, task in tasks.items()} for _ in range(num_rounds + 1)]
    return {name: [one[name] for one in rounds[1:]] for name in tasks}


def median_cpu_s(runs: Sequence[Took]) -> float:
    """Processor seconds of the run in the middle."""
    return float(np.median([run.cpu_s for run in runs]))


def median_wall_s(runs: Sequence[Took]) -> float:
    """Seconds by the clock of the run in the middle."""
    return float(np.median([run.wall_s for run in runs]))


def cpu_ratios(runs: Sequence[Took], others: Sequence[Took]) -> list[float]:
    """Processor time over that of other runs, round by round."""
    return [run.cpu_s / other.cpu_s for run, other in zip(runs, others, strict=True)]
