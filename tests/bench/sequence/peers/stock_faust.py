"""The sequence job on faust-streaming as it comes: an agent that takes event by event, and a table in RocksDB.

    python -m tests.bench.sequence.peers.stock_faust '{"servers": ..., "group": ..., ...}'

Keys, values and states stay bytes, since Faust's JSON costs more. Faust can take batches of a stream, but no table may
be written then; so there is no ``latest`` here. Its producer waits for all replicas, but cannot be made idempotent.
"""

from __future__ import annotations

from typing import Any, Final

import faust
import mode.loop
import msgspec
from faust.types import StreamT

from tests.bench.sequence.job import NUM_PARTITIONS, Event, Output, Task
from tests.bench.sequence.peers.common import FAUST_TABLE, NO_EVENTS, add_item, say_first, task_of_arguments

BUFFERED_EVENTS: Final = 131_072
"""Of a stream; Faust's documentation names this size for a high rate."""

POLL_RECORDS: Final = 10_000
"""Taken from a partition at once; unlimited, one poll holds up the loop for long."""

BATCH_BYTES: Final = 512 * 1024
"""Of a producer's record batch; Faust's 16 KiB would make a request of every hundred outputs."""

LINGER_S: Final = 0.1
"""How long the producer gathers records; nothing waits for a single one."""


def build(task: Task) -> faust.App:
    """The app with its agent and table.

    Raises:
        SystemExit: The task's variant is not ``each``.
    """
    if task.variant != "each":
        raise SystemExit("Stock Faust cannot write a table from batches: give it a task of the variant `each`.")
    app = faust.App(
        task.group,
        broker=f"kafka://{task.servers}",
        store="rocksdb://?driver=rocksdict",
        datadir=task.folder,
        broker_commit_interval=task.commit_s,
        broker_max_poll_records=POLL_RECORDS,
        stream_buffer_maxsize=BUFFERED_EVENTS,
        producer_acks=-1,
        producer_linger=LINGER_S,
        producer_max_batch_size=BATCH_BYTES,
        consumer_auto_offset_reset="earliest",
        topic_partitions=NUM_PARTITIONS,
        topic_disable_leader=True,
        web_enabled=False,
    )
    _add_agent(app, task)
    return app


def _add_agent(app: faust.App, task: Task) -> None:
    """Join the job to the app."""
    as_bytes: dict[str, Any] = {"key_type": bytes, "value_type": bytes}
    raw: dict[str, Any] = {"key_serializer": "raw", "value_serializer": "raw"}
    inputs = app.topic(task.input_topic, **as_bytes, **raw)
    outputs = app.topic(task.output_topic, **as_bytes, **raw)
    histories = app.Table(FAUST_TABLE, partitions=NUM_PARTITIONS, default=lambda: NO_EVENTS, **as_bytes)
    decode = msgspec.json.Decoder(Event).decode
    encode = msgspec.json.Encoder().encode

    @app.agent(inputs)
    async def agent(stream: StreamT[bytes]) -> None:
        is_first = True
        async for key, value in stream.items():
            if is_first:
                is_first = False
                say_first()
            event = decode(value)
            histories[key], count, oldest = add_item(histories[key], event.item_id)
            await outputs.send(key=key, value=encode(Output(event.user_id, count, event.item_id, oldest)))


if __name__ == "__main__":
    mode.loop.use("uvloop")
    # Standard output is the harness's. Above "info" Faust has debug records made for a spinner, four for each event.
    faust.Worker(build(task_of_arguments()), loglevel="info", redirect_stdouts=False).execute_from_commandline()
