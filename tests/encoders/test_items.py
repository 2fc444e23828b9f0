"""The item tower: a plain embedding without features, and with them a place for every item."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from encoders.contract import Float32Array
from encoders.item_features import (
    FeatureSpec,
    ItemContent,
    ItemFeatures,
    contents_of,
    feature_spec,
    item_features,
    price_edges,
)
from encoders.items import ItemTower, PartDropout
from encoders.words import hashed_bucket
from tests.examples import examples

DIM = 8
NOTHING = ItemContent()
CONTENTS = [
    ItemContent(title="Iron Man", category="action", tags=("hero", "war"), price=9.5, image="iron.png"),
    ItemContent(title="The Iron Giant"),
    NOTHING,
    ItemContent(price=3.0),
    ItemContent(tags=("drama",)),
    ItemContent(image="picture.png"),
]


class Letters:
    """A text model with a dimension for each of a few letters."""

    dim = 5
    identity = "letters"

    def encode(self, texts: Sequence[str]) -> Float32Array:
        """Counts of i, r, o, n and h."""
        return np.array([[text.lower().count(letter) for letter in "ironh"] for text in texts], dtype=np.float32)


class Names:
    """An image model that sees the length of the name, and refuses what is called broken."""

    dim = 3
    identity = "names"

    def encode(self, paths: Sequence[Path]) -> tuple[Float32Array, dict[int, str]]:
        """(N, 3) vectors and refusals."""
        refused = {row: "broken" for row, path in enumerate(paths) if "broken" in path.name}
        vectors = np.array([[len(path.name), 1, -1] for path in paths], dtype=np.float32)
        vectors[list(refused)] = 0
        return vectors, refused


def _tower(contents: Sequence[ItemContent] = CONTENTS, dropout: PartDropout | None = None) -> ItemTower:
    spec = feature_spec(contents, Letters(), Names())
    features, _ = item_features(contents, spec, Letters(), Names())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ItemTower(len(contents) + 2, DIM, spec, features, dropout)


def test_without_features_it_is_a_plain_embedding() -> None:
    torch.manual_seed(3)
    plain = nn.Embedding(7, DIM)
    torch.manual_seed(3)
    tower = ItemTower(7, DIM)
    rows = torch.tensor([[1, 4], [0, 6]])

    assert list(tower.state_dict()) == list(plain.state_dict()) == ["weight"]
    assert torch.equal(tower.weight, plain.weight)
    assert torch.equal(tower(rows), plain(rows))
    assert tower.table() is tower.weight
    assert not tower.new_items(item_features([CONTENTS[0]], FeatureSpec())[0]).any()


def test_rows_of_the_table_are_what_embed_gives_and_new_items_gives_the_part_without_id() -> None:
    tower = _tower().eval()
    rows = torch.tensor([[7, 2, 2], [0, 1, 5]])
    features, _ = item_features(CONTENTS, tower.spec, Letters(), Names())

    with torch.no_grad():
        table = tower.table()
        assert torch.allclose(tower.embed(rows), table[rows], atol=1e-6)
        assert torch.allclose(table[2:] - tower.weight[2:], tower.new_items(features), atol=1e-6)
        assert torch.equal(table[:2], tower.weight[:2])


def test_an_item_without_content_is_its_id_alone_and_a_new_one_is_nothing() -> None:
    tower = _tower().eval()
    features, _ = item_features([NOTHING, CONTENTS[1]], tower.spec, Letters(), Names())

    with torch.no_grad():
        assert torch.equal(tower.table()[4], tower.weight[4])
        vectors = tower.new_items(features)
    assert not vectors[0].any()
    assert vectors[1].any()


@pytest.mark.parametrize("row", [0, 1, 3, 4, 5])
def test_every_single_kind_of_content_gives_a_vector_of_its_own(row: int) -> None:
    tower = _tower().eval()
    features, _ = item_features(CONTENTS, tower.spec, Letters(), Names())

    with torch.no_grad():
        vectors = tower.new_items(features)
    others = torch.cat([vectors[:row], vectors[row + 1 :]])
    assert vectors[row].abs().max() > 1e-3
    assert (others - vectors[row]).abs().amax(1).min() > 1e-3


def test_gradients_reach_every_part_and_no_part_of_a_missing_kind() -> None:
    tower = _tower(dropout=PartDropout(0, 0)).train()
    tower.embed(torch.tensor([5])).sum().backward()  # a price and nothing else

    moved = {name for name, weight in tower.named_parameters() if weight.grad is not None and weight.grad.any()}
    assert {"weight", "content.prices.weight", "content.out.weight"} <= moved
    assert not moved & {"content.words.weight", "content.categories.weight", "content.texts.1.weight"}

    tower.zero_grad()
    tower.table().square().sum().backward()
    assert all(weight.grad is not None and weight.grad.any() for weight in tower.parameters())


def test_dropped_parts_leave_what_a_new_item_would_be() -> None:
    tower = _tower(dropout=PartDropout(ids=1 - 1e-9, parts=0)).train()
    features, _ = item_features(CONTENTS, tower.spec, Letters(), Names())

    with torch.no_grad():
        table, content = tower.table(), tower.new_items(features)
    assert torch.allclose(table[2:4], content[:2], atol=1e-6)
    assert torch.equal(table[4], tower.weight[4])  # no content: the id stays
    assert torch.equal(table[:2], tower.weight[:2])


def test_the_share_of_dropped_ids_is_as_asked_for() -> None:
    contents = [ItemContent(title="a")] * 4000
    spec = feature_spec(contents)
    features, _ = item_features(contents, spec)
    tower = ItemTower(4002, DIM, spec, features, PartDropout(ids=0.25, parts=0)).train()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        content = tower.new_items(features)
        dropped = torch.isclose(tower.table()[2:], content).all(1).float().mean().item()

    assert abs(dropped - 0.25) < 0.03


def test_a_frozen_table_gives_equal_bytes_for_any_batch_and_thaws_in_training() -> None:
    tower = _tower().eval()
    tower.freeze()
    single = torch.cat([tower.embed(torch.tensor([row])) for row in range(8)])
    assert torch.equal(single, tower.embed(torch.arange(8)))
    assert "_frozen_VD" not in tower.state_dict()

    tower.train()
    with torch.no_grad():
        tower.weight.add_(1)
    assert (tower.eval().table() - single).abs().min() > 0.5


def test_saved_weights_bring_the_features_along() -> None:
    tower = _tower().eval()
    again = ItemTower(len(CONTENTS) + 2, DIM, tower.spec).eval()
    assert not again.table()[2:].equal(tower.table()[2:])
    again.load_state_dict(tower.state_dict())

    with torch.no_grad():
        assert torch.equal(again.table(), tower.table())


@examples(25)
@given(st.lists(st.integers(0, 7), min_size=1, max_size=12))
def test_embed_is_the_table_for_any_rows(rows: list[int]) -> None:
    tower = _tower().eval()
    with torch.no_grad():
        assert torch.allclose(tower.embed(torch.tensor(rows)), tower.table()[rows], atol=1e-6)


def test_content_learns_what_an_item_never_trained_is_like() -> None:
    """Two kinds of items by their words; of two that were never trained each must fall to its own kind."""
    contents = [ItemContent(title=f"{kind} number{row}") for row in range(20) for kind in ("thriller", "musical")]
    spec = feature_spec(contents)
    features, _ = item_features(contents, spec)
    torch.manual_seed(0)
    tower = ItemTower(42, DIM, spec, features).train()
    wanted = torch.tensor([1.0, -1.0]).repeat(20)
    optimizer = torch.optim.Adam(tower.parameters(), lr=0.02)
    for _ in range(60):
        loss = (tower.table()[2:, 0] - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    new, _ = item_features([ItemContent(title="thriller 99"), ItemContent(title="MUSICAL of fame")], spec)

    with torch.no_grad():
        thriller, musical = tower.eval().new_items(new)[:, 0].tolist()
    assert thriller > 0.5
    assert musical < -0.5


def test_sizes_come_from_the_data_and_empty_catalogues_have_none() -> None:
    assert feature_spec([NOTHING, NOTHING], Letters(), Names()).is_empty
    assert feature_spec([]).is_empty
    spec = feature_spec([ItemContent(category="a", tags=("a", "b"))])
    assert spec.category_buckets == 4096
    many = feature_spec([ItemContent(tags=(f"tag {number}",)) for number in range(1100)])
    assert many.category_buckets == 8192  # four for each, as a power of two
    assert spec.price_edges == ()
    assert (spec.text_dim, spec.image_dim) == (0, 0)


def test_prices_fall_into_buckets_of_equal_weight() -> None:
    edges = price_edges([float(price) for price in range(1, 17)])
    assert len(edges) == 15
    spec = FeatureSpec(price_edges=edges)
    features, _ = item_features([ItemContent(price=float(price)) for price in range(1, 17)], spec)
    assert features.prices_N.tolist() == list(range(1, 17))

    odd = [ItemContent(price=price) for price in (float("nan"), float("inf"), -1.0, None, 0.0, 1e9)]
    assert item_features(odd, spec)[0].prices_N.tolist() == [0, 0, 0, 0, 1, 16]
    assert price_edges([5.0] * 9) == (5.0,)


def test_buckets_hold_category_and_tags_once_each() -> None:
    spec = FeatureSpec(category_buckets=64, categories_per_item=2)
    features, _ = item_features([ItemContent(category="x", tags=("y", "x", "", "z")), NOTHING], spec)

    assert features.categories_NC.tolist() == [[hashed_bucket("x", 64), hashed_bucket("y", 64)], [0, 0]]


def test_a_refused_picture_leaves_the_rest_of_the_item() -> None:
    contents = [ItemContent(title="a"), ItemContent(title="b", image="broken.png"), ItemContent(image="fine.png")]
    spec = feature_spec(contents, Letters(), Names())

    features, refused = item_features(contents, spec, Letters(), Names())

    assert refused == {1: "broken"}
    assert features.images_NI.any(axis=1).tolist() == [False, False, True]
    assert features.words_NW.any(axis=1).tolist() == [True, True, False]


def test_another_text_model_than_the_trained_one_is_refused() -> None:
    spec = feature_spec(CONTENTS, Letters(), Names())
    with pytest.raises(ValueError, match="text model is missing"):
        item_features(CONTENTS, spec, None, Names())
    with pytest.raises(ValueError, match="image model is missing"):
        item_features(CONTENTS, spec, Letters(), None)


def test_features_that_do_not_fit_are_refused() -> None:
    tower = _tower()
    features, _ = item_features(CONTENTS, tower.spec, Letters(), Names())
    with pytest.raises(ValueError, match="features of 6 items, expected 4"):
        ItemTower(6, DIM, tower.spec, features)
    far = ItemFeatures(
        features.words_NW + 10_000, features.categories_NC, features.prices_N, features.texts_NT, features.images_NI
    )
    with pytest.raises(ValueError, match="words_NW runs from"):
        tower.new_items(far)
    nan = ItemFeatures(
        features.words_NW, features.categories_NC, features.prices_N, features.texts_NT * np.nan, features.images_NI
    )
    with pytest.raises(ValueError, match="5 finite values"):
        tower.new_items(nan)
    with pytest.raises(ValueError, match="different numbers"):
        ItemFeatures(
            features.words_NW[:1], features.categories_NC, features.prices_N, features.texts_NT, features.images_NI
        )


def test_the_text_is_all_that_is_written_of_an_item() -> None:
    content = ItemContent(title="Heat", category="crime", tags=("noir", "90s"), description="Two men meet.")
    assert content.text == "Heat. crime. noir, 90s. Two men meet."
    assert NOTHING.text == ""
    assert contents_of(["x", "y"], {"y": content}) == [NOTHING, content]
