"""How far a replay has come, in a small file, so that one that was broken off can go on where it stood.

The file tells of rows whose records Kafka has acknowledged. A replay that is killed may have sent some more; those are
found on the topic itself, since a replay sends the same records in the same order each time.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stream_app.errors import UsageError
from stream_app.records import STRICT_HEADER
from stream_app.replay.planning import PlannedRecord
from stream_app.settings import Settings
from stream_app.topic_reader import StoredRecord, TopicReader

FORMAT: Final = 1
"""Version of the file; no other is read."""

WRITE_EVERY_S: Final = 0.2
"""Shortest time between two writes: what was sent in between is looked up on the topic."""

LOOK_UP_S: Final = 900.0
"""Deadline for reading what the topic got since: others may have sent millions of records there."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replay stands.

    `identity` is what it replays, and what decides the records it sends; `num_rows` how many rows are acknowledged;
    `ends` the offset behind the last record of each partition that is. `before` is for whoever sums up the whole
    replay: the facts it needs from before the first record.
    """

    format: int
    identity: dict[str, Any]
    num_rows: int
    ends: dict[int, int]
    before: dict[str, Any]


class PlaceFile:
    """The file of one replay: of one log into one topic.

    Args:
        settings: Say where the state folder is.
        topic: Full name of the topic that is sent to.
        log_name: The file's path or the topic that is replayed.
    """

    def __init__(self, settings: Settings, topic: str, log_name: str) -> None:
        digest = hashlib.sha256(log_name.encode("utf-8", "surrogateescape")).hexdigest()[:12]
        self.path: Path = settings.state_path / "replays" / f"{topic}-{digest}.json"
        self._written_s = -WRITE_EVERY_S

    @property
    def _partial(self) -> Path:
        return self.path.with_name(f"{self.path.name}.partial")

    def read(self) -> Place:
        """The place that was kept.

        Raises:
            UsageError: There is none, or it cannot be read.
        """
        try:
            place = msgspec.json.decode(self.path.read_bytes(), type=Place)
        except FileNotFoundError as error:
            raise UsageError(
                f"There is no replay to go on with: {self.path} is not there.", mend="replay without --resume"
            ) from error
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{self.path} cannot be read: {error}.", mend="replay without --resume") from error
        if place.format != FORMAT:
            raise UsageError(
                f"{self.path} has format {place.format}, expected {FORMAT}.", mend="replay without --resume"
            )
        return place

    def write(self, place: Place, *, is_due: bool = False) -> None:
        """Keep `place`, if the last one is long enough ago or `is_due`; a reader sees the old file or the new one.

        Raises:
            UsageError: It cannot be written.
        """
        now_s = time.monotonic()
        if not is_due and now_s - self._written_s < WRITE_EVERY_S:
            return
        self._written_s = now_s
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._partial.write_bytes(msgspec.json.encode(place))
            self._partial.replace(self.path)
        except OSError as error:
            raise UsageError(
                f"The place of the replay cannot be kept in {self.path}: {error.strerror or error}.",
                mend="set SLICEFLOW_STATE_DIR to a folder that may be written to",
            ) from error

    def remove(self) -> None:
        """The replay is done. A process that was killed as it wrote may have left half a file."""
        self.path.unlink(missing_ok=True)
        self._partial.unlink(missing_ok=True)


@dataclass
class Keeping:
    """Where a replay keeps its place.

    Args:
        file: The file.
        before: What `Place.before` is to hold.
        place: Where to go on; None: from the beginning.
    """

    file: PlaceFile
    before: Mapping[str, Any]
    place: Place | None = None


def check_same(place: Place, identity: Mapping[str, Any]) -> None:
    """See that the replay that goes on is the one that was broken off.

    Raises:
        UsageError: It is another; names what differs.
    """
    # Through JSON, as what is compared with came from there.
    now = msgspec.json.decode(msgspec.json.encode(identity))
    differing = sorted(name for name in {*now, *place.identity} if now.get(name) != place.identity.get(name))
    if differing:
        name = differing[0]
        raise UsageError(
            f"The replay that was broken off had another {name}: {_shown(place.identity.get(name))}, "
            f"this one has {_shown(now.get(name))}.",
            mend="call it with the same log, options and settings, or replay without --resume",
        )


class Arrived:
    """The events that a broken-off replay sent after its place was kept, in order by partition.

    Args:
        records: Those events as they lie on the topic, without ticks.
    """

    def __init__(self, records: Iterable[StoredRecord] = ()) -> None:
        self._waiting: dict[int, deque[StoredRecord]] = {}
        for record in records:
            self._waiting.setdefault(record.partition, deque()).append(record)

    def missing(self, planned: Iterable[PlannedRecord]) -> Iterator[PlannedRecord]:
        """Those of the records that are still to be sent: ticks always, which may come twice.

        Raises:
            UsageError: Something else was sent meanwhile.
        """
        if not self._waiting:
            yield from planned
            return
        for record in planned:
            waiting = self._waiting.get(record.partition)
            if not waiting or not is_strict(record.headers):
                yield record
                continue
            found = waiting.popleft()
            if (found.key, found.value) != (record.key, record.value):
                raise UsageError(
                    f"{found.topic}[{found.partition}] has at offset {found.offset} an event of another replay, which "
                    "came after this one was broken off.",
                    mend="replay without --resume; repeated events are dropped as duplicates",
                )


async def look_up(settings: Settings, topic: str, ends: Mapping[int, int]) -> Arrived:
    """What of this replay's kind came to the topic from the offsets `ends` on.

    Raises:
        UsageError: The topic ends before those offsets: it was made anew.
        KafkaUnreachableError: The broker did not deliver in time.
        TopicMismatchError: There is no such topic.
    """
    async with TopicReader(settings, timeout_s=LOOK_UP_S) as reader:
        bounds = await reader.bounds(topic)
        for number, offset in ends.items():
            end = bounds.get(number, (0, 0))[1]
            if offset > end:
                raise UsageError(
                    f"The replay had come to offset {offset} of {topic}[{number}], which ends at {end}: the topic was "
                    "made anew.",
                    mend="replay without --resume",
                )
        ranges = {number: (max(start, ends.get(number, start)), end) for number, (start, end) in bounds.items()}
        return Arrived([record async for record in reader.read_range(topic, ranges) if is_strict(record.headers)])


def is_strict(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Whether a record is an event of a replay."""
    return any(name == STRICT_HEADER for name, _ in headers)


def _shown(value: object) -> str:
    return msgspec.json.encode(value).decode("utf-8")
