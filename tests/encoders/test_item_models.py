"""Items read by text and image models: what a training learns of them, and new items of a model folder."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from encoders.checkpoint import save_model
from encoders.contract import Float32Array
from encoders.histories import TrainingHistories
from encoders.image import TransformerImages
from encoders.item_features import ItemContent, KnownItems, item_features
from encoders.item_models import ItemModels, load_item_models, new_item_vectors
from encoders.pretrained import PretrainedModelError
from encoders.runtime import SliceEncoderRuntime
from encoders.spec import load_spec
from encoders.text import TransformerText
from encoders.text_tuning import touched_pairs
from encoders.train import train_model
from encoders.trained import TrainedModel
from encoders.training_config import TrainConfig
from encoders.vocabulary import Vocabulary
from tests.encoders.cases import MINUTE_MS, cyclic_histories, cyclic_vocabulary, histories_of
from tests.encoders.pretrained_cases import WORDS, bert_folder, vit_folder

pytestmark = pytest.mark.slow  # transformers takes seconds to load

NUM_ITEMS = 60
CONFIG = TrainConfig(dim=16, num_layers=1, slice_events=8, max_epochs=1, patience_epochs=0, max_validation_targets=50)


def picture(path: Path, shade: int) -> str:
    """A file of one colour; its name."""
    Image.new("RGB", (40, 40), (shade, 255 - shade, 128)).save(path)
    return str(path)


def train(items: KnownItems) -> TrainedModel:
    histories = cyclic_histories(40, 30, num_items=NUM_ITEMS)
    vocabulary = cyclic_vocabulary(NUM_ITEMS)
    return train_model(histories, vocabulary, CONFIG, 25 * MINUTE_MS, lambda _: None, items=items)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A tiny text model and a tiny vision model; read only."""
    root = tmp_path_factory.mktemp("sources")
    return {"text": str(bert_folder(root / "bert")), "images": str(vit_folder(root / "vit"))}


@pytest.fixture(scope="module")
def models(sources: dict[str, str]) -> ItemModels:
    return ItemModels(TransformerText.load(sources["text"]), TransformerImages.load(sources["images"]), sources)


@pytest.fixture(scope="module")
def folder(models: ItemModels, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of items of which a third has text and picture, a third one of them, a third neither; read only."""
    root = tmp_path_factory.mktemp("trained")
    contents = [
        ItemContent(
            title=WORDS[row % len(WORDS)] if row % 3 < 2 else None,
            image=picture(root / f"{row}.png", 4 * row) if row % 3 < 1 or row % 6 == 2 else None,
        )
        for row in range(NUM_ITEMS)
    ]
    items, refused = models.known(contents)
    assert not refused
    save_model(train(items), root / "model")
    return root / "model"


def test_what_is_needed_for_new_items_is_in_the_folder(
    folder: Path, models: ItemModels, sources: dict[str, str], tmp_path: Path
) -> None:
    spec = load_spec(folder)
    assert spec.item_sources == sources
    assert models.text and models.images
    assert (spec.dims.items.text_model, spec.dims.items.image_model) == (models.text.identity, models.images.identity)
    image = picture(tmp_path / "new.png", 90)
    contents = [
        ItemContent(title="iron man", image=image),
        ItemContent(title="iron man"),
        ItemContent(image=image),
        ItemContent(),
        ItemContent(title="iron man", image=str(tmp_path / "no-such.png")),
    ]
    encoder = SliceEncoderRuntime.load(folder, "cpu")

    vectors_ND, refused = new_item_vectors(encoder, load_item_models(folder), contents)

    assert list(refused) == [4]
    assert vectors_ND.any(axis=1).tolist() == [True, True, True, False, True]
    assert len({vector.tobytes() for vector in vectors_ND[:4]}) == 4
    np.testing.assert_allclose(vectors_ND[4], vectors_ND[1], atol=1e-5)


def test_without_models_nothing_is_looked_for(tmp_path: Path) -> None:
    items, _ = ItemModels().known([ItemContent(title="iron")] * NUM_ITEMS)
    save_model(train(items), tmp_path)

    assert load_item_models(tmp_path) == ItemModels()
    assert "item_sources" not in (tmp_path / "spec.json").read_text()


def test_a_source_that_no_item_needed_is_not_asked_for(models: ItemModels) -> None:
    items, _ = models.known([ItemContent(title="iron")])

    assert set(items.sources) == {"text"}
    assert items.spec.image_model == ""


@pytest.fixture
def moved(folder: Path, sources: dict[str, str], tmp_path: Path) -> Path:
    """The same folder with sources of its own that a test may spoil."""
    items, _ = ItemModels(
        TransformerText.load(sources["text"]), None, {"text": str(shutil.copytree(sources["text"], tmp_path / "bert"))}
    ).known([ItemContent(title=WORDS[row % len(WORDS)]) for row in range(NUM_ITEMS)])
    save_model(train(items), tmp_path / "model")
    return tmp_path / "model"


def test_a_missing_model_is_told_by_name_and_found_in_the_folder(moved: Path, tmp_path: Path) -> None:
    shutil.move(tmp_path / "bert", tmp_path / "elsewhere")
    with pytest.raises(
        PretrainedModelError, match=r"bert': is no readable model .* put it into .*model/text, or train"
    ):
        load_item_models(moved)

    shutil.copytree(tmp_path / "elsewhere", moved / "text")

    assert load_item_models(moved).text is not None


def test_another_model_in_its_place_is_refused_by_fingerprint(moved: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "bert")
    other = TransformerText.load(str(bert_folder(tmp_path / "bert", seed=5)))
    with pytest.raises(PretrainedModelError, match=rf"bert' has {other.identity[:12]}"):
        load_item_models(moved)


def test_one_left_in_the_folder_by_an_earlier_model_does_no_harm(moved: Path) -> None:
    bert_folder(moved / "text", seed=5)

    text = load_item_models(moved).text

    assert text is not None and text.identity == load_spec(moved).dims.items.text_model


def test_pairs_are_neighbours_in_a_slice_with_different_texts() -> None:
    histories = histories_of([[[(2, 0), (3, 1), (2, 2)], [(4, 3), (5, 4), (6, 5)]], [[(3, 0), (3, 1), (1, 2)]]])
    texts = ["", "", "a", "b", "c", "", "e"]

    assert touched_pairs(histories, texts) == [("a", "b"), ("b", "a")]


GENRES = (("iron", "man"), ("war", "worlds"), ("comedy", "heel"), ("drama", "of"))


def genre_histories(items_per_genre: int, seed: int) -> TrainingHistories:
    """Users who stay with one genre, and touch its items in any order; genre g has rows 2 + g, 6 + g, 10 + g, ..."""
    generator = np.random.default_rng(seed)
    users = []
    for user in range(240):
        chosen = generator.permutation(items_per_genre)[:16] * len(GENRES) + user % len(GENRES) + 2
        timed = [(int(row), step * MINUTE_MS) for step, row in enumerate(chosen)]
        users.append([timed[:8], timed[8:]])
    return histories_of(users)


def titles(number: int, generator: np.random.Generator) -> list[str]:
    """Genres in turn; each title has one of its genre's two words among two that say nothing."""
    fillers = ("the", "2008", "2013")
    words = [GENRES[row % len(GENRES)][row // len(GENRES) % 2] for row in range(number)]
    return [" ".join(generator.permutation([word, *generator.choice(fillers, 2)])) for word in words]


def share_of_genre(new_ND: Float32Array, known_ID: Float32Array) -> float:
    """Of the ten items nearest to each new one, among those with another word, the share of its own genre."""
    new_N, known_I = (np.arange(len(vectors)) % (2 * len(GENRES)) for vectors in (new_ND, known_ID))
    cosines_NI = np.where(new_N[:, None] == known_I, -np.inf, _cosines(new_ND, known_ID))
    nearest_NK = np.argsort(-cosines_NI, axis=1)[:, :10]
    return float((known_I[nearest_NK] % len(GENRES) == new_N[:, None] % len(GENRES)).mean())


@pytest.mark.slow
def test_a_new_items_vector_is_near_those_of_items_whose_texts_mean_the_same(tmp_path: Path) -> None:
    """Users tell that two words are one genre; of a new item there is nothing but the text model's vector."""
    generator = np.random.default_rng(0)
    text = TransformerText.load(str(bert_folder(tmp_path / "bert")))
    known, new = ([ItemContent(title=title) for title in titles(number, generator)] for number in (120, 40))
    with_words, _ = ItemModels(text).known(known)
    spec = replace(with_words.spec, word_buckets=0, words_per_item=0)
    items = KnownItems(spec, item_features(known, spec, text)[0])
    config = TrainConfig(dim=16, num_layers=1, slice_events=8, max_epochs=15, patience_epochs=0, batch_events=128)
    vocabulary = Vocabulary(tuple(f"item-{row}" for row in range(120)), ("click",))
    trained = train_model(genre_histories(30, 1), vocabulary, config, 14 * MINUTE_MS, lambda _: None, items=items)
    save_model(trained, tmp_path / "model")
    encoder = SliceEncoderRuntime.load(tmp_path / "model", "cpu")

    new_ND, _ = new_item_vectors(encoder, ItemModels(text), new)

    untrained = share_of_genre(text.encode([one.text for one in new]), items.features.texts_NT)
    learned = share_of_genre(new_ND, encoder.item_vectors()[1])
    assert learned > 0.65 > 0.4 > untrained, f"learned {learned:.2f}, the text model's own {untrained:.2f}"


def _cosines(lefts_ND: Float32Array, rights_ID: Float32Array) -> Float32Array:
    lengths = np.linalg.norm(lefts_ND, axis=1)[:, None] * np.linalg.norm(rights_ID, axis=1)
    cosines: Float32Array = lefts_ND @ rights_ID.T / lengths
    return cosines
