"""The item tower within a model: trained, saved, loaded and served."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.checkpoint import load_model, save_model
from encoders.histories import TrainingHistories
from encoders.item_features import ItemContent, ItemFeatures, KnownItems, feature_spec, item_features
from encoders.reference import ReferenceEncoder
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import load_spec
from encoders.train import train_model
from encoders.trained import TrainedModel
from encoders.training_config import TrainConfig
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary, random_batch

NUM_ITEMS = 60
CONFIG = TrainConfig(dim=16, num_layers=1, slice_events=8, max_epochs=2, patience_epochs=0, max_validation_targets=50)
NEW = [ItemContent(title=f"item of kind {number % 3}", tags=("new",)) for number in range(150)]


def _histories() -> TrainingHistories:
    return cyclic_histories(40, 30, num_items=NUM_ITEMS)


@pytest.fixture(scope="module")
def known() -> KnownItems:
    """Titles, tags and prices of all but every tenth item."""
    contents = [
        ItemContent() if row % 10 == 0 else ItemContent(f"item of kind {row % 3}", tags=(f"t{row % 5}",), price=row)
        for row in range(NUM_ITEMS)
    ]
    spec = feature_spec(contents)
    return KnownItems(spec, item_features(contents, spec)[0])


@pytest.fixture(scope="module")
def trained(known: KnownItems) -> TrainedModel:
    """A model that was trained with them for two epochs."""
    return _train(known)


def _train(known: KnownItems | None) -> TrainedModel:
    return train_model(_histories(), cyclic_vocabulary(NUM_ITEMS), CONFIG, 25 * MINUTE_MS, lambda _: None, items=known)


def test_the_tower_is_saved_and_served_with_the_model(trained: TrainedModel, known: KnownItems, tmp_path: Path) -> None:
    save_model(trained, tmp_path)
    runtime = SliceEncoderRuntime.load(tmp_path, "cpu")

    assert load_spec(tmp_path).dims.items == known.spec
    with torch.no_grad():
        expected = trained.model.item_table()[2:].numpy()
    ids, vectors = runtime.item_vectors()
    assert ids == list(trained.vocabulary.item_ids)
    np.testing.assert_allclose(vectors, expected, atol=1e-6)
    plain = trained.model.items.weight.detach()[2:].numpy()
    differs = np.abs(vectors - plain).max(axis=1) > 1e-6
    assert differs.tolist() == [row % 10 != 0 for row in range(NUM_ITEMS)]


def test_slices_are_encoded_with_the_tower_as_the_reference_does(trained: TrainedModel, tmp_path: Path) -> None:
    save_model(trained, tmp_path)
    batch = random_batch(20, 3, num_items=NUM_ITEMS, slice_events=8)
    two_types = (np.minimum(rows, 2) for rows in (batch.type_rows_SL, batch.context_type_rows_SC))
    batch = replace(batch, **dict(zip(("type_rows_SL", "context_type_rows_SC"), two_types, strict=True)))
    runtime, reference = SliceEncoderRuntime.load(tmp_path, "cpu"), ReferenceEncoder(load_model(tmp_path))

    found, expected = runtime.encode(batch), reference.encode(batch)

    np.testing.assert_allclose(found.codes_SD, expected.codes_SD, atol=1e-4)
    np.testing.assert_allclose(found.locals_SD, expected.locals_SD, atol=1e-4)


def test_a_new_items_vector_is_the_same_bytes_however_many_come_at_once(
    trained: TrainedModel, known: KnownItems, tmp_path: Path
) -> None:
    save_model(trained, tmp_path)
    runtime = SliceEncoderRuntime.load(tmp_path, "cpu")
    features, _ = item_features(NEW, known.spec)

    together = runtime.new_item_vectors(features)

    assert together.shape == (150, 16)
    assert together.any(axis=1).all()
    for row in (0, 63, 64, 149):
        one, _ = item_features([NEW[row]], known.spec)
        assert runtime.new_item_vectors(one).tobytes() == together[row : row + 1].tobytes()
    assert runtime.new_item_vectors(item_features([], known.spec)[0]).shape == (0, 16)


def test_stored_in_half_the_size_the_buckets_stay_whole_numbers(
    trained: TrainedModel, known: KnownItems, tmp_path: Path
) -> None:
    save_model(trained, tmp_path, half=True)

    loaded = load_model(tmp_path).model

    assert known.features.words_NW.max() > 2048  # float16 has no odd numbers beyond
    assert np.array_equal(loaded.items.get_buffer("words_NW")[2:].numpy(), known.features.words_NW)
    with torch.no_grad():
        np.testing.assert_allclose(loaded.item_table(), trained.model.item_table(), atol=2e-3)


def test_without_features_the_weights_are_those_of_a_plain_model(tmp_path: Path) -> None:
    nothing = feature_spec([ItemContent()] * NUM_ITEMS)
    empty = KnownItems(nothing, item_features([ItemContent()] * NUM_ITEMS, nothing)[0])

    assert save_model(_train(None), tmp_path / "a") == save_model(_train(empty), tmp_path / "b")
    assert "items" not in (tmp_path / "a" / "spec.json").read_text().split('"dims"')[1].split("}")[0]


def test_the_same_training_with_features_gives_the_same_bytes(trained: TrainedModel, known: KnownItems) -> None:
    again = _train(known).model.state_dict()

    assert all(torch.equal(weight, again[name]) for name, weight in trained.model.state_dict().items())


def test_known_items_are_told_apart_by_every_feature(known: KnownItems) -> None:
    prices = known.features.prices_N.copy()
    prices[3] += 1
    other = KnownItems(known.spec, replace(known.features, prices_N=prices))
    again = KnownItems(known.spec, ItemFeatures(**vars(known.features)))

    assert other.digest() != known.digest()
    assert again.digest() == known.digest()
