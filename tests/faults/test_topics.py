"""Topics that are not what they were: truncated, made anew, cut otherwise, or gone. Told aloud, never passed over."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import Any

import pytest
from aiokafka.admin import NewPartitions

from stream_app.errors import TopicMismatchError
from stream_app.role_process import settings_environment
from stream_app.tables import USER_HISTORIES
from stream_app.topics import DEAD_LETTER, EVENTS, topic_specs
from tests.faults.conftest import Scale
from tests.faults.feeds import clicks
from tests.faults.rig import Rig, RoleWorker, Sent, last_line
from tests.faults.verify import check, check_audit, newest_statuses
from tests.support import create_topics, delete_topics, wait_until

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

BROKEN = Sent(b"u", b"click!")
REBUILD_S = 120.0
UNACKNOWLEDGED_S = 200.0
"""A record for a topic that is not there is given up after three requests of 40 s."""


def _work_off(rig: Rig, num_events: int) -> None:
    """Let a worker take so many events, and stop it."""
    rig.send(clicks(0, num_events))
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()


def _delete(rig: Rig, topic: str) -> None:
    asyncio.run(delete_topics(rig.settings.kafka.bootstrap_servers, [rig.name(topic)]))


def _create(rig: Rig, topic: str) -> None:
    specs = {spec.name: spec for spec in topic_specs(rig.settings.prefix, rig.settings.partitions)}
    spec = specs[rig.name(topic)]
    servers = rig.settings.kafka.bootstrap_servers
    asyncio.run(create_topics(servers, {spec.name: spec.num_partitions}, spec.full_config()))

    def is_known() -> bool:
        try:
            return bool(rig.bounds(topic))
        except TopicMismatchError:
            return False  # the broker tells others of it a moment later

    wait_until(is_known, what="the topic to have leaders")


def test_events_that_retention_took_before_they_were_read_are_told_and_counted(rig: Rig) -> None:
    _work_off(rig, 100)
    committed = rig.committed()[0]
    rig.send(clicks(100, 200))
    rig.delete_records(EVENTS, 0, committed + 7)
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        assert "LOST: 7 records" in worker.text()
        worker.stop()
    assert sum(status["events"] for status in newest_statuses(rig).values()) == 200 - 7
    check_audit(rig, ["sequence"])


def test_events_that_retention_takes_from_a_worker_that_is_behind_are_told_and_counted(rig: Rig) -> None:
    with rig.worker() as worker:
        worker.wait_ready()
        rig.send(clicks(0, 100), partition=0)
        rig.wait_caught_up(worker)
        worker.signal(signal.SIGSTOP)
        # The fetch that is on its way is answered at the first of these, before the others are there.
        rig.send(clicks(100, 110), partition=0)
        rig.send(clicks(110, 200), partition=0)
        rig.delete_records(EVENTS, 0, 190)
        worker.signal(signal.SIGCONT)
        rig.wait_caught_up(worker)
        (told,) = re.findall(r"LOST: (\d+) records .* \(offsets (\d+) to 189\)", worker.text())
        worker.stop()
    num_lost, first = map(int, told)
    assert num_lost == 190 - first and 100 <= first <= 110
    assert sum(status["events"] for status in newest_statuses(rig).values()) == 200 - num_lost
    check_audit(rig, ["sequence"])


def test_a_topic_that_is_made_anew_while_it_is_read_ends_the_worker(rig: Rig) -> None:
    with rig.worker() as worker:
        worker.wait_ready()
        rig.send(clicks(0, 100))
        rig.wait_caught_up(worker)
        _delete(rig, EVENTS)
        _create(rig, EVENTS)
        rig.send(clicks(100, 110))
        assert worker.wait() == 1
        assert rig.name(EVENTS) in last_line(worker) and "anew" in last_line(worker)


def test_a_topic_that_is_made_anew_while_nobody_reads_it_is_refused(rig: Rig) -> None:
    """Its offsets begin again, so that all its events would pass for ones that are done."""
    _work_off(rig, 100)
    _delete(rig, EVENTS)
    _create(rig, EVENTS)
    rig.send(clicks(100, 110))
    with rig.worker() as worker:
        assert worker.wait() == 1
        assert rig.name(EVENTS) in last_line(worker) and "anew" in last_line(worker)


def test_a_topic_that_is_made_anew_is_refused_by_a_worker_without_a_store_too(rig: Rig) -> None:
    """More events than were done, so that no offset tells; its changelog names the topic that it reflects."""
    _work_off(rig, 100)
    _delete(rig, EVENTS)
    _create(rig, EVENTS)
    rig.send(clicks(100, 300))
    shutil.rmtree(rig.store(USER_HISTORIES, 0).parent)
    committed = rig.committed()
    with rig.worker() as worker:
        assert worker.wait() == 1
        assert rig.name(EVENTS) in last_line(worker) and "anew" in last_line(worker)
    assert rig.committed() == committed


def test_a_topic_that_was_made_anew_is_read_from_its_beginning_after_a_rebuild(rig: Rig) -> None:
    """Kafka has forgotten what was committed on it: a state made of what was worked off is empty, so all is read."""
    _work_off(rig, 100)
    _delete(rig, EVENTS)
    _create(rig, EVENTS)
    rig.send(clicks(0, 100))
    with rig.worker() as worker:
        assert worker.wait() == 1
        assert "rebuild the role" in last_line(worker)
    rebuild = [sys.executable, "-m", "stream_app.cli", "rebuild", "sequence"]
    subprocess.run(rebuild, env=settings_environment(rig.settings, os.environ), check=True, timeout=REBUILD_S)
    rig.send(clicks(100, 120))
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    assert sum(status["events"] for status in newest_statuses(rig).values()) == 120
    check_audit(rig, ["sequence"])


def test_a_topic_with_another_number_of_partitions_is_refused(rig: Rig) -> None:
    _work_off(rig, 100)
    behind = rig.behind()
    _grow(rig)
    with rig.worker() as worker:
        assert worker.wait() == 1
        assert f"{rig.name(EVENTS)} has 3" in last_line(worker)
    assert rig.behind() == behind


def test_a_topic_that_gets_more_partitions_while_it_is_read_ends_the_worker(rig: Rig, scale: Scale) -> None:
    if not scale.is_long:
        pytest.skip("only in the long form: make faults")
    with rig.worker() as worker:
        _grow_under(rig, worker)


def test_a_topic_that_gets_more_partitions_ends_a_worker_that_came_back_too(rig: Rig) -> None:
    """As a static member it deals out nothing anew, and sees what there is more only because it asks."""
    _work_off(rig, 100)
    with rig.worker() as worker:
        _grow_under(rig, worker)


def _grow(rig: Rig) -> None:
    """Give `events` a partition more than all that is cut like it."""

    async def scenario(admin: Any) -> None:
        await admin.create_partitions({rig.name(EVENTS): NewPartitions(rig.settings.partitions + 1)})

    rig.administer(scenario)


def _grow_under(rig: Rig, worker: RoleWorker) -> None:
    """The same under a worker, which must notice; it asks for the topics every quarter of a minute."""
    worker.wait_ready()
    _grow(rig)
    assert worker.wait() == 1
    assert f"{rig.name(EVENTS)} has 3" in last_line(worker)


def test_a_dead_letter_topic_that_refuses_letters_ends_the_worker(rig: Rig) -> None:
    size = {spec.name: spec.config["max.message.bytes"] for spec in topic_specs(rig.settings.prefix, 1)}
    with rig.worker() as worker:
        worker.wait_ready()
        rig.configure(DEAD_LETTER, "max.message.bytes", "50")
        rig.send([*clicks(0, 10), BROKEN, *clicks(10, 20)], partition=0)
        assert worker.wait() == 1
        assert "MessageSizeTooLarge" in last_line(worker)
    assert rig.committed().get(0, 0) <= 10
    with rig.worker() as worker:
        assert worker.wait() == 1
        assert "max.message.bytes=50" in last_line(worker)
    rig.configure(DEAD_LETTER, "max.message.bytes", size[rig.name(DEAD_LETTER)])
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    assert check(rig).letters == {(0, 10): "not_json"}


def test_a_dead_letter_topic_that_is_gone_stops_the_worker_until_it_is_there_again(rig: Rig, scale: Scale) -> None:
    with rig.worker() as worker:
        worker.wait_ready()
        rig.send(clicks(0, 10), partition=0)
        rig.wait_caught_up(worker)
        _delete(rig, DEAD_LETTER)
        rig.send([BROKEN, *clicks(10, 20)], partition=0)
        worker.wait_for(f"{rig.name(DEAD_LETTER)} not found")
        if scale.is_long:
            assert worker.wait(UNACKNOWLEDGED_S) == 1
            assert f"for {rig.name(DEAD_LETTER)}[0]" in last_line(worker)
        assert rig.committed()[0] == 10
        _create(rig, DEAD_LETTER)
        if not scale.is_long:
            rig.wait_caught_up(worker)
            worker.stop()
    with rig.worker() as worker:
        rig.wait_caught_up(worker)
        worker.stop()
    assert check(rig).letters == {(0, 10): "not_json"}
