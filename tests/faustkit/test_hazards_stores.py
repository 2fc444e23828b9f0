"""Local stores: what stock Faust's do with locks, damage, a full disk and memory, each beside ours."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faust
import pytest
import rocksdict
from faust.stores import rocksdb as stock
from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit import AppConfig, BatchApp, store
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, open_or_quarantine, seal
from stream_app.faustkit.table import PartitionedStore
from tests.examples import examples

MEMORY_BYTES = 8 * 1024 * 1024
NUM_WRITES = 60
NUM_KEYS = 7


@pytest.fixture
def memory() -> StoreMemory:
    """The budget of our stores."""
    return StoreMemory(MEMORY_BYTES)


@pytest.fixture
def stock_store(tmp_path: Path) -> Callable[[str], stock.Store]:
    """Makes the store of a table of a stock app."""
    app = faust.App("stock", broker="kafka://127.0.0.1:9", datadir=str(tmp_path / "stock"))

    def make(name: str) -> stock.Store:
        table = app.Table(name, key_type=bytes, value_type=bytes)
        return stock.Store("rocksdb://", app, table, table_name=name, key_type=bytes, value_type=bytes)

    return make


@pytest.fixture
def our_store(tmp_path: Path) -> PartitionedStore:
    """The store of a table of ours."""
    config = AppConfig("ours", {"bootstrap_servers": ["127.0.0.1:9"]}, tmp_path / "ours")
    return BatchApp(config)._new_table("counts").stores


def open_stock(made: stock.Store, partition: int) -> Any:
    """The database of a partition, as a stock store opens it."""
    path = made.partition_path(partition)
    path.parent.mkdir(parents=True, exist_ok=True)
    made._dbs[partition] = made.rocksdb_options.open(path)
    return made._dbs[partition]


def test_stock_stores_are_not_closed(stock_store: Callable[[str], stock.Store]) -> None:
    made = stock_store("counts")
    held = open_stock(made, 0)
    asyncio.run(made.stop())
    with pytest.raises(Exception, match=r"(?i)lock"):
        open_stock(made, 0)
    held.close()


def test_our_stores_are_closed_whoever_holds_them(our_store: PartitionedStore) -> None:
    held = our_store.open(0)
    asyncio.run(our_store.on_stop())
    again = our_store.open(0)
    assert again is not held
    our_store.close_all()


def test_stock_reset_deletes_the_stores_of_all_tables(stock_store: Callable[[str], stock.Store]) -> None:
    stores = [stock_store("one"), stock_store("two")]
    for made in stores:
        open_stock(made, 0).close()
    stores[0].reset_state()
    assert not stores[1].partition_path(0).exists()


def test_ours_resets_one_partition_at_a_time(our_store: PartitionedStore) -> None:
    for partition in (0, 1):
        our_store.open(partition).write({b"k": seal(1, b"v")}, 7)
    with pytest.raises(NotImplementedError, match="Use `reset`"):
        our_store.reset_state()
    our_store.reset(0)
    our_store.reset(2)  # was never opened
    assert [our_store.open(partition).changelog_offset for partition in (0, 1)] == [None, 7]
    our_store.close_all()


def count_caches(monkeypatch: pytest.MonkeyPatch, module: Any) -> list[int]:
    """The sizes of the block caches that are made from now on, in bytes."""
    sizes: list[int] = []
    original = rocksdict.Cache

    def cache(size_bytes: int) -> rocksdict.Cache:
        sizes.append(size_bytes)
        return original(size_bytes)

    monkeypatch.setattr(module, "Cache", cache)
    return sizes


def test_stock_has_a_block_cache_of_two_gigabytes_for_each_partition(
    stock_store: Callable[[str], stock.Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = count_caches(monkeypatch, rocksdict)
    made = stock_store("counts")
    for partition in range(3):
        open_stock(made, partition).close()
    assert set(sizes) == {2 * 1024**3}
    assert len(sizes) >= 3


def test_ours_has_one_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """How much all of them hold together: `test_store.test_all_stores_share_one_budget`."""
    sizes = count_caches(monkeypatch, store)
    memory = StoreMemory(MEMORY_BYTES)
    for partition in range(3):
        PartitionStore(tmp_path / str(partition), memory).close()
    assert sizes == [MEMORY_BYTES]


def corrupt(folder: Path, place: int) -> None:
    """Turn one byte of the newest table file over."""
    path = max(folder.glob("*.sst"))
    content = bytearray(path.read_bytes())
    content[place] ^= 0xFF
    path.write_bytes(content)


INDEX = -20
"""A place in the footer of a table file: damage there is seen when the file is opened."""


def test_stock_cannot_open_a_damaged_store_however_often_it_tries(stock_store: Callable[[str], stock.Store]) -> None:
    made = stock_store("counts")
    open_stock(made, 0)[b"k"] = b"v"
    made._dbs.pop(0).close()
    corrupt(made.partition_path(0), INDEX)
    for _ in range(2):
        with pytest.raises(Exception, match="Corruption"):
            open_stock(made, 0)


def test_ours_puts_a_damaged_store_aside(tmp_path: Path, memory: StoreMemory) -> None:
    """It is filled again from its changelog: `test_app.test_a_lost_store_is_rebuilt_from_its_changelog`."""
    made = PartitionStore(tmp_path / "0", memory)
    made.write({b"k": seal(1, b"v")}, 7)
    made.close()
    corrupt(made.path, INDEX)
    opened = open_or_quarantine(made.path, memory)
    assert (opened.changelog_offset, list(opened.items())) == (None, [])
    opened.close()


NUM_BLOCKS_VALUES = 1000
"""Values of a hundred bytes each: a file of some thirty blocks."""


def write_blocks(path: Path, memory: StoreMemory) -> None:
    """A closed store of many blocks, with damage in one of the middle."""
    made = PartitionStore(path, memory)
    made.write({b"%04d" % number: seal(number, os.urandom(100)) for number in range(NUM_BLOCKS_VALUES)}, 7)
    made.close()
    corrupt(path, max(path.glob("*.sst")).stat().st_size // 2)


def test_stock_takes_damage_within_a_file_for_its_end(
    tmp_path: Path, memory: StoreMemory, stock_store: Callable[[str], stock.Store]
) -> None:
    made = stock_store("counts")
    write_blocks(made.partition_path(0), memory)
    db = open_stock(made, 0)
    assert 0 < len(list(db.items())) < NUM_BLOCKS_VALUES
    db.close()


def test_ours_never_takes_damage_for_the_end_and_puts_the_store_aside(tmp_path: Path, memory: StoreMemory) -> None:
    path = tmp_path / "0"
    for number in (1, 2):
        write_blocks(path, memory)
        opened = open_or_quarantine(path, memory)
        with pytest.raises(Exception, match="Corruption"):
            if number == 1:
                list(opened.items())
            else:
                opened.get_many([b"%04d" % number for number in range(NUM_BLOCKS_VALUES)])
        opened.close()
        opened = open_or_quarantine(path, memory)
        assert (opened.changelog_offset, list(opened.items())) == (None, [])
        assert path.with_name(f"0.damaged-{number}").is_dir()
        opened.close()


WRITES = f"""
import os, sys
from pathlib import Path
from stream_app.faustkit.store import PartitionStore, StoreMemory, seal

store = PartitionStore(Path(sys.argv[1]), StoreMemory({MEMORY_BYTES}))
for number in range({NUM_WRITES}):
    store.write({{b"%d" % (number % {NUM_KEYS}): seal(number, b"%d" % number)}}, number)
os._exit(0)
"""
"""Write number n puts n under one of the keys, with changelog offset n; then the process dies."""


@pytest.fixture(scope="module")
def crashed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store whose process died: everything is in its write-ahead log."""
    path = tmp_path_factory.mktemp("crashed") / "0"
    subprocess.run([sys.executable, "-c", WRITES, str(path)], check=True)
    return path


@examples(25)
@given(cut=st.floats(0, 1), is_torn=st.booleans())
def test_a_cut_log_leaves_an_earlier_state_that_knows_how_old_it_is(
    crashed: Path, tmp_path_factory: pytest.TempPathFactory, cut: float, is_torn: bool
) -> None:
    """RocksDB opens such a store without a word. Ours keeps the changelog offset in the same write as the values, so
    recovery reads all that is missing, wherever the log was cut off or overwritten."""
    path = tmp_path_factory.mktemp("cut") / "0"
    shutil.copytree(crashed, path)
    log = max(path.glob("*.log"))
    place = int(cut * (log.stat().st_size - 1))
    if is_torn:
        content = bytearray(log.read_bytes())
        content[place] ^= 0xFF
        log.write_bytes(content)
    else:
        os.truncate(log, place)
    opened = open_or_quarantine(path, StoreMemory(MEMORY_BYTES))
    offset = opened.changelog_offset
    num_writes = 0 if offset is None else offset + 1
    expected = {b"%d" % (number % NUM_KEYS): Stored(number, b"%d" % number) for number in range(num_writes)}
    assert dict(opened.items()) == expected
    assert num_writes < NUM_WRITES
    opened.close()


FULL = """
import resource, sys
from pathlib import Path
from stream_app.faustkit.store import PartitionStore, StoreMemory, seal

def write(store, number):
    try:
        store.write({b"%d" % number: seal(number, bytes(10_000))}, number)
        return True
    except Exception:
        return False

memory = StoreMemory(8 * 1024 * 1024)
store = PartitionStore(Path(sys.argv[1]), memory)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, limits[1]))
num_written = next(number for number in range(100) if not write(store, number))
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
print(write(store, num_written))
try:
    store.close()
except Exception:
    pass
store = PartitionStore(Path(sys.argv[1]), memory)
print(store.changelog_offset == num_written - 1, len(list(store.items())) == num_written)
print(write(store, num_written))
"""


def test_a_store_that_met_a_full_disk_works_again_only_when_it_is_opened_anew(tmp_path: Path) -> None:
    """So going on is no choice. Ours ends the process, and the next one opens the store:
    `test_hazards_tables.test_a_full_disk_ends_the_process_and_the_next_one_goes_on`."""
    ran = subprocess.run([sys.executable, "-c", FULL, str(tmp_path / "0")], check=True, capture_output=True, text=True)
    assert ran.stdout.split() == ["False", "True", "True", "True"]
