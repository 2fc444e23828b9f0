"""The slow oracle of the runtime: one slice at a time, in numpy and float64, straight from the formulas.

It shares no code with the fast path but the weights. Attention is written out place by place, memory by its
direct sum; nothing is padded, batched or fused. A backbone is the library's own, in float32: in
float64 several of its models give no numbers where a place has nothing to attend to.

Shapes: S slices, n events of one slice, c events before it, D dimensions, R rows of a memory, I items.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from encoders.checkpoint import LoadedModel
from encoders.contract import (
    NO_GAP_MS,
    BoolArray,
    Float32Array,
    Float64Array,
    Int64Array,
    MergeSpec,
    SliceBatch,
    SliceCodes,
)
from encoders.vocabulary import FIRST_NAME_ROW, PAD_ROW

NORM_EPSILON = 1e-5
# As in `encoders.merges`, written down again.
GATE_AGE_SCALE = 0.05

Event = tuple[int, int, int]


class ReferenceEncoder:
    """The `SliceEncoder` contract computed as plainly as possible; hundreds of times slower."""

    def __init__(self, loaded: LoadedModel) -> None:
        self._vocabulary = loaded.vocabulary
        self._spec = loaded.spec
        self._weights: dict[str, Float64Array] = {
            name: weight.detach().cpu().double().numpy() for name, weight in loaded.model.state_dict().items()
        }
        # What an item's features make of it is the item tower's business; from there on it is a row of a table.
        self._weights["items.weight"] = loaded.model.item_table().detach().cpu().double().numpy()
        self._backbone = loaded.model.backbone

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
    def context_events(self) -> int:
        """C."""
        return self._spec.dims.context_events

    @property
    def merge(self) -> MergeSpec:
        """How slices are merged."""
        return self._spec.merge

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
        for row in range(len(batch)):
            events, before = self._events(batch, row)
            tokens_nD = self._tokens(events)
            states_nD = self._states(tokens_nD, self._tokens(before), np.zeros((0, self.dim)))
            mean_items_D = np.mean([self._weights["items.weight"][item] for item, _, _ in events], axis=0)
            inner_nD = tokens_nD if self.merge.enters_encoder else states_nD
            pooled = np.concatenate([inner_nD.mean(axis=0), mean_items_D * math.sqrt(self.dim), inner_nD[-1]])
            codes_SD[row] = self._two_layers("coder", self._linear("summary", pooled))
            locals_SD[row] = states_nD[-1]
        return SliceCodes(codes_SD, locals_SD)

    def recalled(self, batch: SliceBatch, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 local states that saw the memory, one after the other."""
        if not self.merge.enters_encoder:
            raise ValueError(f"the merge is {self.merge.kind!r}: its memory does not enter the encoder")
        locals_SD = np.zeros((len(batch), self.dim), dtype=np.float32)
        for row, has_merged in enumerate(has_merged_S.tolist()):
            events, before = self._events(batch, row)
            rows = merged_SRD[row].astype(np.float64) if has_merged else np.zeros((0, self.dim))
            memory_RD = np.array([self._norm("memory_norm", row_D) for row_D in rows]).reshape(-1, self.dim)
            locals_SD[row] = self._states(self._tokens(events), self._tokens(before), memory_RD)[-1]
        return locals_SD

    def carried(self, carried_D: Float32Array, code_D: Float32Array, weight: float, age_ms: int) -> Float32Array:
        """(D,) float32 carried vector after one more slice."""
        if self.merge.kind != "gate":
            raise ValueError(f"the merge is {self.merge.kind!r}: it carries no vector")
        facts = [GATE_AGE_SCALE * math.log1p(age_ms), math.log(weight)]
        of_code = self._linear("merge.of_code", np.concatenate([code_D.astype(np.float64), facts]))
        of_carried = self._linear("merge.of_carried", carried_D.astype(np.float64))
        opened, reset, new = (slice(part * self.dim, (part + 1) * self.dim) for part in range(3))
        open_D = _sigmoid(of_code[opened] + of_carried[opened])
        new_D = np.tanh(of_code[new] + _sigmoid(of_code[reset] + of_carried[reset]) * of_carried[new])
        return ((1 - open_D) * carried_D + open_D * new_D).astype(np.float32)

    def user_vectors(self, locals_SD: Float32Array, merged_SRD: Float32Array, has_merged_S: BoolArray) -> Float32Array:
        """(S, D) float32 user vectors, one after the other."""
        if self.merge.kind in ("none", "tokens"):
            return locals_SD.copy()
        users_SD = np.zeros((len(locals_SD), self.dim), dtype=np.float32)
        for row, has_merged in enumerate(has_merged_S.tolist()):
            local_D = locals_SD[row].astype(np.float64)
            memory_D = self._weights["no_memory"]
            if has_merged:
                memory_D = self._linear("memory_in", merged_SRD[row].astype(np.float64).reshape(-1))
            both = np.concatenate([local_D, memory_D])
            mixed_D = _sigmoid(self._linear("gate", both)) * self._two_layers("mixer", both)
            users_SD[row] = self._norm("user_norm", local_D + memory_D + mixed_D)
        return users_SD

    def item_vectors(self) -> tuple[list[str], Float32Array]:
        """Item ids and their (I, D) float32 vectors."""
        table = self._weights["items.weight"]
        return list(self._vocabulary.item_ids), table[FIRST_NAME_ROW:].astype(np.float32)

    def _events(self, batch: SliceBatch, row: int) -> tuple[list[Event], list[Event]]:
        """Events of a slice and those before it, as item row, type row and gap in milliseconds."""
        length = int(batch.lengths_S[row])
        own = zip(
            batch.item_rows_SL[row, :length],
            batch.type_rows_SL[row, :length],
            batch.gaps_ms_SL[row, :length],
            strict=True,
        )
        before = zip(
            batch.context_item_rows_SC[row],
            batch.context_type_rows_SC[row],
            batch.context_gaps_ms_SC[row],
            strict=True,
        )
        as_events = [[(int(a), int(b), int(c)) for a, b, c in part] for part in (own, before)]
        return as_events[0], [event for event in as_events[1] if event[0] != PAD_ROW]

    def _tokens(self, events: list[Event]) -> Float64Array:
        """(n, D) embedded events."""
        tables = [self._weights[f"{name}.weight"] for name in ("items", "types", "gaps")]
        tokens = [tables[0][item] + tables[1][kind] + tables[2][self._gap_row(gap_ms)] for item, kind, gap_ms in events]
        return np.array(tokens, dtype=np.float64).reshape(-1, self.dim) * math.sqrt(self.dim)

    def _states(self, tokens_nD: Float64Array, context_cD: Float64Array, memory_RD: Float64Array) -> Float64Array:
        if self._backbone is not None:
            states_nD = self._read(tokens_nD, context_cD, memory_RD)
            return np.stack([self._norm("final_norm", state_D) for state_D in states_nD])
        if self.context_events:
            normed = [self._norm("context_norm", token_D) for token_D in context_cD]
            context_cD = np.array(normed, dtype=np.float64).reshape(-1, self.dim)
        states_nD = tokens_nD
        for layer in range(self._spec.dims.num_layers):
            states_nD = self._block(f"blocks.{layer}", states_nD, context_cD, memory_RD)
        return np.stack([self._norm("final_norm", state_D) for state_D in states_nD])

    def _read(self, tokens_nD: Float64Array, context_cD: Float64Array, memory_RD: Float64Array) -> Float64Array:
        """The backbone's states of one slice; each row of the memory and event before has its place, filled or not."""
        assert self._backbone is not None
        num_rows = self._spec.dims.num_places - self.context_events - self.slice_events
        prefix_PD = np.zeros((num_rows + self.context_events, self.dim))
        is_real_P = np.zeros(len(prefix_PD), dtype=np.bool_)
        for rows_nD, end in ((memory_RD, num_rows), (context_cD, len(prefix_PD))):
            prefix_PD[end - len(rows_nD) : end] = rows_nD
            is_real_P[end - len(rows_nD) : end] = True
        with torch.no_grad():
            tokens, prefix, is_real = (torch.from_numpy(values)[None] for values in (tokens_nD, prefix_PD, is_real_P))
            states_nD: Float64Array = self._backbone(tokens.float(), prefix.float(), is_real)[0].double().numpy()
        return states_nD

    def _gap_row(self, gap_ms: int) -> int:
        if gap_ms <= NO_GAP_MS:
            return 0
        return 1 + sum(edge_ms <= gap_ms for edge_ms in self._spec.dims.gap_edges_ms)

    def _block(
        self, name: str, states_nD: Float64Array, context_cD: Float64Array, memory_RD: Float64Array
    ) -> Float64Array:
        normed_nD = np.stack([self._norm(f"{name}.attention_norm", state_D) for state_D in states_nD])
        split = np.stack([self._linear(f"{name}.queries_keys_values", state_D) for state_D in normed_nD])
        inner = self._spec.dims.attention_dim
        queries_nD, own_n2D = split[:, :inner], split[:, inner:]
        context = [self._linear(f"{name}.context_keys_values", token_D) for token_D in context_cD]
        memory = [self._linear(f"{name}.memory_keys_values", row_D) for row_D in memory_RD]
        after: list[Float64Array] = []
        for place, state_D in enumerate(states_nD):
            seen = np.stack([*memory, *context, *own_n2D[: place + 1]])
            distances = range(len(context) + place, -1, -1)
            heads = [
                _attend(queries_nD[place, columns], seen[:, columns], seen[:, inner:][:, columns], bias)
                for columns, bias in zip(self._head_columns(), self._biases(name, len(memory), distances), strict=True)
            ]
            state_D = state_D + self._linear(f"{name}.attention_out", np.concatenate(heads))
            hidden = self._linear(f"{name}.feed_in", self._norm(f"{name}.feed_norm", state_D))
            after.append(state_D + self._linear(f"{name}.feed_out", _gelu(hidden)))
        return np.stack(after)

    def _biases(self, name: str, num_memory: int, distances: Sequence[int]) -> list[list[float]]:
        """For each head, what is added to the logit of each row of the memory and each event seen."""
        biases: list[list[float]] = []
        for head in range(self._spec.dims.num_heads):
            of_memory = [float(self._weights[f"{name}.memory_bias_AR"][head, row]) for row in range(num_memory)]
            of_events = self._weights[f"{name}.distance_bias_AT"][head]
            biases.append([*of_memory, *(float(of_events[distance]) for distance in distances)])
        return biases

    def _head_columns(self) -> list[slice]:
        inner = self._spec.dims.attention_dim
        width = inner // self._spec.dims.num_heads
        return [slice(first, first + width) for first in range(0, inner, width)]

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


def _attend(query_d: Float64Array, keys_nd: Float64Array, values_nd: Float64Array, bias_n: list[float]) -> Float64Array:
    logits_n = keys_nd @ query_d / math.sqrt(len(query_d)) + np.array(bias_n)
    shares_n = np.exp(logits_n - logits_n.max())
    mixed_d: Float64Array = (shares_n / shares_n.sum()) @ values_nd
    return mixed_d


def _sigmoid(values: Float64Array) -> Float64Array:
    sigmoid: Float64Array = 1.0 / (1.0 + np.exp(-values))
    return sigmoid


def _gelu(values: Float64Array) -> Float64Array:
    flat = [0.5 * value * (1.0 + math.erf(value / math.sqrt(2.0))) for value in values.reshape(-1).tolist()]
    return np.array(flat, dtype=np.float64).reshape(values.shape)
