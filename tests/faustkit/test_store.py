"""The local store: what was written together is there together, and a closed store is free."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit.store import (
    PartitionStore,
    Stored,
    StoreMemory,
    open_or_quarantine,
    quarantine,
    seal,
    unseal,
)

MEMORY_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def memory() -> StoreMemory:
    """The budget of all stores here."""
    return StoreMemory(MEMORY_BYTES)


@pytest.fixture
def store(tmp_path: Path, memory: StoreMemory) -> Iterator[PartitionStore]:
    """An empty store."""
    made = PartitionStore(tmp_path / "table" / "0", memory)
    yield made
    made.close()


@given(st.integers(0, 2**63 - 1), st.binary())
def test_envelopes_open_to_what_was_sealed(position: int, payload: bytes) -> None:
    assert unseal(seal(position, payload)) == Stored(position, payload)


def test_an_envelope_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match=r"7 bytes; at least 8"):
        unseal(b"1234567")


def test_values_come_in_the_order_asked(store: PartitionStore) -> None:
    store.write({b"a": seal(1, b"x"), b"\xff": seal(2, b""), b"": seal(3, b"z")}, 7)
    assert store.get_many([b"none", b"\xff", b"a", b"a", b""]) == [
        None,
        Stored(2, b""),
        Stored(1, b"x"),
        Stored(1, b"x"),
        Stored(3, b"z"),
    ]
    assert store.get_many([]) == []
    assert store.get(b"a") == Stored(1, b"x")


def test_keys_never_meet_our_own(store: PartitionStore) -> None:
    store.write({b"m:changelog-offset": seal(1, b"x")}, 7)
    assert store.changelog_offset == 7
    assert list(store.items()) == [(b"m:changelog-offset", Stored(1, b"x"))]


def test_items_are_all_values_in_key_order(store: PartitionStore) -> None:
    keys = [bytes([number]) for number in (200, 0, 255, 17)]
    store.write({key: seal(key[0], key * 2) for key in keys}, 0)
    store.load({b"\x11": None, b"unknown": None}, 1, use_log=True)
    assert store.changelog_offset == 1
    assert list(store.items()) == [(key, Stored(key[0], key * 2)) for key in sorted(keys) if key != b"\x11"]


def test_an_empty_store_has_no_changelog_offset(store: PartitionStore) -> None:
    assert store.changelog_offset is None
    assert list(store.items()) == []


def test_a_write_is_all_or_nothing(store: PartitionStore) -> None:
    store.write({b"a": seal(1, b"old")}, 7)
    with pytest.raises(Exception, match=r"str|bytes|type"):
        store.write({b"a": seal(2, b"new"), b"b": 5}, 8)  # type: ignore[dict-item]
    assert store.get(b"a") == Stored(1, b"old")
    assert store.changelog_offset == 7


def test_a_closed_store_is_free_and_keeps_its_values(tmp_path: Path, memory: StoreMemory) -> None:
    for number in range(3):
        store = PartitionStore(tmp_path / "0", memory)
        assert store.get(b"a") == (Stored(number - 1, b"x") if number else None)
        store.write({b"a": seal(number, b"x")}, number)
        assert [key for key, _ in store.items()] == [b"a"]
        store.close()


def test_an_open_store_is_locked(store: PartitionStore, memory: StoreMemory) -> None:
    with pytest.raises(Exception, match=r"(?i)lock"):
        PartitionStore(store.path, memory)


def test_a_store_put_aside_makes_room_for_a_new_one(tmp_path: Path, memory: StoreMemory) -> None:
    asides = []
    for number in range(2):
        store = PartitionStore(tmp_path / "0", memory)
        assert store.changelog_offset is None
        store.write({}, number)
        store.close()
        asides.append(quarantine(store.path))
    assert [aside.name for aside in asides] == ["0.damaged-1", "0.damaged-2"]
    kept = PartitionStore(asides[1], memory)
    assert kept.changelog_offset == 1
    kept.close()


def test_all_stores_share_one_budget(tmp_path: Path) -> None:
    memory = StoreMemory(MEMORY_BYTES)
    stores = [PartitionStore(tmp_path / str(number), memory) for number in range(4)]
    for number, store in enumerate(stores):
        store.write({b"%d" % place: seal(number, b"x" * 1000) for place in range(1500)}, 0)
    # Write buffers are charged to the cache: 6 MB were written, and never more than the budget is held.
    assert 0 < memory.cache.get_usage() <= MEMORY_BYTES * 1.1
    for store in stores:
        store.close()


def test_a_damaged_store_is_put_aside_and_opened_empty(tmp_path: Path, memory: StoreMemory) -> None:
    path = tmp_path / "0"
    store = PartitionStore(path, memory)
    store.write({b"k": seal(1, b"v")}, 7)
    store.close()
    (path / "CURRENT").write_text("no manifest")
    opened = open_or_quarantine(path, memory)
    assert (opened.changelog_offset, list(opened.items())) == (None, [])
    assert (tmp_path / "0.damaged-1" / "CURRENT").read_text() == "no manifest"
    opened.close()


def test_a_locked_store_is_not_taken_for_a_damaged_one(tmp_path: Path, memory: StoreMemory) -> None:
    store = PartitionStore(tmp_path / "0", memory)
    with pytest.raises(Exception, match="lock"):
        open_or_quarantine(tmp_path / "0", memory)
    store.close()
    assert not (tmp_path / "0.damaged-1").exists()
