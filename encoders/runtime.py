"""Inference: a model folder becomes vectors, the same bytes however the work is cut into batches.

On the CPU a row's result depends on that row alone, bit for bit: not on its companions, its place, or how
many rows come with it. A replay after a crash cuts batches differently and must repeat its bytes. Small models are
computed in numpy, slice by slice (`encoders.small_forward`), all others in torch, in blocks of fixed shapes
(`encoders.block_stages`). Which it is follows from the model and the kind of processor; that numpy repeats its bytes
on this machine is tried once when a model is loaded, and torch's blocks take its place where it does not. On another
kind of machine the last bits may differ; on a GPU there is no such promise.

Shapes: S slices, L events, C events before, T = C + L, D dimensions, R rows of a memory, I items.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from encoders.block_stages import BlockStages
from encoders.block_trial import MadeUp, repeats_alone
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
from encoders.small_forward import SmallForward, fits
from encoders.spec import ModelSpec
from encoders.stages import Inputs, Stages
from encoders.vocabulary import FIRST_NAME_ROW, PAD_ROW

# One size, so that a vector does not depend on how many items come at once.
NEW_ITEM_BLOCK_SIZES = (64,)


class SliceEncoderRuntime:
    """A loaded model behind the `SliceEncoder` contract. Not for use by two threads at once.

    Use `SliceEncoderRuntime.load`.

    Args:
        loaded: a verified model.
        device: where it computes.
        in_numpy: whether to compute small models in numpy; else all in torch.

    >>> SliceEncoderRuntime.load(Path("model"))  # doctest: +SKIP
    """

    def __init__(self, loaded: LoadedModel, device: torch.device, *, in_numpy: bool = True) -> None:
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
        self._gap_edges_ms = np.array([0, *loaded.spec.dims.gap_edges_ms], dtype=np.int64)
        self.blocks = BlockStages(self._model)
        self._stages = self._numpy_stages() if in_numpy else None
        if self._stages is None:
            self.blocks.choose_shapes(self.inputs)

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
    def backend(self) -> str:
        """What computes slices and user vectors: "numpy", or "torch" with the device."""
        return f"torch on {self.device.type}" if self._stages is None else "numpy"

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

    def encode(self, batch: SliceBatch) -> SliceCodes:
        """Codes and local states, row by row; see the module for what they do not depend on.

        Raises:
            ValueError: if L is not the model's, or a row is outside its tables.
        """
        return SliceCodes(*self._used.encoded(self.inputs(batch)))

    def recalled(self, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 local states that saw the memory; it is ignored where `has_merged_S` is false.

        Raises:
            ValueError: if the merge does not enter the encoder, or a shape does not fit.
        """
        if not self.merge.enters_encoder:
            raise ValueError(f"the merge is {self.merge.kind!r}: its memory does not enter the encoder")
        memory = self._memory(len(batch), merged_SRD, has_merged_S)
        return self._used.recalled(self.inputs(batch), *memory)

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

    def user_vectors(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 user vectors; `merged_SRD` is ignored where `has_merged_S` is false.

        Raises:
            ValueError: if the shapes are not (S, D), (S, R, D) and (S,).
        """
        if locals_SD.shape != (len(locals_SD), self.dim):
            raise ValueError(f"locals_SD has shape {locals_SD.shape}, expected {(len(locals_SD), self.dim)}")
        return self._used.users(locals_SD, *self._memory(len(locals_SD), merged_SRD, has_merged_S))

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
        (vectors_ND,) = self.blocks.in_blocks(self._new_items_block, inputs, NEW_ITEM_BLOCK_SIZES, num_outputs=1)
        return vectors_ND

    @torch.inference_mode()
    def told_item_vectors(self, item_ids: Sequence[str], features: ItemFeatures) -> Float32Array:
        """As `new_item_vectors`, but of trained items too: these keep theirs where the features say nothing new."""
        vectors_ND = self.new_item_vectors(features)
        rows_N = self.rows_of(item_ids)
        trained = np.flatnonzero(rows_N >= FIRST_NAME_ROW)
        if trained.size:
            told = [
                self.blocks.block(getattr(features, field.name)[trained], trained.size) for field in fields(features)
            ]
            rows, content = (
                self.blocks.block(rows_N[trained], trained.size),
                self.blocks.block(vectors_ND[trained], trained.size),
            )
            vectors_ND[trained] = self._model.items.told(rows, content, *told).cpu().numpy()
        return vectors_ND

    def inputs(self, batch: SliceBatch) -> Inputs:
        """Slices behind their contexts as rows of the model's tables. Raises ValueError as `encode` does."""
        self._check_places(batch)
        items_ST = np.concatenate([batch.context_item_rows_SC, batch.item_rows_SL], axis=1)
        types_ST = np.concatenate([batch.context_type_rows_SC, batch.type_rows_SL], axis=1)
        self._check_rows(items_ST, types_ST)
        gaps_ms_ST = np.concatenate([batch.context_gaps_ms_SC, batch.gaps_ms_SL], axis=1)
        is_real_ST = items_ST != PAD_ROW
        is_real_ST[:, self.context_events :] = np.arange(self.slice_events) < batch.lengths_S[:, None]
        gap_rows_ST = self._gap_edges_ms.searchsorted(gaps_ms_ST, side="right")
        for rows_ST in (items_ST, types_ST, gap_rows_ST):
            rows_ST *= is_real_ST
        return Inputs(items_ST, types_ST, gap_rows_ST, batch.lengths_S, self.context_events)

    @property
    def _used(self) -> Stages:
        return self.blocks if self._stages is None else self._stages

    def _numpy_stages(self) -> Stages | None:
        """Small models in numpy, where that repeats its bytes."""
        if not fits(self._model):
            return None
        small = SmallForward(self._model)

        def run(made_up: MadeUp) -> list[Float32Array]:
            inputs, memory = self.inputs(made_up.batch), (made_up.merged_SRD, made_up.has_merged_S)
            codes_SD, locals_SD = small.encoded(inputs)
            recalled = [small.recalled(inputs, *memory)] if self.merge.enters_encoder else []
            return [codes_SD, locals_SD, *recalled, small.users(locals_SD, *memory)]

        return small if repeats_alone(self.spec.dims, run) else None

    def _memory(
        self, num_rows: int, merged_SRD: Float32Array, has_merged_S: BoolArray
    ) -> tuple[Float32Array, BoolArray]:
        wanted = ((num_rows, self.merge.num_rows, self.dim), (num_rows,))
        shapes = (merged_SRD.shape, has_merged_S.shape)
        if shapes != wanted:
            raise ValueError(f"merged and has_merged have shapes {shapes}, expected {wanted}")
        return np.where(has_merged_S[:, None, None], merged_SRD, np.float32(0)), has_merged_S

    def _check_places(self, batch: SliceBatch) -> None:
        places = (batch.item_rows_SL.shape[1], batch.context_item_rows_SC.shape[1])
        if places != (self.slice_events, self.context_events):
            raise ValueError(
                f"slices and contexts have {places} places, the model takes {self.slice_events, self.context_events}; "
                f"pad slices on the right and contexts on the left"
            )

    def _check_rows(self, items_ST: Int64Array, types_ST: Int64Array) -> None:
        dims = self.spec.dims
        tables = ((items_ST, dims.num_item_rows, "item"), (types_ST, dims.num_type_rows, "type"))
        for rows_ST, num_rows, kind in tables:
            if rows_ST.size and (rows_ST.min() < 0 or rows_ST.max() >= num_rows):
                raise ValueError(
                    f"{kind} rows run from {rows_ST.min()} to {rows_ST.max()}, release {self.release} has rows 0 to "
                    f"{num_rows - 1}; rows of different releases must not be mixed"
                )

    def _new_items_block(self, *features: Tensor) -> tuple[Tensor, ...]:
        return (self._model.items.vectors_of(*features),)


def _sigmoid(values: Float32Array) -> Float32Array:
    sigmoid: Float32Array = np.float32(1) / (np.float32(1) + np.exp(-values))
    return sigmoid
