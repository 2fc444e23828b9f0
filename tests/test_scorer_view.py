"""The scorers of a topic, joined by scorer-epoch, with a real broker."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import NewTopic

from stream_app.broker import EmbeddedBroker
from stream_app.kafka import admin_client
from stream_app.records import MARK_KEY, ScorerEpochRecord, ScorerRecord, encode
from stream_app.scorer_view import ScorerLog
from stream_app.settings import KafkaSettings, Settings
from stream_app.stages.learning import Scorer
from stream_app.stages.listing import ListRule, ScorerInForce
from stream_app.stages.score_rule import ScoreRule

pytestmark = pytest.mark.kafka

RELEASE = "slices-1"
OWN = Scorer(feature_names=["popularity"], weights=[0.5])
RULE = ListRule("events", RELEASE, OWN, ScoreRule(10, 40, 1.0, 9), list_items=10, candidates=5)


def scorer(epoch: int) -> Scorer:
    return Scorer(feature_names=["popularity"], weights=[float(epoch)])


def learned(epoch: int, release: str = RELEASE) -> tuple[bytes, bytes]:
    raw = msgspec.Raw(msgspec.json.encode(scorer(epoch)))
    return b"scorer", encode(ScorerRecord(epoch=epoch, release=release, num_choices=1, scorer=raw, quality={}))


def complete(epoch: int) -> tuple[bytes, bytes]:
    return MARK_KEY, encode(ScorerEpochRecord(epoch=epoch))


def test_a_list_uses_the_newest_scorer_up_to_its_epoch_and_waits_until_that_is_complete(
    broker: EmbeddedBroker, topic_prefix: str
) -> None:
    topic = f"{topic_prefix}scorer-weights"
    kafka = {"bootstrap_servers": broker.bootstrap_servers}

    async def story() -> None:
        async with admin_client(Settings(kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers))) as admin:
            await admin.create_topics([NewTopic(topic, 1, 1)])
        async with AIOKafkaProducer(**kafka) as producer:

            async def publish(*records: tuple[bytes, bytes]) -> None:
                for key, value in records:
                    await producer.send_and_wait(topic, value, key=key, partition=0)

            await publish(learned(3), learned(4, "slices-0"), complete(4), learned(6))
            log = ScorerLog(kafka, topic, RULE)
            await log.restart()
            log.add_view(0)
            log.add_view(1)
            assert await log.scorer_for(0, 2) == ScorerInForce(OWN, -1)
            assert await log.scorer_for(0, 3) == ScorerInForce(scorer(3), 3)
            assert await log.scorer_for(0, 4) == ScorerInForce(scorer(3), 3), "another release's is not taken"
            waiting = asyncio.create_task(log.scorer_for(0, 7))
            assert await log.scorer_for(1, None) == ScorerInForce(scorer(3), 3), "epoch 6 is not complete yet"
            assert not waiting.done()
            await publish(learned(6), complete(6))
            while (await log.scorer_for(1, None)).epoch < 6:
                await asyncio.sleep(0)
            assert not waiting.done(), "epoch 7 is not complete yet"
            await publish(complete(9))
            assert await waiting == ScorerInForce(scorer(6), 6)
            await log.stop()

    async def bounded() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(bounded())
