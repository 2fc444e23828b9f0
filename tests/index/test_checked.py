"""Vectors from a topic: bad ones are refused by name, good ones go in, and what was good before stays."""

from __future__ import annotations

import numpy as np
import pytest

from index import ItemIndex
from index.checked import NO_ID, GivenVector, RefusedVector, upsert_good
from index.checks import ALL_ZEROS, NOT_FINITE, TOO_LONG, WRONG_DIM, WRONG_RELEASE
from tests.index.cases import CASES, DIM, prepare, vectors


@pytest.fixture(params=CASES)
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ItemIndex:
    return prepare(CASES[request.param], monkeypatch)


def test_each_bad_vector_is_named_with_its_reason_and_the_last_good_one_stays(index: ItemIndex) -> None:
    good = vectors(4)
    index.upsert(["kept"], good[:1])
    bad = {
        NOT_FINITE: np.array([np.nan] + [1.0] * (DIM - 1), dtype=np.float32),
        ALL_ZEROS: np.zeros(DIM, dtype=np.float32),
        TOO_LONG: np.full(DIM, 1e30, dtype=np.float32),
        WRONG_DIM: np.ones(DIM + 1, dtype=np.float32),
        WRONG_RELEASE: good[1],
    }
    given = [GivenVector("new", good[1], "r1")]
    given += [GivenVector("kept", vector, "r2" if reason == WRONG_RELEASE else "r1") for reason, vector in bad.items()]
    given += [GivenVector("", good[2], "r1"), GivenVector("newer", good[3], "r1")]
    refused = upsert_good(index, given)
    expected = [RefusedVector(place, "kept", reason) for place, reason in enumerate(bad, start=1)]
    assert refused == [*expected, RefusedVector(len(given) - 2, "", NO_ID)]
    found_vectors, found = index.vectors_of(["kept", "new", "newer"])
    assert found.all()
    assert (found_vectors == good[[0, 1, 3]]).all()
    assert index.version == 2


def test_of_several_of_one_item_the_last_good_one_counts(index: ItemIndex) -> None:
    rows = vectors(3)
    given = [GivenVector("a", rows[0], "r1"), GivenVector("a", rows[1], "r1"), GivenVector("a", rows[2] * np.nan, "r1")]
    assert upsert_good(index, given) == [RefusedVector(2, "a", NOT_FINITE)]
    assert (index.vectors_of(["a"])[0] == rows[1]).all()


def test_infinite_in_float32_is_refused_too(index: ItemIndex) -> None:
    given = [GivenVector("a", np.full(DIM, 1e300), "r1")]
    assert upsert_good(index, given) == [RefusedVector(0, "a", NOT_FINITE)]


def test_nothing_good_changes_nothing(index: ItemIndex) -> None:
    assert upsert_good(index, []) == []
    assert upsert_good(index, [GivenVector("a", np.ones(0, dtype=np.float32), "r1")])[0].reason == WRONG_DIM
    assert (len(index), index.version) == (0, 0)
