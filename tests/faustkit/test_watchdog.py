"""The watchdog: what it ends a process for, and what it leaves alone."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.standing import PartitionProgress
from stream_app.faustkit.watchdog import MISSING_S, Progress, Pulse, StallJudge
from tests.faustkit.misbehaving import misbehaving
from tests.faustkit.stage import Stage
from tests.support import wait_until

STALLED_S = 100.0
DONE = PartitionProgress("inputs", 0, committed=7, fetched=7, position=7, end=7)
IDLE = Progress(
    generation_id=1,
    is_opening=False,
    is_flowing=True,
    num_polls=1,
    is_polling=True,
    missing=[],
    partitions=[DONE],
)


def seen(progress: Progress = IDLE, **partition: Any) -> Progress:
    """What is seen of a consumer with one partition."""
    return replace(progress, partitions=[replace(DONE, **partition)])


def verdicts(*looks: tuple[float, Progress]) -> list[str | None]:
    """What a judge says at each look: (time in seconds, what is seen)."""
    judge = StallJudge(STALLED_S)
    return [judge.judge(progress, now_s) for now_s, progress in looks]


# ---------------------------------------------------------------- judging


@pytest.mark.parametrize(
    "progress",
    [
        IDLE,
        # Control records follow the last input: they are read, and never committed.
        seen(position=9, end=9),
        seen(position=None, end=0),
        seen(position=None, end=-1, committed=-1, fetched=-1),
        seen(replace(IDLE, is_opening=True, is_polling=False), end=20),
    ],
)
def test_what_has_nothing_to_do_may_stand_still(progress: Progress) -> None:
    assert verdicts((0, progress), (1000, progress), (9000, progress)) == [None] * 3


def test_input_that_is_fetched_has_to_be_committed() -> None:
    waiting = seen(fetched=12, position=12)
    first, second, third = verdicts((0, waiting), (STALLED_S, waiting), (STALLED_S + 1, waiting))
    assert first is second is None
    assert third is not None
    assert third.startswith(
        "Nothing of inputs[0] was committed for 101 s (limit 100 s): committed 7, fetched up to 12."
    )


def test_input_that_is_there_has_to_be_fetched() -> None:
    waiting = seen(end=12)
    first, second, third = verdicts((0, waiting), (STALLED_S, waiting), (STALLED_S + 1, waiting))
    assert first is second is None
    assert third is not None
    assert third.startswith("Nothing of inputs[0] was fetched for 101 s (limit 100 s)")
    assert "position 7, end 12" in third


def test_nothing_is_fetched_while_another_partition_holds_all_up() -> None:
    full = PartitionProgress("inputs", 1, committed=0, fetched=5, position=5, end=50)

    def look(committed: int, num_polls: int) -> Progress:
        waiting = replace(DONE, end=12)
        return replace(
            IDLE, is_polling=False, num_polls=num_polls, partitions=[waiting, replace(full, committed=committed)]
        )

    # What was fetched of the other one is not handed on yet, so nobody asks for more.
    assert verdicts((0, look(0, 1)), (90, look(1, 1)), (180, look(2, 1)), (270, look(3, 1))) == [None] * 4
    # Here more is asked for again and again, and still nothing comes.
    reason = verdicts((0, look(0, 1)), (90, look(1, 2)), (180, look(2, 3)))[-1]
    assert reason is not None and reason.startswith("Nothing of inputs[0] was fetched")


def test_after_a_rebalance_and_after_progress_elsewhere_the_time_begins_anew() -> None:
    waiting = seen(fetched=12, position=12)
    again = replace(waiting, generation_id=2)
    assert verdicts((0, waiting), (90, waiting), (180, again), (270, again)) == [None] * 4
    judge = StallJudge(STALLED_S)
    for now_s in range(0, 1000, 90):
        judge.forgive()
        assert judge.judge(waiting, now_s) is None


def test_a_position_below_the_committed_offset_is_a_topic_created_anew() -> None:
    reason = verdicts((0, seen(position=3)))[0]
    assert reason is not None
    assert "inputs[0] is read at offset 3, below the committed offset 7" in reason
    # A position may be set back while partitions are given away, but then it has to move again.
    suspended = seen(replace(IDLE, is_flowing=False), position=3)
    first, second = verdicts((0, suspended), (STALLED_S + 1, suspended))
    assert first is None
    assert second is not None and second.startswith("Nothing of inputs[0] was fetched")


def test_a_topic_that_kafka_does_not_name_for_a_while_is_gone() -> None:
    gone = replace(IDLE, missing=["inputs"])
    first, second = verdicts((0, gone), (MISSING_S + 1, gone))
    assert first is None
    assert second is not None
    assert second.startswith("Kafka does not name the topic inputs any more")


@given(st.lists(st.tuples(st.floats(0.5, 60), st.booleans(), st.booleans()), min_size=1, max_size=30))
def test_the_time_counts_from_the_last_move_or_the_last_rest(steps: list[tuple[float, bool, bool]]) -> None:
    judge = StallJudge(STALLED_S)
    now_s = since_s = 0.0
    committed = 0
    judge.judge(seen(committed=0, fetched=0, position=99, end=99), now_s)
    for step_s, moves, rests in steps:
        now_s += step_s
        committed += moves
        if moves or rests:
            since_s = now_s
        fetched = committed if rests else committed + 1
        reason = judge.judge(seen(committed=committed, fetched=fetched, position=99, end=99), now_s)
        assert (reason is not None) == (now_s - since_s > STALLED_S)


# ---------------------------------------------------------------- feeling the pulse


def test_a_loop_is_blocked_from_the_first_callback_that_it_does_not_call() -> None:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    assert thread.ident is not None
    pulse = Pulse("the test", loop, thread.ident, limit_s=1.0)
    go_on = threading.Event()
    try:
        pulse.ask(1.0)
        wait_until(lambda: pulse.ask(2.0) == 0.0)
        loop.call_soon_threadsafe(go_on.wait)
        wait_until(lambda: pulse.ask(3.0) == 0.0 and pulse.ask(4.0) == 1.0)
        assert pulse.ask(9.5) == 6.5
        wait_until(lambda: pulse.stack()[-1].name == "wait")
    finally:
        go_on.set()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
    assert not pulse.stack()
    pulse = Pulse("the test", loop, thread.ident, limit_s=1.0)
    with pytest.raises(RuntimeError, match="closed"):
        pulse.ask(10.0)


# ---------------------------------------------------------------- real processes


@pytest.fixture
def stage(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Stage:
    """Topics of one partition."""
    return Stage(broker.bootstrap_servers, topic_prefix, tmp_path, num_partitions=1)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("misdeed", "limits", "reason", "details"),
    [
        (
            "block_the_app",
            {"loop_blocked_s": 5.0},
            "sliceflow: The event loop of the app is blocked for 5 s (limit 5 s) by sleep_for_ever (",
            "in block_the_app",
        ),
        (
            # Nobody was told that this one may be blocked, but without heartbeats the session ends.
            "block_the_consumer",
            {"session_timeout_s": 6.0},
            "sliceflow: The event loop of the consumer is blocked for 6 s (limit 6 s) by sleep_for_ever (",
            "in sleep_for_ever",
        ),
        ("hold_the_interpreter", {"interpreter_blocked_s": 5.0}, "Timeout (0:00:05)!", "in hold_the_interpreter"),
        (
            "never_end",
            {"stalled_s": 5.0},
            "inputs[0] was committed for 5 s (limit 5 s): committed nothing, fetched up to 1.",
            "",
        ),
        (
            "never_commit",
            {"stalled_s": 5.0},
            "inputs[0] was committed for 5 s (limit 5 s): committed nothing, fetched up to 1.",
            "",
        ),
        ("lose_the_place", {}, "inputs[0] is read at offset 0, below the committed offset 1", ""),
    ],
)
def test_a_process_that_stands_still_is_ended(
    stage: Stage, misdeed: str, limits: dict[str, float], reason: str, details: str
) -> None:
    with misbehaving(stage.servers, stage.prefix, stage.folder, **limits) as process:
        process.wait_for("ready")
        stage.send(1, value=misdeed.encode())
        assert process.wait() == 1
        assert reason in process.text()
        assert details in process.text()


@pytest.mark.kafka
def test_what_was_never_committed_comes_again(stage: Stage) -> None:
    with misbehaving(stage.servers, stage.prefix, stage.folder) as process:
        process.wait_for("ready")
        stage.send(1, value=b"go_back")
        process.wait_for("came again")
        stage.wait_committed()
        assert process.terminate() == 0


@pytest.mark.kafka
def test_a_blocked_log_does_not_keep_a_process_alive(stage: Stage) -> None:
    with misbehaving(stage.servers, stage.prefix, stage.folder, loop_blocked_s=5.0) as process:
        process.wait_for("ready")
        stage.send(1, value=b"block_the_log")
        assert process.wait() == 1


@pytest.mark.kafka
def test_a_dead_fetcher_is_noticed_when_there_is_input(stage: Stage) -> None:
    with misbehaving(stage.servers, stage.prefix, stage.folder, stalled_s=5.0) as process:
        process.wait_for("ready")
        stage.send(1, value=b"stop_fetching")
        stage.wait_committed()
        stage.send(1)
        assert process.wait() == 1
        assert "inputs[0] was fetched for" in process.text()
        assert "position 1, end 2" in process.text()


@pytest.mark.kafka
def test_a_wait_on_purpose_goes_on_while_what_is_waited_for_moves(stage: Stage) -> None:
    with misbehaving(stage.servers, stage.prefix, stage.folder, stalled_s=4.0) as process:
        process.wait_for("ready")
        stage.send(1, value=b"end_late")
        stage.wait_committed()
        assert process.terminate() == 0


@pytest.mark.kafka
def test_slow_and_idle_partitions_are_left_alone(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path)
    with misbehaving(stage.servers, stage.prefix, stage.folder, stalled_s=4.0) as process:
        process.wait_for("ready")
        # The commit of the transaction takes an offset that is never given to anybody.
        asyncio.run(_send_in_transaction(stage, partition=0))
        asyncio.run(_send(stage, 1, [b"be_slow"] * 4))
        wait_until(lambda: stage.committed() == [1, 4], what="four slow events to be committed")
        assert process.terminate() == 0


async def _send_in_transaction(stage: Stage, partition: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=stage.servers, transactional_id=stage.prefix + "tester")
    async with producer, producer.transaction():
        await producer.send_and_wait(stage.prefix + "inputs", b"event", partition=partition)


async def _send(stage: Stage, partition: int, values: list[bytes]) -> None:
    async with AIOKafkaProducer(bootstrap_servers=stage.servers) as producer:
        for value in values:
            await producer.send_and_wait(stage.prefix + "inputs", value, partition=partition)


@pytest.mark.kafka
def test_a_process_that_was_paused_for_a_session_writes_no_more(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path)
    with stage.worker("paused", delay_s=0.2) as paused, stage.worker("other", delay_s=0.2) as other:
        paused.wait_for("ready")
        other.wait_for("ready")
        stage.send(2000)
        stage.wait_told(100)
        paused.pause()
        stage.send(100)
        stage.wait_committed()  # which the other one can do only when it has all partitions
        paused.wake()
        assert paused.wait() == 1
        assert "sliceflow: This process did not run for" in paused.text()
        stage.send(100)
        stage.wait_committed()
        assert other.terminate() == 0
    stage.check("other")
