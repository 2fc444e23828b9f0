"""The slow oracle of the runtime: one slice at a time, in numpy and float64, straight from the formulas.

It shares no code with the fast path but the weights. Attention is written out place by place, memory by its
direct sum; nothing is padded, batched or fused.

Shapes: S slices, n events of one slice, D dimensions, H half-lives, I items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from encoders.checkpoint import LoadedModel
from encoders.contract import (
    NO_GAP_MS,
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    SliceBatch,
    SliceCodes,
)
from encoders.vocabulary import FIRST_NAME_ROW

NORM_EPSILON = 1e-5


class ReferenceEncoder:
    """The `SliceEncoder` contract computed as plainly as possible; hundreds of times slower."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._vocabulary = loaded.vocabulary
        self._spec = loaded.spec
        self._weights: dict[str, Float64Array] = {
            name: weight.detach().cpu().double().numpy() for name, weight in loaded.model.state_dict().items()
        }

    @property
    def release(self) -> str:
        """Name and content hash of the model."""
        return self._spec.release

    @property
    def dim(self) -> int:
        """D."""
        return self._spec.dims.dim

    @property
    def slice_events(self) -> int:
        """L."""
        return self._spec.dims.slice_events

    @property
    def half_lives_ms(self) -> Float64Array:
        """(H,) float64 half-lives in milliseconds."""
        return np.array(self._spec.half_lives_ms, dtype=np.float64)

    def rows_of(self, item_ids: Sequence[str]) -> Int64Array:
        """Vocabulary rows of item ids."""
        return self._vocabulary.rows_of(item_ids)

    def type_rows_of(self, names: Sequence[str]) -> Int64Array:
        """Vocabulary rows of event types."""
        return self._vocabulary.type_rows_of(names)

    def encode(self, batch: SliceBatch) -> SliceCodes:
        """Codes and local states, slice after slice."""
        codes_SD = np.zeros((len(batch), self.dim), dtype=np.float32)
        locals_SD = np.zeros((len(batch), self.dim), dtype=np.float32)
        for row, length in enumerate(batch.lengths_S.tolist()):
            codes_SD[row], locals_SD[row] = self._encode_one(
                batch.item_rows_SL[row, :length].tolist(),
                batch.type_rows_SL[row, :length].tolist(),
                batch.gaps_ms_SL[row, :length].tolist(),
            )
        return SliceCodes(codes_SD, locals_SD)

    def user_vectors(self, locals_SD: Float32Array, merged_SHD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 user vectors, one after the other."""
        users_SD = np.zeros((len(locals_SD), self.dim), dtype=np.float32)
        for row, has_merged in enumerate(has_merged_S.tolist()):
            local_D = locals_SD[row].astype(np.float64)
            memory_D = self._weights["no_memory"]
            if has_merged:
                memory_D = self._linear("memory_in", merged_SHD[row].astype(np.float64).reshape(-1))
            both = np.concatenate([local_D, memory_D])
            gate_D = 1.0 / (1.0 + np.exp(-self._linear("gate", both)))
            mixed_D = gate_D * self._two_layers("mixer", both)
            users_SD[row] = self._norm("user_norm", local_D + memory_D + mixed_D)
        return users_SD

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        """Item ids and their (I, D) float32 vectors."""
        table = self._weights["items.weight"]
        return list(self._vocabulary.item_ids), table[FIRST_NAME_ROW:].astype(np.float32)

    def _encode_one(
        self, item_rows: list[int], type_rows: list[int], gaps_ms: list[int]
    ) -> tuple[Float64Array, Float64Array]:
        weights = self._weights
        scale = math.sqrt(self.dim)
        tokens: list[Float64Array] = []
        for place, (item_row, type_row, gap_ms) in enumerate(zip(item_rows, type_rows, gaps_ms, strict=True)):
            token = weights["items.weight"][item_row] + weights["types.weight"][type_row]
            token = token + weights["gaps.weight"][self._gap_row(gap_ms)] + weights["positions"][place]
            tokens.append(token * scale)
        states_nD = np.stack(tokens)
        for layer in range(self._spec.dims.num_layers):
            states_nD = self._block(f"blocks.{layer}", states_nD)
        states_nD = np.stack([self._norm("final_norm", state_D) for state_D in states_nD])
        mean_items_D = np.mean([weights["items.weight"][row] for row in item_rows], axis=0) * scale
        pooled = np.concatenate([states_nD.mean(axis=0), mean_items_D, states_nD[-1]])
        return self._two_layers("coder", self._linear("summary", pooled)), states_nD[-1]

    def _gap_row(self, gap_ms: int) -> int:
        if gap_ms <= NO_GAP_MS:
            return 0
        return 1 + sum(edge_ms <= gap_ms for edge_ms in self._spec.dims.gap_edges_ms)

    def _block(self, name: str, states_nD: Float64Array) -> Float64Array:
        normed_nD = np.stack([self._norm(f"{name}.attention_norm", state_D) for state_D in states_nD])
        split = np.stack([self._linear(f"{name}.queries_keys_values", state_D) for state_D in normed_nD])
        queries_nD, keys_nD, values_nD = np.split(split, 3, axis=1)
        after: list[Float64Array] = []
        for place in range(len(states_nD)):
            heads = [
                _attend(queries_nD[place, head], keys_nD[: place + 1, head], values_nD[: place + 1, head])
                for head in self._head_columns()
            ]
            state_D = states_nD[place] + self._linear(f"{name}.attention_out", np.concatenate(heads))
            hidden = self._linear(f"{name}.feed_in", self._norm(f"{name}.feed_norm", state_D))
            after.append(state_D + self._linear(f"{name}.feed_out", _gelu(hidden)))
        return np.stack(after)

    def _head_columns(self) -> list[slice]:
        width = self.dim // self._spec.dims.num_heads
        return [slice(first, first + width) for first in range(0, self.dim, width)]

    def _linear(self, name: str, values: Float64Array) -> Float64Array:
        result: Float64Array = self._weights[f"{name}.weight"] @ values + self._weights[f"{name}.bias"]
        return result

    def _norm(self, name: str, values_D: Float64Array) -> Float64Array:
        centred_D = values_D - values_D.mean()
        scaled_D = centred_D / math.sqrt(float((centred_D**2).mean()) + NORM_EPSILON)
        result: Float64Array = scaled_D * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]
        return result

    def _two_layers(self, name: str, values: Float64Array) -> Float64Array:
        return self._linear(f"{name}.2", _gelu(self._linear(f"{name}.0", values)))


def _attend(query_d: Float64Array, keys_nd: Float64Array, values_nd: Float64Array) -> Float64Array:
    logits_n = keys_nd @ query_d / math.sqrt(len(query_d))
    shares_n = np.exp(logits_n - logits_n.max())
    mixed_d: Float64Array = (shares_n / shares_n.sum()) @ values_nd
    return mixed_d


def _gelu(values: Float64Array) -> Float64Array:
    flat = [0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in values.reshape(-1).tolist()]
    return np.array(flat, dtype=np.float64).reshape(values.shape)
