"""The job that all contenders do: keep the last 50 items of each user, and tell of every event what it led to.

An input record has the user's id as its key (so Kafka's usual partitioner keeps a user's events in order) and as
its value JSON:

    {"user_id":"u17","item_id":"i4711","type":"click","ts":1700000000123}

The state of a user is the number of their events and their last `HISTORY_EVENTS` items, oldest first. The output of
an event is keyed by user too, and says what the state was after it, byte for byte:

    {"user_id":"u17","num_events":83,"item_id":"i4711","oldest_item_id":"i90"}

There are two variants: ``each`` publishes an output for every event, ``latest`` one for each user and batch (the
newest).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

import msgspec
import numpy as np

HISTORY_EVENTS: Final = 50
"""Items kept of each user."""

NUM_PARTITIONS: Final = 4
NUM_ITEMS: Final = 20_000
FIRST_TS_MS: Final = 1_700_000_000_000
SKEW: Final = 1.0
"""Exponent of the skewed draws: the n-th most active user has 1/n of the most active one's events."""

Variant = Literal["each", "latest"]
Spread = Literal["skewed", "uniform"]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one contender's process is told, as JSON in its only argument.

    `group`, `input_topic`, `output_topic` and `state_topic` exist (or, for a contender that makes its own state topic,
    are only names); `folder` is empty and its own. `num_events` is what the input holds in all. It commits every
    `commit_s` seconds, prints ``{"first": UNIX_SECONDS}`` on a line of its own when the first records reach its
    code, and runs until SIGTERM; one without a consumer group prints ``{"done": UNIX_SECONDS}`` once everything
    is acknowledged, and may end then.
    """

    servers: str
    group: str
    input_topic: str
    output_topic: str
    state_topic: str
    folder: str
    num_events: int
    variant: Variant = "each"
    commit_s: float = 1.0


class Event(msgspec.Struct, frozen=True):
    """The value of an input record."""

    user_id: str
    item_id: str
    type: str
    ts: int


class Output(msgspec.Struct, frozen=True):
    """The value of an output record."""

    user_id: str
    num_events: int
    item_id: str
    oldest_item_id: str


@dataclass(frozen=True)
class Load:
    """A made-up stream: how many events, of how many users, drawn how."""

    num_events: int
    num_users: int
    spread: Spread = "skewed"
    seed: int = 7

    @property
    def name(self) -> str:
        """A short name for tables and topics: ``1000000-5000-skewed``."""
        return f"{self.num_events}-{self.num_users}-{self.spread}"

    def draws(self) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of users and items, one of each for every event, int64 of shape (num_events,)."""
        rng = np.random.default_rng(self.seed)
        skewed = self.spread == "skewed"
        users = _draw(rng, self.num_users, self.num_events, SKEW if skewed else 0.0)
        return users, _draw(rng, NUM_ITEMS, self.num_events, SKEW)

    def records(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of the input, in order."""
        users, items = self.draws()
        for number, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
            yield (
                b"u%d" % user,
                b'{"user_id":"u%d","item_id":"i%d","type":"click","ts":%d}' % (user, item, FIRST_TS_MS + number),
            )


def _draw(rng: np.random.Generator, num_values: int, num_draws: int, exponent: float) -> np.ndarray:
    """Values below `num_values`, value n with a weight of 1/(n+1)**exponent."""
    if not exponent:
        return rng.integers(num_values, size=num_draws)
    cumulated = np.cumsum(1.0 / np.arange(1, num_values + 1) ** exponent)
    drawn: np.ndarray = np.searchsorted(cumulated, rng.random(num_draws) * cumulated[-1], side="right")
    return drawn


def oracle(records: Iterable[tuple[bytes, bytes]]) -> Iterator[bytes]:
    """The output of each input record, in order: the plainest way there is."""
    histories: dict[bytes, deque[str]] = defaultdict(lambda: deque(maxlen=HISTORY_EVENTS))
    counts: dict[bytes, int] = defaultdict(int)
    decode = msgspec.json.Decoder(Event).decode
    for key, value in records:
        event = decode(value)
        counts[key] += 1
        histories[key].append(event.item_id)
        yield msgspec.json.encode(Output(event.user_id, counts[key], event.item_id, histories[key][0]))
