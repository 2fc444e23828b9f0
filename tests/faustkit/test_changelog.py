"""Taking a changelog into a store: the fast way leaves what folding record by record would leave."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stream_app.faustkit.changelog import INPUT_HEADER, OWNER_HEADER, ChangelogFold, RecoveryError
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory, seal
from tests.examples import examples

Entry = tuple[bytes, Stored | None]

MEMORY = StoreMemory(4 * 1024 * 1024)

ENTRIES = st.tuples(
    st.sampled_from([b"a", b"b", b"c"]),
    st.none() | st.builds(Stored, st.integers(0, 4), st.binary(max_size=2)),
)


def run_of(entries: Sequence[Entry], first_offset: int = 0, headers: Sequence[Sequence[tuple[str, bytes]]] = ()) -> Run:
    """A run of a changelog."""
    return Run(
        topic="changelog",
        partition=3,
        offsets=range(first_offset, first_offset + len(entries)),
        keys=[key for key, _ in entries],
        values=[None if stored is None else seal(stored.position, stored.payload) for _, stored in entries],
        timestamps_ms=[0] * len(entries),
        headers=headers or [()] * len(entries),
    )


def fold(entries: Iterable[Entry]) -> dict[bytes, Stored]:
    """The oracle: record by record."""
    held: dict[bytes, Stored] = {}
    for key, stored in entries:
        if stored is None:
            held.pop(key, None)
        elif key not in held or held[key].position <= stored.position:
            held[key] = stored
    return held


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionStore]:
    """An empty store."""
    made = PartitionStore(tmp_path / "0", MEMORY)
    yield made
    made.close()


@pytest.mark.slow
@examples(150)  # files are written
@given(runs=st.lists(st.lists(ENTRIES, min_size=1), min_size=1), num_before=st.integers(0, 3), is_bulk=st.booleans())
@example(
    runs=[[(b"a", Stored(4, b"new"))], [(b"b", Stored(1, b""))], [(b"a", Stored(2, b"late"))]],
    num_before=0,
    is_bulk=False,
)
def test_a_store_holds_the_fold_of_its_changelog(runs: list[list[Entry]], num_before: int, is_bulk: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = PartitionStore(Path(folder) / "0", MEMORY)
        new = ChangelogFold(store, is_bulk=is_bulk)
        offset = 0
        for number, entries in enumerate(runs):
            if number == num_before:  # another process goes on
                new.finish()
                new = ChangelogFold(store, is_bulk=is_bulk)
            new.apply(run_of(entries, offset))
            offset += len(entries)
        new.finish()
        held = dict(store.items())
        last = store.changelog_offset
        store.close()
    assert held == fold(entry for entries in runs for entry in entries)
    assert last == offset - 1


def test_a_key_that_was_removed_may_come_back_with_a_lower_position(store: PartitionStore) -> None:
    ChangelogFold(store).apply(run_of([(b"a", Stored(9, b"x")), (b"b", Stored(9, b"x"))]))
    ChangelogFold(store).apply(run_of([(b"a", None), (b"a", Stored(3, b"y")), (b"b", Stored(3, b"y"))], 2))
    assert dict(store.items()) == {b"a": Stored(3, b"y"), b"b": Stored(9, b"x")}


def test_the_marks_of_owners_are_no_values_but_their_offsets_count(store: PartitionStore) -> None:
    mark, others = [(OWNER_HEADER, b"me")], [("trace", b"1")]
    entries = [(b"owner", None), (b"a", Stored(1, b"x")), (b"a", None), (b"", Stored(0, b"")), (b"b", Stored(2, b"y"))]
    ChangelogFold(store).apply(run_of(entries, 7, [mark, others, mark, mark, ()]))
    assert dict(store.items()) == {b"a": Stored(1, b"x"), b"b": Stored(2, b"y")}
    assert store.changelog_offset == 11
    ChangelogFold(store).apply(run_of([(b"owner", None)], 12, [mark]))
    assert store.changelog_offset == 12


def test_a_store_learns_of_its_input_from_the_last_mark_that_names_it(store: PartitionStore) -> None:
    entries = [(b"owner", None), (b"input", None), (b"input", None), (b"owner", None), (b"a", Stored(1, b"x"))]
    owner, first, last = [(OWNER_HEADER, b"1")], [(INPUT_HEADER, b"first")], [(INPUT_HEADER, b"last")]
    ChangelogFold(store).apply(run_of(entries, 0, [owner, [*owner, *first], [*owner, *last], owner, ()]))
    assert store.input_id == "last"
    assert dict(store.items()) == {b"a": Stored(1, b"x")}
    ChangelogFold(store).apply(run_of(entries[:1], 5, [owner]))
    assert store.input_id == "last"


def test_what_no_owner_wrote_is_refused_and_nothing_of_its_run_is_taken_in(store: PartitionStore) -> None:
    ChangelogFold(store).apply(run_of([(b"a", Stored(1, b"x"))]))
    good = run_of([(b"a", Stored(2, b"y")), (b"b", Stored(2, b"y"))], 40)
    short = Run(**{**vars(good), "values": [good.values[0], b"short"]})
    keyless = Run(**{**vars(good), "keys": [None, b"b"]})
    with pytest.raises(RecoveryError, match=r"changelog\[3\] at offset 41 has key b'b' and a value of 5 bytes; .* 8"):
        ChangelogFold(store).apply(short)
    with pytest.raises(RecoveryError, match=r"at offset 40 has key None"):
        ChangelogFold(store).apply(keyless)
    assert dict(store.items()) == {b"a": Stored(1, b"x")}
    assert store.changelog_offset == 0
