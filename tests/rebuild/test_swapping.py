"""The swap without a broker: which records lead from one state to another, in whatever store they meet."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app import tables
from stream_app.errors import TopicMismatchError
from stream_app.faustkit.changelog import ChangelogFold
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from stream_app.rebuild_folds import Layered, cut_by_time
from stream_app.rebuilding import Differences, Rebuilt, check_whole, paired
from stream_app.settings import Settings
from stream_app.swapping import records_of, remove_stores
from stream_app.wiring import store_folder

MEMORY = StoreMemory(8 * 1024 * 1024)

State = dict[bytes, tuple[int, bytes]]
STATES = st.dictionaries(
    st.sampled_from([b"a", b"b", b"c", b"d", b"\xc3\xbc", tables.PARTITION_KEY]),
    st.tuples(st.integers(0, 9), st.sampled_from([b"x", b"y", b""])),
)


def store_of(folder: str, name: str, state: Mapping[bytes, tuple[int, bytes]]) -> PartitionStore:
    """A store that holds `state`."""
    store = PartitionStore(Path(folder) / name, MEMORY)
    store.load({key: seal(*value) for key, value in state.items()}, 0, use_log=False)
    return store


def state_of(store: PartitionStore) -> State:
    """What a store holds."""
    return {key: (stored.position, stored.payload) for key, stored in store.items()}


def rebuilt_of(store: PartitionStore, role: str = "sequence") -> Rebuilt:
    """A new state of one partition, of which ten records were folded."""
    return Rebuilt(role, "changelog", {0: 10}, {0: store})


def run_of(records: list[tuple[bytes, bytes | None]], start: int) -> Run:
    """A run of a changelog."""
    keys, values = zip(*records, strict=True)
    num = len(records)
    return Run("changelog", 0, range(start, start + num), keys, values, [0] * num, [()] * num)


@pytest.mark.slow
@settings(deadline=None)  # files are written
@given(STATES, STATES)
def test_keys_are_paired_in_order(new: State, old: State) -> None:
    with TemporaryDirectory() as folder:
        stores = store_of(folder, "new", new), store_of(folder, "old", old)
        found = list(paired(*stores))
        differences = rebuilt_of(stores[0]).count({0: stores[1]})
        for store in stores:
            store.close()
    expected = [
        (key, *(None if state.get(key) is None else Stored(*state[key]) for state in (new, old)))
        for key in sorted({*new, *old})
    ]
    assert found == expected
    both = new.keys() & old.keys()
    assert differences == Differences(
        len(new), len(new.keys() - old), sum(new[key] != old[key] for key in both), len(old.keys() - new)
    )


@pytest.mark.slow
@settings(deadline=None)  # files are written
@given(STATES, STATES, st.lists(st.integers(1, 20), max_size=4))
def test_every_store_that_reflected_the_old_state_ends_with_the_new_one(
    new: State, old: State, cuts: list[int]
) -> None:
    """However the records are cut into runs, also where positions go back."""
    with TemporaryDirectory() as folder:
        stores = store_of(folder, "new", new), store_of(folder, "old", old)
        rebuilt = rebuilt_of(stores[0])
        records = [(one.key, one.value) for one in records_of(rebuilt, 0, stores[1])]
        whole = [(one.key, one.value) for one in records_of(rebuilt, 0, None)]
        before = [(key, seal(*value)) for key, value in sorted(old.items())]
        reader = store_of(folder, "reader", {})
        fold = ChangelogFold(reader)
        log = [*before, *((key or b"", value) for key, value in records)]
        bounds = sorted({0, *(cut for cut in cuts if cut < len(log)), len(log)})
        for start, stop in pairwise(bounds):
            fold.apply(run_of(log[start:stop], start))
        found = state_of(reader)
        for store in (*stores, reader):
            store.close()
    assert found == new
    assert {key: value for key, value in whole} == {key: seal(*value) for key, value in new.items()}
    for listed in (records, whole):
        if any(key == tables.PARTITION_KEY for key, _ in listed):
            assert listed[-1][0] == tables.PARTITION_KEY
    assert (not records) == (new == old)


@pytest.mark.parametrize(
    ("role", "old", "expected"),
    [
        ("sequence", (3, b"x"), 1),
        ("sequence", (4, b"x"), 0),
        ("trend", (3, b"x"), 0),
        ("trend", (9, b"x"), 0),
        ("trend", (10, b"x"), 1),
        ("encode", (4, b"y"), 1),
    ],
)
def test_how_runs_were_cut_is_no_difference_unless_it_hides_records(
    tmp_path: Path, role: str, old: tuple[int, bytes], expected: int
) -> None:
    stores = store_of(str(tmp_path), "new", {b"a": (4, b"x")}), store_of(str(tmp_path), "old", {b"a": old})
    assert rebuilt_of(stores[0], role).count({0: stores[1]}).num_changed == expected
    for store in stores:
        store.close()


def test_only_the_stores_of_the_role_are_removed(tmp_path: Path) -> None:
    app = Settings(state_dir=str(tmp_path), prefix="shop.")
    folders = [store_folder(app, role, number) for role in ("sequence", "trend") for number in (0, 1)]
    for folder in folders:
        for table in (tables.USER_HISTORIES, tables.ITEM_STATISTICS):
            (folder / table / "0").mkdir(parents=True)
    remove_stores(app, "sequence")
    left = sorted(str(path.relative_to(folders[0].parent)) for path in folders[0].parent.glob("*/*"))
    assert left == sorted(
        [f"sequence-{number}/item-statistics" for number in (0, 1)]
        + [f"trend-{number}/{table}" for number in (0, 1) for table in ("item-statistics", "user-histories")]
    )


# ---------------------------------------------------------------- what is needed


def test_an_input_that_is_whole_is_enough() -> None:
    check_whole("sequence", "events", {0: 5, 1: 0, 2: 0}, {0: (0, 9), 1: (3, 9), 2: (0, 0)})


@pytest.mark.parametrize(
    ("wanted", "bounds", "told"),
    [
        ({0: 5, 1: 9}, {0: (2, 9), 1: (1, 9)}, r"events\[0\] lacks the offsets 0 to 1.*events\[1\] lacks .* 0 to 0"),
        ({0: 5}, {0: (0, 4)}, r"events\[0\] ends at offset 4, but the role has read up to 5"),
        ({0: 5, 1: 5}, {0: (0, 9)}, "has 1 partitions, but the settings say 2"),
    ],
)
def test_what_is_missing_is_named(wanted: dict[int, int], bounds: dict[int, tuple[int, int]], told: str) -> None:
    with pytest.raises(TopicMismatchError, match=told) as caught:
        check_whole("sequence", "events", wanted, bounds)
    assert "sequence" in str(caught.value)


# ---------------------------------------------------------------- small parts


@given(st.lists(st.integers(0, 50), min_size=1, max_size=30), st.integers(1, 20))
def test_runs_are_cut_by_record_time(times: list[int], span_ms: int) -> None:
    num = len(times)
    run = Run("activity", 0, range(num), [None] * num, [b"%d" % at_ms for at_ms in times], times, [()] * num)
    parts = list(cut_by_time(run, span_ms))
    assert [value for part in parts for value in part.values] == run.values
    for place, part in enumerate(parts):
        assert all(at_ms - part.timestamps_ms[0] < span_ms for at_ms in part.timestamps_ms)
        if place:
            assert part.timestamps_ms[0] - parts[place - 1].timestamps_ms[0] >= span_ms


def test_changes_lie_over_what_was_there(tmp_path: Path) -> None:
    store = store_of(str(tmp_path), "store", {b"a": (1, b"x"), b"b": (2, b"y")})
    values = Layered({b"a": Stored(3, b"z")}, store)
    assert values.get_many([b"b", b"a", b"c"]) == [Stored(2, b"y"), Stored(3, b"z"), None]
    store.close()
