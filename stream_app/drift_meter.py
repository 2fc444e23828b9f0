"""The drift meter: while the stream runs, sampled users are encoded from scratch and compared with what was merged.

Shapes: I items, D dimensions.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field
from typing import Final, TypeVar

import msgspec

from encoders.contract import SliceEncoder
from stream_app.records import DriftRecord, SliceRecord, SliceVectorRecord, unpack_vector
from stream_app.slice_encoding import encode_slices
from stream_app.stages.drift import DriftCheck, compare, is_checked, summary_of

MAX_USERS: Final = 1000
"""Users whose slices are kept, and users remembered as left out; of more, those heard of longest ago are forgotten."""

MAX_SLICES: Final = 64
"""Slices kept of a user. With both bounds reached, and slices of 16 events, that is some 60 MB."""

EVERY_SLICES: Final = 16
"""A user is checked again after so many revisions that asked for a list."""

EVERY_S: Final = 60.0
"""Somebody is checked at least this often while there are sampled users, and the log gets a line."""

NUM_CHECKS: Final = 100
"""The newest checks, which the published figures are over."""

log = logging.getLogger("sliceflow.drift")

T = TypeVar("T", SliceRecord, SliceVectorRecord)

_SLICE = msgspec.msgpack.Decoder(SliceRecord)


@dataclass
class _KeptUser:
    """The newest revision of each slice (its number, and the record packed), and the newest user vector."""

    partition: int
    slices: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    vector: str = ""
    num_fresh: int = 0


@dataclass(frozen=True)
class _History:
    """A user at one moment: slices oldest first, packed, and the user vector that was merged of them."""

    user_id: str
    slices: list[bytes]
    vector: str


class SampledHistories:
    """The slices of sampled users, whole from the first one on, in memory only.

    A user is left out when something was merged before the first slice that was seen here, when there are more than
    `MAX_SLICES`, and after having been forgotten for others: without all slices the comparison would tell nothing.

    Args:
        users_share: Share of the users that are sampled.
    """

    def __init__(self, users_share: float) -> None:
        self._users_share = users_share
        self._users: dict[str, _KeptUser] = {}
        self._left_out: dict[str, int] = {}
        self._due: dict[str, None] = {}

    @property
    def num_users(self) -> int:
        """Users whose slices are kept."""
        return len(self._users)

    @property
    def num_left_out(self) -> int:
        """Sampled users that were left out; `MAX_USERS` stands for more as well."""
        return len(self._left_out)

    def __contains__(self, user_id: object) -> bool:
        """Whether a user can be checked."""
        return user_id in self._users

    def take(
        self, partition: int, user_id: str, records: Sequence[SliceRecord], vectors: Sequence[SliceVectorRecord]
    ) -> None:
        """Take what a run brought of one user: slice revisions, and what the encode role made of those that were news.

        Both in the order in which the slices were merged.
        """
        if not is_checked(user_id.encode("utf-8"), self._users_share):
            return
        # Moved to the end, so that those heard of longest ago are in front.
        kept = self._users.pop(user_id, None)
        if kept is None and _is_everything(records, vectors):
            kept = _KeptUser(partition)
        if kept is not None:
            self._keep(user_id, kept, records, vectors)
        if kept is None or len(kept.slices) > MAX_SLICES:
            self._leave_out(user_id, partition)
            return
        self._users[user_id] = kept
        self._left_out.pop(user_id, None)
        if len(self._users) > MAX_USERS:
            oldest = next(iter(self._users))
            self._leave_out(oldest, self._users.pop(oldest).partition)

    def next_due(self) -> str | None:
        """The user who has waited longest for a check; None where nobody has `EVERY_SLICES` fresh revisions."""
        return next(iter(self._due), None)

    def history_of(self, user_id: str) -> _History:
        """A kept user as of now, who is due again only after `EVERY_SLICES` fresh revisions more."""
        kept = self._users[user_id]
        kept.num_fresh = 0
        self._due.pop(user_id, None)
        return _History(user_id, [kept.slices[seq][1] for seq in sorted(kept.slices)], kept.vector)

    def forget(self, partition: int) -> None:
        """Forget the users of a partition: what others did with it meanwhile was not seen."""
        self._users = {user: kept for user, kept in self._users.items() if kept.partition != partition}
        self._left_out = {user: number for user, number in self._left_out.items() if number != partition}
        self._due = {user: None for user in self._due if user in self._users}

    def erase(self, user_id: str) -> None:
        """Forget a user who was erased, and whose slices are numbered from 0 again."""
        for known in (self._users, self._left_out, self._due):
            known.pop(user_id, None)

    def _keep(
        self, user_id: str, kept: _KeptUser, records: Sequence[SliceRecord], vectors: Sequence[SliceVectorRecord]
    ) -> None:
        for record in records:
            known_revision, _ = kept.slices.get(record.seq, (-1, b""))
            if record.revision > known_revision:
                kept.slices[record.seq] = (record.revision, msgspec.msgpack.encode(record))
                kept.num_fresh += record.fresh
        if vectors:
            kept.vector = vectors[-1].user_vector
        if kept.num_fresh >= EVERY_SLICES:
            self._due[user_id] = None

    def _leave_out(self, user_id: str, partition: int) -> None:
        self._due.pop(user_id, None)
        self._left_out.pop(user_id, None)
        self._left_out[user_id] = partition
        if len(self._left_out) > MAX_USERS:
            del self._left_out[next(iter(self._left_out))]


def _is_everything(records: Sequence[SliceRecord], vectors: Sequence[SliceVectorRecord]) -> bool:
    """Whether a run holds as many slices as its user's memory: nothing was merged before."""
    # By number, not by the first slice: a late event may bring that after the second, and in another run.
    return bool(vectors) and len({record.seq for record in records}) == vectors[-1].num_slices_merged + 1


class DriftMeter:
    """Checks sampled users, one at a time, on the encoder's thread and behind the work that waits for it.

    All but the check itself is called on the event loop.

    Args:
        encoder: The encoder of the role.
        executor: The encoder's one thread.
        weights: Weight of each event type.
        users_share: Share of the users that are sampled, 0 to 1.
        instance: Name of this worker.
        clock_s: Seconds from any start, never going back.
    """

    def __init__(
        self,
        encoder: SliceEncoder,
        executor: Executor,
        weights: Mapping[str, float],
        *,
        users_share: float,
        instance: str,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._encoder = encoder
        self._executor = executor
        self._weights = weights
        self._instance = instance
        self._clock_s = clock_s
        self._histories = SampledHistories(users_share)
        self._items_ID = encoder.item_vectors()[1]
        self._checks: deque[DriftCheck] = deque(maxlen=NUM_CHECKS)
        self._running: Future[DriftCheck] | None = None
        self._checked_at_s = self._logged_at_s = clock_s()

    def forget(self, partition: int) -> None:
        """Forget the users of a partition that is (again) assigned to this worker."""
        self._histories.forget(partition)

    def erase(self, users: Iterable[str]) -> None:
        """Forget users who were erased."""
        for user_id in users:
            self._histories.erase(user_id)

    def take(
        self, partition: int, records: Sequence[SliceRecord], vectors: Sequence[SliceVectorRecord]
    ) -> DriftRecord | None:
        """Take what a run brought, and start a check where one is due and none is under way.

        Args:
            partition: Of the run.
            records: Its slice revisions, in the order in which they were merged.
            vectors: What the role made of those that were news.

        Returns:
            The figures, where a check has ended since the last call.
        """
        records_of, vectors_of = _by_user(records), _by_user(vectors)
        for user_id, own in records_of.items():
            self._histories.take(partition, user_id, own, vectors_of.get(user_id, []))
        has_ended = self._collect()
        if self._running is None:
            self._start(records_of)
        return self._figures() if has_ended else None

    def _start(self, users: Iterable[str]) -> None:
        """Check who has waited longest; or one of `users`, where nobody was checked for long."""
        user_id = self._histories.next_due()
        if user_id is None and self._clock_s() - self._checked_at_s >= EVERY_S:
            user_id = next((user for user in users if user in self._histories), None)
        if user_id is not None:
            self._checked_at_s = self._clock_s()
            self._running = self._executor.submit(self._check, self._histories.history_of(user_id))

    def _check(self, history: _History) -> DriftCheck:
        """Encode a history from scratch; on the encoder's thread."""
        records = [_SLICE.decode(packed) for packed in history.slices]
        full = encode_slices(self._encoder, records, {}, self._weights)[-1]
        merged_D, full_D = unpack_vector(history.vector), unpack_vector(full.user_vector)
        return compare(history.user_id, len(records), merged_D, full_D, self._items_ID)

    def _collect(self) -> bool:
        """Take in the check that was under way, if it has ended; whether there is a new one."""
        if self._running is None or not self._running.done():
            return False
        ended, self._running = self._running, None
        if error := ended.exception():
            # What is measured beside the stream must not end it.
            log.warning("a drift check failed: %r", error)
            return False
        self._checks.append(ended.result())
        return True

    def _figures(self) -> DriftRecord:
        found = summary_of(self._checks)
        if self._clock_s() - self._logged_at_s >= EVERY_S:
            self._logged_at_s = self._clock_s()
            log.info(
                "drift over %d checks of %d users: cosine %.6f (least %.6f), top-10 overlap %.4f; %d users left out",
                found.num_checks,
                found.num_users,
                found.mean_cosine,
                found.min_cosine,
                found.mean_overlap_10,
                self._histories.num_left_out,
            )
        return DriftRecord(
            release=self._encoder.release,
            instance=self._instance,
            checks=found.num_checks,
            users=found.num_users,
            users_left_out=self._histories.num_left_out,
            slices=found.num_slices,
            mean_cosine=found.mean_cosine,
            min_cosine=found.min_cosine,
            mean_overlap_10=found.mean_overlap_10,
        )


def _by_user(records: Iterable[T]) -> dict[str, list[T]]:
    """The records of each user, in their order."""
    found: dict[str, list[T]] = {}
    for record in records:
        found.setdefault(record.user_id, []).append(record)
    return found
