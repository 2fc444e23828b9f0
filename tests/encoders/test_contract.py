"""Vocabulary, gap buckets, batches and errors: what the contract says of its arguments."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from encoders.contract import (
    DamagedModelError,
    EncoderError,
    ModelVersionError,
    SliceBatch,
    SliceCodes,
    TooLittleDataError,
)
from encoders.spec import ModelDims
from encoders.vocabulary import Vocabulary, default_gap_edges_ms, gap_buckets
from tests.encoders.cases import random_batch
from tests.support import DEADLINE_S


def test_vocabulary_rows() -> None:
    vocabulary = Vocabulary(("a", "b"), ("click",))
    assert vocabulary.rows_of(["b", "?", "a"]).tolist() == [3, 1, 2]
    assert vocabulary.type_rows_of(["click", "wave"]).tolist() == [2, 1]
    assert (vocabulary.num_item_rows, vocabulary.num_type_rows) == (4, 3)
    with pytest.raises(ValueError, match="1 of 3 item ids repeat"):
        Vocabulary(("a", "b", "a"), ())


def test_gap_buckets_equal_a_plain_count() -> None:
    edges_ms = default_gap_edges_ms()
    gaps_ms = np.array([-1, 0, 999, 1000, 1001, 2000, 10**13])
    expected = [0, *(1 + sum(edge_ms <= gap_ms for edge_ms in edges_ms) for gap_ms in gaps_ms[1:].tolist())]
    assert gap_buckets(gaps_ms, edges_ms).tolist() == expected
    assert gap_buckets(gaps_ms, edges_ms).max() == ModelDims(3, 3).num_gap_rows - 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("item_rows_SL", np.ones((3, 16), dtype=np.int32), "item_rows_SL: got int32 with 2 axes"),
        ("gaps_ms_SL", np.ones((3, 15), dtype=np.int64), "gaps_ms_SL has shape"),
        ("lengths_S", np.ones(4, dtype=np.int64), "lengths_S has shape"),
        ("lengths_S", np.array([1, 0, 2]), "runs from 0 to 2, expected 1 to 16; leave empty slices out"),
        ("lengths_S", np.array([1, 17, 2]), "runs from 1 to 17"),
        ("context_gaps_ms_SC", np.ones((3, 15), dtype=np.int64), "context_gaps_ms_SC has shape"),
        ("context_item_rows_SC", np.eye(3, 16, dtype=np.int64), "padding behind an event; pad it on the left"),
    ],
)
def test_batches_that_do_not_fit_are_refused(name: str, value: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SliceBatch(**{**vars(random_batch(3, seed=0)), name: value})


def test_contexts_of_other_slices_are_refused() -> None:
    context = {name: array for name, array in vars(random_batch(2, seed=0)).items() if name.startswith("context")}
    with pytest.raises(ValueError, match="context_item_rows_SC has 2 slices, item_rows_SL 3"):
        SliceBatch(**{**vars(random_batch(3, seed=0)), **context})


def test_codes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="codes_SD: got float64"):
        SliceCodes(np.zeros((2, 4)), np.zeros((2, 4), dtype=np.float32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="differ"):
        SliceCodes(np.zeros((2, 4), dtype=np.float32), np.zeros((3, 4), dtype=np.float32))


@pytest.mark.parametrize(
    ("dims", "message"),
    [
        ({"dim": 10, "num_heads": 3}, "dim 10 is not divisible by num_heads 3"),
        ({"num_layers": 0}, "below 1: {'num_layers': 0}"),
        ({"gap_edges_ms": (2, 1)}, "must rise strictly"),
        ({"slice_events": 8}, "context_events is 16, expected at most slice_events 8"),
        ({"merge": "sum"}, "merge is 'sum', expected one of none, mean, decayed, gate, concat, tokens"),
    ],
)
def test_dims_that_make_no_model_are_refused(dims: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ModelDims(10, 3, **dims)  # type: ignore[arg-type]


@pytest.mark.parametrize("error", [DamagedModelError, ModelVersionError, TooLittleDataError])
def test_no_error_of_this_package_is_cured_by_waiting(error: type[EncoderError]) -> None:
    assert EncoderError in error.__mro__
    assert not error.retriable


def test_contract_and_spec_do_without_torch() -> None:
    code = "import sys, encoders.contract, encoders.spec; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=DEADLINE_S)
    assert done.stdout.strip() == "False"
