"""Headers of any kind on `events`: they are the producers' own, and keep no event from being applied."""

from __future__ import annotations

import asyncio
from typing import Final

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from stream_app.faustkit.producing import BatchClient
from stream_app.faustkit.request_line import Batch
from stream_app.kafka import connection
from stream_app.records import STRICT_HEADER, TICK_HEADER
from stream_app.topics import EVENTS
from tests.faults.feeds import clicks
from tests.faults.rig import Rig
from tests.faults.verify import check
from tests.kafka_client.test_odd_headers import PLACEHOLDER, with_name

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

HOSTILE: Final[list[tuple[str, bytes | None]]] = [
    (TICK_HEADER, None),
    (TICK_HEADER, b"soon"),
    (TICK_HEADER, b"9" * 400),
    (STRICT_HEADER, None),
    ("sliceflow-appended", None),
    ("traceparent", None),
    ("traceparent", b"\xff" * 5_000),
    ("", b""),
    ("\0\n\u202e", b"x" * 100_000),
]


async def send_all(rig: Rig) -> int:
    """Send good events with each of the hostile headers, then one whose header name is no UTF-8; how many."""
    events = clicks(0, len(HOSTILE) + 1)
    made = connection(rig.settings)
    async with AIOKafkaProducer(**made) as producer:
        for (name, text), event in zip(HOSTILE, events, strict=False):
            headers = [(name, text)]
            await producer.send_and_wait(
                rig.name(EVENTS), event.value, event.key, 0, timestamp_ms=event.timestamp_ms, headers=headers
            )
    odd = events[-1]
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, 0, 1_000_000)
    assert builder.append(0, odd.timestamp_ms, odd.key, odd.value, [(PLACEHOLDER, b"")]) is not None
    client = BatchClient(made, client_id="odd", delivery_s=30)
    await client.start()
    await client.send([Batch((rig.name(EVENTS), 0), with_name(bytes(builder.build()), b"\xff\xfename\x80\x80"), 1)])
    await client.stop()
    return len(events)


def test_events_are_applied_whatever_their_headers(rig: Rig) -> None:
    with rig.worker() as worker:
        num_events = asyncio.run(send_all(rig))
        rig.wait_caught_up(worker)
        worker.stop()
    status = check(rig).statuses[0]
    assert (status["applied"], status["dead_lettered"], status["events"]) == (num_events, 0, num_events)
