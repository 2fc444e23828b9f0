"""The stages of any model, in torch: blocks of slices of a few fixed shapes, padded to them.

On the CPU a row's result depends on that row alone, bit for bit. A matrix product picks its order of summation by the
shape of its operands, so the shapes must be fixed. Blocks of different sizes were found to agree as long as every
product has `MIN_PRODUCT_ROWS` rows, and so were blocks of short slices with fewer places than a slice may have; whether
they do on this machine is tried once (`encoders.block_trial`), and shapes that differ are not used. On another kind of
machine the last bits may differ; on a GPU there is no such promise.

Shapes: S slices, L events, C events before, D dimensions, R rows of a memory, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.block_trial import BlockShapes, MadeUp, agreeing_shapes
from encoders.contract import BoolArray, Float32Array, SliceBatch
from encoders.padded import PaddedSlices
from encoders.spec import ModelDims
from encoders.stages import Inputs
from encoders.transformer import SliceModel

# Measured on one core. AVX-512: 4 slices 0.3 ms; 64 slices 2.5 ms, the best throughput; 256 slower. AVX2 (EPYC),
# loaded: 64 slices 12 to 15 ms, 128 slices 19 to 22 ms; 256 slower.
CPU_BLOCK_SIZES = (4, 16, 64, 128)
GPU_BLOCK_SIZES = (64, 1024)
# Most slices are open and short: with 4 places in place of 16 a block of 64 takes half the time. Products of fewer
# than four rows a slice round differently.
SHORTER_PLACES = (4, 8, 12)
# Products with fewer rows take other kernels, which round differently (seen with 1, 4 and 8 rows).
MIN_PRODUCT_ROWS = 16

TORCH_DTYPES = {"int32": torch.int32, "int64": torch.int64, "float32": torch.float32, "bool": torch.bool}

LENGTHS = 3
"""Of what `Inputs.padded` gives, the lengths; in front of them is what has a place for each event."""

Stage = Callable[..., tuple[Tensor, ...]]
Arrays = tuple[np.typing.NDArray[np.generic], ...]


class BlockStages:
    """Behind `encoders.stages.Stages`.

    Args:
        model: in evaluation mode, where it computes.

    Attributes:
        shapes: of the blocks; all there are until `choose_shapes` was called.
    """

    def __init__(self, model: SliceModel) -> None:
        self._model, self._device, self._dims = model, model.device, model.dims
        shorter = (places for places in SHORTER_PLACES if places < model.dims.slice_events)
        sizes = GPU_BLOCK_SIZES if self._device.type == "cuda" else _cpu_sizes(model.dims)
        self.shapes = BlockShapes(sizes, (*shorter, model.dims.slice_events))

    @torch.inference_mode()
    def choose_shapes(self, inputs_of: Callable[[SliceBatch], Inputs]) -> None:
        """Keep the shapes that give the same bytes on this machine; on a GPU all."""
        if self._device.type != "cpu":
            return

        def tried(made_up: MadeUp, shapes: BlockShapes) -> list[Float32Array]:
            return self._all_stages(inputs_of(made_up.batch), made_up, shapes)

        self.shapes = agreeing_shapes(self._dims, self.shapes, tried)

    @torch.inference_mode()
    def encoded(self, inputs: Inputs) -> tuple[Float32Array, Float32Array]:
        """As `Stages.encoded`."""
        codes_SD, locals_SD = self._by_length(self._encode_block, inputs.padded(), self.shapes, num_outputs=2)
        return codes_SD, locals_SD

    @torch.inference_mode()
    def recalled(self, inputs: Inputs, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """As `Stages.recalled`."""
        arrays: Arrays = (*inputs.padded(), merged_SRD, has_merged_S)
        (locals_SD,) = self._by_length(self._recall_block, arrays, self.shapes, num_outputs=1)
        return locals_SD

    @torch.inference_mode()
    def users(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """As `Stages.users`."""
        arrays = (locals_SD, merged_SRD, has_merged_S)
        (users_SD,) = self.in_blocks(self._users_block, arrays, self.shapes.sizes, num_outputs=1)
        return users_SD

    def _encode_block(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        model, slices = self._model, PaddedSlices(*inputs)
        states_BLD, tokens_BLD, raw_BLD = model.states(slices)
        rows_B = torch.arange(len(slices.lengths_S), device=self._device)
        inner_BLD = tokens_BLD if model.memory_enters else states_BLD
        pooled, _ = model.pooled(inner_BLD, raw_BLD, slices.lengths_S)
        codes_BD, _ = model.codes(F.pad(pooled, (0, 0, 0, _num_missing(pooled))))
        return codes_BD, states_BLD[rows_B, slices.lengths_S - 1]

    def _recall_block(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *rows, merged_BRD, has_merged_B = inputs
        slices = PaddedSlices(*rows)
        states_BLD, _, _ = self._model.states(slices, merged_BRD, has_merged_B)
        return (states_BLD[torch.arange(len(has_merged_B), device=self._device), slices.lengths_S - 1],)

    def _users_block(self, locals_BD: Tensor, merged_BRD: Tensor, has_merged_B: Tensor) -> tuple[Tensor, ...]:
        num_missing = _num_missing(locals_BD)
        locals_BD = F.pad(locals_BD, (0, 0, 0, num_missing))
        merged_BRD = F.pad(merged_BRD, (0, 0, 0, 0, 0, num_missing))
        memory_BD = self._model.memory_vectors(merged_BRD, F.pad(has_merged_B, (0, num_missing)))
        return (self._model.user_vectors(locals_BD, memory_BD),)

    def _by_length(self, stage: Stage, inputs: Arrays, shapes: BlockShapes, *, num_outputs: int) -> list[Float32Array]:
        """Run a stage over slices (as `Inputs.padded` has them), the long ones in blocks apart from the short ones."""
        order_S = np.argsort(inputs[LENGTHS], kind="stable")[::-1]
        columns = tuple(column[order_S] for column in inputs)
        made = self.in_blocks(stage, columns, shapes.sizes, num_outputs=num_outputs, places=shapes.places)
        back_S = np.argsort(order_S)
        return [rows_SD[back_S] for rows_SD in made]

    def in_blocks(
        self,
        stage: Stage,
        inputs: Arrays,
        sizes: Sequence[int],
        *,
        num_outputs: int,
        places: Sequence[int] = (),
    ) -> list[Float32Array]:
        """Run a stage over blocks of fixed sizes; outputs are (S, D) float32 each.

        With `places` the inputs are slices, and each block has the fewest of these places that its slices fit into.
        """
        num_rows = len(inputs[0])
        outputs = [np.empty((num_rows, self._dims.dim), dtype=np.float32) for _ in range(num_outputs)]
        for start, end, size in blocks(num_rows, sizes):
            arrays = [array[start:end] for array in inputs]
            if places:
                needed = next(one for one in places if one >= arrays[LENGTHS].max())
                arrays[:LENGTHS] = [array[:, :needed] for array in arrays[:LENGTHS]]
            tensors = [self.block(array, size) for array in arrays]
            for output, result in zip(outputs, stage(*tensors), strict=True):
                output[start:end] = result[: end - start].cpu().numpy()
        return outputs

    def block(self, rows: np.typing.NDArray[np.generic], size: int) -> Tensor:
        """Rows copied into memory of torch's own, padded to the block's size by repeating the last row.

        The copy is wanted: products may depend on how their operands lie in memory.
        """
        block = torch.empty((size, *rows.shape[1:]), dtype=TORCH_DTYPES[rows.dtype.name])
        filled = block.numpy()
        filled[: len(rows)] = rows
        filled[len(rows) :] = rows[-1:]
        return block.to(self._device)

    def _all_stages(self, inputs: Inputs, made_up: MadeUp, shapes: BlockShapes) -> list[Float32Array]:
        rows, memory = inputs.padded(), (made_up.merged_SRD, made_up.has_merged_S)
        made = self._by_length(self._encode_block, rows, shapes, num_outputs=2)
        if self._model.memory_enters:
            made += self._by_length(self._recall_block, (*rows, *memory), shapes, num_outputs=1)
        made += self.in_blocks(self._users_block, (made[1], *memory), shapes.sizes, num_outputs=1)
        return made


def _cpu_sizes(dims: ModelDims) -> tuple[int, ...]:
    """The block sizes of which every product has `MIN_PRODUCT_ROWS` rows, whatever is the shortest part of a slice."""
    parts = [dims.slice_events, dims.context_events or dims.slice_events]
    shortest = min([*parts, dims.num_memory_rows] if dims.merge == "tokens" else parts)
    return tuple(size for size in CPU_BLOCK_SIZES if size * shortest >= MIN_PRODUCT_ROWS)


def _num_missing(rows_BD: Tensor) -> int:
    return max(0, MIN_PRODUCT_ROWS - len(rows_BD))


def blocks(num_rows: int, sizes: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Cut rows into blocks: as many of the largest size as fit, then the next, the rest in the smallest.

    Args:
        num_rows: rows to cover.
        sizes: rising block sizes.

    Yields:
        First row, last row but one, and the size to pad to.

    >>> list(blocks(70, (4, 16, 64)))
    [(0, 64, 64), (64, 68, 4), (68, 70, 4)]
    """
    start = 0
    while start < num_rows:
        size = max((size for size in sizes if size <= num_rows - start), default=sizes[0])
        yield start, min(start + size, num_rows), size
        start += size
