"""What an inspection was asked for, and which records that means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from stream_app.errors import SliceflowError, UsageError
from stream_app.inspection.trace import TracedEvent
from stream_app.inspection.user_log import UserLog


@dataclass(frozen=True)
class Question:
    """Whom and when: `at_ms` None is the newest there is; `without` is an event id or offset to leave out."""

    user_id: str
    at_ms: int | None = None
    without: str | None = None


def parse_time(text: str) -> int:
    """Milliseconds since 1970 of integer milliseconds, a date, or an RFC 3339 time (without a zone: UTC).

    Raises:
        UsageError: It is none of them.
    """
    if text.isdecimal() and text.isascii():
        return int(text)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(
            f"--at {text} is no time.", mend="write it like 2024-05-31T12:00:00Z, or as milliseconds since 1970"
        ) from error
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def shown_time(ts_ms: int) -> str:
    """A time for people, UTC, as `parse_time` reads it; the number itself where it lies outside the calendar."""
    try:
        at = datetime.fromtimestamp(ts_ms / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return str(ts_ms)
    return at.removesuffix("+00:00").removesuffix(".000") + "Z"


def check_found(question: Question, log: UserLog, source: str) -> None:
    """Refuse to go on where there is nothing of the user to show.

    Raises:
        SliceflowError: The user is unknown, or the time is before the first event.
    """
    if log.num_own:
        return
    if log.ended_by_ms is None or question.at_ms is None:
        raise SliceflowError(
            f"There is no event of the user {question.user_id!r} in {source}.",
            mend="see that the user id is spelled as in the events, and that the prefix or file is the right one",
        )
    raise SliceflowError(
        f"The first event of the user {question.user_id!r} in {source} is at {shown_time(log.ended_by_ms)}, "
        f"after {shown_time(question.at_ms)}.",
        mend=f"ask for a time from {shown_time(log.ended_by_ms)} on, or leave out --at",
    )


def offsets_without(wanted: str, events: Sequence[TracedEvent]) -> frozenset[int]:
    """The offsets to leave out: of every record with that event id, else of the one at that offset.

    Raises:
        UsageError: The user has no such record.
    """
    by_id = frozenset(event.offset for event in events if event.event_id == wanted)
    if by_id:
        return by_id
    by_offset = frozenset(event.offset for event in events if str(event.offset) == wanted)
    if by_offset:
        return by_offset
    some = ", ".join(str(event.offset) for event in events[-5:])
    raise UsageError(
        f"--without {wanted} is neither the event id nor the offset of one of the user's {len(events)} records "
        f"up to that time; the newest offsets are {some}.",
        mend="take one from the column `offset` of `sliceflow inspect USER`",
    )
