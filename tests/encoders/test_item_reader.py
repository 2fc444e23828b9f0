"""Vectors of items as they are told of now: trained ones keep theirs until something new is said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from encoders.checkpoint import save_model
from encoders.contract import Float32Array
from encoders.item_features import ItemContent
from encoders.item_models import ItemModels
from encoders.item_reader import ItemReader
from encoders.runtime import SliceEncoderRuntime
from encoders.text import TransformerText
from encoders.train import train_model
from encoders.training_config import TrainConfig
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary
from tests.encoders.pretrained_cases import WORDS, bert_folder

pytestmark = pytest.mark.slow

NUM_ITEMS = 60
CONTENTS = [ItemContent(WORDS[row % len(WORDS)], tags=(f"t{row % 5}",), price=float(row)) for row in range(NUM_ITEMS)]
CONFIG = TrainConfig(dim=16, num_layers=1, slice_events=8, max_epochs=1, patience_epochs=0, max_validation_targets=50)


def trained_reader(folder: Path, models: ItemModels | None, *, half: bool) -> tuple[ItemReader, SliceEncoderRuntime]:
    """The reader of a tiny model; without `models` it knows items by their ids alone."""
    items = None if models is None else models.known(CONTENTS)[0]
    histories, vocabulary = cyclic_histories(40, 30, num_items=NUM_ITEMS), cyclic_vocabulary(NUM_ITEMS)
    trained = train_model(histories, vocabulary, CONFIG, 25 * MINUTE_MS, lambda _: None, items=items)
    save_model(trained, folder, half=half)
    encoder = SliceEncoderRuntime.load(folder, "cpu")
    return ItemReader(encoder, models.text if models else None), encoder


def vectors_of(reader: ItemReader, told: dict[str, ItemContent]) -> Float32Array:
    features, refused = reader.read(list(told.values()))
    assert not refused
    return reader.vectors(list(told), features)


@pytest.fixture(scope="module", params=[False, True], ids=["float32", "float16"])
def reader(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ItemReader, SliceEncoderRuntime]:
    """A model that reads words, tags and prices, and texts through a text model."""
    root = tmp_path_factory.mktemp("reader")
    text = TransformerText.load(str(bert_folder(root / "bert")))
    return trained_reader(root / "model", ItemModels(text), half=request.param)


def test_trained_items_keep_their_vectors_until_something_new_is_said(
    reader: tuple[ItemReader, SliceEncoderRuntime],
) -> None:
    ids, vectors_ID = reader[1].item_vectors()
    same = vectors_of(reader[0], dict(zip(ids, CONTENTS, strict=True)))
    assert same.tobytes() == vectors_ID.tobytes()
    assert vectors_of(reader[0], dict.fromkeys(ids, ItemContent())).tobytes() == vectors_ID.tobytes()

    told = [replace(content, title="worlds of war", price=None) for content in CONTENTS]
    changed = vectors_of(reader[0], dict(zip(ids, told, strict=True)))
    assert (changed != vectors_ID).any(axis=1).all()


def test_a_trained_item_keeps_its_id_and_a_new_one_has_none(reader: tuple[ItemReader, SliceEncoderRuntime]) -> None:
    ids, _ = reader[1].item_vectors()
    told = ItemContent("the comedy of heel", tags=("t1",))
    first, second, new, again, nothing = vectors_of(
        reader[0], {ids[0]: told, ids[1]: told, "new": told, "newer": told, "unknown": ItemContent()}
    )
    assert np.array_equal(new, again) and new.any() and not nothing.any()
    assert not np.allclose(first, second) and not np.allclose(first, new)


def test_how_many_come_at_once_changes_no_vector(reader: tuple[ItemReader, SliceEncoderRuntime]) -> None:
    """No texts here: what a model makes of those may differ in the last digits."""
    told = {f"new-{row}": ItemContent(price=float(row)) for row in range(150)}
    told[reader[1].item_vectors()[0][3]] = ItemContent(price=0.5)
    together = vectors_of(reader[0], told)
    alone = np.concatenate([vectors_of(reader[0], {item: content}) for item, content in told.items()])
    assert alone.tobytes() == together.tobytes()


def test_a_model_that_knows_ids_alone_has_trained_vectors_and_no_others(tmp_path: Path) -> None:
    reader, encoder = trained_reader(tmp_path, None, half=False)
    ids, vectors_ID = encoder.item_vectors()
    assert not reader.reads_words
    found = vectors_of(reader, {ids[2]: ItemContent("war"), "new": ItemContent("war")})
    assert found[0].tobytes() == vectors_ID[2].tobytes() and not found[1].any()


def test_without_its_text_model_nothing_is_read(reader: tuple[ItemReader, SliceEncoderRuntime]) -> None:
    assert reader[0].reads_words
    with pytest.raises(ValueError, match="text model is missing"):
        ItemReader(reader[1])
