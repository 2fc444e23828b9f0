"""Hazards of stock Faust, each beside what is done about it here: offsets and settings.

Those of agents, tables and stores are in the files of the same name; `test_recovery`, `test_app`, `test_store` and
`test_watchdog` hold ours where a stock test stands alone.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import faust
import pytest
from faust.serializers import codecs
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from intervaltree import IntervalTree  # type: ignore[import-untyped]

from stream_app.faustkit import AppConfig, BatchApp
from stream_app.faustkit.app import COMMIT_INTERVAL_S
from stream_app.faustkit.delivered import Delivered
from stream_app.faustkit.recovery import BatchTableManager
from stream_app.faustkit.run import MAX_RUN_BYTES
from stream_app.faustkit.transport import MAX_FETCH_BYTES, BatchConsumer

INPUT = TP("inputs", 0)
SINGLE = TP("single", 0)
"""Of a topic that is delivered record by record."""

HOUR_S = 3600


@pytest.fixture
def app(tmp_path: Path) -> BatchApp:
    """An app of ours that is not started."""
    connection = {"bootstrap_servers": ["127.0.0.1:9"]}
    made = BatchApp(AppConfig(app_id="hazards", connection=connection, store_folder=tmp_path))
    made.attach(INPUT.topic, lambda _: None, table="hazards")  # type: ignore[arg-type, return-value]
    return made


def bare(kind: type[Any], app: Any) -> Any:
    """A consumer with nothing but its bookkeeping: no connection is needed to see what it would commit."""
    consumer = object.__new__(kind)
    consumer.app = app
    consumer._acked = defaultdict(list)
    consumer._acked_index = defaultdict(set)
    consumer._gap = defaultdict(IntervalTree)
    consumer._committed_offset = defaultdict(lambda: None)
    consumer._next_offsets = {}
    consumer._fetched = {INPUT: 14}  # so not everything is done, and nothing is committed at once
    consumer._delivered = defaultdict(Delivered)
    return consumer


def acknowledge(consumer: Any, tp: TP, *offsets: int) -> None:
    """What Faust notes when events are done."""
    consumer._acked[tp].extend(offsets)
    consumer._acked_index[tp].update(offsets)


def test_gaps_are_not_filled_by_arithmetic(app: BatchApp) -> None:
    # Offset 12 is being processed, 13 is done.
    stock, ours = bare(driver.Consumer, app), bare(BatchConsumer, app)
    for consumer in (stock, ours):
        acknowledge(consumer, INPUT, 13)
    assert stock._new_offset(INPUT) == 14
    assert ours._new_offset(INPUT) is None
    ours.done_up_to(INPUT, 13)
    assert ours._new_offset(INPUT) == 13


def test_a_gap_that_was_seen_commits_nothing_by_itself(app: BatchApp) -> None:
    # 5 to 8 were never delivered (a compacted topic); 3 is still in work, 9 is done.
    stock, ours = bare(driver.Consumer, app), bare(BatchConsumer, app)
    for consumer in (stock, ours):
        asyncio.run(consumer._add_gap(INPUT, 5, 8))
        acknowledge(consumer, INPUT, 9)
    assert stock._new_offset(INPUT) == 10
    assert ours._new_offset(INPUT) is None
    assert not ours._gap


def test_single_records_are_committed_up_to_the_first_that_is_not_done(app: BatchApp) -> None:
    # 10 was removed by compaction; 12 is being processed, 13 is done.
    stock, ours = bare(driver.Consumer, app), bare(BatchConsumer, app)
    for offset in (9, 11, 12, 13):
        ours._delivered[SINGLE].deliver(offset)
    for consumer in (stock, ours):
        acknowledge(consumer, SINGLE, 13)
    assert stock._new_offset(SINGLE) == 14
    assert ours._new_offset(SINGLE) is None
    acknowledge(ours, SINGLE, 11, 9)
    assert ours._new_offset(SINGLE) == 12
    acknowledge(ours, SINGLE, 12)
    assert ours._new_offset(SINGLE) == 14
    assert not ours._acked[SINGLE]


def test_no_web_server_listens(app: BatchApp, monkeypatch: pytest.MonkeyPatch) -> None:
    assert faust.App("stock", broker="kafka://127.0.0.1:9").conf.web_enabled
    assert not app.conf.web_enabled
    monkeypatch.setenv("APP_WEB_ENABLED", "1")
    assert not BatchApp(app.config).conf.web_enabled


def test_fausts_environment_variables_change_nothing(app: BatchApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROKER_COMMIT_INTERVAL", "77")
    stock = faust.App("stock", broker="kafka://127.0.0.1:9", broker_commit_interval=0.5)
    assert stock.conf.broker_commit_interval == 77.0
    assert BatchApp(app.config).conf.broker_commit_interval == COMMIT_INTERVAL_S


def test_nothing_can_be_unpickled() -> None:
    # The registry belongs to the whole process, so stock Faust is asked in another one.
    ask = "from faust.serializers import codecs; print(sorted(n for n in codecs.codecs if 'pickle' in n))"
    make = (
        "from pathlib import Path; from stream_app.faustkit import AppConfig, BatchApp;"
        "BatchApp(AppConfig('a', {'bootstrap_servers': ['127.0.0.1:9']}, Path('unused')));"
    )
    stock, ours = (
        subprocess.run([sys.executable, "-W", "ignore", "-c", line], capture_output=True, text=True, check=True)
        for line in (ask, make + ask)
    )
    assert stock.stdout.strip() == "['pickle', 'pickle_fickling', 'pickle_restricted']"
    assert ours.stdout.strip() == "[]"


def test_a_topic_that_asks_for_pickle_cannot_be_read(app: BatchApp) -> None:
    assert "pickle" not in codecs.codecs
    with pytest.raises(Exception, match="pickle"):
        codecs.loads("pickle", b"gASVBgAAAAAAAACMAmlkLg==")


def guarantee(app: Any) -> str:
    """The processing guarantee of an app."""
    return str(app.conf.processing_guarantee.value)


def test_exactly_once_is_never_used(app: BatchApp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROCESSING_GUARANTEE", "exactly_once")
    stock, ours = faust.App("stock", broker="kafka://127.0.0.1:9"), BatchApp(app.config)
    assert guarantee(stock) == "exactly_once"
    assert guarantee(ours) == "at_least_once"
    assert not ours.in_transaction


def test_recovery_does_not_begin_with_a_pause(app: BatchApp) -> None:
    assert isinstance(app.tables, BatchTableManager)
    assert "sleep" in TableManager.on_start.__code__.co_names
    assert "sleep" not in BatchTableManager.on_start.__code__.co_names
    assert app.conf.stream_recovery_delay == 0.0


def test_what_faust_sends_some_time_later_is_refused(app: BatchApp) -> None:
    """A commit does not wait for it: `test_hazards_tables.test_stock_flush_gives_up_what_is_not_sent`."""
    with pytest.raises(NotImplementedError, match=r"await topic\.send"):
        app.topic("some").send_soon(value=b"v")


@pytest.mark.parametrize("name", ["take", "take_events", "take_with_timestamp", "noack_take"])
def test_gathering_events_by_time_is_refused(app: BatchApp, name: str) -> None:
    """A failure acknowledges them all: `test_hazards_agents.test_an_exception_among_events_that_were_taken`."""
    stream = app.stream(app.topic("some"))
    with pytest.raises(NotImplementedError, match="whole runs"):
        getattr(stream, name)(10, within=1)


def worker_consumer(app: BatchApp) -> Any:
    """The aiokafka consumer of an app that is not started."""

    async def scenario() -> Any:
        faust_consumer: Any = app.consumer
        thread = faust_consumer._thread
        consumer = thread._create_worker_consumer(app.transport)
        await consumer.stop()
        thread.thread_loop.close()
        return consumer

    return asyncio.run(scenario())


def test_a_group_always_begins_at_the_earliest_record(app: BatchApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """With "latest" a partition of a new group may be stuck, and what came before the group is never read."""
    monkeypatch.setenv("CONSUMER_AUTO_OFFSET_RESET", "latest")
    assert faust.App("stock", broker="kafka://127.0.0.1:9").conf.consumer_auto_offset_reset == "latest"
    assert worker_consumer(BatchApp(app.config))._auto_offset_reset == "earliest"


def test_the_bytes_of_a_fetch_are_bounded(app: BatchApp) -> None:
    """Compressed bytes: what they unpack to is bounded by what the broker takes as one batch alone."""
    consumer = worker_consumer(app)
    assert consumer._max_partition_fetch_bytes == MAX_RUN_BYTES
    assert consumer._fetch_max_bytes == MAX_FETCH_BYTES


def test_the_producer_is_idempotent(app: BatchApp) -> None:
    async def is_idempotent(made: Any) -> bool:
        producer = made.producer._new_producer()
        await producer.stop()
        return producer._txn_manager is not None

    assert not asyncio.run(is_idempotent(faust.App("stock", broker="kafka://127.0.0.1:9")))
    assert asyncio.run(is_idempotent(app))


def test_sasl_without_tls_is_what_stock_makes_of_a_missing_context() -> None:
    """Ours refuses it: `test_kafka_connection.test_contradictions_are_refused`."""
    assert faust.SASLCredentials(username="ann", password="secret").protocol.value == "SASL_PLAINTEXT"


def test_the_livelock_detector_takes_a_fetch_of_an_hour_ago_for_one_to_come() -> None:
    """It compares a time since the epoch with one since the start of the machine. Ours is the watchdog."""
    logged: list[str] = []
    state = SimpleNamespace(timestamp=(time.time() - HOUR_S) * 1000)
    assignment = SimpleNamespace(active=True, state_value=lambda _: state)
    subscriptions = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
    thread: Any = object.__new__(driver.AIOKafkaConsumerThread)
    thread._consumer = SimpleNamespace(_fetcher=SimpleNamespace(_subscriptions=subscriptions))
    thread.time_started = time.monotonic() - 2 * HOUR_S
    thread.tp_fetch_request_timeout_secs = 60.0
    thread.log = SimpleNamespace(error=lambda text, *_: logged.append(text))
    assert not thread._verify_aiokafka_event_path(time.monotonic(), INPUT)
    assert not logged


def test_there_are_no_windowed_tables(app: BatchApp) -> None:
    """They expire by the wall clock: what is replayed of last year is gone at once."""
    ours: Any = app.Table("windowed")
    with pytest.raises(NotImplementedError, match="wall clock"):
        ours.tumbling(10.0)
    made: Any = faust.App("stock", broker="kafka://127.0.0.1:9").Table("windowed", default=int)
    table = made.tumbling(10.0, expires=HOUR_S).table
    last_year = time.time() - 365 * 24 * HOUR_S
    table._maybe_set_key_ttl(("k", (last_year, last_year + 9.9)), 0)
    assert table._partition_timestamps[0]
    asyncio.run(table._del_old_keys())
    assert not table._partition_timestamps[0]
