"""The parts of what the server knows, each beside a slow oracle."""

from __future__ import annotations

import doctest
import importlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encoders.words import words_of
from stream_app.faustkit import Run
from stream_app.records import Item, encode
from stream_app.stages.slicing import HistoryEvent, Slice, UserHistory
from stream_app.web.histories import slice_facts, timeline, user_answer
from stream_app.web.state.arrivals import MAX_RUNS, Arrivals, Measured
from stream_app.web.state.bounded import Bounded
from stream_app.web.state.catalogue import PREFIX_CHARS, Catalogue
from stream_app.web.state.dead_letters import EXCERPT_CHARS, MAX_KEPT, DeadLetters
from stream_app.web.state.lists import KEPT_S, KeptAnswer, NewestLists
from stream_app.web.state.users import MAX_SLICES, NewestUsers, SeenSlice, slices_of
from tests.examples import examples
from tests.web.cases import NOW_MS, run_of, slice_value, vector_value

FEW = examples(40)


@pytest.mark.parametrize("name", ["security", "buckets", "streams", "state.bounded", "api.recommendations"])
def test_examples_in_docstrings_hold(name: str) -> None:
    found = doctest.testmod(importlib.import_module(f"stream_app.web.{name}"))
    assert found.attempted > 0 and found.failed == 0


# ---------------------------------------------------------------- bounded maps


@FEW
@given(st.integers(1, 4), st.lists(st.sampled_from("abcdef"), max_size=30))
def test_a_bounded_map_keeps_what_was_put_last(size: int, keys: list[str]) -> None:
    kept = Bounded[int](size)
    for place, key in enumerate(keys):
        kept.put(key, place)
    order = list(dict.fromkeys(reversed(keys)))
    assert list(kept.newest(10)) == order[:size]
    assert len(kept) == min(size, len(order))
    assert all(kept.get(key) == max(at for at, one in enumerate(keys) if one == key) for key in order[:size])
    assert all(kept.get(key) is None for key in order[size:])
    if not kept.has_forgotten:
        assert len(order) <= size


# ---------------------------------------------------------------- arrivals


@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.integers(0, 120))
def test_a_record_arrived_with_its_run(lengths: list[int], asked: int) -> None:
    arrivals, times, offset = Arrivals(), dict[int, float](), 7
    for number, length in enumerate(lengths):
        arrivals.note(3, offset, offset + length - 1, float(number))
        times.update(dict.fromkeys(range(offset, offset + length), float(number)))
        offset += length
    assert arrivals.time_s(3, asked) == times.get(asked)
    assert arrivals.time_s(4, asked) is None


def test_old_arrivals_are_forgotten() -> None:
    arrivals = Arrivals()
    for number in range(MAX_RUNS + 2):
        arrivals.note(0, number, number, float(number))
    assert arrivals.time_s(0, 1) is None
    assert arrivals.time_s(0, 2) == 2.0


def test_freshness_without_lists_is_unknown() -> None:
    measured = Measured()
    assert msgspec.to_builtins(measured.freshness()) == {"p50": None, "p99": None}
    for time_ms in range(101):
        measured.add(float(time_ms))
    assert msgspec.to_builtins(measured.freshness()) == {"p50": 50.0, "p99": 99.0}


# ---------------------------------------------------------------- catalogue

TITLES = st.lists(st.sampled_from(["iron", "irons", "man", "giant", "gin", "lady", "ir"]), max_size=3).map(" ".join)
CHANGES = st.lists(st.tuples(st.sampled_from("abcd"), st.none() | TITLES), max_size=12)


@FEW
@given(CHANGES, TITLES)
def test_search_finds_what_a_look_at_every_title_finds(changes: list[tuple[str, str | None]], text: str) -> None:
    catalogue, titles = Catalogue(), dict[str, str]()
    for item_id, title in changes:
        value = None if title is None else encode(Item(item_id=item_id, title=title))
        catalogue.take(run_of((item_id.encode(), value)))
        titles.pop(item_id, None)
        if title is not None:
            titles[item_id] = title
    words = words_of(text)
    wanted = set()
    for item_id, title in titles.items():
        for place, word in enumerate(words):
            begins = place == len(words) - 1 and len(word) >= PREFIX_CHARS
            if any(has == word or (begins and has.startswith(word)) for has in words_of(title)):
                wanted.add(item_id)
    assert set(catalogue.search(text)) == wanted
    assert set(catalogue) == set(titles) and len(catalogue) == len(titles)


def test_what_is_rarer_counts_more() -> None:
    catalogue = Catalogue()
    for item_id, title in (("a", "iron man"), ("b", "iron lady"), ("c", "iron gate")):
        catalogue.take(run_of((item_id.encode(), encode(Item(item_id=item_id, title=title)))))
    found = catalogue.search("iron lady")
    assert found["b"] > found["a"] == found["c"] > 0
    assert catalogue.title("a") == "iron man" and catalogue.title("unknown") == "unknown"


def test_records_that_are_no_items_change_nothing() -> None:
    catalogue = Catalogue()
    good = encode(Item(item_id="a", title="iron"))
    catalogue.take(run_of((b"a", good), (b"b", good), (b"c", b"{"), (None, good), (b"\xff", None), (b"a\xff", good)))
    assert list(catalogue) == ["a"]


# ---------------------------------------------------------------- users


@FEW
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 4)), max_size=40))
def test_of_each_slice_the_newest_revision_is_kept_and_of_a_user_the_newest_slices(
    revisions: list[tuple[int, int]],
) -> None:
    users, newest = NewestUsers(2), dict[int, int]()
    for seq, revision in revisions:
        users.take_slices(run_of((b"ann", slice_value("ann", seq, ["a"] * revision, revision=revision))))
        # A slice that was forgotten as too old comes back no better than it came.
        newest[seq] = max(revision, newest.get(seq, 0))
        newest = dict(sorted(newest.items())[-MAX_SLICES:])
    user = users.get("ann")
    held = [] if user is None else user.seen_slices()
    assert {part.seq: part.revision for part in held} == newest
    assert all(len(part.events) == part.revision for part in held)


def test_marks_are_no_users_and_others_make_room() -> None:
    users = NewestUsers(2)
    users.take_slices(run_of((b"", b"{}"), (b"ann", None)))
    assert len(users) == 0
    for name in ("ann", "bob", "carl"):
        users.take_slices(run_of((name.encode(), slice_value(name, 0, ["a"]))))
    assert users.get("ann") is None and users.has_forgotten
    # By the time of the newest event, not by the order of reading.
    for name, seq in (("bob", 3), ("carl", 1)):
        users.take_vectors(run_of((name.encode(), vector_value(name, seq, ["a"], "r1"))))
    assert [name for name, _ in users.newest(5)] == ["bob", "carl"]
    assert [name for name, _ in users.newest(1)] == ["bob"]


def test_a_profile_is_made_of_vectors_of_its_release() -> None:
    users = NewestUsers(2)
    users.take_vectors(run_of((b"ann", vector_value("ann", 0, ["a", "b"], "r1", dim=4))))
    users.take_vectors(run_of((b"ann", vector_value("ann", 1, ["c"], "r1", dim=4))))
    user = users.get("ann")
    assert user is not None and user.profile("r2") is None
    profile = user.profile("r1")
    assert profile is not None and profile.seen == ["a", "b", "c"]
    assert len(profile.user_vector) == 16


def test_slices_of_a_history() -> None:
    part = Slice(3, 2, True, -1, [HistoryEvent(1, 5, "a", "click"), HistoryEvent(2, 9, "b", "rating")])
    [seen] = slices_of(UserHistory(4, 2, {}, [part]))
    assert (seen.seq, seen.revision, seen.closed) == (3, 2, True)
    assert [(event.item_id, event.type, event.ts) for event in seen.events] == [("a", "click", 5), ("b", "rating", 9)]


def seen_slices(*lengths: int) -> list[SeenSlice]:
    """Slices of so many events."""
    decoder = msgspec.json.Decoder(SeenSlice)
    return [decoder.decode(slice_value("ann", seq, ["a"] * length)) for seq, length in enumerate(lengths)]


@FEW
@given(st.lists(st.integers(1, 5), min_size=1, max_size=5))
def test_the_weights_of_slices_are_shares_that_fade(lengths: list[int]) -> None:
    hour_ms = 3_600_000.0
    facts = slice_facts(seen_slices(*lengths), {}, {"click": 2.0}, hour_ms)
    last_ts = facts[-1].end_ts
    masses = [length * 2.0 ** (-(last_ts - one.end_ts) / hour_ms) for length, one in zip(lengths, facts, strict=True)]
    assert [one.weight for one in facts] == pytest.approx([mass / sum(masses) for mass in masses], abs=1e-4)
    assert [one.num_events for one in facts] == lengths
    assert all(one.vector_norm is None for one in facts)


def test_a_users_page() -> None:
    catalogue = Catalogue()
    catalogue.take(run_of((b"a", encode(Item(item_id="a", title="Iron", tags=["x", "y"])))))
    slices = seen_slices(2, 1)
    events = timeline(slices, catalogue)
    page = user_answer("ann", events, slice_facts(slices, {}, {}, 1e9), catalogue)
    assert (page.num_events, page.last_seen_ts) == (3, NOW_MS + 3_600_000)
    assert [(one.category, one.share) for one in page.profile.top_categories] == [("x", 0.5), ("y", 0.5)]
    assert page.profile.events_per_day == 3.0  # less than a day counts as one
    assert [event.title for event in page.events] == ["Iron"] * 3


# ---------------------------------------------------------------- dead letters


def test_dead_letters_are_cut_short_and_bounded() -> None:
    letters = DeadLetters()
    headers = [
        ("class", b"rejected"),
        ("reason", b"bad_json"),
        ("topic", b"events"),
        ("partition", b"1"),
        ("offset", b"7"),
    ]
    [taken] = letters.take(run_of((b"k", "ä".encode() * 1000), headers=headers))
    assert (taken.class_, taken.reason, taken.topic, taken.partition, taken.offset) == (
        "rejected",
        "bad_json",
        "events",
        1,
        7,
    )
    assert taken.excerpt == "ä" * EXCERPT_CHARS
    assert msgspec.to_builtins(taken)["class"] == "rejected"
    [strange] = letters.take(run_of((None, None), headers=[("offset", "²".encode())]))
    assert (strange.offset, strange.excerpt, strange.reason) == (-1, "", "")
    assert letters.newest(5) == [strange, taken]
    num = MAX_KEPT + 5
    letters.take(Run("t", 0, range(num), [b"k"] * num, [b"%d" % at for at in range(num)], [0] * num, [()] * num))
    assert len(letters.newest(2 * MAX_KEPT)) == MAX_KEPT
    assert letters.newest(1)[0].excerpt == str(num - 1)


# ---------------------------------------------------------------- kept answers


def test_a_kept_answer_holds_while_its_list_and_the_catalogue_stay_and_for_some_seconds() -> None:
    lists = NewestLists(2)
    lists.put("ann", value := b"list")
    kept = KeptAnswer("ann", value, 5, 100.0, b"body")
    lists.keep("/ann?count=3", kept)
    assert lists.answer("/ann?count=3", 5, 100.0) is kept
    assert lists.answer("/ann?count=4", 5, 100.0) is None
    assert lists.answer("/ann?count=3", 6, 100.0) is None
    assert lists.answer("/ann?count=3", 5, 100.0 + KEPT_S) is None
    lists.put("ann", b"newer")
    assert lists.answer("/ann?count=3", 5, 100.0) is None
