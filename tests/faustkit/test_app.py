"""The app as a process: runs, commits, crashes at every step, handing over, and stopping."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.changelog import OWNER_HEADER
from tests.faustkit.counting import POISON
from tests.faustkit.stage import Stage

pytestmark = pytest.mark.kafka


@pytest.fixture
def stage(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Stage:
    """Topics of two partitions."""
    return Stage(broker.bootstrap_servers, topic_prefix, tmp_path)


def test_runs_are_whole_and_aligned_and_a_clean_stop_commits_them_all(stage: Stage) -> None:
    stage.send(500)
    with stage.worker() as worker:
        worker.wait_for("ready")
        stage.wait_told(500)
        stage.send(7)
        stage.wait_told(507)
        assert worker.terminate() == 0
    assert stage.committed() == stage.ends()
    stage.check("w")
    lengths = [told.run_length for told in stage.told()]
    assert max(lengths) == 40
    # Nothing was taken twice, and nothing is left for the next process.
    assert len(lengths) == 507
    with stage.worker() as worker:
        worker.wait_for("ready")
        assert worker.terminate() == 0
    assert len(stage.told()) == 507


def test_dying_at_any_step_loses_and_doubles_nothing(stage: Stage) -> None:
    steps = ["before_outputs", "before_changelog", "before_store", "before_commit"]
    for number, step in enumerate(steps):
        stage.send(160)
        with stage.worker(instance_id="one", die_at=step, die_in_run=1 + number % 2) as worker:
            assert worker.wait() == -9, worker.text()
    with stage.worker(instance_id="one") as worker:
        stage.wait_committed()
        assert worker.terminate() == 0
    stage.check("w")


def test_kill_at_random_moments_loses_and_doubles_nothing(stage: Stage) -> None:
    stage.send(1200)
    for enough in (1, 300, 700):
        with stage.worker(instance_id="one", delay_s=0.03) as worker:
            stage.wait_told(enough)
            worker.kill()
    with stage.worker(instance_id="one") as worker:
        stage.wait_committed()
        assert worker.terminate() == 0
    stage.check("w")


def test_a_lost_store_is_rebuilt_from_its_changelog(stage: Stage) -> None:
    stage.send(100)
    with stage.worker("first", instance_id="one") as worker:
        stage.wait_committed()
        assert worker.terminate() == 0
    stage.send(100)
    with stage.worker("second", instance_id="one") as worker:
        stage.wait_committed()
        assert worker.terminate() == 0
    stage.check("second")


def test_a_processor_that_raises_ends_the_process_and_nothing_of_it_is_committed(stage: Stage) -> None:
    stage.send(100)
    with stage.worker(instance_id="one") as worker:
        worker.wait_for("ready")
        stage.wait_committed()
        before = stage.committed()
        stage.send(1, value=POISON)
        assert worker.wait() == 1
        assert "inputs[0] at offset 50 could not be processed: ValueError: this event is poison" in worker.text()
    assert stage.committed() == before
    with stage.worker(instance_id="one") as worker:  # it is still there, and still ends the process
        assert worker.wait() == 1
    assert stage.committed() == before


def test_a_send_that_fails_ends_the_process_and_nothing_is_committed(stage: Stage) -> None:
    stage.send(10)
    with stage.worker(outputs="not-there", request_timeout_ms=2000) as worker:
        assert worker.wait() == 1
        assert "SendError: Kafka did not acknowledge 5 records" in worker.text()
    assert stage.committed() == [-1, -1]
    assert [record for record in stage.read("counts-changelog") if OWNER_HEADER not in dict(record.headers)] == []


def test_a_partition_that_waits_holds_up_no_other(stage: Stage, tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    with stage.worker(held_partition=0, held_until=str(opened)) as worker:
        worker.wait_for("ready")
        # Many times what a lane takes, and in many fetches, so that the waiting partition has long been full.
        for part in range(1, 11):
            stage.send(400)
            stage.wait_told(200 * part)
        assert {told.partition for told in stage.told()} == {1}
        opened.touch()
        stage.wait_committed()
        assert worker.terminate() == 0
    stage.check("w")


def test_workers_share_and_hand_over(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path, num_partitions=4)
    stage.send(200)
    with stage.worker("first", delay_s=0.01) as first, stage.worker("second", delay_s=0.01) as second:
        first.wait_for("ready")
        second.wait_for("ready")
        num_sent = 200

        def both_work() -> bool:
            return {told.worker for told in stage.told()} == {"first", "second"}

        while not both_work():
            assert num_sent < 8000, "one of the workers gets nothing"
            stage.send(200)
            num_sent += 200
            stage.wait_told(num_sent - 100)
        stage.send(400)
        assert second.terminate() == 0
        stage.send(400)
        stage.wait_committed()
        assert first.terminate() == 0
    stage.check("first")
    assert {told.worker for told in stage.told()} == {"first", "second"}
