"""Smaller arithmetic for a trained model: bfloat16, and int8 by torch's dynamic quantisation.

Both change vectors, so a compressed model is a release of its own and its vectors must meet no others. What they keep
in float32: the merge, since half-lives span nine orders of magnitude and memories are sums over years; and what item
features are made of.

int8 does not keep the runtime's promise that equal rows give equal bytes: torch scales the inputs of a product by the
largest value of the whole batch, so a row depends on its companions. It is here to be measured, not to serve a stream.

Shapes: N rows of any kind, S slices, R rows of a memory, D dimensions, P pooled values.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.ao.quantization import per_channel_dynamic_qconfig, quantize_dynamic

from encoders.padded import PaddedSlices
from encoders.transformer import SliceModel

CompressionKind = Literal["bf16", "int8"]
"""The ways in which `compressed` makes arithmetic smaller."""

KEPT = ("merge", "items")
"""Parts of a model that stay in float32; of the items it is their features alone in bf16."""


def compressed(model: SliceModel, kind: CompressionKind) -> SliceModel:
    """A copy of a model that computes with smaller numbers; float32 goes in and comes out as before.

    Args:
        model: trained, in float32; left as it is.
        kind: "bf16" rounds all weights to bfloat16 and computes with them, on any device; processors without
            instructions for it are right but slow. "int8" holds the weights of linear layers as int8 with a scale for
            each output, and rounds their inputs as they come; on the CPU only. Embeddings stay as they are.

    Returns:
        A model for inference, in evaluation mode, on the same device.

    Raises:
        ValueError: if the kind is not known, the model is compressed already, or int8 is asked for on a GPU.
    """
    if kind not in get_args(CompressionKind):
        raise ValueError(f"kind is {kind!r}, expected one of {', '.join(get_args(CompressionKind))}")
    require_plain(model)
    if kind == "bf16":
        made: SliceModel = Bf16SliceModel(model)
    else:
        made = _int8(model)
    return made.eval().requires_grad_(False)


def require_plain(model: SliceModel) -> None:
    """Refuse a model that is compressed already.

    Raises:
        ValueError: if it is.
    """
    weight = model.state_dict().get("summary.weight")
    if weight is None or weight.dtype != torch.float32:
        found = "int8" if weight is None else str(weight.dtype).removeprefix("torch.")
        raise ValueError(f"the model computes with {found}, expected float32; take the model it was made of")


def num_bytes(model: nn.Module) -> int:
    """Bytes of all weights and buffers of a model or a part of it; of int8 the scales are left out."""
    return sum(_num_bytes(value) for value in model.state_dict().values())


def _num_bytes(value: object) -> int:
    """Of a tensor, or of the tensors in a tuple, as quantised layers keep theirs."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(map(_num_bytes, value)) if isinstance(value, tuple) else 0


class Bf16SliceModel(SliceModel):
    """A model whose weights and products are bfloat16, behind the same float32 interface.

    Args:
        model: in float32.
    """

    def __init__(self, model: SliceModel) -> None:
        with torch.random.fork_rng(devices=[]):  # the weights it starts with are replaced at once
            super().__init__(model.dims, model.half_lives_ms().tolist(), model.dropout)
        self.load_state_dict(model.state_dict())
        for name, part in self.named_children():
            if name not in KEPT:
                part.bfloat16()
        self.items.weight.data = self.items.weight.data.bfloat16()
        self.to(model.device)

    def item_table(self) -> Tensor:
        """(V, D) float32 vectors of all items, as they were rounded."""
        return super().item_table().float()

    def tokens(self, item_rows: Tensor, type_rows: Tensor, gap_rows: Tensor) -> tuple[Tensor, Tensor]:
        """(..., D) bfloat16 events and item embeddings."""
        embedded, raw = super().tokens(item_rows, type_rows, gap_rows)
        return embedded.bfloat16(), raw.bfloat16()

    def states(
        self, slices: PaddedSlices, merged_SRD: Tensor | None = None, has_merged_S: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `SliceModel.states`, all three in float32."""
        merged_SRD = None if merged_SRD is None else merged_SRD.bfloat16()
        states_SLD, tokens_SLD, raw_SLD = super().states(slices, merged_SRD, has_merged_S)
        return states_SLD.float(), tokens_SLD.float(), raw_SLD.float()

    def codes(self, pooled_SP: Tensor) -> tuple[Tensor, Tensor]:
        """As `SliceModel.codes`, in float32."""
        codes_SD, summary_SX = super().codes(pooled_SP.bfloat16())
        return codes_SD.float(), summary_SX.float()

    def memory_vectors(self, merged_NRD: Tensor, has_merged_N: Tensor) -> Tensor | None:
        """As `SliceModel.memory_vectors`, in float32."""
        memory_ND = super().memory_vectors(merged_NRD.bfloat16(), has_merged_N)
        return None if memory_ND is None else memory_ND.float()

    def user_vectors(self, locals_ND: Tensor, memory_ND: Tensor | None) -> Tensor:
        """As `SliceModel.user_vectors`, in float32."""
        if memory_ND is None:
            return locals_ND
        return super().user_vectors(locals_ND.bfloat16(), memory_ND.bfloat16()).float()


def _int8(model: SliceModel) -> SliceModel:
    if model.device.type != "cpu":
        raise ValueError(f"the model is on {model.device}: int8 is for the CPU only; move it there, or take bf16")
    with _deprecations_ignored():
        made = quantize_dynamic(  # type: ignore[no-untyped-call]
            model, {nn.Linear: per_channel_dynamic_qconfig}
        )
    assert isinstance(made, SliceModel)
    made.merge, made.items = copy.deepcopy(model.merge), copy.deepcopy(model.items)
    return made


@contextmanager
def _deprecations_ignored() -> Iterator[None]:
    """torch announces that its own quantisation will go; what follows it is a package of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.ao.quantization is deprecated", DeprecationWarning)
        warnings.filterwarnings("ignore", "torch.quantize_per_tensor", UserWarning)
        yield
