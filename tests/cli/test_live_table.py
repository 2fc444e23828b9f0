"""The table of `sliceflow up`: what the supervisor tells is on it, and nothing in it steers the terminal."""

from __future__ import annotations

import asyncio
import io

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from rich.console import Console

from stream_app.broker import EmbeddedBroker
from stream_app.cli import _live_table
from stream_app.cli._live_table import LiveTable
from stream_app.lag import group_name
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.role_process import Worker
from stream_app.role_rates import RoleRate, RoleRates
from stream_app.settings import Settings
from stream_app.supervisor import RoleEvent
from tests.support import publish

SEQUENCE, SECOND, TREND = Worker("sequence"), Worker("sequence", 1), Worker("trend")


def table_of(*workers: Worker, address: str = "") -> LiveTable:
    """A table that draws nowhere."""
    return LiveTable(workers, address_of=lambda: address, console=Console(file=io.StringIO()))


def rows(table: LiveTable) -> list[list[str]]:
    """What is drawn, by line, in words."""
    console = Console(width=160, file=io.StringIO(), color_system=None)
    with console.capture() as captured:
        console.print(table.renderable())
    return [line.split() for line in captured.get().splitlines()]


def test_each_worker_has_its_state_process_and_restarts() -> None:
    table = table_of(SEQUENCE, SECOND, TREND)
    table.take(RoleEvent("started", SEQUENCE, 11))
    table.take(RoleEvent("ready", SEQUENCE, 11))
    table.take(RoleEvent("started", TREND, 12))
    table.take(RoleEvent("died", TREND, 12, "signal SIGKILL"))
    table.take(RoleEvent("started", TREND, 13))
    table.take(RoleEvent("all-ready"))
    shown = rows(table)
    assert shown[1:4] == [
        ["sequence", "ready", "11", "0"],
        ["sequence-1", "starting", "-", "0"],
        ["trend", "starting", "13", "1"],
    ]
    assert ["trend", "died:", "signal", "SIGKILL"] in shown


def test_rates_are_of_the_whole_role_in_the_row_of_its_first_worker() -> None:
    table = table_of(SEQUENCE, SECOND)
    table._rates = {"sequence": RoleRate(1234.4, 56789)}
    assert [row[4:] for row in rows(table)[1:3]] == [["1,234", "56,789"], []]


def test_the_address_of_the_page_is_there_once_it_is_served() -> None:
    assert ["page:", "http://127.0.0.1:8360"] in rows(table_of(TREND, address="http://127.0.0.1:8360"))
    assert not any(row[:1] == ["page:"] for row in rows(table_of(TREND)))


def test_what_a_worker_said_last_cannot_steer_the_terminal() -> None:
    table = table_of(TREND)
    table.take(RoleEvent("died", TREND, 1, "exit code 1: \x1b[2Jgone [bold]now[/bold]"))
    drawn = " ".join(word for row in rows(table) for word in row)
    assert "\x1b" not in drawn
    assert "[bold]now[/bold]" in drawn


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str) -> Settings:
    """Topics of this test with two partitions."""
    made = with_broker(Settings(prefix=topic_prefix, partitions=2), broker.bootstrap_servers)
    ensure_topics(made, create=True)
    return made


@pytest.mark.kafka
def test_rates_follow_what_is_sent_and_committed(settings: Settings) -> None:
    servers, topic = settings.kafka.bootstrap_servers, settings.prefix + "events"

    async def commit(offset: int) -> None:
        group = group_name(settings, "sequence")
        consumer = AIOKafkaConsumer(bootstrap_servers=servers, group_id=group, enable_auto_commit=False)
        await consumer.start()
        try:
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.commit({TopicPartition(topic, 0): offset})
        finally:
            await consumer.stop()

    async def looks() -> list[RoleRate]:
        found = []
        async with RoleRates(settings) as rates:
            await publish(servers, [(topic, 0, b"ann", b"{}")] * 10)
            found.append((await rates.look())["sequence"])
            await commit(4)
            found.append((await rates.look())["sequence"])
        return found

    first, second = asyncio.run(looks())
    assert first == RoleRate(0.0, 10)
    assert second.lag == 6
    assert second.records_per_s > 0


@pytest.mark.kafka
def test_the_table_goes_on_when_the_broker_does_not_answer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_live_table, "LOOK_S", 0.01)
    looked = asyncio.Event()
    look = RoleRates.look

    async def failing_first(self: RoleRates) -> dict[str, RoleRate]:
        found = await look(self)
        if not looked.is_set():
            looked.set()
            raise OSError("gone")
        return found

    monkeypatch.setattr(RoleRates, "look", failing_first)
    table = table_of(SEQUENCE)

    async def follow() -> None:
        following = asyncio.create_task(table.follow(settings))
        async with asyncio.timeout(150):
            while not table._rates:
                await asyncio.sleep(0.02)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)

    asyncio.run(follow())
    assert looked.is_set()
    assert table._rates["sequence"].lag == 0
