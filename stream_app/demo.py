"""The parts of the demo that are no story: its settings, its data, whom it shows, what changed in a list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from stream_app.errors import CaughtUpError, ModelError, UsageError
from stream_app.kafka import as_unreachable, connection, partition_of
from stream_app.records import Event, RankedItem, Recommendation, encode
from stream_app.replay.readers import open_log, read_items
from stream_app.settings import Settings, load_settings
from stream_app.topics import EVENTS, RECOMMENDATIONS, prefixed

EVENTS_FILE, ITEMS_FILE, CONFIG_FILE = "events.ndjson.gz", "items.ndjson.gz", "sliceflow.toml"
MODEL_FOLDER = "model"

MOST_EVENTS: Final = 40
"""Of the users with at most so many events the demo takes the one with most: enough history to learn from, and
few enough for a person to read."""

AFTER_MS: Final = 60_000
"""The demo's click comes this long after the newest event of the log, in event time: it must not be late."""

LIST_WITHIN_S: Final = 30.0
"""Longest wait for the list that answers the click; a fraction of a second is usual."""

POLL_MS: Final = 200
"""How long one poll waits for records; they are delivered as soon as they are there."""

LEARNING_SHARE: Final = 0.1
"""Of the users, whose choices the scorer goes on learning from: the demo's model brings one that is fitted to the
sample, and telling of everybody's would take most of the demo's time."""


@dataclass(frozen=True)
class ExampleData:
    """The files of an example; `config` holds the settings that its model was trained with."""

    events: Path
    items: Path
    config: Path
    model: Path


@dataclass
class LogFacts:
    """What the demo needs to know of its log: each user's history (item ids), and the newest event time."""

    histories: dict[str, list[str]] = field(default_factory=dict)
    num_events: int = 0
    newest_ms: int = 0

    def chosen_user(self) -> str:
        """The user whose list the demo shows: the same in each run."""
        fit = {user: items for user, items in self.histories.items() if len(items) <= MOST_EVENTS}
        return max(fit or self.histories, key=lambda user: (len(self.histories[user]), user))


@dataclass(frozen=True)
class ShownItem:
    """One line of a list as shown; `moved` is ``new``, or by how many ranks it rose (below 0: fell)."""

    item_id: str
    title: str
    score: float
    sources: list[str]
    moved: str = ""

    def plain(self) -> dict[str, Any]:
        """As plain values, without the mark."""
        return {"item_id": self.item_id, "title": self.title, "score": self.score, "sources": self.sources}


def find_example(places: Iterable[Path]) -> ExampleData:
    """The example's files, in the first of `places` that has them.

    Raises:
        UsageError: None has them.
    """
    tried = list(places)
    for folder in tried:
        events, items, config = (folder / name for name in (EVENTS_FILE, ITEMS_FILE, CONFIG_FILE))
        if events.is_file() and items.is_file() and config.is_file():
            return ExampleData(events, items, config, folder / MODEL_FOLDER)
    raise UsageError(
        f"The demo's data ({EVENTS_FILE}, {ITEMS_FILE}, {CONFIG_FILE}) is not in {', '.join(map(str, tried))}.",
        mend="run the demo in a checkout of the project (make demo), or pass --example FOLDER",
    )


def example_places() -> list[Path]:
    """Where the example is looked for: beside the code, as in a checkout, then in the current folder."""
    inner = Path("examples") / "movietweetings"
    return [Path(__file__).resolve().parent.parent / inner, Path.cwd() / inner]


def demo_settings(state_path: Path, config: Path, model: Path) -> Settings:
    """The settings of the demo: those of the example, whatever this machine is configured for otherwise.

    Raises:
        ModelError: There is no model.
        SettingsError: The example's settings are wrong.
    """
    if not model.is_dir():
        raise ModelError(f"The demo's model is not there: {model}.", mend="train it with `make demo-model`")
    # Absolute, since people are told to name it in another terminal.
    folder = (state_path / "demo").resolve()
    overrides = {"state_dir": str(folder), "model": str(model.resolve()), "score_users_share": LEARNING_SHARE}
    return load_settings(config, environ={}, overrides=overrides)


def read_facts(path: Path) -> LogFacts:
    """Read the log once, for what the demo needs to know of it."""
    facts = LogFacts()
    for chunk in open_log(path).iter_chunks():
        for row in chunk:
            facts.num_events += 1
            if isinstance(row, dict) and isinstance(ts := row["ts"], int):
                facts.histories.setdefault(str(row["user_id"]), []).append(str(row["item_id"]))
                facts.newest_ms = max(facts.newest_ms, ts)
    return facts


def read_titles(path: Path) -> dict[str, str]:
    """Title by item id."""
    return {str(item["item_id"]): str(item.get("title", "")) for item in read_items(path)}


def shown_list(items: Sequence[RankedItem], titles: Mapping[str, str]) -> list[ShownItem]:
    """A list with titles."""
    return [ShownItem(one.item_id, titles.get(one.item_id, ""), one.score, one.sources) for one in items]


def marked(before: Sequence[ShownItem], after: Sequence[ShownItem]) -> list[ShownItem]:
    """The list `after`, each line marked with how it moved since `before`."""
    ranks = {item.item_id: rank for rank, item in enumerate(before)}
    return [
        ShownItem(item.item_id, item.title, item.score, item.sources, _mark(ranks.get(item.item_id), rank))
        for rank, item in enumerate(after)
    ]


def _mark(old_rank: int | None, rank: int) -> str:
    if old_rank is None:
        return "new"
    return "" if old_rank == rank else f"{old_rank - rank:+d}"


class ListWatch:
    """Follows the lists of one user, and sends that user's events; an asynchronous context manager.

    Args:
        settings: With a Kafka address.
        user_id: The user.
    """

    def __init__(self, settings: Settings, user_id: str) -> None:
        self._settings = settings
        self._key = user_id.encode("utf-8")
        partition = partition_of(self._key, settings.partitions)
        self._place = TopicPartition(prefixed(settings.prefix, RECOMMENDATIONS), partition)
        self._consumer: Any = None
        self._producer: Any = None

    async def __aenter__(self) -> Self:
        """Connect, and stand at the end of the lists: what is published from now on is seen."""
        made = connection(self._settings)
        self._consumer = AIOKafkaConsumer(**made, enable_auto_commit=False)
        self._producer = AIOKafkaProducer(**made, acks="all")
        with as_unreachable(self._settings):
            await self._producer.start()
            await self._consumer.start()
            self._consumer.assign([self._place])
            await self._consumer.seek_to_end(self._place)
            await self._consumer.getmany(self._place, timeout_ms=POLL_MS)  # from here on it is fetching
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Disconnect."""
        await self._consumer.stop()
        await self._producer.stop()

    async def answer_to(self, event: Event) -> tuple[Recommendation, float]:
        """Send `event`; the list that answers it, and the milliseconds from just before sending until then.

        Raises:
            CaughtUpError: No list came in time.
            KafkaUnreachableError: Kafka does not answer.
        """
        topic = prefixed(self._settings.prefix, EVENTS)
        started_s = time.perf_counter()
        with as_unreachable(self._settings):
            placed = await self._producer.send_and_wait(topic, encode(event), key=self._key, timestamp_ms=event.ts)
        try:
            made = await asyncio.wait_for(self._list_for(placed.partition, placed.offset), LIST_WITHIN_S)
        except TimeoutError as error:
            raise CaughtUpError(
                f"No list answered the event at offset {placed.offset} within {LIST_WITHIN_S:g} s.",
                mend="read the logs of the roles",
            ) from error
        return made, (time.perf_counter() - started_s) * 1000

    async def _list_for(self, partition: int, offset: int) -> Recommendation:
        while True:
            with as_unreachable(self._settings):
                found = await self._consumer.getmany(self._place, timeout_ms=POLL_MS)
            for record in found.get(self._place, []):
                if record.key == self._key and record.value is not None:
                    made = msgspec.json.decode(record.value, type=Recommendation)
                    if (made.partition, made.offset) == (partition, offset):
                        return made
