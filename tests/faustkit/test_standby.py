"""Standby copies: a worker that takes a partition over has its state already, and loses and doubles nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from rocksdict import AccessType, Options, Rdict

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.table import partitions_on_disk
from tests.faustkit.counting import TABLE
from tests.faustkit.stage import Process, Stage
from tests.support import wait_until

pytestmark = pytest.mark.kafka

KEYS = 101


@pytest.fixture
def stage(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Stage:
    """Topics of four partitions."""
    return Stage(broker.bootstrap_servers, topic_prefix, tmp_path, num_partitions=4)


def standby(stage: Stage, worker: str, instance_id: str = "") -> Process:
    """A worker that also keeps copies."""
    return stage.worker(worker, instance_id=instance_id, num_standbys=1)


def recovered(worker: Process) -> list[tuple[int, list[int]]]:
    """How many changelog records a worker read at each assignment, and for which partitions."""
    found = re.findall(r"-changelog: (\d+) changelog records for partitions \[([\d, ]*)\]", worker.text())
    return [(int(num), [int(partition) for partition in re.findall(r"\d+", partitions)]) for num, partitions in found]


def changelog_offset(stage: Stage, worker: str, partition: int) -> int:
    """Where a store stands that its worker has open; -1 while there is none."""
    path = stage.folder / worker / TABLE / str(partition)
    try:
        store = Rdict(str(path), Options(raw_mode=True), access_type=AccessType.read_only())
    except Exception:  # being made
        return -1
    try:
        return int(store.get(b"m:changelog-offset") or -1)
    finally:
        store.close()


def wait_copied(stage: Stage, *workers: str) -> int:
    """Wait until all stores of `workers`, their own and copies, hold the whole changelog; how many records it has."""
    stage.wait_committed()
    ends = dict.fromkeys(range(stage.num_partitions), -1)
    records = stage.read(f"{TABLE}-changelog")
    for record in records:
        ends[record.partition] = record.offset

    def stand() -> bool:
        return all(changelog_offset(stage, worker, number) >= end for number, end in ends.items() for worker in workers)

    wait_until(stand, what="the copies to be up to date")
    return len(records)


def wait_owned(worker: Process, num_partitions: int) -> None:
    """Wait until a worker works on so many partitions."""
    wait_until(
        lambda: [len(owned) for _, owned in recovered(worker)][-1:] == [num_partitions],
        what=f"{num_partitions} partitions",
    )


def wait_shared(*workers: Process) -> None:
    """Wait until each of two workers works on two partitions and copies the others."""
    for worker in workers:
        wait_owned(worker, 2)
        worker.wait_for("standby for partitions")


def test_who_takes_over_from_the_dead_reads_only_what_its_copies_lack(stage: Stage) -> None:
    with standby(stage, "first") as first, standby(stage, "second") as second:
        wait_shared(first, second)
        stage.send(600, keys=KEYS)
        num_records = wait_copied(stage, "first", "second")
        second.kill()
        stage.send(100, keys=KEYS)
        stage.wait_committed()
        taken = recovered(first)[-1]
        assert taken[1] == [0, 1, 2, 3]
        # Each partition is marked by its new owner; all else is there.
        assert num_records > 100
        assert taken[0] == 4
        assert first.terminate() == 0
    stage.check("first")


def test_copies_equal_what_they_are_copies_of(stage: Stage) -> None:
    stage.send(300, keys=KEYS)
    with standby(stage, "first", "one") as first:
        wait_copied(stage, "first")
        with standby(stage, "second", "two") as second:
            wait_shared(first, second)  # the copies begin with what is there already
            stage.send(300, keys=KEYS)
            wait_copied(stage, "first", "second")
            # A worker that comes back under its name finds what it was assigned, its copies included.
            second.kill()
            with standby(stage, "second", "two") as second_again:
                second_again.wait_for("standby for partitions")
                stage.send(100, keys=KEYS)
                wait_copied(stage, "first", "second")
                assert recovered(second_again)[-1][0] == 2
                second_again.kill()
        first.kill()
    stage.check("first", "second")


def test_partitions_come_and_go_without_loss(stage: Stage) -> None:
    with standby(stage, "first") as first:
        first.wait_for("ready")
        for _ in range(2):
            stage.send(200, keys=KEYS)
            with standby(stage, "second") as second:
                wait_shared(second)
                stage.send(200, keys=KEYS)
                assert second.terminate() == 0
            stage.send(200, keys=KEYS)
        stage.wait_committed()
        assert first.terminate() == 0
    stage.check("first")


def test_a_rebalance_in_the_midst_of_recovery_breaks_it_off_and_it_begins_again(stage: Stage) -> None:
    stage.send(200, keys=KEYS)
    gate = stage.folder / "gate"
    with stage.worker("first", gate=str(gate)) as first:
        first.wait_for("at the gate")
        with stage.worker("second", gate=str(gate)) as second:
            second.wait_for("at the gate")
            wait_until(lambda: first.text().count("at the gate") == 2, what="the first to begin again")
            gate.touch()
            first.wait_for("ready")
            second.wait_for("ready")
            stage.send(200, keys=KEYS)
            stage.wait_committed()
            assert recovered(first)[-1][1] + recovered(second)[-1][1] in ([0, 1, 2, 3], [2, 3, 0, 1])
            assert second.terminate() == 0
        wait_owned(first, 4)
        assert first.terminate() == 0
    stage.check("first")


def test_stores_on_the_disk_are_found(tmp_path: Path) -> None:
    assert partitions_on_disk(tmp_path / "none") == []
    for name in ("3", "10", "0.damaged-1", "notes"):
        (tmp_path / name).mkdir()
    assert partitions_on_disk(tmp_path) == [3, 10]
