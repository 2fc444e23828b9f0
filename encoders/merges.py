"""How the codes of a user's slices become one memory: every way there is, as training computes it.

All ways cost O(D) a slice, and say the same of a memory: it is some rows of D values, made of all slices before the
one at hand. ``forward`` gives it before each slice of many users at once, with gradients; `stream_app.stages.merging`
keeps the very same one slice by slice.

| kind | rows | the memory |
|---|---|---|
| none | 0 | nothing; a slice and the events before it are all there is |
| mean | 1 | weighted mean of the codes |
| decayed | H | weighted means that fade in event time, one for each learned half-life |
| gate | 1 | a vector that each code changes through learned gates |
| concat | number of codes | the newest codes themselves, newest first |
| tokens | H | as decayed, of codes that know no attention; enters the next slice's encoder as keys and values |

Shapes: U users, K slices of the longest run, R rows of the memory, H half-lives, D dimensions, N of any kind.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from encoders.spec import MEAN_HALF_LIFE_MS, ModelDims

LN_2 = 0.6931471805599453
# No code of this program merges over less: below a millisecond all slices but the last would vanish.
MIN_HALF_LIFE_MS = 1.0
# Silence enters the gate as ln(1 + milliseconds), which is 24 for a year: times this it is of order one.
GATE_AGE_SCALE = 0.05


class DecayedMeans(nn.Module):
    """Weighted means of the codes, each fading with its half-life.

    Args:
        half_lives_ms: H half-lives to start from, in milliseconds.
        are_learned: whether training changes them, in log space.
    """

    def __init__(self, half_lives_ms: Sequence[float], *, are_learned: bool) -> None:
        super().__init__()
        log_half_lives_ms = torch.tensor(list(half_lives_ms), dtype=torch.float32).log()
        if are_learned:
            self.log_half_lives_ms = nn.Parameter(log_half_lives_ms)
        else:
            self.register_buffer("log_half_lives_ms", log_half_lives_ms)

    def half_lives_ms(self) -> Tensor:
        """(H,) float32 half-lives in milliseconds, never below `MIN_HALF_LIFE_MS`."""
        return self.log_half_lives_ms.exp().clamp_min(MIN_HALF_LIFE_MS)

    def forward(self, codes_UKD: Tensor, log_weights_UK: Tensor, ends_ms_UK: Tensor) -> Tensor:
        """(U, K, H, D) float32 memory before each slice; see `decayed_means`."""
        return decayed_means(codes_UKD, log_weights_UK, ends_ms_UK, self.half_lives_ms())


def decayed_means(codes_UKD: Tensor, log_weights_UK: Tensor, ends_ms_UK: Tensor, half_lives_ms_H: Tensor) -> Tensor:
    """Decayed means over the slices before each one, for all users and half-lives at once, with gradients.

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
    logits_UHKK = log_weights_UK[:, None, None, :] - LN_2 * ages_UHKK
    shares_UHKK = logits_UHKK.masked_fill(~before_KK, torch.finfo(torch.float32).min).softmax(-1)
    shares_UHKK = shares_UHKK * before_KK
    return torch.einsum("uhkj,ujd->ukhd", shares_UHKK, codes_UKD.float())


class Gate(nn.Module):
    """One vector carried from slice to slice, changed by each code through gates that see the silence before it.

    Source: the gated recurrent unit of arXiv 1406.1078, with its reset gate on the hidden product as in cuDNN; the
    silence as one more input is this project's own.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.of_code = nn.Linear(dim + 2, 3 * dim)
        self.of_carried = nn.Linear(dim, 3 * dim)

    def forward(self, codes_UKD: Tensor, log_weights_UK: Tensor, ends_ms_UK: Tensor) -> Tensor:
        """(U, K, 1, D) float32 memory before each slice; zeros at k = 0. O(K) steps, one after the other."""
        ages_ms_UK = torch.diff(ends_ms_UK, dim=1, prepend=ends_ms_UK[:, :1]).clamp_min(0).float()
        facts_UK2 = torch.stack([GATE_AGE_SCALE * ages_ms_UK.log1p(), log_weights_UK], dim=2)
        inputs_UK3D = self.of_code(torch.cat([codes_UKD.float(), facts_UK2], dim=2))
        carried_UD = torch.zeros_like(codes_UKD[:, 0], dtype=torch.float32)
        before: list[Tensor] = []
        for inputs_U3D in inputs_UK3D.unbind(1):
            before.append(carried_UD)
            carried_UD = self.step(inputs_U3D, carried_UD)
        return torch.stack(before, dim=1)[:, :, None]

    def step(self, inputs_N3D: Tensor, carried_ND: Tensor) -> Tensor:
        """(N, D) carried vectors after one more slice, of what `of_code` says of it and those before."""
        open_in, reset_in, new_in = inputs_N3D.chunk(3, 1)
        open_of, reset_of, new_of = self.of_carried(carried_ND).chunk(3, 1)
        open_ND = torch.sigmoid(open_in + open_of)
        new_ND = torch.tanh(new_in + torch.sigmoid(reset_in + reset_of) * new_of)
        stepped_ND: Tensor = carried_ND + open_ND * (new_ND - carried_ND)
        return stepped_ND


class LastCodes(nn.Module):
    """The newest codes, as they are."""

    def __init__(self, num_codes: int) -> None:
        super().__init__()
        self.num_codes = num_codes

    def forward(self, codes_UKD: Tensor, log_weights_UK: Tensor, ends_ms_UK: Tensor) -> Tensor:
        """(U, K, number of codes, D) float32 codes before each slice, newest first; zeros where there are fewer."""
        num_users, num_slices, dim = codes_UKD.shape
        padding_UND = codes_UKD.new_zeros(num_users, self.num_codes, dim)
        padded = torch.cat([padding_UND, codes_UKD], dim=1).float()
        ages = range(1, self.num_codes + 1)
        return torch.stack([padded[:, self.num_codes - age :][:, :num_slices] for age in ages], dim=2)


class NoMemory(nn.Module):
    """Nothing is carried from slice to slice."""

    def forward(self, codes_UKD: Tensor, log_weights_UK: Tensor, ends_ms_UK: Tensor) -> Tensor:
        """(U, K, 0, D)."""
        num_users, num_slices, dim = codes_UKD.shape
        return codes_UKD.new_zeros(num_users, num_slices, 0, dim)


Merge = DecayedMeans | Gate | LastCodes | NoMemory


def new_merge(dims: ModelDims, half_lives_ms: Sequence[float]) -> Merge:
    """The merge that the dims name.

    Args:
        dims: of the model.
        half_lives_ms: `dims.num_half_lives` half-lives to start from where the merge has some; else ignored.

    Raises:
        ValueError: if there are more or fewer half-lives.
    """
    if dims.merge == "none":
        return NoMemory()
    if dims.merge == "gate":
        return Gate(dims.dim)
    if dims.merge == "concat":
        return LastCodes(dims.num_codes)
    if dims.merge == "mean":
        return DecayedMeans([MEAN_HALF_LIFE_MS], are_learned=False)
    if len(half_lives_ms) != dims.num_half_lives:
        raise ValueError(f"{len(half_lives_ms)} half-lives given, dims say {dims.num_half_lives}")
    return DecayedMeans(half_lives_ms, are_learned=True)
