"""What a process holds of a GPU: nothing before it is used, and nothing where there is none."""

from __future__ import annotations

import pytest
import torch

from encoders.gpu_memory import gpu_memory_bytes, has_gpu


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_there_is_no_memory() -> None:
    assert not has_gpu()
    assert gpu_memory_bytes() == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_what_is_held_is_counted() -> None:
    held = torch.zeros(1024, 1024, device="cuda")
    assert gpu_memory_bytes() >= held.numel() * held.element_size()
