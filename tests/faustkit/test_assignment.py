"""Who gets which partition: everything once, evenly, and where its store is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit import AppConfig, BatchApp
from stream_app.faustkit.assignment import Share, deal
from tests.faustkit.counting import TABLE

INPUTS = "inputs"
CHANGELOG = f"{TABLE}-changelog"
NUM_PARTITIONS = 4

WORKERS = st.text("abcdefgh", min_size=1, max_size=2)
SETS = st.frozensets(st.integers(0, 20))


@st.composite
def groups(draw: st.DrawFn) -> tuple[dict[str, Share], int, int]:
    """What workers claim to have, rightly or not, with the numbers of partitions and of copies wanted."""
    held = draw(st.dictionaries(WORKERS, st.builds(Share, SETS, SETS), min_size=1, max_size=8))
    return held, draw(st.integers(1, 18)), draw(st.integers(0, 3))


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, Share], int, int]:
    """What a group of workers that came one by one was dealt."""
    num_partitions, num_standbys = draw(st.integers(1, 18)), draw(st.integers(0, 2))
    held: dict[str, Share] = {}
    for number in range(draw(st.integers(1, 6))):
        held = deal(held | {f"worker {number}": Share()}, num_partitions, num_standbys)
    return held, num_partitions, num_standbys


@given(groups())
def test_everything_is_dealt_once_and_evenly(group: tuple[dict[str, Share], int, int]) -> None:
    held, num_partitions, num_standbys = group
    dealt = deal(held, num_partitions, num_standbys)
    assert dealt.keys() == held.keys()
    owners = Counter(partition for share in dealt.values() for partition in share.actives)
    assert owners == Counter(range(num_partitions))
    sizes = [len(share.actives) for share in dealt.values()]
    assert max(sizes) - min(sizes) <= 1
    copies = Counter(partition for share in dealt.values() for partition in share.standbys)
    num_copies = min(num_standbys, len(held) - 1)
    assert copies == Counter({partition: num_copies for partition in range(num_partitions) if num_copies})
    assert not any(share.actives & share.standbys for share in dealt.values())


@given(groups())
def test_the_order_of_the_workers_does_not_matter(group: tuple[dict[str, Share], int, int]) -> None:
    held, *numbers = group
    assert deal(dict(reversed(held.items())), *numbers) == deal(held, *numbers)


@given(histories())
def test_who_stays_keeps_what_it_works_on(history: tuple[dict[str, Share], int, int]) -> None:
    held, *numbers = history
    again = deal(held, *numbers)
    assert {worker: share.actives for worker, share in again.items()} == {
        worker: share.actives for worker, share in held.items()
    }


@given(histories(), st.data())
def test_a_newcomer_takes_no_more_than_its_part(
    history: tuple[dict[str, Share], int, int], data: st.DataObject
) -> None:
    held, num_partitions, num_standbys = history
    dealt = deal(held | {"new": Share()}, num_partitions, num_standbys)
    moved = [partition for worker in held for partition in dealt[worker].actives - held[worker].actives]
    assert not moved


@pytest.mark.parametrize(("num_workers", "num_partitions"), [(2, 4), (2, 5), (3, 4), (3, 6), (3, 12), (4, 12)])
def test_the_partitions_of_the_dead_go_to_their_copies(num_workers: int, num_partitions: int) -> None:
    held: dict[str, Share] = {}
    for number in range(num_workers):
        held = deal(held | {f"worker {number}": Share()}, num_partitions, 1)
    for dead, lost in held.items():
        left = {worker: share for worker, share in held.items() if worker != dead}
        dealt = deal(left, num_partitions, 1)
        for worker, share in dealt.items():
            assert share.actives & lost.actives <= left[worker].standbys


def test_who_comes_back_takes_up_the_stores_it_has() -> None:
    alone = Share(frozenset(range(4)))
    back = Share(standbys=frozenset({0, 1}))
    assert deal({"alone": alone, "back": back}, 4, 0) == {
        "alone": Share(frozenset({2, 3})),
        "back": Share(frozenset({0, 1})),
    }


def test_partitions_move_on_so_that_more_are_where_their_store_is() -> None:
    # 2 and 3 are lost; only "a" has copies, and no room, but "b" has copies of what "a" works on.
    held = {"a": Share(frozenset({0, 1}), frozenset({2, 3})), "b": Share(frozenset(), frozenset({0, 1}))}
    assert deal(held, 4, 0) == {"a": Share(frozenset({2, 3})), "b": Share(frozenset({0, 1}))}


class Cluster:
    """What an assignor asks of the cluster."""

    def partitions_for_topic(self, topic: str) -> set[int]:
        """The partitions of a topic."""
        return set(range(NUM_PARTITIONS))


def worker(folder: Path, num_standbys: int) -> BatchApp:
    """An app that is not started."""
    config = AppConfig(
        app_id="group",
        connection={"bootstrap_servers": ["127.0.0.1:9"]},
        store_folder=folder,
        num_standbys=num_standbys,
    )
    app = BatchApp(config)
    app.attach(INPUTS, lambda _: None, table=TABLE)  # type: ignore[arg-type, return-value]
    return app


def rebalance(apps: dict[str, BatchApp]) -> None:
    """What a rebalance does with the assignors; the first member leads."""
    assignors: dict[str, Any] = {name: app.assignor for name, app in apps.items()}
    told = {name: assignor.metadata({INPUTS, CHANGELOG}) for name, assignor in assignors.items()}
    leader = next(iter(assignors.values()))
    for name, assignment in leader.assign(Cluster(), told).items():
        assignors[name].on_assignment(assignment)


def parts(app: BatchApp) -> tuple[set[int], set[int], set[int]]:
    """The partitions an app reads, and those of the changelog that it works on and copies."""
    actives, standbys = app.assignor.assigned_actives(), app.assignor.assigned_standbys()
    inputs = {tp.partition for tp in actives if tp.topic == INPUTS}
    owned = {tp.partition for tp in actives if tp.topic == CHANGELOG}
    return inputs, owned, {tp.partition for tp in standbys if tp.topic == CHANGELOG}


def test_inputs_and_changelogs_stay_together_in_the_protocol(tmp_path: Path) -> None:
    apps = {name: worker(tmp_path / name, 1) for name in ("a", "b")}
    rebalance({"a": apps["a"]})
    assert parts(apps["a"]) == ({0, 1, 2, 3}, {0, 1, 2, 3}, set())
    rebalance(apps)
    for app in apps.values():
        inputs, owned, copies = parts(app)
        assert inputs == owned
        assert len(owned) == len(copies) == 2
        assert owned | copies == {0, 1, 2, 3}


def test_a_worker_that_joins_names_the_stores_on_its_disk(tmp_path: Path) -> None:
    for partition in ("1", "2"):
        (tmp_path / "b" / TABLE / partition).mkdir(parents=True)
    apps = {name: worker(tmp_path / name, 0) for name in ("a", "b")}
    rebalance({"a": apps["a"]})
    rebalance(apps)
    assert parts(apps["b"]) == ({1, 2}, {1, 2}, set())
