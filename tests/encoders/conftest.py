"""Fixtures of the encoder tests: one thread, and one saved model per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from encoders.checkpoint import load_model, save_model
from encoders.runtime import SliceEncoderRuntime
from tests.encoders.cases import made_up_model


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Bytes are promised per thread count; tests use one, and give back what they found."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved made-up model; read only."""
    folder = tmp_path_factory.mktemp("models") / "made-up"
    save_model(made_up_model(seed=7), folder)
    return folder


@pytest.fixture(scope="session", params=[True, False], ids=["numpy", "torch"])
def runtime(model_folder: Path, request: pytest.FixtureRequest) -> SliceEncoderRuntime:
    """The fast path over `model_folder`, on the CPU, in both ways that there are."""
    return SliceEncoderRuntime(load_model(model_folder), torch.device("cpu"), in_numpy=request.param)
