"""What is known of users: their newest slices, and the vectors made of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import nlargest
from typing import Final

import msgspec

from stream_app.faustkit import Run
from stream_app.records import MARK_KEY, SliceEvent, SliceVectorRecord, is_erased
from stream_app.stages.profile import UserProfile, take_slice_vector
from stream_app.stages.slicing import Slice, UserHistory
from stream_app.web.state.bounded import Bounded

MAX_SLICES: Final = 8
"""Newest slices kept of each user: 128 events at the default length, some 10 KB."""


class SeenSlice(msgspec.Struct, frozen=True):
    """A slice as it is shown."""

    seq: int
    revision: int
    closed: bool
    events: list[SliceEvent]


class _Place(msgspec.Struct, frozen=True):
    """Which revision of which slice a record is of, and the time of its newest event where the record says it."""

    seq: int
    revision: int
    last_ts: int = -1


_PLACE = msgspec.json.Decoder(_Place)
_SLICE = msgspec.json.Decoder(SeenSlice)
_VECTOR = msgspec.json.Decoder(SliceVectorRecord)

Revisions = dict[int, tuple[int, bytes]]
"""Revision and record of slices, by number."""


@dataclass
class HeldUser:
    """The newest slices of a user and their vectors, as they lie on the topics; `last_ts` is of the newest event that
    was encoded.
    """

    last_ts: int = -1
    slices: Revisions = field(default_factory=dict)
    vectors: Revisions = field(default_factory=dict)

    def seen_slices(self) -> list[SeenSlice]:
        """The slices, oldest first."""
        return [_SLICE.decode(value) for _, (_, value) in sorted(self.slices.items())]

    def slice_vectors(self) -> dict[int, SliceVectorRecord]:
        """What the encoder made of the slices, by number."""
        return {seq: _VECTOR.decode(value) for seq, (_, value) in sorted(self.vectors.items())}

    def profile(self, release: str) -> UserProfile | None:
        """The profile as far as these slices tell; None without a vector of the release."""
        records = [record for record in self.slice_vectors().values() if record.release == release]
        if not records:
            return None
        profile = UserProfile()
        # The newest event's record last: its user vector counts.
        for record in sorted(records, key=lambda record: (record.offset, record.revision)):
            take_slice_vector(profile, record)
        return profile


class NewestUsers:
    """Those users that were active last.

    Args:
        max_users: How many are kept.
    """

    def __init__(self, max_users: int) -> None:
        self._users: Bounded[HeldUser] = Bounded(max_users)

    def __len__(self) -> int:
        return len(self._users)

    @property
    def has_forgotten(self) -> bool:
        """Whether a user was forgotten for others."""
        return self._users.has_forgotten

    def get(self, user_id: str) -> HeldUser | None:
        """What is held of a user."""
        return self._users.get(user_id)

    def newest(self, count: int) -> list[tuple[str, HeldUser]]:
        """The users that were active last, newest first. O(users held)."""
        # At a server's start partitions are read one after the other: only the events' own times tell the order.
        found = ((user_id, self._users.get(user_id)) for user_id in self._users.newest(len(self._users)))
        users = [(user_id, user) for user_id, user in found if user is not None]
        return nlargest(count, users, key=lambda one: one[1].last_ts)

    def take_slices(self, run: Run) -> None:
        """Take records of `slices`."""
        for user_id, user, value in self._records(run):
            if is_erased(value):
                user.slices.clear()
                self._drop_if_empty(user_id, user)
            else:
                _keep(user.slices, _PLACE.decode(value), value)

    def take_vectors(self, run: Run) -> None:
        """Take records of `slice-vectors`."""
        for user_id, user, value in self._records(run):
            if is_erased(value):
                user.vectors.clear()
                user.last_ts = -1
                self._drop_if_empty(user_id, user)
                continue
            place = _PLACE.decode(value)
            _keep(user.vectors, place, value)
            user.last_ts = max(user.last_ts, place.last_ts)

    def _drop_if_empty(self, user_id: str, user: HeldUser) -> None:
        # Each topic tells of an erasure in its own time: the other's records may be those of the new history already.
        if not user.slices and not user.vectors:
            self._users.drop(user_id)

    def _records(self, run: Run) -> Iterator[tuple[str, HeldUser, bytes]]:
        for key, value in zip(run.keys, run.values, strict=True):
            if value is None or key is None or key == MARK_KEY:
                continue
            user_id = key.decode("utf-8", "replace")
            user = self._users.get(user_id) or HeldUser()
            self._users.put(user_id, user)
            yield user_id, user, value


def _keep(revisions: Revisions, place: _Place, value: bytes) -> None:
    known = revisions.get(place.seq)
    if known is not None and known[0] > place.revision:
        return
    revisions[place.seq] = place.revision, value
    if len(revisions) > MAX_SLICES:
        del revisions[min(revisions)]


def slices_of(history: UserHistory) -> list[SeenSlice]:
    """The slices of a history as the sequence role keeps it."""
    return [_seen(part) for part in history.slices]


def _seen(part: Slice) -> SeenSlice:
    events = [SliceEvent(event.item_id, event.type, event.ts, -1) for event in part.events]
    return SeenSlice(part.seq, part.revision, part.closed, events)
