"""The sequence job on Bytewax: a `stateful_batch` step between its Kafka source and sink, one worker.

    .venv-peers/bin/python -m tests.bench.sequence.peers.bytewax_flow '{"servers": ..., "output_topic": ..., ...}'

Bytewax has neither consumer groups nor changelogs. Its recovery store is a SQLite file beside the worker; it is left
out here, so states are kept in memory, and a restart begins at the first record. The flow ends with the input's end.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import bytewax.operators as op
import msgspec
from bytewax.connectors.kafka import KafkaSink, KafkaSinkMessage, KafkaSource, KafkaSourceMessage
from bytewax.dataflow import Dataflow
from bytewax.operators import StatefulBatchLogic
from bytewax.run import cli_main

from tests.bench.sequence.job import HISTORY_EVENTS, Event, Output, Task
from tests.bench.sequence.peers.common import say_first, task_of_arguments

BATCH_RECORDS: Final = 10_000
"""Taken from a partition at once. The sink waits for the acknowledgements of each batch, so few of them are better."""

SINK: Final = {
    "acks": "all",
    "enable.idempotence": "true",
    "compression.type": "none",
    "partitioner": "murmur2",
    "linger.ms": "50",
    "batch.num.messages": "100000",
    "queue.buffering.max.messages": "1000000",
}
"""librdkafka gathers up to 1 MB (its `batch.size`); the end of a flow's batch sends what is gathered at once."""


State = tuple[int, list[str]]
"""Number of events and last items of a user, oldest first."""


class UserLogic(StatefulBatchLogic[bytes, bytes, State]):  # type: ignore[misc]
    """State of one user, and what its events lead to."""

    decode = msgspec.json.Decoder(Event).decode
    encode = msgspec.json.Encoder().encode

    def __init__(self, state: State | None, is_each: bool) -> None:
        self._count, self._items = state or (0, [])
        self._is_each = is_each

    def on_batch(self, values: list[bytes]) -> tuple[Iterable[bytes], bool]:
        """The outputs of the user's events in a batch, and that the state is to be kept."""
        outputs = []
        for value in values:
            event = self.decode(value)
            if self._count >= HISTORY_EVENTS:
                del self._items[0]
            self._items.append(event.item_id)
            self._count += 1
            outputs.append(self.encode(Output(event.user_id, self._count, event.item_id, self._items[0])))
        return outputs if self._is_each else outputs[-1:], False

    def snapshot(self) -> State:
        """The state, for Bytewax's recovery."""
        return self._count, self._items.copy()


def keyed_values() -> Callable[[list[KafkaSourceMessage[bytes, bytes]]], Iterator[tuple[str, bytes]]]:
    """Makes (user, value) of the records of a batch, and tells of the first one."""
    is_first = True

    def keyed(batch: list[KafkaSourceMessage[bytes, bytes]]) -> Iterator[tuple[str, bytes]]:
        nonlocal is_first
        if is_first and batch:
            is_first = False
            say_first()
        return ((message.key.decode(), message.value) for message in batch)

    return keyed


def build(task: Task) -> Dataflow:
    """The flow, from the input's first record to its last."""
    flow = Dataflow("sequence")
    source = KafkaSource([task.servers], [task.input_topic], tail=False, batch_size=BATCH_RECORDS)
    events = op.flat_map_batch("keyed", op.input("events", flow, source), keyed_values())
    is_each = task.variant == "each"
    told = op.stateful_batch("histories", events, lambda state: UserLogic(state, is_each))
    messages = op.flat_map_batch(
        "messages", told, lambda batch: (KafkaSinkMessage(user.encode(), value) for user, value in batch)
    )
    op.output("outputs", messages, KafkaSink([task.servers], task.output_topic, add_config=SINK))
    return flow


if __name__ == "__main__":
    cli_main(build(task_of_arguments()))
    print(msgspec.json.encode({"done": time.time()}).decode(), flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.pause()
