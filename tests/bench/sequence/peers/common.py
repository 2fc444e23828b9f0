"""What the peers share: how they keep a user's state, where it is to be found, and what they tell the harness.

A state is the number of events (4 bytes, big-endian), then the items, each ended by a newline. Adding an event is
cutting off the oldest item and adding the newest, without taking the others apart. Nothing here needs a peer's own
packages, so the harness can import it.
"""

from __future__ import annotations

import sys
import time
from typing import Final

import msgspec

from tests.bench.sequence.job import HISTORY_EVENTS, Task

COUNT_BYTES: Final = 4
END: Final = b"\n"
NO_EVENTS: Final = bytes(COUNT_BYTES)
"""State of a user nobody has heard of yet."""

FAUST_TABLE: Final = "histories"


def decode_state(value: bytes) -> tuple[int, list[str]]:
    """Number of events and last items of a user, oldest first."""
    items = value[COUNT_BYTES:].decode().split("\n")
    return int.from_bytes(value[:COUNT_BYTES], "big"), items[:-1]


def add_item(state: bytes, item_id: str) -> tuple[bytes, int, str]:
    """State after one more event, with the user's number of events and the oldest item that is kept.

    >>> add_item(NO_EVENTS, "i7")
    (b'\\x00\\x00\\x00\\x01i7\\n', 1, 'i7')
    """
    count = int.from_bytes(state[:COUNT_BYTES], "big")
    start = COUNT_BYTES if count < HISTORY_EVENTS else state.index(END, COUNT_BYTES) + 1
    items = state[start:] + item_id.encode() + END
    count += 1
    return count.to_bytes(COUNT_BYTES, "big") + items, count, items[: items.index(END)].decode()


def faust_state_topic(task: Task) -> str:
    """Where Faust keeps the changelog of its table."""
    return f"{task.group}-{FAUST_TABLE}-changelog"


def quix_state_topic(task: Task) -> str:
    """Where Quix Streams keeps the changelog of its default store."""
    return f"changelog__{task.group}--{task.input_topic}--default"


def quix_user_of(key: bytes) -> bytes:
    """The user that a record of Quix's changelog tells of: its key is the user's, a bar and the value's name."""
    return key.rpartition(b"|")[0]


def task_of_arguments() -> Task:
    """The task that this process was started with. Raises msgspec.ValidationError where it is none."""
    return msgspec.json.decode(sys.argv[1], type=Task)


def say_first() -> None:
    """Tell the harness that the first records are here."""
    print(msgspec.json.encode({"first": time.time()}).decode(), flush=True)
