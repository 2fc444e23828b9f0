"""The processes and the device of a training, through accelerate: one CPU, or several GPUs, with the same code.

One process by default. `accelerate launch` or `torchrun` start several, each of which runs the whole program; the
main one alone reports and writes. `ACCELERATE_USE_CPU=1` keeps a training off the GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from accelerate import Accelerator, DistributedDataParallelKwargs, PartialState
from accelerate.utils import broadcast_object_list
from torch import Tensor, nn


def is_main_process() -> bool:
    """Whether this process is the one that reports and writes: true where there is only one."""
    return bool(PartialState().is_main_process)


class Devices:
    """Where this process trains, and how it keeps in step with the others.

    accelerate's own mixed precision is left off: it is one for the whole process, while each training has its own.
    """

    def __init__(self) -> None:
        # What a merge or an objective leaves unused has no gradient; without this flag that is an error.
        unused = DistributedDataParallelKwargs(find_unused_parameters=True)
        self._accelerator = Accelerator(mixed_precision="no", kwargs_handlers=[unused])

    @property
    def device(self) -> torch.device:
        """The device of this process."""
        found: torch.device = self._accelerator.device
        return found

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return int(self._accelerator.process_index)

    @property
    def num_ranks(self) -> int:
        """Processes that train together."""
        return int(self._accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes."""
        return self.rank == 0

    def prepared(self, module: nn.Module) -> nn.Module:
        """The module on the device; its gradients are averaged over all processes."""
        prepared: nn.Module = self._accelerator.prepare(module)
        return prepared

    def agreed(self, value: float) -> float:
        """The main process's value, in every process: what decides a step must be the same everywhere."""
        if self.num_ranks == 1:
            return value
        return float(broadcast_object_list([value])[0])

    def summed(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, in each of them."""
        total: Tensor = self._accelerator.reduce(values.to(self.device), reduction="sum").cpu()
        return total

    def wait_for_all(self) -> None:
        """Return when every process is here."""
        self._accelerator.wait_for_everyone()

    @contextmanager
    def own_randomness(self) -> Iterator[None]:
        """What is drawn in here leaves the program's own random numbers alone."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            yield


def seed_torch(*numbers: int) -> None:
    """Seed torch on all devices from several numbers at once, such as seed, epoch and process."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint32)
    torch.manual_seed(int(words[0]) << 32 | int(words[1]))
