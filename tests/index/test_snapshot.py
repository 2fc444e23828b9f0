"""Snapshots: what was written comes back, what is damaged is refused by name, and a crash leaves no half one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index import ItemAttributes, ItemFilter, ItemIndex, LiveIndex
from index.attribute_columns import as_columns, from_columns
from index.contract import IndexContents
from index.errors import NoSnapshotError
from index.exact import ExactIndex
from index.snapshot import load, load_newest, save
from index.snapshot_files import FILES, read_contents, write_contents
from tests.bench.common import ROOT
from tests.examples import examples
from tests.index.cases import CASES, DIM, names, prepare, settle, vectors


@pytest.fixture(params=CASES)
def index(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ItemIndex:
    return prepare(CASES[request.param], monkeypatch)


@pytest.fixture
def small() -> ItemIndex:
    """One item, whose number says which state this is."""
    index = ExactIndex(DIM, "r1")
    index.upsert(["state-1"], vectors(1))
    return index


def test_what_was_written_answers_alike(index: ItemIndex, tmp_path: Path) -> None:
    index.upsert(names(200), vectors(200))
    settle(index)
    index.upsert(names(30, start=190), vectors(30, seed=1))
    index.remove(names(20))
    told = ItemAttributes(frozenset({"tea", "é\ud800"}), 2.5, available=False)
    index.upsert_attributes(["i00050", "no vector"], [told, ItemAttributes()])
    index.search(vectors(3), k=2)
    written = save(index, tmp_path, {"item-vectors": {"0": 17}})
    other = prepare(CASES["exact"], pytest.MonkeyPatch())
    loaded = load(other, tmp_path)
    assert (loaded.name, loaded.positions) == (written.name, {"item-vectors": {"0": 17}})
    assert (loaded.damaged, loaded.others) == ([], [])
    queries = vectors(5, seed=4)
    for wanted in (None, ItemFilter(frozenset({"é\ud800"})), ItemFilter(available_only=True)):
        seen, expected = (one.search(queries, len(index), filter=wanted) for one in (other, index))
        assert (seen.ids, seen.scores_QK.tobytes()) == (expected.ids, expected.scores_QK.tobytes())
    assert from_columns(other.contents().attributes) == {"i00050": told, "no vector": ItemAttributes()}


def test_parts_and_queries_come_back(tmp_path: Path) -> None:
    index = CASES["main-ivf"].build()
    assert isinstance(index, LiveIndex)
    index.upsert(names(100), vectors(100))
    index.search(vectors(4, seed=2), k=1)
    index.compact()
    index.upsert(["late"], vectors(1, seed=3))
    save(index, tmp_path, {})
    contents = load_newest(tmp_path, "r1").contents
    before = index.contents()
    assert contents.partition is not None and before.partition is not None
    assert (contents.partition.centres_PD == before.partition.centres_PD).all()
    assert contents.partition.parts_N.tolist() == before.partition.parts_N.tolist()
    assert contents.partition.parts_N[-1] == -1
    assert contents.queries_SD is not None
    assert (contents.queries_SD == vectors(4, seed=2)).all()


any_text = st.text(st.characters(codec=None), min_size=1, max_size=12)


@given(st.lists(any_text, unique=True, max_size=12), st.sets(any_text, max_size=4))
@examples(60, derandomize=True)
def test_any_text_comes_back(tmp_path_factory: pytest.TempPathFactory, ids: list[str], categories: set[str]) -> None:
    folder = tmp_path_factory.mktemp("texts")
    told = {item_id: ItemAttributes(frozenset(categories)) for item_id in ids[::2]}
    write_contents(folder, IndexContents("r1", ids, vectors(len(ids)), as_columns(told)))
    contents = read_contents(folder, "r1", frozenset(path.name for path in folder.iterdir()))
    assert contents.ids == ids
    assert from_columns(contents.attributes) == told


def test_the_newest_so_many_stay(small: ItemIndex, tmp_path: Path) -> None:
    written = [save(small, tmp_path, {"turn": turn}, keep=2) for turn in range(4)]
    assert sorted(tmp_path.iterdir()) == written[2:]
    assert load_newest(tmp_path, "r1").positions == {"turn": 3}


def test_every_damage_to_every_file_is_refused_by_name(small: ItemIndex, tmp_path: Path) -> None:
    save(small, tmp_path, {"turn": 0})
    newest = save(small, tmp_path, {"turn": 1})
    files = sorted(newest.iterdir())
    assert {path.name for path in files} <= FILES | {"manifest.json"}
    for path in files:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        flipped[len(whole) // 2] ^= 1
        for damaged in (bytes(flipped), whole[:-1], b"", None):
            path.unlink()
            if damaged is not None:
                path.write_bytes(damaged)
            loaded = load_newest(tmp_path, "r1")
            assert loaded.positions == {"turn": 0}
            assert [error.folder for error in loaded.damaged] == [newest.name]
            assert path.name in str(loaded.damaged[0])
            path.write_bytes(whole)
    assert load_newest(tmp_path, "r1").positions == {"turn": 1}


@pytest.mark.parametrize("told", [b"[]", b"null", b"{}", b'{"sha256": 1}', b"\xff\xfe", b'{"format": 1}'])
def test_a_manifest_of_other_json_is_damage(small: ItemIndex, tmp_path: Path, told: bytes) -> None:
    (save(small, tmp_path, {}) / "manifest.json").write_bytes(told)
    with pytest.raises(NoSnapshotError, match=r"manifest\.json"):
        load_newest(tmp_path, "r1")


def test_another_format_is_told(small: ItemIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.snapshot.FORMAT", 2)
    save(small, tmp_path, {})
    monkeypatch.undo()
    with pytest.raises(NoSnapshotError, match="it has format 2, expected 1"):
        load_newest(tmp_path, "r1")


def test_a_snapshot_of_another_release_is_passed_over(small: ItemIndex, tmp_path: Path) -> None:
    save(small, tmp_path, {"turn": 0})
    other = ExactIndex(DIM, "r2")
    other.upsert(["a"], vectors(1))
    newer = save(other, tmp_path, {"turn": 1})
    loaded = load_newest(tmp_path, "r1")
    assert (loaded.positions, loaded.others) == ({"turn": 0}, [newer.name])
    with pytest.raises(NoSnapshotError, match="is of another release"):
        load_newest(tmp_path, "r3")


def test_no_snapshot_leaves_the_index_as_it_is(small: ItemIndex, tmp_path: Path) -> None:
    with pytest.raises(NoSnapshotError, match="'r1'"):
        load(small, tmp_path / "nothing")
    assert (len(small), small.version) == (1, 1)


def test_a_full_disk_leaves_the_older_one(small: ItemIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = save(small, tmp_path, {"turn": 0})

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save(small, tmp_path, {"turn": 1})
    assert list(tmp_path.iterdir()) == [kept]


WRITER = """
import sys
from itertools import count
from pathlib import Path
from index.exact import ExactIndex
from index.snapshot import save
from tests.index.cases import DIM, vectors

index = ExactIndex(DIM, "r1")
for turn in count(1):
    index.upsert([f"state-{n}" for n in range(turn)], vectors(turn, seed=turn))
    save(index, Path(sys.argv[1]), {"turn": turn})
    print(turn, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("num_published", [1, 2, 3, 5, 8])
def test_a_killed_writer_leaves_the_newest_published(tmp_path: Path, num_published: int) -> None:
    """Killed wherever it is after a publication: what loads is that one, or a later one, and whole."""
    writer = subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(num_published):
        told = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    told = max([told, *map(int, writer.stdout.read().split())])
    writer.wait(30)
    writer.stdout.close()
    loaded = load_newest(tmp_path, "r1")
    turn = loaded.positions["turn"]
    assert loaded.damaged == []
    assert turn in (told, told + 1)
    assert loaded.contents.ids == [f"state-{n}" for n in range(turn)]
    assert (loaded.contents.vectors_ND == vectors(turn, seed=turn)).all()
    again = ExactIndex(DIM, "r1")
    again.upsert(["next"], vectors(1))
    save(again, tmp_path, {"turn": -1})
    assert load_newest(tmp_path, "r1").positions == {"turn": -1}
    assert all(path.name.startswith("snapshot-") for path in tmp_path.iterdir())


def test_nothing_in_a_snapshot_is_pickled(small: ItemIndex, tmp_path: Path) -> None:
    folder = save(small, tmp_path, {})
    for path in folder.glob("*.npy"):
        np.load(path, allow_pickle=False)
    assert set(json.loads((folder / "manifest.json").read_bytes())["files"]) == {
        path.name for path in folder.glob("*.npy")
    }
