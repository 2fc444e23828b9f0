"""What a replay came to, as text: the same file whatever carried the replay, to keep and to compare with.

A recording is NDJSON in a canonical form; the same log, settings and model give the same bytes. Its lines, in order:

1. one ``replay``: what became of the events, and the settings that lists are a function of;
2. a ``list`` for each user, by user id: the last one made;
3. a ``slice`` for each slice of each user, by user id and number: its last revision.

Left out is what the same lists may differ in: `partition`, `offset` and hence `recommendation_id` depend on how many
partitions there are and on what was on the topic before; `index_version` only says how many vectors the release has;
`fresh` and `join_epoch` of a slice tell when a list was due, which depends on how runs were cut. Record times are facts
of the wall clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec

from stream_app.errors import UsageError
from stream_app.records import ErasedRecord, RankedItem, Recommendation, SliceEvent, SliceRecord
from stream_app.settings import Settings

FORMAT: Final = 1
"""Version of the form; a reader takes no other."""

RECORDED_SETTINGS: Final = (
    "event_types",
    "slice_events",
    "slice_gap_s",
    "slice_span_s",
    "history_events",
    "allowed_lateness_s",
    "max_future_s",
    "epoch_s",
    "half_lives_s",
    "scorer_epoch_s",
    "score_users_share",
    "score_choices_per_epoch",
    "list_items",
    "candidates",
)
"""The settings that decide slices and lists. The number of partitions is not among them."""


class RecordedReplay(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="replay"):
    """First line: the totals, dead letters by reason and drops by name, and the settings by name."""

    format: int
    events_in: int
    applied: int
    dead_letters: dict[str, int]
    dropped: dict[str, int]
    users: int
    settings: dict[str, Any]


class RecordedList(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="list"):
    """A user's last list; the fields are those of `Recommendation`."""

    user_id: str
    event_ts: int
    epoch: int
    release: str
    has_vector: bool
    items: list[RankedItem]


class RecordedSlice(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="slice"):
    """The last revision of a slice; the fields are those of `SliceRecord`."""

    user_id: str
    seq: int
    revision: int
    closed: bool
    events: list[SliceEvent]


Record = RecordedReplay | RecordedList | RecordedSlice
Key = tuple[int, str, int]
"""Place of a record: its kind, user and number."""

_DECODER: Final[msgspec.json.Decoder[Record]] = msgspec.json.Decoder(Record)
_FORMAT: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True)
class Recording:
    """The lines of a recording, in order, without line ends."""

    lines: Sequence[bytes]

    def records(self) -> Iterator[Record]:
        """The records of all lines."""
        return map(_DECODER.decode, self.lines)


class _KeptSlice(NamedTuple):
    """The last revision of a slice, the offset of its newest event, and its line."""

    revision: int
    offset: int
    line: bytes


class Recorder:
    """Keeps the last list of each user and the last revision of each slice, as lines."""

    def __init__(self) -> None:
        self._lists: dict[str, tuple[int, bytes]] = {}
        self._slices: dict[str, dict[int, _KeptSlice]] = {}

    @property
    def num_lists(self) -> int:
        """How many users have a list."""
        return len(self._lists)

    def take_lists(self, lists: Iterable[Recommendation]) -> None:
        """Take lists, a user's in any order: that of the latest event on `events` counts."""
        for made in lists:
            known = self._lists.get(made.user_id)
            if known is None or made.offset >= known[0]:
                self._lists[made.user_id] = made.offset, _line(_list_of(made))

    def take_slices(self, slices: Iterable[SliceRecord]) -> None:
        """Take slice revisions, in any order."""
        for record in slices:
            of_user = self._slices.setdefault(record.user_id, {})
            known = of_user.get(record.seq)
            if known is None or record.revision >= known.revision:
                of_user[record.seq] = _KeptSlice(record.revision, record.offset, _line(_slice_of(record)))

    def take_erased(self, erased: Iterable[ErasedRecord]) -> None:
        """Forget what was taken of users and lies before their erasure; slices that lie behind it come later."""
        for record in erased:
            known = self._lists.get(record.user_id)
            if known is not None and known[0] < record.offset:
                del self._lists[record.user_id]
            of_user = self._slices.pop(record.user_id, {})
            self._slices[record.user_id] = {seq: one for seq, one in of_user.items() if one.offset > record.offset}

    def recording(self, replay: RecordedReplay) -> Recording:
        """Everything taken, in canonical order."""
        lists = [line for _, (_, line) in sorted(self._lists.items())]
        slices = [kept.line for _, of_user in sorted(self._slices.items()) for _, kept in sorted(of_user.items())]
        return Recording([_line(replay), *lists, *slices])


def recorded_settings(settings: Settings) -> dict[str, Any]:
    """The settings that stand in a recording, as plain values."""
    values = msgspec.to_builtins(settings)
    return {name: values[name] for name in RECORDED_SETTINGS}


def write_recording(recording: Recording, path: Path) -> None:
    """Write a recording; whoever reads meanwhile sees the old file or the whole new one.

    Raises:
        UsageError: It cannot be written there.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with partial.open("wb") as file:
            file.writelines(line + b"\n" for line in recording.lines)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UsageError(
            f"The recording cannot be written to {path}: {error.strerror or error}.",
            mend="name a file in a folder that is there and may be written to",
        ) from error


def read_recording(path: Path) -> Recording:
    """Read a recording and check that it is one.

    Raises:
        UsageError: It cannot be read, is damaged, or of another version.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise UsageError(
            f"The recording {path} cannot be read: {error.strerror or error}.",
            mend="make one with `sliceflow replay FILE --record OUT`",
        ) from error
    before: Key | None = None
    for number, line in enumerate(lines or [b""], start=1):
        try:
            key = key_of(_decode(line, is_first=number == 1))
        except (msgspec.MsgspecError, ValueError) as error:
            raise _damaged(path, number, str(error)) from error
        if before is not None and key <= before:
            raise _damaged(path, number, "it is not in the order of a recording")
        before = key
    return Recording(lines)


def key_of(record: Record) -> Key:
    """Where a record stands in a recording."""
    if isinstance(record, RecordedReplay):
        return 0, "", 0
    return (1, record.user_id, 0) if isinstance(record, RecordedList) else (2, record.user_id, record.seq)


def _decode(line: bytes, *, is_first: bool) -> Record:
    if is_first:
        seen = _FORMAT.decode(line)
        if seen.get("record") != "replay" or seen.get("format") != FORMAT:
            raise ValueError(f'it does not start with {{"record":"replay","format":{FORMAT}')
    return _DECODER.decode(line)


def _damaged(path: Path, number: int, reason: str) -> UsageError:
    return UsageError(
        f"Line {number} of {path} is no line of a recording: {reason}.",
        mend="make it anew with `sliceflow replay FILE --record OUT`",
    )


def _list_of(made: Recommendation) -> RecordedList:
    return RecordedList(
        user_id=made.user_id,
        event_ts=made.event_ts,
        epoch=made.epoch,
        release=made.release,
        has_vector=made.has_vector,
        items=made.items,
    )


def _slice_of(record: SliceRecord) -> RecordedSlice:
    return RecordedSlice(
        user_id=record.user_id,
        seq=record.seq,
        revision=record.revision,
        closed=record.closed,
        events=record.events,
    )


def _line(record: Record) -> bytes:
    return msgspec.json.encode(record)
