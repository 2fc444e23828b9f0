"""The item tower: what an item is to the model, from its id and from what the catalogue says of it.

    item = id ⊕ out(gelu(norm(words + categories + price + A·text + B·image)))

Each part that is missing adds nothing. In training parts are dropped at random, ids among them, so that an item with
a text only, a picture only, or nothing but an id has a place. Without any features this is a table of embeddings.

Shapes: V rows of the table, N items of any kind, D dimensions, W words, C categories, T and I of the vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoders.item_features import FeatureSpec, ItemFeatures, no_features
from encoders.vocabulary import FIRST_NAME_ROW

# The tower's output starts as small as id embeddings do, see `encoders.transformer.EMBEDDING_STD`.
OUTPUT_STD = 0.02
# What training never sees stays as it starts: small, so that it drowns nothing that was learned.
UNSEEN_STD = 0.02
# Vectors of texts and pictures whose entries differ by less say the same: float16 keeps three digits.
SAME_SHARE = 2e-3


@dataclass(frozen=True)
class PartDropout:
    """Shares of items that lose a part in a training step.

    Args:
        ids: lose their id embedding, if they have any content; what is left is what a new item would be.
        parts: lose one kind of content, for each kind.
    """

    ids: float = 0.2
    parts: float = 0.1


class ContentTower(nn.Module):
    """Vectors of items from their features alone."""

    def __init__(self, spec: FeatureSpec, dim: int, part_dropout: float) -> None:
        super().__init__()
        self.part_dropout = part_dropout
        self.words = _bag(spec.word_buckets, dim)
        self.categories = _bag(spec.category_buckets, dim)
        self.prices = _bag(len(spec.price_edges) + 1 if spec.price_edges else 0, dim)
        self.texts = _projection(spec.text_dim, dim)
        self.images = _projection(spec.image_dim, dim)
        self.norm = nn.LayerNorm(dim)
        self.hidden = nn.Linear(dim, dim)
        self.out = nn.Linear(dim, dim, bias=False)
        nn.init.normal_(self.out.weight, std=OUTPUT_STD)

    def forward(self, features: dict[str, Tensor]) -> Tensor:
        """(N, D) of the tensors of `ItemFeatures`; zeros for items without any feature."""
        parts_ND = [
            self._kept(part(_input(features[name])), _present(features[name])) for name, part in self._parts().items()
        ]
        hidden_ND = F.gelu(self.hidden(self.norm(torch.stack(parts_ND).sum(0))))
        vectors_ND: Tensor = self.out(hidden_ND) * _any_present(features)[:, None]
        return vectors_ND

    def _parts(self) -> dict[str, nn.Module]:
        parts = {
            "words_NW": self.words,
            "categories_NC": self.categories,
            "prices_N": self.prices,
            "texts_NT": self.texts,
            "images_NI": self.images,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def _kept(self, part_ND: Tensor, present_N: Tensor) -> Tensor:
        """A part where it is present and, in training, not dropped."""
        if self.training and self.part_dropout:
            present_N = present_N & (torch.rand(len(present_N), device=present_N.device) >= self.part_dropout)
        return part_ND * present_N[:, None]


def _bag(num_buckets: int, dim: int) -> nn.EmbeddingBag | None:
    """Mean of the vectors of an item's buckets, 0 being none."""
    if not num_buckets:
        return None
    bag = nn.EmbeddingBag(num_buckets + 1, dim, mode="mean", padding_idx=0)
    with torch.no_grad():
        bag.weight.mul_(UNSEEN_STD)
    return bag


def _projection(dim_in: int, dim: int) -> nn.Sequential | None:
    """Into D, from vectors that models make of very different lengths."""
    return nn.Sequential(nn.LayerNorm(dim_in, elementwise_affine=False), nn.Linear(dim_in, dim)) if dim_in else None


def _input(feature: Tensor) -> Tensor:
    return feature[:, None] if feature.ndim == 1 else feature


def _present(feature: Tensor) -> Tensor:
    return _input(feature).ne(0).any(1)


def _any_present(features: dict[str, Tensor]) -> Tensor:
    return torch.stack([_present(feature) for feature in features.values()]).any(0)


def _is_same(trained: Tensor, told: Tensor) -> Tensor:
    """(N,) whether two features say the same; those that models made may differ in the last digits, and be stored in
    half the digits."""
    return torch.isclose(_input(trained).float(), _input(told).float(), rtol=SAME_SHARE, atol=SAME_SHARE).all(1)


class ItemTower(nn.Module):
    """The item table of a model, from ids and features; a plain embedding where there are no features.

    `weight`, the id embeddings, is the only parameter then, named as that of `nn.Embedding` and made with the same
    random numbers.

    Args:
        num_rows: V, padding and unknown included.
        dim: D.
        spec: which features there are.
        features: of all rows but the first two; None where they are loaded afterwards, with the weights.
        dropout: of parts, in training.

    Raises:
        ValueError: if the features do not fit the spec or the rows.
    """

    def __init__(
        self,
        num_rows: int,
        dim: int,
        spec: FeatureSpec | None = None,
        features: ItemFeatures | None = None,
        dropout: PartDropout | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec or FeatureSpec()
        self.dropout = dropout or PartDropout()
        self.weight = nn.Parameter(torch.empty(num_rows, dim))
        nn.init.normal_(self.weight)
        self.content = None if self.spec.is_empty else ContentTower(self.spec, dim, self.dropout.parts)
        self._frozen_VD: Tensor | None = None
        if self.content is not None:
            num_items = num_rows - FIRST_NAME_ROW
            features = no_features(num_items, self.spec) if features is None else features
            if len(features) != num_items:
                raise ValueError(f"features of {len(features)} items, expected {num_items}")
            for name, values in self._tensors(features).items():
                self.register_buffer(name, F.pad(values, (0, 0) * (values.ndim - 1) + (FIRST_NAME_ROW, 0)))

    def table(self) -> Tensor:
        """(V, D) vectors of all rows, with gradients. O(V) with features, else free."""
        if self.content is None:
            return self.weight
        if self._frozen_VD is not None:
            return self._frozen_VD
        return self._fused(self.weight, {name: getattr(self, name) for name in _FEATURE_NAMES})

    def embed(self, rows: Tensor) -> Tensor:
        """(..., D) vectors of int64 rows of any shape, with gradients. O(different rows)."""
        if self.content is None or self._frozen_VD is not None:
            return F.embedding(rows, self.table())
        distinct_R, places = torch.unique(rows, return_inverse=True)
        features = {name: getattr(self, name)[distinct_R] for name in _FEATURE_NAMES}
        return F.embedding(places, self._fused(self.weight[distinct_R], features))

    def forward(self, rows: Tensor) -> Tensor:
        """The same as `embed`."""
        return self.embed(rows)

    def new_items(self, features: ItemFeatures) -> Tensor:
        """(N, D) vectors of items that were never trained, from their features alone; zeros where there are none.

        Raises:
            ValueError: if the features do not fit the spec.
        """
        return self.vectors_of(*(values.to(self.weight.device) for values in self._tensors(features).values()))

    def vectors_of(self, *features: Tensor) -> Tensor:
        """(N, D) of the arrays of `ItemFeatures` as tensors, in their order."""
        if self.content is None:
            return self.weight.new_zeros(len(features[0]), self.weight.shape[1])
        vectors_ND: Tensor = self.content(dict(zip(_FEATURE_NAMES, features, strict=True)))
        return vectors_ND

    def told(self, rows_N: Tensor, content_ND: Tensor, *features: Tensor) -> Tensor:
        """(N, D) vectors of trained items, as these features are told of them now.

        Where they are those of the training, or say nothing, the vectors stay as trained; else they are id embeddings
        and what `vectors_of` made of the features.

        Args:
            rows_N: int64, of the trained items.
            content_ND: from `vectors_of`.
            features: the arrays of `ItemFeatures` as tensors, in their order.
        """
        trained_ND = self.table()[rows_N]
        if self.content is None:
            return trained_ND
        told = dict(zip(_FEATURE_NAMES, features, strict=True))
        is_same_N = torch.stack([_is_same(getattr(self, name)[rows_N], told[name]) for name in told]).all(0)
        is_kept_N = is_same_N | ~_any_present(told)
        return torch.where(is_kept_N[:, None], trained_ND, self.weight[rows_N] + content_ND)

    def freeze(self) -> None:
        """Compute the table once and for all, where the weights are now and will stay as they are."""
        if self.content is None:
            return
        self._frozen_VD = None
        self.eval()
        with torch.no_grad():
            self._frozen_VD = self.table()

    def train(self, mode: bool = True) -> ItemTower:
        """Switch to training or evaluation; a frozen table is dropped in training."""
        if mode:
            self._frozen_VD = None
        super().train(mode)
        return self

    def _fused(self, ids_ND: Tensor, features: dict[str, Tensor]) -> Tensor:
        assert self.content is not None
        content_ND: Tensor = self.content(features)
        if self.training and self.dropout.ids:
            dropped_N = _any_present(features) & (torch.rand(len(ids_ND), device=ids_ND.device) < self.dropout.ids)
            ids_ND = ids_ND.masked_fill(dropped_N[:, None], 0.0)
        return ids_ND + content_ND

    def _tensors(self, features: ItemFeatures) -> dict[str, Tensor]:
        self.check(features)
        return {name: torch.from_numpy(getattr(features, name)) for name in _FEATURE_NAMES}

    def check(self, features: ItemFeatures) -> None:
        """Refuse features that the tower's tables do not hold.

        Raises:
            ValueError: if a bucket, a width or a value does not fit the spec.
        """
        spec = self.spec
        for name, most in (
            ("words_NW", spec.word_buckets),
            ("categories_NC", spec.category_buckets),
            ("prices_N", len(spec.price_edges) + 1 if spec.price_edges else 0),
        ):
            buckets = getattr(features, name)
            if buckets.size and not 0 <= buckets.min() <= buckets.max() <= most:
                raise ValueError(f"{name} runs from {buckets.min()} to {buckets.max()}, expected 0 to {most}")
        for name, width in (
            ("words_NW", spec.words_per_item),
            ("categories_NC", spec.categories_per_item),
            ("texts_NT", spec.text_dim),
            ("images_NI", spec.image_dim),
        ):
            values = getattr(features, name)
            if values.shape[1] != width or not np.isfinite(values).all():
                raise ValueError(f"{name} has shape {values.shape}, expected {width} finite values for each item")


_FEATURE_NAMES = tuple(field.name for field in fields(ItemFeatures))
