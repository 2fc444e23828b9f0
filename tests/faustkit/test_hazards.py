"""Hazards of stock Faust, each beside what is done about it here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import faust
import pytest
from faust.serializers import codecs
from faust.tables.manager import TableManager
from faust.transport.drivers import aiokafka as driver
from faust.types import TP
from intervaltree import IntervalTree  # type: ignore[import-untyped]

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit import AppConfig, BatchApp
from stream_app.faustkit.app import COMMIT_INTERVAL_S
from stream_app.faustkit.recovery import BatchTableManager
from stream_app.faustkit.transport import BatchConsumer
from tests.faustkit.counting import POISON
from tests.faustkit.stage import Process, Stage

INPUT = TP("inputs", 0)


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
    return consumer


def acknowledge(consumer: Any, offset: int) -> None:
    """What Faust notes when an event is done."""
    consumer._acked[INPUT].append(offset)
    consumer._acked_index[INPUT].add(offset)


def test_gaps_are_not_filled_by_arithmetic(app: BatchApp) -> None:
    # Offset 12 is being processed, 13 is done.
    stock, ours = bare(driver.Consumer, app), bare(BatchConsumer, app)
    for consumer in (stock, ours):
        acknowledge(consumer, 13)
    assert stock._new_offset(INPUT) == 14
    assert ours._new_offset(INPUT) is None
    ours.done_up_to(INPUT, 13)
    assert ours._new_offset(INPUT) == 13


def test_a_gap_that_was_seen_commits_nothing_by_itself(app: BatchApp) -> None:
    # 5 to 8 were never delivered (a compacted topic); 3 is still in work, 9 is done.
    stock, ours = bare(driver.Consumer, app), bare(BatchConsumer, app)
    for consumer in (stock, ours):
        asyncio.run(consumer._add_gap(INPUT, 5, 8))
        acknowledge(consumer, 9)
    assert stock._new_offset(INPUT) == 10
    assert ours._new_offset(INPUT) is None
    assert not ours._gap


def test_topics_without_batch_delivery_keep_fausts_own_bookkeeping(app: BatchApp) -> None:
    other = TP("other", 0)
    stock, ours = bare(driver.Consumer, app), bare(BatchConsumer, app)
    for consumer in (stock, ours):
        consumer._acked[other].extend([0, 1, 2])
        assert consumer._new_offset(other) == 3


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


@pytest.mark.kafka
def test_an_event_whose_processing_failed_is_not_acknowledged(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    stage = Stage(broker.bootstrap_servers, topic_prefix, tmp_path, num_partitions=1)
    stage.send(1, value=POISON)
    # Ours first: stock Faust would commit the event away under the same group.
    with stage.worker() as ours:
        assert ours.wait() == 1
    assert stage.committed() == [-1]
    arguments = ["tests.faustkit.stock", stage.servers, stage.prefix, str(tmp_path / "stock")]
    with Process(arguments, tmp_path / "stock.log") as stock:
        stage.wait_committed()
        assert "this event is poison" in stock.text()
    assert stage.committed() == [1]
