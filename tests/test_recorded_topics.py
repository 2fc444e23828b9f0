"""Reading a replay's outcome from the topics: only what is new, only its own users, each dead letter once."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka import AIOKafkaProducer

from stream_app.broker import EmbeddedBroker
from stream_app.preflight import ensure_topics
from stream_app.recorded_topics import OutputEnds, dead_letter_reasons, output_ends, record_topics
from stream_app.recording import RecordedList, RecordedSlice, Recorder
from stream_app.records import encode
from stream_app.settings import KafkaSettings, Settings
from tests.support import publish
from tests.test_recording import first_line, list_for, ranked, slice_for

pytestmark = [pytest.mark.kafka]


@pytest.fixture
def settings(broker: EmbeddedBroker, topic_prefix: str) -> Settings:
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    made = Settings(kafka=kafka, prefix=topic_prefix, partitions=2)
    ensure_topics(made, create=True)
    return made


async def send_outputs(settings: Settings, user: str, offset: int) -> None:
    """A list and a slice of a user, as the roles publish them."""
    key = user.encode()
    records: list[tuple[str, int, bytes | None, bytes | None]] = [
        (f"{settings.prefix}recommendations", offset % 2, key, encode(list_for(user, offset, ranked(1.0)))),
        (f"{settings.prefix}slices", offset % 2, key, encode(slice_for(user, offset, 1))),
    ]
    await publish(settings.kafka.bootstrap_servers, records)


async def send_dead_letter(settings: Settings, offset: int, reason: str) -> None:
    facts = {"partition": "1", "offset": str(offset), "reason": reason}
    headers = [(name, value.encode()) for name, value in facts.items()]
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        await producer.send_and_wait(f"{settings.prefix}events-dead-letter", b"", partition=0, headers=headers)


def test_what_was_there_before_and_other_users_are_left_out(settings: Settings) -> None:
    async def story() -> Recorder:
        recorder = Recorder()
        await send_outputs(settings, "ann", 1)
        since = await output_ends(settings)
        for user, offset in (("bob", 2), ("eve", 3), ("bob", 4)):
            await send_outputs(settings, user, offset)
        await publish(settings.kafka.bootstrap_servers, [(f"{settings.prefix}recommendations", 0, b"ann", None)])
        await record_topics(settings, recorder, {b"ann", b"bob"}, since)
        return recorder

    records = list(asyncio.run(story()).recording(first_line()).records())
    assert [(one.user_id, one.event_ts) for one in records if isinstance(one, RecordedList)] == [("bob", 1004)]
    slices = [(one.user_id, one.seq) for one in records if isinstance(one, RecordedSlice)]
    assert slices == [("bob", 2), ("bob", 4)]


def test_a_dead_letter_that_was_published_twice_counts_once(settings: Settings) -> None:
    async def story() -> tuple[dict[str, int], OutputEnds]:
        await send_dead_letter(settings, 3, "not_json")
        since = await output_ends(settings)
        for offset, reason in ((7, "not_json"), (8, "null_key"), (7, "not_json"), (9, "not_json")):
            await send_dead_letter(settings, offset, reason)
        return await dead_letter_reasons(settings, since), since

    reasons, since = asyncio.run(story())
    assert reasons == {"not_json": 2, "null_key": 1}
    assert since.dead_letters == {0: 1}
