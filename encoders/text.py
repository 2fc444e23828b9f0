"""Texts to vectors with any text model of the transformers library: the mean of its last states over a text's tokens.

Shapes: N texts, L tokens of the longest, T dimensions of the model.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from encoders.contract import Float32Array
from encoders.pretrained import PretrainedModelError, fingerprint, is_plain, load_pretrained, locate, merged, with_lora
from encoders.training_config import LoraSettings
from encoders.vector_cache import VectorCache, content_key

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_TOKENS = 256
"""Tokens of a text that are read; titles have ten, descriptions a hundred or two."""

TOKENS_AT_A_TIME = 8192
"""Padded tokens of one batch; their states take some 200 MB in a model of BERT-base's size."""


class TransformerText:
    """A text model with its tokenizer, behind a cache. Made by `TransformerText.load`.

    Args:
        model: takes token ids, gives last states.
        tokenizer: the model's own.
        cache: where vectors are kept; None computes every text every time.

    >>> TransformerText.load("folder/with/a/model").encode(["Iron Man (2008)"]).shape  # doctest: +SKIP
    (1, 384)
    """

    def __init__(self, model: PreTrainedModel, tokenizer: Any, cache: VectorCache | None = None) -> None:
        self.dim = int(model.config.hidden_size)
        self._model: nn.Module = model.requires_grad_(False)
        self._tokenizer = tokenizer
        self._cache = cache
        places = getattr(model.config, "max_position_embeddings", None) or MAX_TOKENS
        # RoBERTa and its kin number places from 2.
        self._max_tokens = max(1, min(MAX_TOKENS, int(places) - 2, int(tokenizer.model_max_length)))
        self._identity: str | None = None

    @classmethod
    def load(cls, source: str, *, cache: VectorCache | None = None, allow_download: bool = False) -> TransformerText:
        """Read model and tokenizer.

        Args:
            source: a folder, ``package:NAME`` or a hub name, see `encoders.pretrained.locate`.
            cache: where vectors are kept.
            allow_download: whether a hub name may be fetched.

        Raises:
            PretrainedModelError: if there is no such model, it reads no text, or no tokenizer is with it.
        """
        from transformers import AutoTokenizer

        model = _text_part(load_pretrained(source, allow_download=allow_download), source)
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                locate(source), local_files_only=not allow_download, trust_remote_code=False
            )
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise PretrainedModelError(
                f"{source!r}: has no readable tokenizer ({str(error).strip()[:200]}); expected tokenizer.json "
                f"beside the weights"
            ) from error
        num_tokens, num_rows = len(tokenizer.get_vocab()), int(model.config.vocab_size)
        # Where its files are missing the library makes up a tokenizer that knows hardly any token.
        if not num_rows // 2 < num_tokens <= num_rows:
            raise PretrainedModelError(
                f"{source!r}: its tokenizer knows {num_tokens} tokens, its model {num_rows}; fetch both again"
            )
        return cls(model, tokenizer, cache)

    @property
    def identity(self) -> str:
        """Hash of all that decides a vector: configuration, weights, tokenizer and how much of a text is read."""
        if self._identity is None:
            words = repr(sorted(self._tokenizer.get_vocab().items())).encode()
            self._identity = fingerprint(merged(self._model), words, str(self._max_tokens).encode())
        return self._identity

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """(N, T) float32; zeros for a text without tokens. Each different text is computed at most once."""
        keys = [content_key(text.encode()) for text in texts]
        distinct = dict(zip(keys, texts, strict=True))
        known = self._cache.get(self.identity, list(distinct), self.dim) if self._cache else {}
        missing = [key for key in distinct if key not in known]
        fresh = dict(zip(missing, self._computed([distinct[key] for key in missing]), strict=True))
        if self._cache and fresh:
            self._cache.put(self.identity, fresh)
        known |= fresh
        return np.stack([known[key] for key in keys]) if keys else np.zeros((0, self.dim), dtype=np.float32)

    @torch.inference_mode()
    def _computed(self, texts: Sequence[str]) -> Float32Array:
        self._model.eval()
        vectors_NT = np.zeros((len(texts), self.dim), dtype=np.float32)
        ids = self._token_ids(texts)
        for rows in batches_by_length([len(one) for one in ids], TOKENS_AT_A_TIME):
            vectors_NT[rows] = self._pooled([ids[row] for row in rows]).numpy()
        return vectors_NT

    def vectors(self, texts: Sequence[str]) -> Tensor:
        """(N, T) float32 with gradients to whatever is trainable (`LoRA`), in one batch, past the cache."""
        return self._pooled(self._token_ids(texts))

    def _token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        if not texts:
            return []
        ids: list[list[int]] = self._tokenizer(list(texts), truncation=True, max_length=self._max_tokens)["input_ids"]
        return ids

    def _pooled(self, ids: Sequence[Sequence[int]]) -> Tensor:
        """Masked mean over the tokens; padding is on the right and masked, whatever the tokenizer would do."""
        lengths_N = torch.tensor([len(one) for one in ids])
        num_places = max(1, int(lengths_N.max()))
        ids_NL = torch.tensor([[*one, *[0] * (num_places - len(one))] for one in ids])
        mask_NL = (torch.arange(num_places) < lengths_N[:, None]).long()
        # A text without tokens attends to one padded place, so that nothing is divided by zero, and is zeroed below.
        attended_NL = torch.cat([torch.ones_like(mask_NL[:, :1]), mask_NL[:, 1:]], dim=1)
        states_NLT: Tensor = self._model(input_ids=ids_NL, attention_mask=attended_NL).last_hidden_state
        sums_NT = (states_NLT * mask_NL.unsqueeze(2)).sum(1)
        return sums_NT / lengths_N.clamp_min(1)[:, None]

    def add_lora(self, settings: LoraSettings) -> list[nn.Parameter]:
        """Put adapters on every linear layer and return them; nothing else of the model will be trained."""
        assert is_plain(self._model), "adapters are there already; call `merge_lora` first"
        self._identity = None
        self._model = with_lora(self._model, settings).train()
        return [weight for weight in self._model.parameters() if weight.requires_grad]

    def merge_lora(self) -> None:
        """Add the adapters into the weights for good; the encoder is another one from here on."""
        self._model = merged(self._model).requires_grad_(False)
        self._model.train(False)
        self._identity = None

    def save(self, folder: Path) -> None:
        """Write model and tokenizer so that `load` gives the same vectors: safetensors and JSON. Adapters are merged.

        For a model that was fine-tuned; it belongs into the folder of the model whose items it reads.
        """
        self.merge_lora()
        assert is_plain(self._model)
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def _text_part(model: PreTrainedModel, source: str) -> PreTrainedModel:
    """The part of a model that reads text: the encoder of one that also writes, the text side of one with images."""
    if getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    part = getattr(model, "text_model", model)
    if not is_plain(part) or part.main_input_name != "input_ids":
        raise PretrainedModelError(f"{source!r}: a {model.config.model_type} model reads no text; name a text model")
    return part


def batches_by_length(lengths: Sequence[int], tokens_at_a_time: int) -> Iterator[list[int]]:
    """Rows in batches of like length, each at most so many tokens when padded to its longest; one row may exceed it.

    >>> list(batches_by_length([5, 1, 2, 9], 6))
    [[1, 2], [0], [3]]
    """
    batch: list[int] = []
    for row in sorted(range(len(lengths)), key=lambda row: lengths[row]):
        if batch and (len(batch) + 1) * lengths[row] > tokens_at_a_time:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
