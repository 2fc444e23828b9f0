"""Workers that are paused, that come and go, and whose disk fails them: the others and the next ones go on."""

from __future__ import annotations

import random
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path

import pytest

from stream_app.tables import USER_HISTORIES
from tests.faults.conftest import MakeRig, Scale
from tests.faults.feeds import clicks
from tests.faults.launcher import Trouble
from tests.faults.rig import Rig, RoleWorker, last_line
from tests.faults.verify import check
from tests.support import wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SESSION_S = 4.0
"""Short, since a test waits for it to run out; long enough for a busy machine."""

SEED = 5


def test_a_worker_that_was_paused_for_a_session_writes_no_more(make_rig: MakeRig) -> None:
    rig = make_rig(session_timeout_s=SESSION_S)
    with rig.worker() as paused, rig.worker(instance=1) as other:
        paused.wait_ready()
        other.wait_ready()
        rig.send(clicks(0, 1000))
        paused.signal(signal.SIGSTOP)
        rig.send(clicks(1000, 2000))
        rig.wait_caught_up(other)  # which the other one can only when it has all partitions
        paused.signal(signal.SIGCONT)
        assert paused.wait() == 1
        assert "This process did not run for" in last_line(paused)
        rig.send(clicks(2000, 2100))
        rig.wait_caught_up(other)
        check(rig)
        other.stop()
    check(rig)


def test_a_storm_of_rebalances_loses_and_doubles_nothing(make_rig: MakeRig, scale: Scale) -> None:
    rig = make_rig(session_timeout_s=SESSION_S, partitions=4)
    rng = random.Random(SEED)
    with ExitStack() as stack:
        running = {0: stack.enter_context(rig.worker()).wait_ready()}
        for change in range(scale.num_changes):
            rig.send(clicks(500 * change, 500 * (change + 1), num_users=50))
            _change(rig, running, stack, rng)
        rig.wait_caught_up(*running.values())
        check(rig)
        for worker in running.values():
            worker.stop()
    check(rig)


def _change(rig: Rig, running: dict[int, RoleWorker], stack: ExitStack, rng: random.Random) -> None:
    """One of three workers joins, leaves, or is killed; the last one stays."""
    instance = rng.randrange(3)
    if instance not in running:
        running[instance] = stack.enter_context(rig.worker(instance=instance))
        if rng.random() < 0.5:
            running[instance].wait_ready()
    elif len(running) > 1:
        leaving = running.pop(instance)
        leaving.signal(rng.choice([signal.SIGKILL, signal.SIGTERM]))
        leaving.wait()


def test_a_full_disk_ends_the_worker_and_the_next_one_goes_on(rig: Rig) -> None:
    rig.send(clicks(0, 2000, item_id="i" * 200))
    with rig.worker(trouble=Trouble(file_bytes=60_000)) as worker:
        assert worker.wait() == 1
        assert "File too large" in last_line(worker)
    assert rig.behind() > 0
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    check(rig)


def _damage(store: Path) -> None:
    """Turn one byte within the first block of each file of a store."""
    files = list(store.glob("*.sst"))
    assert files
    for file in files:
        content = bytearray(file.read_bytes())
        content[20] ^= 0xFF
        file.write_bytes(content)


def test_a_store_that_is_deleted_and_one_that_is_damaged_are_rebuilt(rig: Rig) -> None:
    for start in (0, 300):
        rig.send(clicks(start, start + 300))
        with rig.worker() as worker:
            rig.wait_caught_up(worker)
            worker.stop()
    shutil.rmtree(rig.store(USER_HISTORIES, 0))
    _damage(rig.store(USER_HISTORIES, 1))
    rig.send(clicks(600, 700))
    with rig.worker() as worker:  # meets the damage, and says so
        assert worker.wait() == 1
        assert "Corruption" in last_line(worker)
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        assert "is damaged" in worker.text()
        worker.stop()
    check(rig)


def test_a_changelog_that_lost_its_beginning_is_refused(rig: Rig) -> None:
    rig.send(clicks(0, 300))
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    changelog = f"{USER_HISTORIES}-changelog"
    rig.configure(changelog, "cleanup.policy", "compact,delete")  # else Kafka does not let anybody do it
    rig.delete_records(changelog, 0, 3)
    rig.send(clicks(300, 310))
    with rig.worker() as worker:  # its store holds what the changelog lost
        rig.wait_caught_up(worker)
        worker.stop()
    shutil.rmtree(rig.store(USER_HISTORIES, 0))
    rig.send(clicks(310, 320))
    behind = rig.behind()
    with rig.worker() as worker:
        assert worker.wait() == 1
        assert "the changelog was truncated" in last_line(worker)
    assert rig.behind() == behind


def test_a_group_that_is_set_back_to_the_beginning_changes_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(session_timeout_s=SESSION_S)
    rig.send([*clicks(0, 400), *clicks(50, 60)])
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    before = check(rig)
    # As long as Kafka waits for the worker to come back, nobody else may commit in its group.
    wait_until(lambda: rig.try_commit({0: 0, 1: 0}), what="the group to be empty")
    assert rig.behind() == 410
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    assert check(rig) == before
