"""The network: a causal transformer over one slice, an autoencoder of its summary, and the user vector.

A slice's places attend to themselves and those before, to the raw embeddings of the events before the slice (the
context), and, where the merge enters the encoder, to the rows of the user's memory. The context is read as it is
embedded, through keys and values of its own in each layer: nothing computed for an earlier slice is needed, so what
the network makes of a slice is a function of that slice and a few events before it.

A sequence model of the transformers library may stand in place of the blocks (the backbone). It reads memory, context
and slice as one sequence, so it is a function of the same.

Shapes: S slices, L events, C events before, T = C + L, D dimensions, R rows of a memory, P = R + C places before the
slice (C where no memory enters), X summary dimensions (2·D), A attention heads, N rows of any kind, V rows of the item
table.

Slices are padded on the right and attention is causal, so padded places can influence no real one; the pooled summary
masks them out. Contexts are padded on the left, so that the newest event always stands next to the slice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.item_features import ItemFeatures
from encoders.items import ItemTower
from encoders.merges import DecayedMeans, new_merge
from encoders.padded import PaddedSlices
from encoders.spec import ModelDims
from encoders.vocabulary import PAD_ROW

if TYPE_CHECKING:
    from encoders.backbone import SequenceBackbone

# Embeddings start small, as the output layer is tied to them: logits then begin near uniform.
EMBEDDING_STD = 0.02
# Added to the logits of what may not be attended to; finite, so that a row without anything gives no NaN.
HIDDEN = -1e9


@dataclass(frozen=True)
class Past:
    """What the places of a slice may attend to besides each other.

    Args:
        context_SCD: embeddings of the events before the slice, normalised for blocks.
        memory_SRD: normalised rows of the memory; None where the merge does not enter the encoder.
        absent_SP: bool, which places of memory and context hold nothing.
    """

    context_SCD: Tensor
    memory_SRD: Tensor | None
    absent_SP: Tensor

    def prefix_SPD(self) -> Tensor:
        """Memory and context as one sequence."""
        return self.context_SCD if self.memory_SRD is None else torch.cat([self.memory_SRD, self.context_SCD], dim=1)

    def mask(self, num_places: int) -> Tensor:
        """(S, 1, L, P + L) added to the attention logits of a slice's places: no absent key, and none ahead."""
        ahead_LL = torch.ones(num_places, num_places, dtype=torch.bool, device=self.absent_SP.device).triu(1)
        absent_SLP = self.absent_SP[:, None].expand(-1, num_places, -1)
        hidden = torch.cat([absent_SLP, ahead_LL.expand(len(absent_SLP), -1, -1)], dim=2)
        return (hidden.float() * HIDDEN)[:, None]


class Block(nn.Module):
    """One pre-norm transformer block; attention has a learned bias for each distance and head.

    Source: relative position bias as in arXiv 1910.10683 (section 2.1), without buckets.
    """

    def __init__(self, dims: ModelDims, dropout: float) -> None:
        super().__init__()
        dim, inner = dims.dim, dims.attention_dim
        self.num_heads = dims.num_heads
        self.context_events = dims.context_events
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * inner)
        self.context_keys_values = nn.Linear(dim, 2 * inner) if dims.context_events else None
        self.distance_bias_AT = nn.Parameter(torch.zeros(dims.num_heads, dims.context_events + dims.slice_events))
        has_memory = dims.merge == "tokens"
        self.memory_keys_values = nn.Linear(dim, 2 * inner) if has_memory else None
        self.memory_bias_AR = nn.Parameter(torch.zeros(dims.num_heads, dims.num_memory_rows)) if has_memory else None
        self.attention_out = nn.Linear(inner, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, 4 * dim)
        self.feed_out = nn.Linear(4 * dim, dim)

    def forward(self, states_SLD: Tensor, past: Past, mask: Tensor) -> Tensor:
        """(S, L, D) float32 in and out; `mask` is the past's."""
        attended = self._attended(self.attention_norm(states_SLD), past, mask)
        states_SLD = states_SLD + dropped(attended, self.dropout, self.training)
        hidden = F.gelu(self.feed_in(self.feed_norm(states_SLD)))
        return states_SLD + dropped(self.feed_out(hidden), self.dropout, self.training)

    def _attended(self, normed_SLD: Tensor, past: Past, mask: Tensor) -> Tensor:
        queries, keys, values = self.queries_keys_values(normed_SLD).chunk(3, 2)
        if self.context_keys_values is not None:
            keys, values = _in_front(self.context_keys_values(past.context_SCD), keys, values)
        if self.memory_keys_values is not None and past.memory_SRD is not None:
            keys, values = _in_front(self.memory_keys_values(past.memory_SRD), keys, values)
        width = queries.shape[2] // self.num_heads
        queries, keys, values = (part.unflatten(2, (self.num_heads, width)) for part in (queries, keys, values))
        logits = queries.transpose(1, 2) * width**-0.5 @ keys.permute(0, 2, 3, 1)
        shares = (logits + (self._bias(normed_SLD.shape[1]) + mask)).softmax(3)
        mixed = shares.to(values.dtype) @ values.transpose(1, 2)
        attended: Tensor = self.attention_out(mixed.transpose(1, 2).flatten(2))
        return attended

    def _bias(self, num_places: int) -> Tensor:
        """(A, L, P + L) learned bias for each key: by distance, and for each row of the memory."""
        bias_ALT = self.distance_bias_AT[:, _distances(self.context_events, num_places, self.distance_bias_AT.device)]
        if self.memory_bias_AR is None:
            return bias_ALT
        return torch.cat([self.memory_bias_AR[:, None].expand(-1, num_places, -1), bias_ALT], dim=2)


def _in_front(keys_values: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    more_keys, more_values = keys_values.chunk(2, 2)
    return torch.cat([more_keys, keys], dim=1), torch.cat([more_values, values], dim=1)


def _distances(context_events: int, num_places: int, device: torch.device) -> Tensor:
    """(L, T) int64 events from each place back to each event of context and slice; 0 for what lies ahead."""
    keys_T = torch.arange(context_events + num_places, device=device)
    return (keys_T[context_events:, None] - keys_T[None]).clamp_min(0)


def dropped(values: Tensor, share: float, is_training: bool) -> Tensor:
    """Values of which a share is zero in training, the others enlarged to make up for it.

    The share is rounded to 1/256: one random byte decides each value, which costs an eighth of what a random float
    does, and dropout is a tenth of a training step on a CPU otherwise.
    """
    threshold = round(256 * share)
    if not is_training or not threshold:
        return values
    num_words = -(-values.numel() // 8)
    words = torch.empty(num_words, dtype=torch.int64, device=values.device).random_(-(2**63), None)
    kept = words.view(torch.uint8)[: values.numel()].view(values.shape) >= threshold
    return values * kept * (256 / (256 - threshold))


class SliceModel(nn.Module):
    """Slice transformer, autoencoder and user vector in one module.

    Args:
        dims: the tensors' shapes.
        half_lives_ms: initial half-lives of the merge, in milliseconds; ignored by merges without learned ones.
        dropout: share of values dropped in training.
        item_features: of the named items; None where they come with the weights, or there are none.
        backbone: of the configuration that the dims name; None makes one with random weights, where they name one.

    Source: SASRec (arXiv 1808.09781) for the causal transformer with tied output, pre-norm placement from
    arXiv 2002.04745; context, merging and the reconstruction term are this project's own.
    """

    def __init__(
        self,
        dims: ModelDims,
        half_lives_ms: Sequence[float],
        dropout: float = 0.0,
        item_features: ItemFeatures | None = None,
        backbone: SequenceBackbone | None = None,
    ) -> None:
        super().__init__()
        dim = dims.dim
        self.dims = dims
        self.dropout = dropout
        self.items = ItemTower(dims.num_item_rows, dim, dims.items, item_features)
        self.types = nn.Embedding(dims.num_type_rows, dim)
        self.gaps = nn.Embedding(dims.num_gap_rows, dim)
        has_blocks = dims.backbone is None
        self.context_norm = nn.LayerNorm(dim) if dims.context_events and has_blocks else None
        self.blocks = nn.ModuleList(Block(dims, dropout) for _ in range(dims.num_layers if has_blocks else 0))
        self.backbone = backbone or _new_backbone(dims)
        self.final_norm = nn.LayerNorm(dim)
        self.summary = nn.Linear(3 * dim, dims.summary_dim)
        self.coder = _two_layers(dims.summary_dim, dims.summary_dim, dim)
        self.decoder = _two_layers(dim, dims.summary_dim, dims.summary_dim)
        self.merge = new_merge(dims, half_lives_ms)
        if self.memory_enters:
            self.memory_norm = nn.LayerNorm(dim)
        elif dims.num_memory_rows:
            self.memory_in = nn.Linear(dims.num_memory_rows * dim, dim)
            self.no_memory = nn.Parameter(torch.zeros(dim))
            self.gate = nn.Linear(2 * dim, dim)
            self.mixer = _two_layers(2 * dim, 2 * dim, dim)
            self.user_norm = nn.LayerNorm(dim)
        for weight in (self.items.weight, self.types.weight, self.gaps.weight):
            nn.init.normal_(weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.items.weight[PAD_ROW].zero_()

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.final_norm.weight.device

    @property
    def memory_enters(self) -> bool:
        """Whether the memory is attended to inside the encoder; codes then are made of embeddings alone."""
        return self.dims.merge == "tokens"

    def merge_lora(self) -> None:
        """Add a backbone's adapters into its weights for good; without any, nothing changes."""
        if self.backbone is not None:
            self.backbone.merge_lora()

    def half_lives_ms(self) -> Tensor:
        """(H,) float32 half-lives of the merge in milliseconds; empty where it has none."""
        return self.merge.half_lives_ms() if isinstance(self.merge, DecayedMeans) else torch.zeros(0)

    def item_table(self) -> Tensor:
        """(V, D) vectors of all items, padding and unknown included, with gradients."""
        return self.items.table()

    def embed_items(self, rows: Tensor) -> Tensor:
        """(..., D) vectors of int64 rows of the item table."""
        return self.items.embed(rows)

    def tokens(self, item_rows: Tensor, type_rows: Tensor, gap_rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) embedded events of order one, and the raw (..., D) item embeddings in them."""
        raw = self.embed_items(item_rows)
        # Embeddings start at a scale of 0.02; blocks expect inputs of order one.
        return (raw + self.types(type_rows) + self.gaps(gap_rows)) * self.dims.dim**0.5, raw

    def states(
        self, slices: PaddedSlices, merged_SRD: Tensor | None = None, has_merged_S: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """States after the transformer, embedded events and raw item embeddings, all (S, L, D) float32.

        Args:
            slices: L may be shorter than `dims.slice_events`.
            merged_SRD: the memory before each slice, where it enters the encoder; None for no memory.
            has_merged_S: whether there is one.

        Raises:
            ValueError: if the events before have other than `dims.context_events` places.
        """
        if slices.context_item_rows_SC.shape[1] != self.dims.context_events:
            raise ValueError(
                f"contexts have {slices.context_item_rows_SC.shape[1]} places, the model takes "
                f"{self.dims.context_events}; read slices with as many"
            )
        tokens_SLD, raw_SLD = self.tokens(slices.item_rows_SL, slices.type_rows_SL, slices.gap_rows_SL)
        past = self._past(slices, merged_SRD, has_merged_S)
        states_SLD = dropped(tokens_SLD, self.dropout, self.training)
        if self.backbone is not None:
            states_SLD = self.backbone(states_SLD, past.prefix_SPD(), ~past.absent_SP)
        mask = past.mask(states_SLD.shape[1])
        for block in self.blocks:
            states_SLD = block(states_SLD, past, mask)
        return self.final_norm(states_SLD), tokens_SLD, raw_SLD

    def _past(self, slices: PaddedSlices, merged_SRD: Tensor | None, has_merged_S: Tensor | None) -> Past:
        context_SCD, _ = self.tokens(
            slices.context_item_rows_SC, slices.context_type_rows_SC, slices.context_gap_rows_SC
        )
        if self.dims.context_events:
            context_SCD = dropped(context_SCD, self.dropout, self.training)
        if self.context_norm is not None:
            context_SCD = self.context_norm(context_SCD)
        absent_SC = slices.context_item_rows_SC == PAD_ROW
        if not self.memory_enters:
            return Past(context_SCD, None, absent_SC)
        if merged_SRD is None or has_merged_S is None:
            merged_SRD = context_SCD.new_zeros(len(absent_SC), self.dims.num_memory_rows, self.dims.dim)
            has_merged_S = absent_SC.new_zeros(len(absent_SC))
        absent_SR = (~has_merged_S)[:, None].expand(-1, merged_SRD.shape[1])
        return Past(context_SCD, self.memory_norm(merged_SRD), torch.cat([absent_SR, absent_SC], dim=1))

    def pooled(self, states_SLD: Tensor, raw_SLD: Tensor, lengths_S: Tensor) -> tuple[Tensor, Tensor]:
        """What is left of each slice: (S, 3·D) pooled values and the (S, D) state at its last event."""
        num_slices, num_places, _ = states_SLD.shape
        places_L = torch.arange(num_places, device=states_SLD.device)
        real_SL1 = (places_L < lengths_S[:, None]).unsqueeze(2).to(states_SLD.dtype)
        share_S1 = 1.0 / lengths_S[:, None].to(states_SLD.dtype)
        mean_states_SD = (states_SLD * real_SL1).sum(1) * share_S1
        mean_items_SD = (raw_SLD * real_SL1).sum(1) * (share_S1 * self.dims.dim**0.5)
        rows_S = torch.arange(num_slices, device=states_SLD.device)
        last_SD = states_SLD[rows_S, lengths_S - 1]
        return torch.cat([mean_states_SD, mean_items_SD, last_SD], dim=1), last_SD

    def codes(self, pooled_SP: Tensor) -> tuple[Tensor, Tensor]:
        """(S, D) codes C = A(X) and the (S, X) summaries X they stand for."""
        summary_SX = self.summary(pooled_SP)
        return self.coder(summary_SX), summary_SX

    def reconstruction_loss(self, codes_SD: Tensor, summary_SX: Tensor) -> Tensor:
        """Mean squared error of R = D(C) against X; X is held still, so that it cannot shrink to please."""
        return F.mse_loss(self.decoder(codes_SD), summary_SX.detach())

    def memory_vectors(self, merged_NRD: Tensor, has_merged_N: Tensor) -> Tensor | None:
        """(N, D): the memory in one vector, a learned one where there is none; None where it is read elsewhere."""
        if self.memory_enters or not self.dims.num_memory_rows:
            return None
        projected_ND = self.memory_in(merged_NRD.flatten(1))
        return torch.where(has_merged_N[:, None], projected_ND, self.no_memory.to(projected_ND.dtype))

    def user_vectors(self, locals_ND: Tensor, memory_ND: Tensor | None) -> Tensor:
        """(N, D) user vectors of local states and `memory_vectors`."""
        if memory_ND is None:
            return locals_ND
        both_N2D = torch.cat([locals_ND, memory_ND], dim=1)
        mixed_ND = torch.sigmoid(self.gate(both_N2D)) * self.mixer(both_N2D)
        users_ND: Tensor = self.user_norm(locals_ND + memory_ND + mixed_ND)
        return users_ND


def _new_backbone(dims: ModelDims) -> SequenceBackbone | None:
    if dims.backbone is None:
        return None
    # The library takes seconds and 200 MB to import; models without a backbone have no use for it.
    from encoders.backbone import backbone_from_config

    return backbone_from_config(dims.backbone, dims.dim)


def _two_layers(dim_in: int, dim_hidden: int, dim_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim_hidden), nn.GELU(), nn.Linear(dim_hidden, dim_out))
