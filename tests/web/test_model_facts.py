"""What a model's folder says of the model beside its signed files."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from encoders.spec import load_spec, read_file
from stream_app.errors import ModelError
from stream_app.models import TRAINED_FILE, note_trained
from stream_app.web.state.model_facts import EVALUATION_FILE, model_facts
from tests.web.cases import EXAMPLE, NOW_MS, web_settings


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the example's model, without anything that is not signed."""
    folder = tmp_path / "model"
    shutil.copytree(EXAMPLE / "model", folder, ignore=shutil.ignore_patterns(TRAINED_FILE, EVALUATION_FILE))
    return folder


def test_when_it_was_trained_and_nothing_signed_changes(model: Path, tmp_path: Path) -> None:
    settings = web_settings("127.0.0.1:1", "facts-", tmp_path, model=str(model))
    assert (model_facts(settings).trained_at, model_facts(settings).evaluation) == (None, None)
    signed = (model / "spec.json").read_bytes()
    note_trained(model, NOW_MS)
    assert model_facts(settings).trained_at == NOW_MS
    assert (model / "spec.json").read_bytes() == signed
    spec = load_spec(model)
    assert all(read_file(model, spec, name) for name in spec.files)


@pytest.mark.parametrize("name", [TRAINED_FILE, EVALUATION_FILE])
@pytest.mark.parametrize("damaged", ["", "{}", '{"trained_at":"yesterday"}'])
def test_what_cannot_be_read_is_told(model: Path, tmp_path: Path, name: str, damaged: str) -> None:
    (model / name).write_text(damaged)
    with pytest.raises(ModelError, match="does not hold what it should"):
        model_facts(web_settings("127.0.0.1:1", "facts-", tmp_path, model=str(model)))


def test_the_examples_model_says_when_it_was_trained(tmp_path: Path) -> None:
    facts = model_facts(web_settings("127.0.0.1:1", "facts-", tmp_path))
    assert facts.trained_at is not None and facts.trained_at > NOW_MS
