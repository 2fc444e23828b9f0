"""Leave-one-out: what is held out, what is left to learn from, and that the one never reaches the other."""

from __future__ import annotations

import gzip
from pathlib import Path

import msgspec
import pytest
from hypothesis import given

from encoders.training_config import TrainConfig
from stream_app.errors import LogFormatError
from stream_app.evaluation.baselines import Panel, Popularity
from stream_app.evaluation.judging import OURS
from stream_app.evaluation.leave_one_out import HeldOut, hold_out, leave_one_out, own_ranks, read_sequences
from stream_app.evaluation.statistics import DecayedPopularity
from stream_app.records import Event
from stream_app.settings import Settings
from tests.evaluation.cases import event, logs, walked_log
from tests.examples import examples


def test_the_last_new_item_is_held_out_and_what_follows_it_is_left_out() -> None:
    log = [event("a", "p", 0), event("b", "p", 1), event("a", "q", 2), event("a", "p", 3), event("c", "r", 4)]
    held = hold_out(log)
    assert [(one.user_id, one.item_id) for one in held.past] == [("a", "p"), ("b", "p"), ("c", "r")]
    assert [(one.user_id, one.item_id, one.ts) for one in held.taken] == [("a", "q", held.split_ms)]


@examples(100)
@given(logs())
def test_every_held_out_item_is_new_to_its_user_and_comes_after_all_else(log: list[Event]) -> None:
    held = hold_out(log)
    seen = {(one.user_id, one.item_id) for one in held.past}
    assert all((one.user_id, one.item_id) not in seen for one in held.taken)
    assert {one.user_id for one in held.past} == {one.user_id for one in log}
    assert all(one.ts < held.split_ms for one in held.past)
    items = {user: {one.item_id for one in log if one.user_id == user} for user in "abcd"}
    two_items = {user for user, own in items.items() if len(own) > 1}
    assert {one.user_id for one in held.taken} == two_items


def test_sequences_are_read_as_events_a_second_apart(tmp_path: Path) -> None:
    for path, data in ((tmp_path / "s.txt", b"1 2 3\n\n7\n"), (tmp_path / "s.txt.gz", gzip.compress(b"1 2 3\n\n7\n"))):
        path.write_bytes(data)
        found = sorted((one.user_id, one.ts, one.item_id) for one in read_sequences(path, "click"))
        assert found == [("line 1", 0, "1"), ("line 1", 1000, "2"), ("line 1", 2000, "3"), ("line 3", 0, "7")]


@pytest.mark.parametrize("data", [b"", b"\xff\xfe\xff", None])
def test_what_holds_no_sequences_is_refused(tmp_path: Path, data: bytes | None) -> None:
    if data is not None:
        (tmp_path / "s.txt").write_bytes(data)
    with pytest.raises(LogFormatError, match=r"s\.txt"):
        read_sequences(tmp_path / "s.txt", "click")


def test_ranks_of_the_model_stand_beside_those_of_baselines() -> None:
    past = [event("a", "p", 0), event("b", "p", 0), event("b", "q", 1)]
    held = HeldOut(past, [event("a", "q", 9), event("b", "x", 9)])
    panel = Panel([Popularity("counts", DecayedPopularity(1e12))])
    found = leave_one_out(held, panel, {"a": 1.0}, lambda line: None)
    assert repr(found.answers[OURS].ranks) == "[1.0, nan]"
    assert repr(found.answers["counts"].ranks) == "[1.0, nan]"
    assert not found.answers[OURS].shown


CONFIG = TrainConfig(dim=8, num_layers=1, num_heads=1, max_epochs=2)


def trained_ranks(held: HeldOut) -> dict[str, float]:
    return own_ranks(held, Settings(), CONFIG, lambda line: None)


@pytest.mark.slow
def test_held_out_items_reach_no_training() -> None:
    held = hold_out(walked_log(900, num_items=30, num_users=20, seed=2))
    found = trained_ranks(held)
    assert set(found) == {one.user_id for one in held.taken}
    assert all(1 <= rank <= 30 for rank in found.values())
    # The items held out are dealt anew; a user whose own stayed the same must keep its rank: the model is the same.
    items = [one.item_id for one in held.taken]
    dealt = [items[0], *reversed(items[1:])]
    seen = {(one.user_id, one.item_id) for one in held.past}
    others = [
        msgspec.structs.replace(one, item_id=item) if (one.user_id, item) not in seen else one
        for one, item in zip(held.taken, dealt, strict=True)
    ]
    again = trained_ranks(HeldOut(held.past, others))
    same = [one.user_id for one, other in zip(held.taken, others, strict=True) if one == other]
    assert same and len(same) < len(items)
    assert [again[user] for user in same] == [found[user] for user in same]
