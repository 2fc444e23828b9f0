"""A bare aiokafka relay: every record of the input copied to the output, as soon as it comes.

    python -m tests.bench.sequence.relay '{"servers": ..., "group": ..., ...}'

It keeps nothing, and what it commits is not tied to what was acknowledged: the least that one hop can cost.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Final

import msgspec
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer

from tests.bench.sequence.job import Task
from tests.bench.sequence.worker import say

MODULE: Final = "tests.bench.sequence.relay"

STOP_CHECK_MS: Final = 200
"""Longest wait for records before it looks whether it is to stop."""


async def main(task: Task) -> None:
    """Copy until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    consumer = AIOKafkaConsumer(
        task.input_topic, bootstrap_servers=task.servers, group_id=task.group, auto_offset_reset="earliest"
    )
    producer = AIOKafkaProducer(bootstrap_servers=task.servers, enable_idempotence=True, acks="all", linger_ms=0)
    async with consumer, producer:
        await producer.partitions_for(task.output_topic)
        say("ready")
        while not stop.is_set():
            for tp, records in (await consumer.getmany(timeout_ms=STOP_CHECK_MS)).items():
                for record in records:
                    await producer.send(task.output_topic, record.value, key=record.key, partition=tp.partition)


if __name__ == "__main__":
    uvloop.run(main(msgspec.json.decode(sys.argv[1], type=Task)))
