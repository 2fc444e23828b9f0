"""Inference: a model folder becomes vectors, the same bytes however the work is cut into batches.

On the CPU a row's result depends on that row alone, bit for bit: not on its companions, its place, or how
many rows come with it. A replay after a crash cuts batches differently and must repeat its bytes. This is
had by computing in blocks of a few fixed shapes, padded to them, because a matrix product picks its order of
summation by the shape of its operands. Blocks of different sizes were found to agree as long as every
product has `MIN_PRODUCT_ROWS` rows, and so were blocks of short slices with fewer places than a slice may have;
whether they do on this machine is tried once when a model is loaded (`encoders.block_trial`), and shapes that
differ are not used. On another kind of machine the last bits may differ; on a GPU there is no such promise.

Shapes: S slices, L events, C events before, D dimensions, R rows of a memory, I items, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.block_trial import BlockShapes, MadeUp, agreeing_shapes
from encoders.checkpoint import LoadedModel, load_model
from encoders.contract import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    MergeSpec,
    SliceBatch,
    SliceCodes,
)
from encoders.item_features import ItemFeatures
from encoders.merges import GATE_AGE_SCALE
from encoders.padded import PaddedSlices
from encoders.spec import ModelDims, ModelSpec
from encoders.vocabulary import FIRST_NAME_ROW, PAD_ROW, gap_buckets

# Measured on one core. AVX-512: 4 slices 0.3 ms; 64 slices 2.5 ms, the best throughput; 256 slower. AVX2 (EPYC),
# loaded: 64 slices 12 to 15 ms, 128 slices 19 to 22 ms; 256 slower.
CPU_BLOCK_SIZES = (4, 16, 64, 128)
GPU_BLOCK_SIZES = (64, 1024)
# Most slices are open and short: with 4 places in place of 16 a block of 64 takes half the time. Products of fewer
# than four rows a slice round differently.
SHORTER_PLACES = (4, 8, 12)
# Products with fewer rows take other kernels, which round differently (seen with 1, 4 and 8 rows).
MIN_PRODUCT_ROWS = 16

# One size, so that a vector does not depend on how many items come at once.
NEW_ITEM_BLOCK_SIZES = (64,)

TORCH_DTYPES = {"int32": torch.int32, "int64": torch.int64, "float32": torch.float32, "bool": torch.bool}

LENGTHS = 3
"""Of what `SliceEncoderRuntime.inputs` gives, the lengths; in front of them is what has a place for each event."""

Stage = Callable[..., tuple[Tensor, ...]]
Arrays = tuple[np.typing.NDArray[np.generic], ...]


class SliceEncoderRuntime:
    """A loaded model behind the `SliceEncoder` contract. Not for use by two threads at once.

    Use `SliceEncoderRuntime.load`.

    Args:
        loaded: a verified model.
        device: where it computes.

    >>> SliceEncoderRuntime.load(Path("model"))  # doctest: +SKIP
    """

    def __init__(self, loaded: LoadedModel, device: torch.device) -> None:
        self.spec: ModelSpec = loaded.spec
        self.device = device
        self._vocabulary = loaded.vocabulary
        self._model = loaded.model.to(device).eval()
        self._model.items.freeze()
        self._gate = {
            name: weight.detach().cpu().numpy()
            for name, weight in loaded.model.merge.named_parameters()
            if "of_" in name
        }
        dims = loaded.spec.dims
        shorter = (places for places in SHORTER_PLACES if places < dims.slice_events)
        sizes = GPU_BLOCK_SIZES if device.type == "cuda" else _cpu_sizes(dims)
        shapes = BlockShapes(sizes, (*shorter, dims.slice_events))
        self.block_shapes = agreeing_shapes(dims, shapes, self._tried) if device.type == "cpu" else shapes

    @classmethod
    def load(cls, folder: Path, device: str = "auto", num_threads: int = 1) -> SliceEncoderRuntime:
        """Load and verify a model folder.

        Args:
            folder: as written by `save_model`.
            device: "cpu", "cuda" or "auto", which takes a GPU where there is one; see `device` for which.
            num_threads: threads of torch's products, for the whole process. More than one shortens large
                batches and still gives equal bytes for equal rows on the same machine and thread count.

        Raises:
            DamagedModelError: if the folder is incomplete or altered.
            ModelVersionError: if its format is not read by this program.
            ValueError: if the device is none of the three, or there is no GPU for "cuda".
        """
        if device not in ("auto", "cpu", "cuda"):
            raise ValueError(f"device is {device!r}, expected 'auto', 'cpu' or 'cuda'")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device is 'cuda' but no GPU is found; use 'cpu' or 'auto'")
        has_gpu = device != "cpu" and torch.cuda.is_available()
        torch.set_num_threads(num_threads)
        return cls(load_model(folder), torch.device("cuda" if has_gpu else "cpu"))

    @property
    def block_sizes(self) -> tuple[int, ...]:
        """Rows of the blocks that are computed in, rising."""
        return self.block_shapes.sizes

    @property
    def release(self) -> str:
        """Name and content hash of the model."""
        return self.spec.release

    @property
    def dim(self) -> int:
        """D."""
        return self.spec.dims.dim

    @property
    def slice_events(self) -> int:
        """L."""
        return self.spec.dims.slice_events

    @property
    def context_events(self) -> int:
        """C."""
        return self.spec.dims.context_events

    @property
    def merge(self) -> MergeSpec:
        """How slices are merged."""
        return self.spec.merge

    @property
    def half_lives_ms(self) -> Float64Array:
        """(H,) float64 half-lives in milliseconds, a fresh array; empty for merges without any."""
        return np.array(self.spec.half_lives_ms, dtype=np.float64)

    def rows_of(self, item_ids: Sequence[str]) -> Int64Array:
        """(n,) int64 vocabulary rows of item ids, 1 for unknown ones."""
        return self._vocabulary.rows_of(item_ids)

    def type_rows_of(self, names: Sequence[str]) -> Int64Array:
        """(n,) int64 vocabulary rows of event types, 1 for unknown ones."""
        return self._vocabulary.type_rows_of(names)

    @torch.inference_mode()
    def encode(self, batch: SliceBatch) -> SliceCodes:
        """Codes and local states, row by row; see the module for what they do not depend on.

        Raises:
            ValueError: if L is not the model's, or a row is outside its tables.
        """
        codes_SD, locals_SD = self._by_length(self._encode_block, self.inputs(batch), self.block_shapes, num_outputs=2)
        return SliceCodes(codes_SD, locals_SD)

    @torch.inference_mode()
    def recalled(self, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 local states that saw the memory; it is ignored where `has_merged_S` is false.

        Raises:
            ValueError: if the merge does not enter the encoder, or a shape does not fit.
        """
        if not self.merge.enters_encoder:
            raise ValueError(f"the merge is {self.merge.kind!r}: its memory does not enter the encoder")
        inputs: Arrays = (*self.inputs(batch), *self._memory(len(batch), merged_SRD, has_merged_S))
        (locals_SD,) = self._by_length(self._recall_block, inputs, self.block_shapes, num_outputs=1)
        return locals_SD

    def carried(self, carried_D: Float32Array, code_D: Float32Array, weight: float, age_ms: int) -> Float32Array:
        """(D,) float32 carried vector after one more slice; one row at a time, so in no batch at all.

        Raises:
            ValueError: if the merge is no "gate".
        """
        if self.merge.kind != "gate":
            raise ValueError(f"the merge is {self.merge.kind!r}: it carries no vector")
        facts = np.array([GATE_AGE_SCALE * np.log1p(age_ms), np.log(weight)], dtype=np.float32)
        of_code = self._gate["of_code.weight"] @ np.concatenate([code_D, facts]) + self._gate["of_code.bias"]
        of_carried = self._gate["of_carried.weight"] @ carried_D + self._gate["of_carried.bias"]
        (open_in, reset_in, new_in), (open_of, reset_of, new_of) = np.split(of_code, 3), np.split(of_carried, 3)
        new_D = np.tanh(new_in + _sigmoid(reset_in + reset_of) * new_of)
        stepped_D: Float32Array = carried_D + _sigmoid(open_in + open_of) * (new_D - carried_D)
        return stepped_D

    @torch.inference_mode()
    def user_vectors(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 user vectors; `merged_SRD` is ignored where `has_merged_S` is false.

        Raises:
            ValueError: if the shapes are not (S, D), (S, R, D) and (S,).
        """
        if locals_SD.shape != (len(locals_SD), self.dim):
            raise ValueError(f"locals_SD has shape {locals_SD.shape}, expected {(len(locals_SD), self.dim)}")
        inputs = (locals_SD, *self._memory(len(locals_SD), merged_SRD, has_merged_S))
        (users_SD,) = self._in_blocks(self._users_block, inputs, self.block_shapes.sizes, num_outputs=1)
        return users_SD

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        """Item ids and (I, D) float32 vectors: the tied output layer, without padding and unknown."""
        vectors_ID = self._model.item_table().detach()[FIRST_NAME_ROW:].cpu().numpy().copy()
        return list(self._vocabulary.item_ids), vectors_ID

    @torch.inference_mode()
    def new_item_vectors(self, features: ItemFeatures) -> Float32Array:
        """(N, D) float32 vectors of items that were never trained; zeros where nothing is known of them.

        Raises:
            ValueError: if the features are not in the shapes of `spec.dims.items`.
        """
        inputs = tuple(getattr(features, field.name) for field in fields(features))
        self._model.items.check(features)
        (vectors_ND,) = self._in_blocks(self._new_items_block, inputs, NEW_ITEM_BLOCK_SIZES, num_outputs=1)
        return vectors_ND

    @torch.inference_mode()
    def told_item_vectors(self, item_ids: Sequence[str], features: ItemFeatures) -> Float32Array:
        """As `new_item_vectors`, but of trained items too: these keep theirs where the features say nothing new."""
        vectors_ND = self.new_item_vectors(features)
        rows_N = self.rows_of(item_ids)
        trained = np.flatnonzero(rows_N >= FIRST_NAME_ROW)
        if trained.size:
            told = [self._block(getattr(features, field.name)[trained], trained.size) for field in fields(features)]
            rows, content = self._block(rows_N[trained], trained.size), self._block(vectors_ND[trained], trained.size)
            vectors_ND[trained] = self._model.items.told(rows, content, *told).cpu().numpy()
        return vectors_ND

    def inputs(self, batch: SliceBatch) -> tuple[Int64Array, ...]:
        """What `PaddedSlices` holds, as int64 arrays. Raises ValueError as `encode` does."""
        self._check(batch)
        real_SL = np.arange(self.slice_events) < batch.lengths_S[:, None]
        real_SC = batch.context_item_rows_SC != PAD_ROW
        edges_ms = self.spec.dims.gap_edges_ms
        return (
            np.where(real_SL, batch.item_rows_SL, PAD_ROW),
            np.where(real_SL, batch.type_rows_SL, PAD_ROW),
            np.where(real_SL, gap_buckets(batch.gaps_ms_SL, edges_ms), 0),
            batch.lengths_S,
            batch.context_item_rows_SC,
            np.where(real_SC, batch.context_type_rows_SC, PAD_ROW),
            np.where(real_SC, gap_buckets(batch.context_gaps_ms_SC, edges_ms), 0),
        )

    def _memory(
        self, num_rows: int, merged_SRD: Float32Array, has_merged_S: BoolArray
    ) -> tuple[Float32Array, BoolArray]:
        wanted = ((num_rows, self.merge.num_rows, self.dim), (num_rows,))
        shapes = (merged_SRD.shape, has_merged_S.shape)
        if shapes != wanted:
            raise ValueError(f"merged and has_merged have shapes {shapes}, expected {wanted}")
        return np.where(has_merged_S[:, None, None], merged_SRD, np.float32(0)), has_merged_S

    def _check(self, batch: SliceBatch) -> None:
        places = (batch.item_rows_SL.shape[1], batch.context_item_rows_SC.shape[1])
        if places != (self.slice_events, self.context_events):
            raise ValueError(
                f"slices and contexts have {places} places, the model takes {self.slice_events, self.context_events}; "
                f"pad slices on the right and contexts on the left"
            )
        dims = self.spec.dims
        for name, num_rows in (
            ("item_rows_SL", dims.num_item_rows),
            ("type_rows_SL", dims.num_type_rows),
            ("context_item_rows_SC", dims.num_item_rows),
            ("context_type_rows_SC", dims.num_type_rows),
        ):
            rows = getattr(batch, name)
            if rows.size and (rows.min() < 0 or rows.max() >= num_rows):
                raise ValueError(
                    f"{name} runs from {rows.min()} to {rows.max()}, release {self.release} has rows 0 to "
                    f"{num_rows - 1}; rows of different releases must not be mixed"
                )

    def _encode_block(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        model, slices = self._model, PaddedSlices(*inputs)
        states_BLD, tokens_BLD, raw_BLD = model.states(slices)
        rows_B = torch.arange(len(slices.lengths_S), device=self.device)
        inner_BLD = tokens_BLD if model.memory_enters else states_BLD
        pooled, _ = model.pooled(inner_BLD, raw_BLD, slices.lengths_S)
        codes_BD, _ = model.codes(F.pad(pooled, (0, 0, 0, _num_missing(pooled))))
        return codes_BD, states_BLD[rows_B, slices.lengths_S - 1]

    def _recall_block(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        *rows, merged_BRD, has_merged_B = inputs
        slices = PaddedSlices(*rows)
        states_BLD, _, _ = self._model.states(slices, merged_BRD, has_merged_B)
        return (states_BLD[torch.arange(len(has_merged_B), device=self.device), slices.lengths_S - 1],)

    def _new_items_block(self, *features: Tensor) -> tuple[Tensor, ...]:
        return (self._model.items.vectors_of(*features),)

    def _users_block(self, locals_BD: Tensor, merged_BRD: Tensor, has_merged_B: Tensor) -> tuple[Tensor, ...]:
        num_missing = _num_missing(locals_BD)
        locals_BD = F.pad(locals_BD, (0, 0, 0, num_missing))
        merged_BRD = F.pad(merged_BRD, (0, 0, 0, 0, 0, num_missing))
        memory_BD = self._model.memory_vectors(merged_BRD, F.pad(has_merged_B, (0, num_missing)))
        return (self._model.user_vectors(locals_BD, memory_BD),)

    def _by_length(self, stage: Stage, inputs: Arrays, shapes: BlockShapes, *, num_outputs: int) -> list[Float32Array]:
        """Run a stage over slices (as `inputs` has them), the long ones in blocks apart from the short ones."""
        order_S = np.argsort(inputs[LENGTHS], kind="stable")[::-1]
        columns = tuple(column[order_S] for column in inputs)
        made = self._in_blocks(stage, columns, shapes.sizes, num_outputs=num_outputs, places=shapes.places)
        back_S = np.argsort(order_S)
        return [rows_SD[back_S] for rows_SD in made]

    def _in_blocks(
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
        outputs = [np.empty((num_rows, self.dim), dtype=np.float32) for _ in range(num_outputs)]
        for start, end, size in blocks(num_rows, sizes):
            arrays = [array[start:end] for array in inputs]
            if places:
                needed = next(one for one in places if one >= arrays[LENGTHS].max())
                arrays[:LENGTHS] = [array[:, :needed] for array in arrays[:LENGTHS]]
            tensors = [self._block(array, size) for array in arrays]
            for output, result in zip(outputs, stage(*tensors), strict=True):
                output[start:end] = result[: end - start].cpu().numpy()
        return outputs

    def _block(self, rows: np.typing.NDArray[np.generic], size: int) -> Tensor:
        """Rows copied into memory of torch's own, padded to the block's size by repeating the last row.

        The copy is wanted: products may depend on how their operands lie in memory.
        """
        block = torch.empty((size, *rows.shape[1:]), dtype=TORCH_DTYPES[rows.dtype.name])
        filled = block.numpy()
        filled[: len(rows)] = rows
        filled[len(rows) :] = rows[-1:]
        return block.to(self.device)

    @torch.inference_mode()
    def _tried(self, made_up: MadeUp, shapes: BlockShapes) -> list[Float32Array]:
        """All stages, in blocks of these shapes."""
        inputs, memory = self.inputs(made_up.batch), (made_up.merged_SRD, made_up.has_merged_S)
        made = self._by_length(self._encode_block, inputs, shapes, num_outputs=2)
        if self.merge.enters_encoder:
            made += self._by_length(self._recall_block, (*inputs, *memory), shapes, num_outputs=1)
        made += self._in_blocks(self._users_block, (made[1], *memory), shapes.sizes, num_outputs=1)
        return made


def _cpu_sizes(dims: ModelDims) -> tuple[int, ...]:
    """The block sizes of which every product has `MIN_PRODUCT_ROWS` rows, whatever is the shortest part of a slice."""
    parts = [dims.slice_events, dims.context_events or dims.slice_events]
    shortest = min([*parts, dims.num_memory_rows] if dims.merge == "tokens" else parts)
    return tuple(size for size in CPU_BLOCK_SIZES if size * shortest >= MIN_PRODUCT_ROWS)


def _num_missing(rows_BD: Tensor) -> int:
    return max(0, MIN_PRODUCT_ROWS - len(rows_BD))


def _sigmoid(values: Float32Array) -> Float32Array:
    sigmoid: Float32Array = np.float32(1) / (np.float32(1) + np.exp(-values))
    return sigmoid


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
