"""The slice model called plainly, tensors in and tensors out, and the ways to make that faster. Needs torch alone.

What everything else is compared with is the plain call in float32 with batches of `PLAIN_BATCH` slices.

Shapes: S slices, L events, C events before, R rows of a memory, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import torch
from torch import Tensor

from encoders.compression import CompressionKind, compressed
from encoders.padded import PaddedSlices
from encoders.transformer import SliceModel

PLAIN_BATCH: Final = 512
BATCHES: Final = (1, 16, 128, PLAIN_BATCH)
BF16_FLAGS: Final = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
"""How Linux calls the instructions of x86 and ARM processors for bfloat16."""

Inputs = tuple[Tensor, ...]
"""Item rows, type rows and gap rows (S, L), lengths (S,), the same three of the context (S, C), all int64; memories
(S, R, D) float32; whether there is one (S,) bool."""


class Vectors(NamedTuple):
    """What the model makes of slices: codes and user vectors, (S, D) float32 each."""

    codes_SD: Tensor
    users_SD: Tensor


Call = Callable[..., Vectors]
"""Inputs, one by one -> vectors."""


@dataclass(frozen=True)
class Variant:
    """One way to call the model.

    Args:
        name: For the table.
        call: Takes a batch.
        batch: How many slices at once.
        warm_up_s: What the first call took, where that is more than a call.
    """

    name: str
    call: Call
    batch: int = PLAIN_BATCH
    warm_up_s: float | None = None

    def all_of(self, inputs: Inputs) -> Vectors:
        """The vectors of all slices, batch by batch."""
        with torch.inference_mode():
            made = [
                self.call(*(part[start : start + self.batch] for part in inputs))
                for start in range(0, len(inputs[0]), self.batch)
            ]
        return Vectors(*(torch.cat(parts) for parts in zip(*made, strict=True)))


def plain_call(model: SliceModel) -> Call:
    """The model without anything around it.

    Raises:
        ValueError: The model's memory enters the encoder: it cannot be called in one step.
    """
    if model.memory_enters:
        raise ValueError("the memory of this model enters its encoder, expected one that is merged after it")

    def call(*inputs: Tensor) -> Vectors:
        *rows, merged_SRD, has_merged_S = inputs
        slices = PaddedSlices(*rows)
        states_SLD, _, raw_SLD = model.states(slices)
        pooled, last_SD = model.pooled(states_SLD, raw_SLD, slices.lengths_S)
        codes_SD, _ = model.codes(pooled)
        return Vectors(codes_SD, model.user_vectors(last_SD, model.memory_vectors(merged_SRD, has_merged_S)))

    return call


def plain_variants(model: SliceModel) -> list[Variant]:
    """The plain call with each size of batch."""
    return [Variant(f"plain, batches of {batch}", plain_call(model), batch) for batch in BATCHES]


def compressed_variant(model: SliceModel, kind: CompressionKind) -> Variant:
    """Smaller arithmetic; see `encoders.compression`."""
    return Variant(f"{kind}, batches of {PLAIN_BATCH}", plain_call(compressed(model, kind)))


def compiled_variant(model: SliceModel, inputs: Inputs, batch: int = PLAIN_BATCH) -> Variant | str:
    """By torch.compile for one shape, warmed up; the reason where that does not work on this machine.

    Args:
        model: To be compiled.
        inputs: At least a batch, to warm up with.
        batch: Slices at once; others would be compiled again.
    """
    call: Call = torch.compile(plain_call(model), dynamic=False)
    started_s = time.perf_counter()
    try:
        with torch.inference_mode():
            call(*(part[:batch] for part in inputs))
    except Exception as error:  # whatever a missing or unfit compiler raises: it is the measurement's answer
        return f"torch.compile does not work here: {type(error).__name__}: {str(error).splitlines()[0]}"
    return Variant(f"torch.compile, batches of {batch}", call, batch, time.perf_counter() - started_s)


def has_bf16(flags: str) -> bool:
    """Whether a processor has instructions for bfloat16, by the flags that Linux tells of it.

    >>> has_bf16("fpu avx2 sha_ni"), has_bf16("fpu avx512_bf16")
    (False, True)
    """
    return not BF16_FLAGS.isdisjoint(flags.split())


def largest_difference(made: Vectors, wanted: Vectors) -> float:
    """The largest difference of any value of codes or user vectors."""
    return max(float((one.cpu() - other.cpu()).abs().max()) for one, other in zip(made, wanted, strict=True))
