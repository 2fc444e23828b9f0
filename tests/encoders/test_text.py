"""Texts to vectors: pooling, batching, the cache, what is refused, and fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encoders.pretrained import PretrainedModelError
from encoders.text import TransformerText, batches_by_length
from encoders.text_tuning import TuningSettings, tune_text
from encoders.vector_cache import DamagedCacheError, VectorCache
from encoders.words import hashed_bucket, words_of
from tests.encoders.pretrained_cases import bert_folder, gpt2_folder, vit_folder

pytestmark = pytest.mark.slow  # transformers takes seconds to load

TEXTS = ["iron man 2008", "the war of the worlds", "drama", "iron man 2008", "", "something unheard of 2013"]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT; read only."""
    return bert_folder(tmp_path_factory.mktemp("bert"))


def _slow_vector(folder: Path, text: str) -> np.ndarray:
    """The mean over one text's states, computed alone by the library's own classes."""
    from transformers import AutoModel, AutoTokenizer

    ids = AutoTokenizer.from_pretrained(folder)(text)["input_ids"]
    if not ids:
        return np.zeros(32, dtype=np.float32)
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder).eval()(input_ids=torch.tensor([ids])).last_hidden_state
    vector: np.ndarray = states[0].mean(0).numpy()
    return vector


@pytest.mark.parametrize("make_folder", [bert_folder, gpt2_folder])
def test_a_vector_is_the_mean_state_of_the_text_alone(tmp_path: Path, make_folder: type) -> None:
    folder = make_folder(tmp_path)

    vectors = TransformerText.load(str(folder)).encode(TEXTS)

    expected = np.stack([_slow_vector(folder, text) for text in TEXTS])
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert vectors.dtype == np.float32
    assert not vectors[4].any()


def test_no_texts_make_no_vectors(bert: Path) -> None:
    assert TransformerText.load(str(bert)).encode([]).shape == (0, 32)


def test_a_text_longer_than_the_model_is_cut(bert: Path) -> None:
    text = TransformerText.load(str(bert))

    vectors = text.encode(["iron " * 500, "iron " * 38])

    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_what_the_cache_has_is_not_computed_again(bert: Path, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "folder" / "vectors.sqlite")
    first = TransformerText.load(str(bert), cache=cache).encode(TEXTS)

    second = TransformerText.load(str(bert), cache=cache)
    with torch.no_grad():
        identity = second.identity  # computed before the weights are spoilt: only the cache can still be right
        for weight in second._model.parameters():
            weight.fill_(float("nan"))
    assert np.array_equal(second.encode(TEXTS), first)
    assert identity == second.identity
    assert np.isnan(second.encode(["man of war"])).all()


def test_another_model_does_not_take_the_vectors_of_the_first(bert: Path, tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    other = bert_folder(tmp_path / "other", seed=5)
    first = TransformerText.load(str(bert), cache=cache).encode(TEXTS)

    second = TransformerText.load(str(other), cache=cache).encode(TEXTS)

    np.testing.assert_allclose(second[0], _slow_vector(other, TEXTS[0]), atol=1e-5)
    assert not np.allclose(first[0], second[0], atol=1e-3)


def test_a_damaged_cache_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "vectors.sqlite"
    path.write_bytes(b"this is no database, however long one reads it" * 100)

    with pytest.raises(DamagedCacheError, match="delete the file"):
        VectorCache(path).get("model", [b"key"], 4)


def test_vectors_of_another_length_or_not_finite_count_as_missing(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    good = np.array([1, -2, 0.5], dtype=np.float32)
    cache.put("m", {b"good": good, b"long": np.ones(4, np.float32), b"nan": np.array([1, np.nan, 1], np.float32)})

    found = cache.get("m", [b"good", b"long", b"nan", b"never"], 3)

    assert list(found) == [b"good"]
    assert np.array_equal(found[b"good"], good)
    assert cache.get("another model", [b"good"], 3) == {}


def test_more_keys_than_a_statement_takes(tmp_path: Path) -> None:
    cache = VectorCache(tmp_path / "vectors.sqlite")
    vectors = {number.to_bytes(4, "big"): np.array([number], dtype=np.float32) for number in range(40_000)}
    cache.put("m", vectors)

    assert cache.get("m", list(vectors), 1) == vectors


def test_a_model_of_images_reads_no_text(tmp_path: Path) -> None:
    with pytest.raises(PretrainedModelError, match="vit model reads no text"):
        TransformerText.load(str(vit_folder(tmp_path)))


def test_a_model_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    bert_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    (tmp_path / "tokenizer_config.json").unlink()

    with pytest.raises(PretrainedModelError, match="tokenizer knows"):
        TransformerText.load(str(tmp_path))


@given(st.lists(st.integers(0, 300), max_size=60), st.integers(1, 1000))
def test_batches_hold_every_row_once_and_stay_within_bounds(lengths: list[int], most: int) -> None:
    batches = list(batches_by_length(lengths, most))

    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= most


def _margin(text: TransformerText, pairs: Sequence[tuple[str, str]]) -> float:
    """How much nearer, in cosine, texts of a pair are than texts of different pairs."""
    lefts, rights = (text.encode(side) for side in zip(*pairs, strict=True))
    cosines = (lefts @ rights.T) / np.linalg.norm(lefts, axis=1)[:, None] / np.linalg.norm(rights, axis=1)
    is_pair = np.eye(len(pairs), dtype=bool)
    return float(cosines[is_pair].mean() - cosines[~is_pair].mean())


@pytest.mark.slow
def test_adapters_bring_texts_together_that_belong_together(bert: Path) -> None:
    text = TransformerText.load(str(bert))
    identity = text.identity
    pairs = [("iron", "war"), ("man", "drama"), ("heel", "comedy"), ("2008", "worlds")]
    margin = _margin(text, pairs)
    settings = TuningSettings(max_steps=60, batch_pairs=4, learning_rate=5e-3)

    losses = tune_text(text, pairs, settings)

    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])
    assert _margin(text, pairs) > margin + 0.15
    assert text.identity != identity

    again = TransformerText.load(str(bert))
    assert tune_text(again, pairs, settings) == losses
    assert again.identity == text.identity


def test_a_tuned_model_is_kept_without_pickles_and_is_the_same_again(bert: Path, tmp_path: Path) -> None:
    text = TransformerText.load(str(bert))
    tune_text(text, [("iron", "war"), ("man", "drama")], TuningSettings(max_steps=2))

    text.save(tmp_path / "text")

    kept = TransformerText.load(str(tmp_path / "text"))
    assert kept.identity == text.identity
    assert np.array_equal(kept.encode(TEXTS), text.encode(TEXTS))
    assert {path.suffix for path in (tmp_path / "text").iterdir()} == {".json", ".safetensors"}


def test_tuning_on_nothing_is_refused(bert: Path) -> None:
    with pytest.raises(ValueError, match="1 pairs"):
        tune_text(TransformerText.load(str(bert)), [("iron", "man")], TuningSettings())


@given(st.text(max_size=40))
def test_words_are_the_same_in_capitals_and_each_comes_once(text: str) -> None:
    words = words_of(text)

    assert len(set(words)) == len(words)
    assert words_of(" ".join(words)) == words


def test_words_of_many_scripts() -> None:
    assert words_of("Fantômas – À l'ombre; 七人の侍 (1954)") == ["fantômas", "à", "l", "ombre", "七人の侍", "1954"]


def test_buckets_are_the_same_on_every_machine() -> None:
    # CRC-32 of "123456789" is 0xCBF43926 by its published check value.
    assert hashed_bucket("123456789", 1000) == 0xCBF43926 % 1000 + 1
    assert {hashed_bucket(str(number), 7) for number in range(200)} == set(range(1, 8))
