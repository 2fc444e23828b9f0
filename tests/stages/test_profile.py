"""What is remembered of a user: bounded, in order, and the same however it arrives."""

from __future__ import annotations

import copy

import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import SliceVectorRecord, pack_vector
from stream_app.stages.profile import MAX_SEEN, NUM_RECENT, UserProfile, recent_items, take_slice_vector


def vector(seq: int, items: list[str], value: float = 1.0) -> SliceVectorRecord:
    """A slice vector in few words."""
    return SliceVectorRecord(
        user_id="a",
        seq=seq,
        revision=1,
        closed=True,
        fresh=True,
        items=items,
        last_ts=1,
        partition=0,
        offset=seq,
        release="r1",
        slice_vector="",
        user_vector=pack_vector(np.array([value], dtype=np.float32)),
        num_slices_merged=0,
    )


def profile_of(records: list[SliceVectorRecord]) -> UserProfile:
    """The profile after these records."""
    profile = UserProfile()
    for record in records:
        take_slice_vector(profile, record)
    return profile


ITEM_LISTS = st.lists(st.lists(st.sampled_from("pqrstuvw"), min_size=1, max_size=4), max_size=30)


@given(ITEM_LISTS)
def test_recent_items_are_the_newest_of_the_whole_history(parts: list[list[str]]) -> None:
    profile = profile_of([vector(seq, items) for seq, items in enumerate(parts)])
    newest_first = [item for items in parts for item in items][::-1][:NUM_RECENT]
    assert recent_items(profile) == sorted(set(newest_first), key=newest_first.index)
    assert set(profile.seen) == {item for items in parts for item in items}


@st.composite
def logs(draw: st.DrawFn) -> tuple[list[SliceVectorRecord], list[int]]:
    """The vectors of a user's slices, some of them repaired, in the order they are first published; and places of them
    as they lie on a topic to which a worker published again and again, from some place before on.
    """
    records: list[SliceVectorRecord] = []
    revisions: dict[int, int] = {}
    newest = 0
    for number in range(draw(st.integers(1, 25))):
        seq = draw(st.integers(max(0, newest - 3), newest + 1))
        newest = max(newest, seq)
        revisions[seq] = revisions.get(seq, 0) + 1
        made = vector(seq, [f"i{number % 9}", f"i{number}"], float(number))
        records.append(msgspec.structs.replace(made, revision=revisions[seq], offset=number))
    places: list[int] = []
    start = 0
    for _ in range(draw(st.integers(0, 4))):
        end = draw(st.integers(start, len(records)))
        places += range(start, end)
        start = draw(st.integers(0, end))
    return records, [*places, *range(start, len(records))]


@given(logs())
def test_repeats_change_nothing_though_they_come_behind_newer_ones(
    log: tuple[list[SliceVectorRecord], list[int]],
) -> None:
    records, places = log
    profile, num_taken = UserProfile(), 0
    for place in places:
        assert take_slice_vector(profile, records[place]) == (place >= num_taken)
        num_taken = max(num_taken, place + 1)
        assert profile == profile_of(records[:num_taken])


def test_a_slice_older_than_all_that_are_known_is_a_repeat() -> None:
    profile = profile_of([vector(seq, [str(seq)], seq) for seq in range(NUM_RECENT + 1)])
    before = copy.deepcopy(profile)
    assert not take_slice_vector(profile, vector(0, ["0"]))
    assert profile == before


def test_another_release_brings_the_same_revisions_again() -> None:
    profile = profile_of([vector(0, ["p"], 1.0), vector(1, ["q"], 2.0)])
    for seq in range(2):
        assert take_slice_vector(profile, msgspec.structs.replace(vector(seq, ["p"], 3.0 + seq), release="r2"))
    assert (profile.release, np.frombuffer(profile.user_vector, dtype="<f4").tolist()) == ("r2", [4.0])


def test_a_profile_that_was_kept_without_revisions_takes_what_comes() -> None:
    kept = msgspec.msgpack.encode([["p"], [[0, ["p"]]], b"", "r1", 3, 1])
    profile = msgspec.msgpack.decode(kept, type=UserProfile)
    assert take_slice_vector(profile, vector(0, ["p"]))
    assert not take_slice_vector(profile, vector(0, ["p"]))


@given(ITEM_LISTS, st.data())
def test_a_repaired_slice_may_come_after_newer_ones(parts: list[list[str]], data: st.DataObject) -> None:
    records = [vector(seq, items) for seq, items in enumerate(parts)]
    place = data.draw(st.integers(max(0, len(parts) - 4), max(0, len(parts) - 1)))
    moved = [*records[:place], *records[place + 1 :], *records[place : place + 1]]
    assert recent_items(profile_of(moved)) == recent_items(profile_of(records))
    assert set(profile_of(moved).seen) == set(profile_of(records).seen)


def test_it_stays_bounded_however_much_a_user_does() -> None:
    profile = profile_of([vector(seq, [f"{seq}-{n}" for n in range(40)]) for seq in range(80)])
    assert len(profile.seen) == MAX_SEEN
    assert profile.seen[-1] == "79-39"
    assert "0-0" not in profile.seen
    assert sum(len(items) for _, items in profile.slices) <= NUM_RECENT**2
    assert recent_items(profile) == [f"79-{n}" for n in range(39, 29, -1)]


def test_the_newest_vector_is_kept_with_its_release() -> None:
    profile = profile_of([vector(0, ["p"], 1.0), vector(1, ["q"], 2.0)])
    assert np.frombuffer(profile.user_vector, dtype="<f4").tolist() == [2.0]
    assert profile.release == "r1"
    assert recent_items(UserProfile()) == []
