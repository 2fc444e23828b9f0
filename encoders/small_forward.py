"""The stages of a small model on a CPU, in numpy: cheap for one slice alone, and the same bytes in any batch.

torch spends its time on a small model between the products: for one slice some hundred calls, on padding for the most
part. Here a slice is computed with little more places than it has events, and slices of equally many places together;
see `encoders.small_layers` for why a row does not depend on the others.

Shapes: S slices, L places, C events before, T = C + L, R rows of a memory, D dimensions.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from encoders.contract import BoolArray, Float32Array, Int64Array
from encoders.small_layers import Affine, Linear, Past, SmallBlock, centred, gelu, unit
from encoders.stages import Inputs
from encoders.transformer import HIDDEN, Block, SliceModel
from encoders.vocabulary import PAD_ROW

MAX_DIM = 128
"""Wider models spend their time in the products, which torch does better for many slices at once."""

PLACES_STEP = 4
"""Slices are padded to a multiple of so many places: fewer kinds, and products of four rows take no longer than of
one."""

MAX_VALUES = 65_536
"""Values of the widest layer that are made at once, so that they stay near the processor."""

Memory = tuple[Float32Array, BoolArray]
"""Rows (S, R, D) of the memory before each slice, and whether there is one."""


def fits(model: SliceModel) -> bool:
    """Whether a model can be computed here: small, in float32, of blocks, and not on a GPU."""
    weights = model.state_dict()
    is_plain = "summary.weight" in weights and all(
        not weight.is_floating_point() or weight.dtype == torch.float32 for weight in weights.values()
    )
    return is_plain and model.dims.dim <= MAX_DIM and model.backbone is None and model.device.type == "cpu"


class SmallForward:
    """Behind `encoders.stages.Stages`. Not for use by two threads at once.

    Args:
        model: one that `fits`, its item table frozen.
    """

    @torch.inference_mode()
    def __init__(self, model: SliceModel) -> None:
        self._dims, self._memory_enters = model.dims, model.memory_enters
        self._scale = np.float32(model.dims.dim**0.5)
        tables = (model.item_table(), model.types.weight, model.gaps.weight)
        self._items, self._types, self._gaps = (table.detach().numpy() for table in tables)
        memory_norm = model.memory_norm if model.memory_enters else None
        blocks = (block for block in model.blocks if isinstance(block, Block))
        self._blocks = [SmallBlock(block, model.context_norm, memory_norm) for block in blocks]
        self._final_weight_D = model.final_norm.weight.numpy()
        self._final_bias_D = model.final_norm.bias.numpy()
        self._coder_in, self._coder_out = _coder(model)
        has_own_memory = model.dims.num_memory_rows and not model.memory_enters
        self._users = _UserLayers(model) if has_own_memory else None

    def encoded(self, inputs: Inputs) -> tuple[Float32Array, Float32Array]:
        """As `Stages.encoded`."""
        codes_SD, locals_SD = (self._empty(inputs.num_slices) for _ in range(2))
        for rows, part in self._chunks(inputs):
            unit_SLD, tokens_SLD = self._states(part, self._no_memory(part) if self._memory_enters else None)
            last_SD = _last(unit_SLD, part.lengths_S)
            locals_SD[rows] = self._final(last_SD)
            if self._memory_enters:
                unit_SLD, last_SD = tokens_SLD, _last(tokens_SLD, part.lengths_S)
            pooled_S1P = self._pooled(unit_SLD, last_SD, part)
            codes_SD[rows] = self._coder_out(gelu(self._coder_in(pooled_S1P)))[:, 0]
        return codes_SD, locals_SD

    def recalled(self, inputs: Inputs, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """As `Stages.recalled`."""
        locals_SD = self._empty(inputs.num_slices)
        for rows, part in self._chunks(inputs):
            unit_SLD, _ = self._states(part, (merged_SRD[rows], has_merged_S[rows]))
            locals_SD[rows] = self._final(_last(unit_SLD, part.lengths_S))
        return locals_SD

    def users(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """As `Stages.users`."""
        if self._users is None:
            return locals_SD.copy()
        return self._users(locals_SD, merged_SRD, has_merged_S)

    def _empty(self, num_slices: int) -> Float32Array:
        return np.empty((num_slices, self._dims.dim), dtype=np.float32)

    def _no_memory(self, inputs: Inputs) -> Memory:
        """Hidden, but there: the bytes are those of `recalled` without a memory."""
        shape = (inputs.num_slices, self._dims.num_memory_rows, self._dims.dim)
        return np.zeros(shape, dtype=np.float32), np.zeros(inputs.num_slices, dtype=np.bool_)

    def _final(self, unit_SD: Float32Array) -> Float32Array:
        final_SD: Float32Array = unit_SD * self._final_weight_D
        final_SD += self._final_bias_D
        return final_SD

    def _chunks(self, inputs: Inputs) -> Iterator[tuple[Int64Array | slice, Inputs]]:
        """Slices of equally many places together, not too many at once, and which ones they are."""
        if inputs.num_slices == 1:
            yield slice(0, 1), inputs.some(slice(0, 1), self._places(int(inputs.lengths_S[0])))
            return
        max_rows = MAX_VALUES // (4 * self._dims.dim)
        places_S = np.array([self._places(length) for length in inputs.lengths_S.tolist()], dtype=np.int64)
        for places in np.unique(places_S).tolist():
            chosen = np.flatnonzero(places_S == places)
            at_once = max(1, max_rows // places)
            for start in range(0, len(chosen), at_once):
                rows = chosen[start : start + at_once]
                yield rows, inputs.some(rows, places)

    def _places(self, length: int) -> int:
        return min(-(-length // PLACES_STEP) * PLACES_STEP, self._dims.slice_events)

    def _states(self, inputs: Inputs, memory: Memory | None) -> tuple[Float32Array, Float32Array]:
        """(S, L, D) what `unit` gives of the states after the blocks; and the embedded events."""
        num_context = inputs.num_context
        tokens_STD = self._items.take(inputs.item_rows_ST, axis=0)
        tokens_STD += self._types.take(inputs.type_rows_ST, axis=0)
        tokens_STD += self._gaps.take(inputs.gap_rows_ST, axis=0)
        tokens_STD *= self._scale
        states_STD = centred(tokens_STD)
        unit_STD = unit(states_STD)
        past = self._past(inputs, unit_STD[:, :num_context], memory)
        states_SLD, unit_SLD = states_STD[:, num_context:], unit_STD[:, num_context:]
        for block in self._blocks:
            unit_SLD = block(states_SLD, unit_SLD, past)
        return unit_SLD, tokens_STD[:, num_context:]

    def _past(self, inputs: Inputs, context_SCD: Float32Array, memory: Memory | None) -> Past:
        absent_SP = inputs.item_rows_ST[:, : inputs.num_context] == PAD_ROW
        memory_SRD = None
        if memory is not None:
            merged_SRD, has_merged_S = memory
            memory_SRD = unit(centred(merged_SRD))
            absent_SR = np.broadcast_to(~has_merged_S[:, None], merged_SRD.shape[:2])
            absent_SP = np.concatenate([absent_SR, absent_SP], axis=1)
        hidden_SP = absent_SP * np.float32(HIDDEN) if np.logical_or.reduce(absent_SP, axis=None) else None
        return Past(context_SCD, memory_SRD, hidden_SP)

    def _pooled(self, inner_SLD: Float32Array, last_SD: Float32Array, inputs: Inputs) -> Float32Array:
        """(S, 1, 3·D) what is left of each slice: mean of the states, mean of the items, state at the last event."""
        num_slices, num_places, dim = inner_SLD.shape
        pooled_S1P = np.empty((num_slices, 1, 3 * dim), dtype=np.float32)
        raw_SLD = self._items.take(inputs.item_rows_ST[:, inputs.num_context :], axis=0)
        lengths_S11 = inputs.lengths_S[:, None, None]
        shares_S1L = ((np.arange(num_places) < lengths_S11) / lengths_S11).astype(np.float32)
        np.matmul(shares_S1L, inner_SLD, out=pooled_S1P[:, :, :dim])
        np.matmul(shares_S1L, raw_SLD, out=pooled_S1P[:, :, dim : 2 * dim])
        pooled_S1P[:, 0, 2 * dim :] = last_SD
        return pooled_S1P


class _UserLayers:
    """From local states and memories to user vectors."""

    def __init__(self, model: SliceModel) -> None:
        self._memory_in = Linear(Affine.of(model.memory_in))
        self._no_memory_D = model.no_memory.detach().numpy()
        layers = (model.gate, model.mixer[0], model.mixer[2])
        self._gate, self._mixer_in, self._mixer_out = (Linear(_affine(layer)) for layer in layers)
        self._norm_weight_D, self._norm_bias_D = model.user_norm.weight.numpy(), model.user_norm.bias.numpy()

    def __call__(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D)."""
        memory_S1D = self._memory_in(merged_SRD.reshape(len(merged_SRD), 1, merged_SRD.shape[1] * merged_SRD.shape[2]))
        memory_S1D[~has_merged_S] = self._no_memory_D
        both_S1X = np.concatenate([locals_SD[:, None], memory_S1D], axis=2)
        users_S1D = self._mixer_out(gelu(self._mixer_in(both_S1X)))
        users_S1D *= _sigmoid(self._gate(both_S1X))
        users_S1D += locals_SD[:, None]
        users_S1D += memory_S1D
        users_SD = unit(centred(users_S1D[:, 0]))
        users_SD *= self._norm_weight_D
        users_SD += self._norm_bias_D
        return users_SD


def _coder(model: SliceModel) -> tuple[Linear, Linear]:
    """The layers in front of and behind the coder's GELU, to be given what `SmallForward._pooled` gives."""
    first = Affine.of(model.summary).then(_affine(model.coder[0]))
    dim = model.dims.dim
    states, items, last = (slice(start, start + dim) for start in (0, dim, 2 * dim))
    first.weight_KN[items] *= dim**0.5
    if not model.memory_enters:
        for part in (states, last):
            normed = Affine(first.weight_KN[part], first.bias_N).behind(model.final_norm)
            first.weight_KN[part], first.bias_N = normed.weight_KN, normed.bias_N
    return Linear(first), Linear(_affine(model.coder[2]))


def _affine(layer: nn.Module) -> Affine:
    assert isinstance(layer, nn.Linear)
    return Affine.of(layer)


def _sigmoid(values: Float32Array) -> Float32Array:
    """The logistic function, in place; by way of tanh, which does not overflow."""
    values *= np.float32(0.5)
    np.tanh(values, out=values)
    values += np.float32(1)
    values *= np.float32(0.5)
    return values


def _last(states_SLD: Float32Array, lengths_S: Int64Array) -> Float32Array:
    last_SD: Float32Array = states_SLD[np.arange(len(lengths_S)), lengths_S - 1]
    return last_SD
