"""Inference: a model folder becomes vectors, the same bytes however the work is cut into batches.

On the CPU a row's result depends on that row alone, bit for bit: not on its companions, its place, or how
many rows come with it. A replay after a crash cuts batches differently and must repeat its bytes. This is
had by computing in blocks of a few fixed sizes, padded to them, because a matrix product picks its order of
summation by the shape of its operands. Blocks of different sizes were found to agree as long as every
product has `MIN_PRODUCT_ROWS` rows; whether they do on this machine is tried once when a model is loaded,
and sizes that differ are not used. On another kind of machine the last bits may differ; on a GPU there is
no such promise.

Shapes: S slices, L events, D dimensions, H half-lives, I items, B rows of a block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from encoders.checkpoint import LoadedModel, load_model
from encoders.contract import (
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    SliceBatch,
    SliceCodes,
)
from encoders.spec import ModelSpec
from encoders.vocabulary import FIRST_NAME_ROW, PAD_ROW, gap_buckets

# Measured on one core (AVX-512, oneMKL): 4 slices 0.3 ms; 64 slices 2.5 ms, the best throughput; 256 slower.
CPU_BLOCK_SIZES = (4, 16, 64)
GPU_BLOCK_SIZES = (64, 1024)
# Products with fewer rows take other kernels, which round differently (seen with 1, 4 and 8 rows).
MIN_PRODUCT_ROWS = 16

TORCH_DTYPES = {"int64": torch.int64, "float32": torch.float32, "bool": torch.bool}

Stage = Callable[..., tuple[Tensor, ...]]


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
        sizes = GPU_BLOCK_SIZES if device.type == "cuda" else CPU_BLOCK_SIZES
        self.block_sizes: tuple[int, ...] = sizes
        if device.type == "cpu":
            self.block_sizes = self._agreeing_sizes(sizes)

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
    def half_lives_ms(self) -> Float64Array:
        """(H,) float64 half-lives in milliseconds, a fresh array."""
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
        self._check(batch)
        places_L = np.arange(self.slice_events)
        real_SL = places_L < batch.lengths_S[:, None]
        inputs = (
            np.where(real_SL, batch.item_rows_SL, PAD_ROW),
            np.where(real_SL, batch.type_rows_SL, PAD_ROW),
            np.where(real_SL, gap_buckets(batch.gaps_ms_SL, self.spec.dims.gap_edges_ms), 0),
            batch.lengths_S,
        )
        codes_SD, locals_SD = self._in_blocks(self._encode_block, inputs, self.block_sizes, num_outputs=2)
        return SliceCodes(codes_SD, locals_SD)

    @torch.inference_mode()
    def user_vectors(self, locals_SD: Float32Array, merged_SHD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 user vectors; `merged_SHD` is ignored where `has_merged_S` is false.

        Raises:
            ValueError: if the shapes are not (S, D), (S, H, D) and (S,).
        """
        num_rows = len(locals_SD)
        wanted = ((num_rows, self.dim), (num_rows, len(self.spec.half_lives_ms), self.dim), (num_rows,))
        shapes = (locals_SD.shape, merged_SHD.shape, has_merged_S.shape)
        if shapes != wanted:
            raise ValueError(f"locals, merged and has_merged have shapes {shapes}, expected {wanted}")
        merged_SHD = np.where(has_merged_S[:, None, None], merged_SHD, np.float32(0))
        inputs = (locals_SD, merged_SHD, has_merged_S)
        (users_SD,) = self._in_blocks(self._users_block, inputs, self.block_sizes, num_outputs=1)
        return users_SD

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        """Item ids and (I, D) float32 vectors: the tied output layer, without padding and unknown."""
        vectors_ID = self._model.items.weight.detach()[FIRST_NAME_ROW:].cpu().numpy().copy()
        return list(self._vocabulary.item_ids), vectors_ID

    def _check(self, batch: SliceBatch) -> None:
        if batch.item_rows_SL.shape[1] != self.slice_events:
            raise ValueError(
                f"slices have {batch.item_rows_SL.shape[1]} places, the model takes {self.slice_events}; "
                f"pad them on the right to slice_events"
            )
        dims = self.spec.dims
        for rows, num_rows, name in (
            (batch.item_rows_SL, dims.num_item_rows, "item_rows_SL"),
            (batch.type_rows_SL, dims.num_type_rows, "type_rows_SL"),
        ):
            if len(batch) and (rows.min() < 0 or rows.max() >= num_rows):
                raise ValueError(
                    f"{name} runs from {rows.min()} to {rows.max()}, release {self.release} has rows 0 to "
                    f"{num_rows - 1}; rows of different releases must not be mixed"
                )

    def _encode_block(
        self, item_rows_BL: Tensor, type_rows_BL: Tensor, gap_rows_BL: Tensor, lengths_B: Tensor
    ) -> tuple[Tensor, ...]:
        model = self._model
        states_BLD, raw_BLD = model.states(item_rows_BL, type_rows_BL, gap_rows_BL)
        pooled, locals_BD = model.pooled(states_BLD, raw_BLD, lengths_B)
        num_missing = max(0, MIN_PRODUCT_ROWS - len(lengths_B))
        codes_BD, _ = model.codes(F.pad(pooled, (0, 0, 0, num_missing)))
        return codes_BD, locals_BD

    def _users_block(self, locals_BD: Tensor, merged_BHD: Tensor, has_merged_B: Tensor) -> tuple[Tensor, ...]:
        num_missing = max(0, MIN_PRODUCT_ROWS - len(locals_BD))
        locals_BD = F.pad(locals_BD, (0, 0, 0, num_missing))
        merged_BHD = F.pad(merged_BHD, (0, 0, 0, 0, 0, num_missing))
        memory_BD = self._model.memory_vectors(merged_BHD, F.pad(has_merged_B, (0, num_missing)))
        return (self._model.user_vectors(locals_BD, memory_BD),)

    def _in_blocks(
        self,
        stage: Stage,
        inputs: tuple[np.typing.NDArray[np.generic], ...],
        sizes: Sequence[int],
        *,
        num_outputs: int,
    ) -> list[Float32Array]:
        """Run a stage over blocks of fixed sizes; outputs are (S, D) float32 each."""
        num_rows = len(inputs[0])
        outputs = [np.empty((num_rows, self.dim), dtype=np.float32) for _ in range(num_outputs)]
        for start, end, size in blocks(num_rows, sizes):
            tensors = [self._block(array[start:end], size) for array in inputs]
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
    def _agreeing_sizes(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """The first size and those that give its very bytes, by trial with made-up slices."""
        generator = np.random.default_rng(0)
        num_rows = max(sizes)
        dims = self.spec.dims
        shape = (num_rows, dims.slice_events)
        slices = (
            generator.integers(1, dims.num_item_rows, shape),
            generator.integers(1, dims.num_type_rows, shape),
            generator.integers(0, dims.num_gap_rows, shape),
            generator.integers(1, dims.slice_events + 1, num_rows),
        )
        merged = generator.standard_normal((num_rows, dims.num_half_lives, dims.dim)).astype(np.float32)

        def trial(size: int) -> list[bytes]:
            codes, last = self._in_blocks(self._encode_block, slices, (size,), num_outputs=2)
            inputs = (last, merged, np.arange(num_rows) % 3 > 0)
            users = self._in_blocks(self._users_block, inputs, (size,), num_outputs=1)
            return [array.tobytes() for array in (codes, last, *users)]

        wanted = trial(sizes[0])
        return (sizes[0], *(size for size in sizes[1:] if trial(size) == wanted))


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
