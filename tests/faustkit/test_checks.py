"""The topics of an app: refused at the start, and noticed when they go away while they are read."""

from __future__ import annotations

import asyncio
import re
import uuid
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.errors import TopicMismatchError
from stream_app.faustkit.checks import check_topics, refuse_grown, refuse_other_input, refuse_recreated, topic_problems
from tests.faustkit.counting import TABLE
from tests.faustkit.misbehaving import misbehaving
from tests.faustkit.stage import Stage
from tests.support import create_topics, delete_topics, read_all, unique_topics

CHANGELOGS = {"in": "log"}


@pytest.mark.parametrize(
    ("num_partitions", "problems"),
    [
        ({"in": 3, "log": 3, "plain": 1}, []),
        ({"in": 3, "log": 3}, ["The topic plain is missing."]),
        ({"in": 3, "log": 0, "plain": 1}, ["The topic log is missing."]),
        ({}, ["The topic in is missing.", "The topic log is missing.", "The topic plain is missing."]),
        ({"in": 3, "log": 2, "plain": 1}, ["The changelog log has 2 partitions, but its input in has 3."]),
    ],
)
def test_each_problem_is_told(num_partitions: dict[str, int], problems: list[str]) -> None:
    assert topic_problems(num_partitions, ["in", "plain"], CHANGELOGS) == problems


def test_a_topic_with_another_id_is_another_topic() -> None:
    one, two = uuid.UUID(int=1), uuid.UUID(int=2)
    refuse_recreated({}, {"in": one})
    refuse_recreated({"in": one}, {"in": one})
    refuse_recreated({"in": None}, {"in": one})
    with pytest.raises(TopicMismatchError, match="created anew while they were read: in"):
        refuse_recreated({"in": one, "other": two}, {"in": two, "other": two})


def test_state_of_another_topic_is_refused() -> None:
    one = uuid.UUID(int=1)
    refuse_other_input(None, "in", {"in": one})
    refuse_other_input(str(one), "in", {"in": one})
    refuse_other_input(str(one), "in", {"in": None})
    with pytest.raises(TopicMismatchError, match=f"reflects the topic in with id some, but .* id {one}"):
        refuse_other_input("some", "in", {"in": one})


def test_a_topic_that_has_grown_is_named() -> None:
    refuse_grown({}, {"in": 3})
    refuse_grown({"in": 3, "log": 3}, {"in": 3, "log": 2})  # a broker that lags behind
    with pytest.raises(TopicMismatchError, match=r"The topic in has 4 partitions, but had 3\. Partitions were added"):
        refuse_grown({"in": 3, "log": 3}, {"in": 4, "log": 3})


@pytest.mark.kafka
def test_an_id_is_kept_until_the_topic_is_made_again(broker: EmbeddedBroker, topic_prefix: str) -> None:
    inputs, changelog = unique_topics(topic_prefix, "in", "log")
    servers = broker.bootstrap_servers

    async def scenario() -> None:
        async def check() -> uuid.UUID | None:
            seen = await check_topics({"bootstrap_servers": servers}, [inputs], {inputs: changelog})
            assert seen.num_partitions == {inputs: 2, changelog: 2}
            return seen.ids[inputs]

        await create_topics(servers, {inputs: 2, changelog: 2})
        first = await check()
        assert first is not None
        assert await check() == first
        await delete_topics(servers, [inputs])
        with pytest.raises(TopicMismatchError, match=f"The topic {inputs} is missing"):
            await check()
        await create_topics(servers, {inputs: 2})
        assert await check() != first

    asyncio.run(scenario())


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("topics", "reason"),
    [
        ({f"{TABLE}-changelog": 2}, "The topic {prefix}inputs is missing."),
        ({"inputs": 2}, "The topic {prefix}" + TABLE + "-changelog is missing."),
        (
            {"inputs": 2, f"{TABLE}-changelog": 1},
            "The changelog {prefix}" + TABLE + "-changelog has 1 partitions, but its input {prefix}inputs has 2.",
        ),
    ],
)
def test_an_app_whose_topics_do_not_fit_refuses_to_start(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path, topics: dict[str, int], reason: str
) -> None:
    servers = broker.bootstrap_servers
    asyncio.run(create_topics(servers, {topic_prefix + name: number for name, number in topics.items()}))
    with misbehaving(servers, topic_prefix, tmp_path) as process:
        assert process.wait() == 1
        assert f"sliceflow: {reason.format(prefix=topic_prefix)} To mend it: create what is missing" in process.text()
        assert "ready" not in process.text()
        assert "Traceback" not in process.text()


@pytest.fixture
def stage(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> Stage:
    """Topics of two partitions."""
    return Stage(broker.bootstrap_servers, topic_prefix, tmp_path)


@pytest.mark.kafka
@pytest.mark.parametrize("name", ["inputs", f"{TABLE}-changelog"])
def test_a_topic_that_is_deleted_while_it_is_read_ends_the_process(stage: Stage, name: str) -> None:
    stage.send(20)
    with misbehaving(stage.servers, stage.prefix, stage.folder, stalled_s=20.0) as worker:
        worker.wait_for("ready")
        stage.wait_committed()
        asyncio.run(delete_topics(stage.servers, [stage.prefix + name]))
        assert worker.wait() == 1
        # The watchdog says so, or the check at the assignment that follows, whoever is first.
        assert re.search(rf"sliceflow: .*topic {stage.prefix}{name} (any more|is missing)", worker.text())


@pytest.mark.kafka
def test_a_topic_that_is_created_anew_while_it_is_read_ends_the_process(stage: Stage) -> None:
    stage.send(20)
    with stage.worker() as worker:
        worker.wait_for("ready")
        stage.wait_committed()
        inputs = stage.prefix + "inputs"
        asyncio.run(delete_topics(stage.servers, [inputs]))
        asyncio.run(create_topics(stage.servers, {inputs: 2}))
        stage.send(4)
        assert worker.wait() == 1
        assert "created anew" in worker.text()
    told = asyncio.run(read_all(stage.servers, stage.prefix + "outputs", 2))
    assert len(told) == 20


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize(
    ("grown", "reason"),
    [
        (
            ["inputs"],
            "The changelog {prefix}" + TABLE + "-changelog has 2 partitions, but its input {prefix}inputs has 3.",
        ),
        (["inputs", f"{TABLE}-changelog"], "The topic {prefix}inputs has 3 partitions, but had 2."),
    ],
)
def test_partitions_that_are_added_end_a_member_that_came_back(stage: Stage, grown: list[str], reason: str) -> None:
    """It came back under its name, so nothing was dealt out anew, and nobody else looks at the topics again."""
    stage.send(20)
    fields = {"instance_id": "one", "stalled_s": 20.0}
    with misbehaving(stage.servers, stage.prefix, stage.folder, **fields) as worker:
        worker.wait_for("ready")
        stage.wait_committed()
        assert worker.terminate() == 0
    with misbehaving(stage.servers, stage.prefix, stage.folder, **fields) as worker:
        worker.wait_for("ready")
        stage.grow(*grown)
        assert worker.wait() == 1
        assert reason.format(prefix=stage.prefix) in worker.text()
