"""How much memory of a GPU this process holds."""

from __future__ import annotations

import torch


def has_gpu() -> bool:
    """Whether there is a GPU that an encoder of this process may use."""
    return torch.cuda.is_available()


def gpu_memory_bytes() -> int:
    """Bytes that torch holds of all GPUs, cached ones too; 0 before the first use."""
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return 0
    return sum(torch.cuda.memory_reserved(number) for number in range(torch.cuda.device_count()))
