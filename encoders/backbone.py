"""A sequence model of the transformers library in place of this project's own blocks.

Any architecture that takes `inputs_embeds` and lets no place look ahead will do: with random weights from a
configuration, or with pretrained ones, trained in full or through LoRA. Token embeddings are not used: events come in
as vectors, states go out as vectors, with a linear layer on either side where the widths differ.

Shapes: S slices, L events, D dimensions of this model, B of the backbone, P places of a prefix.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from encoders.pretrained import PretrainedModelError, config_of, is_plain, load_pretrained, merged, with_lora
from encoders.training_config import BackboneSettings

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

# Special tokens that most configurations name; there are no tokens here.
NO_TOKENS = ("bos_token_id", "eos_token_id")
# RoBERTa and its kin number places from their padding token, 1, so it has to stay. Where it is a token of a large
# vocabulary it has no such meaning, and would keep that table alive.
MOST_PADDING_TOKEN = 7


class SequenceBackbone(nn.Module):
    """A causal sequence model over event vectors. Made by `make_backbone` or `backbone_from_config`.

    Args:
        model: of the library, without token embeddings.
        dim: D.
    """

    def __init__(self, model: PreTrainedModel, dim: int) -> None:
        super().__init__()
        # The library's other implementations take another way when no slice of a batch is padded. Nobody promises that
        # both round alike, and a slice's bytes must not depend on its companions.
        model.set_attn_implementation("eager")
        width = int(model.config.hidden_size)
        self.inward = nn.Linear(dim, width) if width != dim else nn.Identity()
        self.model: nn.Module = model
        self.outward = nn.Linear(width, dim) if width != dim else nn.Identity()

    def forward(self, tokens_SLD: Tensor, prefix_SPD: Tensor | None = None, mask_SP: Tensor | None = None) -> Tensor:
        """States of a slice's events, each seeing those before it and the prefix.

        Args:
            tokens_SLD: float32, padded on the right; a padded place is seen by no real one.
            prefix_SPD: float32 vectors that come before the slice, if there are any.
            mask_SP: bool, which places of the prefix are real; needed with a prefix.

        Returns:
            (S, L, D) float32.
        """
        if not len(tokens_SLD):
            return tokens_SLD  # several models of the library cannot do with no row
        inputs_SPD = tokens_SLD if prefix_SPD is None else torch.cat([prefix_SPD, tokens_SLD], dim=1)
        mask = None
        if mask_SP is not None:
            mask = torch.cat([mask_SP, mask_SP.new_ones(tokens_SLD.shape[:2])], dim=1).long()
        # Positions are told apart by place, not by what the mask leaves, so that a slice's first event has one place.
        outputs = self.model(inputs_embeds=self.inward(inputs_SPD), attention_mask=mask, use_cache=False)
        states_SLD: Tensor = self.outward(outputs.last_hidden_state[:, -tokens_SLD.shape[1] :])
        return states_SLD

    def config(self) -> dict[str, Any]:
        """The configuration from which `backbone_from_config` makes the same shapes, as JSON values."""
        inner = self.model if is_plain(self.model) else self.model.get_base_model()  # type: ignore[operator]
        return config_of(inner)

    def merge_lora(self) -> None:
        """Add adapters into the weights for good, so that the names of the tensors are those of the plain model."""
        self.model = merged(self.model)


def make_backbone(
    settings: BackboneSettings, dim: int, num_places: int, *, allow_download: bool = False
) -> SequenceBackbone:
    """A backbone to be trained.

    Args:
        settings: which one.
        dim: D.
        num_places: most places it will see at once, prefix included.
        allow_download: whether a hub name may be fetched.

    Raises:
        PretrainedModelError: if it cannot be read, has fewer places, takes no vectors, or looks ahead.
    """
    name = settings.source or str(settings.config.get("model_type"))
    if settings.source is None:
        model = _from_config(dict(settings.config))
    else:
        model = load_pretrained(settings.source, allow_download=allow_download)
    _check_places(model, name, num_places)
    model = _causal(model, name, num_places)
    _drop_tokens(model)
    backbone = SequenceBackbone(model, dim)
    if settings.tuning == "lora":
        backbone.model = with_lora(model, settings.lora)
    return backbone


def backbone_from_config(config: Mapping[str, Any], dim: int) -> SequenceBackbone:
    """A backbone with random weights in the shapes that `SequenceBackbone.config` told of, to load weights into.

    Raises:
        PretrainedModelError: if the configuration is none the library knows.
    """
    model = _from_config(dict(config))
    _drop_tokens(model)
    return SequenceBackbone(model, dim)


def _from_config(fields: dict[str, Any]) -> PreTrainedModel:
    from transformers import AutoConfig, AutoModel

    model_type = fields.pop("model_type", None)
    try:
        config: PreTrainedConfig = AutoConfig.for_model(
            model_type, **{"vocab_size": MOST_PADDING_TOKEN + 1, **dict.fromkeys(NO_TOKENS), **fields}
        )
        model: PreTrainedModel = AutoModel.from_config(config, trust_remote_code=False, dtype=torch.float32)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, RuntimeError) as error:
        raise PretrainedModelError(
            f"backbone of model_type {model_type!r}: the configuration makes no model ({str(error).strip()[:200]}); "
            f"expected the fields of a configuration of transformers"
        ) from error
    return model


def _causal(model: PreTrainedModel, name: str, num_places: int) -> PreTrainedModel:
    """The model itself if no place sees a later one; else as a decoder, where its architecture has that.

    Raises:
        PretrainedModelError: if it looks ahead in either form, or takes no vectors.
    """
    if not _looks_ahead(model, name, num_places):
        return model
    if hasattr(model.config, "is_decoder"):
        model.config.is_decoder = True
        decoder: PreTrainedModel = type(model)(model.config)
        decoder.load_state_dict(model.state_dict())
        if not _looks_ahead(decoder, name, num_places):
            return decoder
    raise PretrainedModelError(
        f"{name!r}: a {model.config.model_type} model sees later events when it encodes earlier ones, so it would be "
        f"trained on the answers; take a causal model, like gpt2, llama or qwen2"
    )


def _looks_ahead(model: PreTrainedModel, name: str, num_places: int) -> bool:
    """Whether a state depends on a later input: by the gradient, which is exactly zero where a mask is."""
    was_training = model.training
    model.train(False)
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(1, num_places, int(model.config.hidden_size), generator=generator).requires_grad_()
    try:
        states = model(inputs_embeds=inputs, use_cache=False).last_hidden_state
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise PretrainedModelError(
            f"{name!r}: a {model.config.model_type} model does not turn {num_places} vectors into states "
            f"({str(error).strip()[:200]}); take a sequence model with `inputs_embeds`, like gpt2, llama or qwen2"
        ) from error
    earlier = states[:, :-1] * torch.randn(states[:, :-1].shape, generator=generator)
    (gradient,) = torch.autograd.grad(earlier.sum(), inputs)
    model.train(was_training)
    return bool((gradient[:, -1] != 0).any())


def _check_places(model: PreTrainedModel, name: str, num_places: int) -> None:
    most = getattr(model.config, "max_position_embeddings", None)
    if most is not None and most < num_places:
        raise PretrainedModelError(
            f"{name!r}: has {most} places, {num_places} are needed; take a longer model or shorter slices"
        )


def _drop_tokens(model: PreTrainedModel) -> None:
    """Take out the table of token embeddings, by far the largest tensor of many models and of no use here."""
    padding = getattr(model.config, "pad_token_id", None)
    if padding is not None and padding > MOST_PADDING_TOKEN:
        model.config.pad_token_id = padding = None
    model.config.vocab_size = 1 + (padding or 0)
    for token in NO_TOKENS:
        setattr(model.config, token, None)
    weight = model.get_input_embeddings().weight
    assert isinstance(weight, Tensor)
    model.set_input_embeddings(nn.Embedding(model.config.vocab_size, weight.shape[1]).requires_grad_(False))
