"""The sequence job on Quix Streams: a stateful `apply` (RocksDB and changelog), at-least-once.

    .venv-peers/bin/python -m tests.bench.sequence.peers.quix '{"servers": ..., "group": ..., ...}'

Keys, values and states stay bytes, since Quix's own JSON costs more. It works event by event and keeps what changed
until its checkpoint (every `commit_s`), which writes the newest state of each user. So for ``latest`` the outputs go
to a sink that publishes the newest of each user at the checkpoint, before the offsets are committed.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer
from quixstreams import Application, State
from quixstreams.sinks.base import BaseSink

from tests.bench.sequence.job import Event, Output, Task
from tests.bench.sequence.peers.common import NO_EVENTS, add_item, say_first, task_of_arguments

STATE_KEY: Final = b"h"
"""Name of the one value that is kept of a user."""

PRODUCER: Final = {
    "acks": "all",
    "compression.type": "none",
    "linger.ms": 50,
    "batch.num.messages": 100_000,
    "queue.buffering.max.messages": 1_000_000,
}
"""librdkafka gathers up to 1 MB (its `batch.size`) within 50 ms; the queue holds all that a checkpoint writes."""

CONSUMER: Final = {"queued.min.messages": 200_000, "fetch.queue.backoff.ms": 10}
"""So much is fetched ahead that a poll does not wait while there is input."""


class NewestOfUser(BaseSink):  # type: ignore[misc]
    """Publishes the newest output of each user at every checkpoint."""

    def __init__(self, task: Task) -> None:
        super().__init__(on_client_connect_success=lambda: None)
        self._topic = task.output_topic
        self._newest: dict[bytes, bytes] = {}
        self._errors: list[KafkaError] = []
        settings = {"bootstrap.servers": task.servers, "enable.idempotence": True, "partitioner": "murmur2"}
        self._producer = Producer(settings | PRODUCER)

    def add(self, value: bytes, key: bytes, *_: object, **__: object) -> None:
        """Keep it until the checkpoint."""
        self._newest[key] = value

    def flush(self) -> None:
        """Publish what is kept. Raises KafkaException where one was not acknowledged; the checkpoint fails then."""
        for key, value in self._newest.items():
            self._producer.produce(self._topic, value, key, on_delivery=self._delivered)
        self._newest = {}
        self._producer.flush()
        if self._errors:
            raise KafkaException(self._errors[0])

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._errors.append(error)


def job_function() -> Callable[[bytes, State], bytes]:
    """What is done with each event: from its value and its user's state to the value of the output."""
    decode = msgspec.json.Decoder(Event).decode
    encode = msgspec.json.Encoder().encode
    is_first = True

    def apply(value: bytes, state: State) -> bytes:
        nonlocal is_first
        if is_first:
            is_first = False
            say_first()
        event = decode(value)
        kept, count, oldest = add_item(state.get_bytes(STATE_KEY, NO_EVENTS), event.item_id)
        state.set_bytes(STATE_KEY, kept)
        return encode(Output(event.user_id, count, event.item_id, oldest))

    return apply


def build(task: Task) -> Application:
    """The application with its one dataframe."""
    app = Application(
        task.servers,
        consumer_group=task.group,
        auto_offset_reset="earliest",
        commit_interval=task.commit_s,
        state_dir=Path(task.folder),
        consumer_extra_config=dict[str, Any](CONSUMER),
        producer_extra_config=dict[str, Any](PRODUCER),
        loglevel="WARNING",
    )
    as_bytes = {"key_deserializer": "bytes", "value_deserializer": "bytes"}
    told = app.dataframe(app.topic(task.input_topic, **as_bytes)).apply(job_function(), stateful=True)
    if task.variant == "latest":
        told.sink(NewestOfUser(task))
    else:
        told.to_topic(app.topic(task.output_topic, key_serializer="bytes", value_serializer="bytes"))
    return app


if __name__ == "__main__":
    build(task_of_arguments()).run()
