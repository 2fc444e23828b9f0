"""The sequence job on `stream_app.faustkit`.

    python -m tests.bench.sequence.ours '{"servers": ..., "group": ..., ...}'

A user's state is kept as bytes: the number of events (4 bytes, big-endian), then the items, each ended by a newline.
Adding an event is cutting off the oldest item and adding the newest, without taking the others apart.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
import uvloop

from stream_app.faustkit import AppConfig, BatchApp, Effects, OutRecord, Run, Stored, Values, run_app
from tests.bench.sequence.job import HISTORY_EVENTS, Event, Output, Task

TABLE = "histories"
COUNT_BYTES = 4
END = b"\n"


def decode_state(payload: bytes) -> tuple[int, list[str]]:
    """Number of events and last items of a user, oldest first."""
    items = payload[COUNT_BYTES:].decode().split("\n")
    return int.from_bytes(payload[:COUNT_BYTES], "big"), items[:-1]


class SequenceProcessor:
    """The job on one partition."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._decode = msgspec.json.Decoder(Event).decode
        self._encode = msgspec.json.Encoder().encode
        self._said_first = False

    def opening(self) -> list[OutRecord]:
        """Nothing."""
        return []

    def restore(self, items: Iterable[tuple[bytes, Stored]]) -> None:
        """Nothing is held in memory."""

    async def process(self, run: Run, values: Values) -> Effects:
        """Add each event to its user's history, and publish what came of it."""
        if not self._said_first:
            self._said_first = True
            print(msgspec.json.encode({"first": time.time()}).decode(), flush=True)
        keys = [key or b"" for key in run.keys]
        users = list(dict.fromkeys(keys))
        states = {
            user: (stored.position, int.from_bytes(stored.payload[:COUNT_BYTES], "big"), stored.payload[COUNT_BYTES:])
            if stored
            else (-1, 0, b"")
            for user, stored in zip(users, values.get_many(users), strict=True)
        }
        outputs: dict[bytes | int, OutRecord] = {}
        is_each = self._task.variant == "each"
        for offset, key, value in zip(run.offsets, keys, run.values, strict=True):
            position, count, items = states[key]
            if offset <= position:
                continue
            event = self._decode(value or b"")
            if count >= HISTORY_EVENTS:
                items = items[items.index(END) + 1 :]
            items += event.item_id.encode() + END
            count += 1
            states[key] = (offset, count, items)
            told = Output(event.user_id, count, event.item_id, items[: items.index(END)].decode())
            outputs[offset if is_each else key] = OutRecord(
                self._task.output_topic, run.partition, key, self._encode(told)
            )
        changes = {
            key: Stored(position, count.to_bytes(COUNT_BYTES, "big") + items)
            for key, (position, count, items) in states.items()
        }
        return Effects(list(outputs.values()), changes)


def build(task: Task) -> BatchApp:
    """The app."""
    config = AppConfig(
        app_id=task.group,
        connection={"bootstrap_servers": [task.servers]},
        store_folder=Path(task.folder),
        commit_interval_s=task.commit_s,
        changelog_prefix=task.state_topic.removesuffix(f"{TABLE}-changelog"),
    )
    app = BatchApp(config)
    app.attach(task.input_topic, lambda _: SequenceProcessor(task), table=TABLE)
    return app


async def main(task: Task) -> int:
    """Run until SIGTERM."""
    return await run_app(build(task), on_ready=lambda: None)


if __name__ == "__main__":
    sys.exit(uvloop.run(main(msgspec.json.decode(sys.argv[1], type=Task))))
