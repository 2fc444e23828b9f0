"""The network: a causal transformer over one slice, an autoencoder of its summary, and the user vector.

Shapes: S slices, L events, D dimensions, X summary dimensions (2·D), H half-lives, N rows of any kind,
V rows of the item table.

Padding is on the right and attention is causal, so padded places can influence no real one; the pooled
summary masks them out. That is all the masking there is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.spec import ModelDims
from encoders.vocabulary import PAD_ROW

# Embeddings start small, as the output layer is tied to them: logits then begin near uniform.
EMBEDDING_STD = 0.02
# No code of this program merges over less: below a millisecond all slices but the last would vanish.
MIN_HALF_LIFE_MS = 1.0


class Block(nn.Module):
    """One pre-norm transformer block with causal attention over the L places of a slice."""

    def __init__(self, dim: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.dropout = dropout
        self.attention_norm = nn.LayerNorm(dim)
        self.queries_keys_values = nn.Linear(dim, 3 * dim)
        self.attention_out = nn.Linear(dim, dim)
        self.feed_norm = nn.LayerNorm(dim)
        self.feed_in = nn.Linear(dim, 4 * dim)
        self.feed_out = nn.Linear(4 * dim, dim)

    def forward(self, states_SLD: Tensor) -> Tensor:
        """(S, L, D) float32 in and out."""
        states_SLD = states_SLD + self._dropped(self._attended(self.attention_norm(states_SLD)))
        hidden = F.gelu(self.feed_in(self.feed_norm(states_SLD)))
        return states_SLD + self._dropped(self.feed_out(hidden))

    def _attended(self, normed_SLD: Tensor) -> Tensor:
        num_slices, num_places, dim = normed_SLD.shape
        split = self.queries_keys_values(normed_SLD)
        split = split.view(num_slices, num_places, 3, self.num_heads, dim // self.num_heads)
        queries, keys, values = split.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(
            queries, keys, values, is_causal=True, dropout_p=self.dropout if self.training else 0.0
        )
        attended: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(num_slices, num_places, dim))
        return attended

    def _dropped(self, values: Tensor) -> Tensor:
        return F.dropout(values, self.dropout, self.training)


class SliceModel(nn.Module):
    """Slice transformer, autoencoder and user vector in one module.

    Args:
        dims: the tensors' shapes.
        half_lives_ms: H initial half-lives, in milliseconds; learned in log space from there.
        dropout: share of values dropped in training.

    Source: SASRec (arXiv 1808.09781) for the causal transformer with tied output, pre-norm placement from
    arXiv 2002.04745; merging by decayed sums and the reconstruction term are this project's own.
    """

    def __init__(self, dims: ModelDims, half_lives_ms: Sequence[float], dropout: float = 0.0) -> None:
        super().__init__()
        if len(half_lives_ms) != dims.num_half_lives:
            raise ValueError(f"{len(half_lives_ms)} half-lives given, dims say {dims.num_half_lives}")
        dim = dims.dim
        self.dims = dims
        self.dropout = dropout
        self.items = nn.Embedding(dims.num_item_rows, dim)
        self.types = nn.Embedding(dims.num_type_rows, dim)
        self.gaps = nn.Embedding(dims.num_gap_rows, dim)
        self.positions = nn.Parameter(torch.empty(dims.slice_events, dim))
        self.blocks = nn.ModuleList(Block(dim, dims.num_heads, dropout) for _ in range(dims.num_layers))
        self.final_norm = nn.LayerNorm(dim)
        self.summary = nn.Linear(3 * dim, dims.summary_dim)
        self.coder = _two_layers(dims.summary_dim, dims.summary_dim, dim)
        self.decoder = _two_layers(dim, dims.summary_dim, dims.summary_dim)
        self.log_half_lives_ms = nn.Parameter(torch.tensor(list(half_lives_ms), dtype=torch.float32).log())
        self.memory_in = nn.Linear(dims.num_half_lives * dim, dim)
        self.no_memory = nn.Parameter(torch.zeros(dim))
        self.gate = nn.Linear(2 * dim, dim)
        self.mixer = _two_layers(2 * dim, 2 * dim, dim)
        self.user_norm = nn.LayerNorm(dim)
        for weight in (self.items.weight, self.types.weight, self.gaps.weight, self.positions):
            nn.init.normal_(weight, std=EMBEDDING_STD)
        with torch.no_grad():
            self.items.weight[PAD_ROW].zero_()

    def half_lives_ms(self) -> Tensor:
        """(H,) float32 half-lives in milliseconds, never below `MIN_HALF_LIFE_MS`."""
        return self.log_half_lives_ms.exp().clamp_min(MIN_HALF_LIFE_MS)

    def states(self, item_rows_SL: Tensor, type_rows_SL: Tensor, gap_rows_SL: Tensor) -> tuple[Tensor, Tensor]:
        """States after the transformer and the raw item embeddings, both (S, L, D) float32.

        All arguments are int64 rows of their tables; L may be shorter than `dims.slice_events`.
        """
        raw_SLD = self.items(item_rows_SL)
        num_places = item_rows_SL.shape[1]
        tokens_SLD = raw_SLD + self.types(type_rows_SL) + self.gaps(gap_rows_SL) + self.positions[:num_places]
        # Embeddings start at a scale of 0.02; blocks expect inputs of order one.
        states_SLD = F.dropout(tokens_SLD * self.dims.dim**0.5, self.dropout, self.training)
        for block in self.blocks:
            states_SLD = block(states_SLD)
        return self.final_norm(states_SLD), raw_SLD

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

    def memory_vectors(self, merged_NHD: Tensor, has_merged_N: Tensor) -> Tensor:
        """(N, D): merged codes of all half-lives in one vector, a learned one where there are none."""
        projected_ND = self.memory_in(merged_NHD.flatten(1))
        return torch.where(has_merged_N[:, None], projected_ND, self.no_memory)

    def user_vectors(self, locals_ND: Tensor, memory_ND: Tensor) -> Tensor:
        """(N, D) user vectors of local states and `memory_vectors`."""
        both_N2D = torch.cat([locals_ND, memory_ND], dim=1)
        mixed_ND = torch.sigmoid(self.gate(both_N2D)) * self.mixer(both_N2D)
        users_ND: Tensor = self.user_norm(locals_ND + memory_ND + mixed_ND)
        return users_ND


def _two_layers(dim_in: int, dim_hidden: int, dim_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim_hidden), nn.GELU(), nn.Linear(dim_hidden, dim_out))


def decayed_means(codes_UKD: Tensor, log_weights_UK: Tensor, ends_ms_UK: Tensor, half_lives_ms_H: Tensor) -> Tensor:
    """Merged memory before each slice, for all users and half-lives at once, with gradients.

    The decayed mean over earlier slices is a softmax of ``log w_j - ln 2 · (t_{k-1} - t_j) / h``.

    Args:
        codes_UKD: float32 codes in the order of the slices.
        log_weights_UK: float32 logarithms of the slice weights.
        ends_ms_UK: int64 end times, rising with k.
        half_lives_ms_H: float32.

    Returns:
        (U, K, H, D) float32; zeros at k = 0, where there is nothing to merge. O(U·K²·(H + D)).
    """
    num_slices = codes_UKD.shape[1]
    before_KK = torch.ones(num_slices, num_slices, dtype=torch.bool, device=codes_UKD.device).tril(-1)
    ages_ms_UKK = (ends_ms_UK.roll(1, 1)[:, :, None] - ends_ms_UK[:, None, :]).clamp_min(0).float()
    ages_UHKK = ages_ms_UKK[:, None] / half_lives_ms_H[:, None, None]
    logits_UHKK = log_weights_UK[:, None, None, :] - 0.6931471805599453 * ages_UHKK
    shares_UHKK = logits_UHKK.masked_fill(~before_KK, torch.finfo(torch.float32).min).softmax(-1)
    shares_UHKK = shares_UHKK * before_KK
    return torch.einsum("uhkj,ujd->ukhd", shares_UHKK, codes_UKD)
