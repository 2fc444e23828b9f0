"""What is remembered of a user: bounded, in order, and the same however it arrives."""

from __future__ import annotations

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


@given(ITEM_LISTS)
def test_repeats_change_nothing(parts: list[list[str]]) -> None:
    records = [vector(seq, items) for seq, items in enumerate(parts)]
    profile = profile_of(records)
    before = msgspec.msgpack.encode(profile)
    for record in records[-1:]:
        take_slice_vector(profile, record)
        take_slice_vector(profile, record)
    assert msgspec.msgpack.encode(profile) == before


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
