"""Stores against the folds of their changelogs, also while somebody writes to them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.audit.findings import Check
from stream_app.audit.stores import ChangelogPass, StoreComparison, local_stores, open_snapshots
from stream_app.faustkit.run import part_of
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from tests.audit.cases import Record, new_check, new_fold, run, values

MEMORY_BYTES = 4 * 1024 * 1024

GROWING = st.lists(st.tuples(st.sampled_from([b"a", b"b", b"c", b"d"]), st.binary(max_size=2)), min_size=1, max_size=20)
"""Changes whose positions are their offsets."""


@dataclass
class MemoryStore:
    """A store in memory."""

    held: Mapping[bytes, Stored]
    changelog_offset: int | None
    path: Path = Path("store")

    def items(self) -> Iterator[tuple[bytes, Stored]]:
        """All keys and values."""
        return iter(sorted(self.held.items()))

    def get(self, key: bytes) -> Stored | None:
        """The value of one key."""
        return self.held.get(key)


def held_at(changes: list[tuple[bytes, bytes]], num: int) -> dict[bytes, Stored]:
    """What the first `num` changes leave."""
    return {key: Stored(position, payload) for position, (key, payload) in enumerate(changes[:num])}


def compare(changes: list[tuple[bytes, bytes]], store: MemoryStore, *, is_compacted: bool, num_cut: int = 0) -> Check:
    """The findings about a store beside this changelog; compacted, only the newest record of each key is there."""
    check = new_check()
    fold = new_fold()
    changelog = ChangelogPass(fold, [StoreComparison(check, store, fold)])
    newest = {key: place for place, (key, _) in enumerate(changes)}
    records = [
        Record(place, key, seal(place, payload))
        for place, (key, payload) in enumerate(changes)
        if not is_compacted or newest[key] == place
    ]
    whole = run(records)
    for part in (
        (part_of(whole, 0, num_cut), part_of(whole, num_cut, len(whole))) if 0 < num_cut < len(whole) else [whole]
    ):
        changelog.take(part)
    changelog.finish(len(changes))
    return check


@given(GROWING, st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_a_store_that_is_behind_passes(
    changes: list[tuple[bytes, bytes]], num: int, num_cut: int, is_compacted: bool
) -> None:
    num = min(num, len(changes))
    store = MemoryStore(held_at(changes, num), num - 1 if num else None)
    assert compare(changes, store, is_compacted=is_compacted, num_cut=num_cut).num_breaches == 0


@given(GROWING, st.integers(1, 20), st.data(), st.booleans())
def test_every_difference_is_named(
    changes: list[tuple[bytes, bytes]], num: int, data: st.DataObject, is_compacted: bool
) -> None:
    num = min(num, len(changes))
    held = held_at(changes, num)
    key = data.draw(st.sampled_from(sorted(held)))
    comes_again = any(later == key for later, _ in changes[num:])
    damage = data.draw(st.sampled_from(["bytes", "position", "missing", "foreign"]))
    if damage == "bytes":
        held[key] = Stored(held[key].position, held[key].payload + b"x")
    elif damage == "position":
        held[key] = Stored(held[key].position + 1000, held[key].payload)
    elif damage == "missing":
        del held[key]
    else:
        key = b"z"
        held[key] = Stored(0, b"")
    # Where compaction took the record that the store reflects, its bytes cannot be told any more.
    is_told = damage in ("position", "foreign") or not (is_compacted and comes_again)
    check = compare(changes, MemoryStore(held, num - 1), is_compacted=is_compacted)
    assert [breach.key for breach in check.breaches] == ([repr(key.decode())] if is_told else [])


def test_a_store_ahead_of_its_changelog_is_named() -> None:
    check = compare([(b"a", b"")], MemoryStore({b"a": Stored(0, b"")}, 3), is_compacted=False)
    assert [breach.seen for breach in check.breaches] == ["in the store store: changelog offset 3"]


def test_a_store_is_read_as_of_one_moment_while_its_worker_writes(tmp_path: Path) -> None:
    written = PartitionStore(tmp_path / "t" / "0", StoreMemory(MEMORY_BYTES))
    keys = [b"%d" % number for number in range(50)]
    for number in range(30):
        written.write({key: seal(number, b"x" * 20_000) for key in keys}, number)
    check = new_check()
    with open_snapshots([written.path], check) as (snapshot,):
        written.write({key: seal(99, b"later") for key in keys}, 99)
        assert snapshot.changelog_offset == 29
        assert {stored.position for _, stored in snapshot.items()} == {29}
        assert snapshot.get(keys[0]) == Stored(29, b"x" * 20_000)
    assert written.get(keys[0]) == Stored(99, b"later")
    written.close()
    assert (check.status, check.not_checked) == ("pass", [])


def test_a_damaged_store_is_a_breach_and_an_unreadable_one_is_not_checked(tmp_path: Path) -> None:
    PartitionStore(tmp_path / "0", StoreMemory(MEMORY_BYTES)).close()
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    (manifest,) = (tmp_path / "0").glob("MANIFEST-*")
    manifest.write_bytes(b"damage" * 10)
    (tmp_path / "1" / "CURRENT").unlink()
    check = new_check()
    with open_snapshots([tmp_path / "0", tmp_path / "1"], check) as opened:
        assert opened == []
    assert [str(tmp_path / "0") in breach.seen for breach in check.breaches] == [True]
    assert [str(tmp_path / "1") in text for text in check.not_checked] == [True]


def test_the_stores_of_all_workers_of_a_role_are_found(tmp_path: Path) -> None:
    for place in ("encode-0/user-memory/0", "encode-1/user-memory/0", "encode-1/user-memory/1.damaged-1"):
        (tmp_path / place).mkdir(parents=True)
    (tmp_path / "trend-0" / "user-memory" / "3").mkdir(parents=True)
    found = local_stores(tmp_path, "encode", "user-memory")
    assert found == {0: [tmp_path / "encode-0/user-memory/0", tmp_path / "encode-1/user-memory/0"]}
    assert local_stores(tmp_path / "none", "encode", "user-memory") == {}


@pytest.mark.parametrize("num", [1, 3])
def test_several_stores_of_one_partition_are_compared_each_at_its_offset(num: int) -> None:
    changes: list[tuple[bytes, int | None, bytes]] = [(b"a", 0, b"1"), (b"b", 1, b"2"), (b"a", 2, b"3")]
    plain = [(key, payload) for key, _, payload in changes]
    check, fold = new_check(), new_fold()
    stores = [MemoryStore(held_at(plain, at), at - 1) for at in (num, 3, 2)]
    comparisons = [StoreComparison(check, store, fold) for store in stores]
    changelog = ChangelogPass(fold, comparisons)
    changelog.take(values(changes))
    changelog.finish(3)
    assert check.num_breaches == 0
    assert [one.num_keys for one in comparisons] == [len(store.held) for store in stores]
