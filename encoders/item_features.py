"""What is known of items, as arrays: hashed words, categories and tags, price buckets, text and image vectors.

Shapes: N items, W words, C categories and tags, T dimensions of the text model, I of the image model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from encoders.contract import Float32Array
from encoders.words import hashed_bucket, words_of

Int32Array = npt.NDArray[np.int32]

MAX_WORDS = 32
"""Words of an item that are kept, from the first on: a title, category, tags, and how a description begins."""

MAX_CATEGORIES = 16
MAX_BUCKETS = 2**17
"""Most buckets of a kind; at 64 dimensions 2^17 take 34 MB."""

MIN_BUCKETS = 2**12
"""Fewest buckets of a kind, so that a new word hardly ever falls on one that means something; 1 MB at 64 dimensions."""

BUCKETS_PER_NAME = 4
"""Buckets for each different word, category or tag, at least: at most one in four or five then shares its bucket."""

NUM_PRICE_BUCKETS = 16

TEXT, IMAGES = "text", "images"
"""Kinds of models that read items; of those in a model folder also the names of their folders."""


@dataclass(frozen=True)
class ItemContent:
    """What a catalogue says of one item; everything may be missing.

    Args:
        title: shown to users.
        description: free text.
        category: one name.
        tags: further names.
        price: in any one currency; not finite or negative counts as missing.
        image: path of a local picture file.
    """

    title: str | None = None
    description: str | None = None
    category: str | None = None
    tags: tuple[str, ...] = ()
    price: float | None = None
    image: str | None = None

    @property
    def text(self) -> str:
        """What a text model reads: title, category, tags, description, an empty string if there is none of them."""
        return ". ".join(part for part in (self.title, self.category, ", ".join(self.tags), self.description) if part)

    @property
    def names(self) -> list[str]:
        """Category and tags, each once."""
        return list(dict.fromkeys(name for name in (self.category, *self.tags) if name))

    @property
    def usable_price(self) -> float | None:
        """The price, if it is one."""
        return self.price if self.price is not None and math.isfinite(self.price) and self.price >= 0 else None


class TextEncoder(Protocol):
    """Texts to vectors, see `encoders.text.TransformerText`."""

    dim: int

    @property
    def identity(self) -> str: ...

    def encode(self, texts: Sequence[str]) -> Float32Array: ...


class ImageEncoder(Protocol):
    """Picture files to vectors, see `encoders.image.TransformerImages`."""

    dim: int
    identity: str

    def encode(self, paths: Sequence[Path]) -> tuple[Float32Array, dict[int, str]]: ...


@dataclass(frozen=True)
class FeatureSpec:
    """Which features there are, and their sizes; what decides the shapes of an item tower. 0 or empty: none.

    Args:
        word_buckets: for words of the text.
        words_per_item: W; further words are not read.
        category_buckets: for category and tags.
        categories_per_item: C; further ones are not read.
        price_edges: rising borders of the price buckets.
        text_dim: T.
        image_dim: I.
        text_model: identity of the text model; "" for none.
        image_model: identity of the image model; "" for none.
    """

    word_buckets: int = 0
    words_per_item: int = 0
    category_buckets: int = 0
    categories_per_item: int = 0
    price_edges: tuple[float, ...] = ()
    text_dim: int = 0
    image_dim: int = 0
    text_model: str = ""
    image_model: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether no feature is used, so that items are their ids and nothing else."""
        return self == FeatureSpec()

    @property
    def reads_words(self) -> bool:
        """Whether words make a difference, so that any text has a vector among those of the items."""
        return bool(self.text_dim or self.word_buckets)


@dataclass(frozen=True)
class ItemFeatures:
    """The features of N items. In buckets 0 means "none"; a vector of zeros means "none".

    Args:
        words_NW: int32 buckets of words.
        categories_NC: int32 buckets of categories and tags.
        prices_N: int32 price buckets.
        texts_NT: float32 text vectors.
        images_NI: float32 image vectors.
    """

    words_NW: Int32Array
    categories_NC: Int32Array
    prices_N: Int32Array
    texts_NT: Float32Array
    images_NI: Float32Array

    def __post_init__(self) -> None:
        lengths = {one.name: len(getattr(self, one.name)) for one in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"features of different numbers of items: {lengths}")

    def __len__(self) -> int:
        return len(self.prices_N)


@dataclass(frozen=True)
class KnownItems:
    """What a training knows of the items of its vocabulary.

    Args:
        spec: which features there are.
        features: of all named items, in the vocabulary's order.
        sources: where the models were found that made text and image vectors, by kind ("text", "images").
    """

    spec: FeatureSpec
    features: ItemFeatures
    sources: Mapping[str, str] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 of specification and features: equal digests, equal items."""
        found = hashlib.sha256(repr(self.spec).encode())
        for one in fields(self.features):
            found.update(np.ascontiguousarray(getattr(self.features, one.name)).tobytes())
        return found.hexdigest()


def feature_spec(
    contents: Sequence[ItemContent], text: TextEncoder | None = None, images: ImageEncoder | None = None
) -> FeatureSpec:
    """The features that these items, those known at training, have; all sizes come from them.

    Args:
        contents: of the items that were known before the split.
        text: text model, if there is one.
        images: image model, if there is one.
    """
    words = [words_of(content.text) for content in contents]
    names = [content.names for content in contents]
    prices = sorted(price for content in contents if (price := content.usable_price) is not None)
    has_image = any(content.image for content in contents)
    text = text if any(words) else None
    images = images if has_image else None
    return FeatureSpec(
        word_buckets=_num_buckets(words),
        words_per_item=min(MAX_WORDS, max(map(len, words), default=0)),
        category_buckets=_num_buckets(names),
        categories_per_item=min(MAX_CATEGORIES, max(map(len, names), default=0)),
        price_edges=price_edges(prices),
        text_dim=text.dim if text else 0,
        image_dim=images.dim if images else 0,
        text_model=text.identity if text else "",
        image_model=images.identity if images else "",
    )


def _num_buckets(names_of_items: Sequence[Sequence[str]]) -> int:
    num_names = len({name for names in names_of_items for name in names})
    wanted = 2 ** math.ceil(math.log2(max(1, num_names) * BUCKETS_PER_NAME))
    return max(MIN_BUCKETS, min(MAX_BUCKETS, wanted)) if num_names else 0


def price_edges(prices: Sequence[float]) -> tuple[float, ...]:
    """Borders of `NUM_PRICE_BUCKETS` buckets with about equally many of the prices, fewer where prices repeat.

    >>> price_edges([])
    ()
    """
    if not prices:
        return ()
    inner = np.quantile(np.array(prices, dtype=np.float64), np.linspace(0, 1, NUM_PRICE_BUCKETS + 1)[1:-1])
    return tuple(sorted(set(inner.tolist())))


def item_features(
    contents: Sequence[ItemContent],
    spec: FeatureSpec,
    text: TextEncoder | None = None,
    images: ImageEncoder | None = None,
) -> tuple[ItemFeatures, dict[int, str]]:
    """The features of items, whenever they appeared.

    Args:
        contents: N items.
        spec: of the tower they are for.
        text: the text model the spec names.
        images: the image model the spec names.

    Returns:
        The features; and the position and reason of each item whose picture cannot be used.

    Raises:
        ValueError: if a model is not the one that the spec names.
    """
    _check_model("text model", spec.text_model, text.identity if text else "")
    _check_model("image model", spec.image_model, images.identity if images else "")
    images_NI, refused = _image_vectors(contents, spec, images)
    features = ItemFeatures(
        words_NW=_buckets((words_of(content.text) for content in contents), spec.word_buckets, spec.words_per_item),
        categories_NC=_buckets(
            (content.names for content in contents), spec.category_buckets, spec.categories_per_item
        ),
        prices_N=np.array([_price_bucket(content, spec.price_edges) for content in contents], dtype=np.int32),
        texts_NT=_text_vectors(contents, spec, text),
        images_NI=images_NI,
    )
    return features, refused


def known_items(
    contents: Sequence[ItemContent], text: TextEncoder | None = None, images: ImageEncoder | None = None
) -> tuple[KnownItems, dict[int, str]]:
    """What a training knows of items, in their order; the features and their sizes come from these items alone.

    Args:
        contents: of the items of a vocabulary.
        text: text model, if there is one.
        images: image model, if there is one.

    Returns:
        That; and the position and reason of each item whose picture cannot be used.
    """
    spec = feature_spec(contents, text, images)
    features, refused = item_features(contents, spec, text, images)
    return KnownItems(spec, features), refused


def _check_model(kind: str, expected: str, found: str) -> None:
    if expected and expected != found:
        raise ValueError(
            f"the {kind} is {found[:12] or 'missing'}, the item tower was trained with {expected[:12]}; "
            f"give the same model, or train again with this one"
        )


def _buckets(names_of_items: Iterable[Sequence[str]], num_buckets: int, names_per_item: int) -> Int32Array:
    """(N, names_per_item) buckets of each item's first names, padded with 0."""
    known: dict[str, int] = {}
    rows = []
    for names in names_of_items:
        kept = names[:names_per_item]
        known |= {name: hashed_bucket(name, num_buckets) for name in kept if name not in known}
        rows.append([known[name] for name in kept] + [0] * (names_per_item - len(kept)))
    return np.array(rows, dtype=np.int32).reshape(len(rows), names_per_item)


def _price_bucket(content: ItemContent, edges: Sequence[float]) -> int:
    """1 + number of edges at or below the price; 0 for no price."""
    price = content.usable_price
    return 0 if price is None or not edges else 1 + int(np.searchsorted(edges, price, side="right"))


def _text_vectors(contents: Sequence[ItemContent], spec: FeatureSpec, text: TextEncoder | None) -> Float32Array:
    vectors_NT = np.zeros((len(contents), spec.text_dim), dtype=np.float32)
    rows = [row for row, content in enumerate(contents) if content.text]
    if text is not None and spec.text_dim and rows:
        vectors_NT[rows] = text.encode([contents[row].text for row in rows])
    return vectors_NT


def _image_vectors(
    contents: Sequence[ItemContent], spec: FeatureSpec, images: ImageEncoder | None
) -> tuple[Float32Array, dict[int, str]]:
    vectors_NI = np.zeros((len(contents), spec.image_dim), dtype=np.float32)
    paths = {row: Path(content.image) for row, content in enumerate(contents) if content.image}
    if images is None or not spec.image_dim or not paths:
        return vectors_NI, {}
    rows = list(paths)
    vectors_NI[rows], refused = images.encode(list(paths.values()))
    return vectors_NI, {rows[place]: reason for place, reason in refused.items()}


def no_features(num_items: int, spec: FeatureSpec) -> ItemFeatures:
    """The features of items of which nothing is known, in the shapes of a spec."""
    return ItemFeatures(
        words_NW=np.zeros((num_items, spec.words_per_item), dtype=np.int32),
        categories_NC=np.zeros((num_items, spec.categories_per_item), dtype=np.int32),
        prices_N=np.zeros(num_items, dtype=np.int32),
        texts_NT=np.zeros((num_items, spec.text_dim), dtype=np.float32),
        images_NI=np.zeros((num_items, spec.image_dim), dtype=np.float32),
    )


def contents_of(item_ids: Sequence[str], catalogue: Mapping[str, ItemContent]) -> list[ItemContent]:
    """The contents of items in the order of their ids, an empty one where the catalogue has none."""
    nothing = ItemContent()
    return [catalogue.get(item_id, nothing) for item_id in item_ids]
