"""The histories a model is trained on: flat arrays of events, cut into slices, grouped by user.

Shapes: E events, S slices, U users; a trailing 1 marks offsets (one more than the thing counted).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace

import numpy as np

from encoders.contract import BoolArray, Float32Array, Int64Array
from encoders.vocabulary import FIRST_NAME_ROW


def _check_offsets(offsets: Int64Array, total: int, name: str) -> None:
    if offsets.ndim != 1 or len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != total:
        raise ValueError(f"{name} must start at 0 and end at {total}, got {offsets[:1]} to {offsets[-1:]}")
    if np.any(np.diff(offsets) < 1):
        raise ValueError(f"{name} must rise strictly: no slice and no user may be empty")


@dataclass(frozen=True)
class TrainingHistories:
    """Every user's events in order of time, with slice and user borders as offsets.

    Args:
        item_rows_E: int64 vocabulary rows; 1 for an item outside the vocabulary.
        type_rows_E: int64 vocabulary rows of the event types.
        ts_ms_E: int64 event times in milliseconds, never falling within a user.
        gaps_ms_E: int64 milliseconds since the same user's event before, -1 for the first.
        slice_starts_S1: int64, events ``[s]`` to ``[s + 1]`` are slice s.
        user_starts_U1: int64, slices ``[u]`` to ``[u + 1]`` are user u's.
        event_weights_E: float32 weights above zero; with their sum a slice enters the memory.

    Raises:
        ValueError: if lengths, offsets, times or weights contradict each other.
    """

    item_rows_E: Int64Array
    type_rows_E: Int64Array
    ts_ms_E: Int64Array
    gaps_ms_E: Int64Array
    slice_starts_S1: Int64Array
    user_starts_U1: Int64Array
    event_weights_E: Float32Array

    def __post_init__(self) -> None:
        num_events = len(self.item_rows_E)
        for name in ("type_rows_E", "ts_ms_E", "gaps_ms_E", "event_weights_E"):
            if len(getattr(self, name)) != num_events:
                raise ValueError(f"{name} has {len(getattr(self, name))} events, item_rows_E {num_events}")
        _check_offsets(self.slice_starts_S1, num_events, "slice_starts_S1")
        _check_offsets(self.user_starts_U1, self.num_slices, "user_starts_U1")
        if not np.all(self.event_weights_E > 0):
            raise ValueError(f"event_weights_E: expected weights above zero, got {self.event_weights_E.min()}")
        falls = np.diff(self.ts_ms_E) < 0
        if num_events > 1 and np.any(falls & (np.diff(self.users_of_events()) == 0)):
            raise ValueError("ts_ms_E falls within a user's history; sort each user's events by time")

    @property
    def num_events(self) -> int:
        """E."""
        return len(self.item_rows_E)

    @property
    def num_slices(self) -> int:
        """S."""
        return len(self.slice_starts_S1) - 1

    @property
    def num_users(self) -> int:
        """U."""
        return len(self.user_starts_U1) - 1

    def slice_lengths(self) -> Int64Array:
        """(S,) int64 number of events of each slice."""
        return np.diff(self.slice_starts_S1)

    def slice_ends_ms(self) -> Int64Array:
        """(S,) int64 time of each slice's last event, in milliseconds."""
        return self.ts_ms_E[self.slice_starts_S1[1:] - 1]

    def slice_weights(self) -> Float32Array:
        """(S,) float32 sum of the weights of each slice's events."""
        if not self.num_slices:
            return np.zeros(0, dtype=np.float32)
        sums_S = np.add.reduceat(self.event_weights_E.astype(np.float64), self.slice_starts_S1[:-1])
        return sums_S.astype(np.float32)

    def users_of_slices(self) -> Int64Array:
        """(S,) int64 user of each slice."""
        return np.repeat(np.arange(self.num_users), np.diff(self.user_starts_U1))

    def users_of_events(self) -> Int64Array:
        """(E,) int64 user of each event."""
        return np.repeat(self.users_of_slices(), self.slice_lengths())

    def before(self, split_ms: int) -> TrainingHistories:
        """The same histories as they stood just before a moment: later events are gone without a trace.

        A slice that crosses the moment keeps its earlier events; users without any are dropped.
        """
        kept_E = self.ts_ms_E < split_ms
        num_kept_E1 = np.concatenate([[0], np.cumsum(kept_E, dtype=np.int64)])
        lengths_S = np.diff(num_kept_E1[self.slice_starts_S1])
        kept_S = lengths_S > 0
        slices_U = np.bincount(self.users_of_slices()[kept_S], minlength=self.num_users)
        return TrainingHistories(
            self.item_rows_E[kept_E],
            self.type_rows_E[kept_E],
            self.ts_ms_E[kept_E],
            self.gaps_ms_E[kept_E],
            _offsets(lengths_S[kept_S]),
            _offsets(slices_U[slices_U > 0]),
            self.event_weights_E[kept_E],
        )

    def digest(self) -> str:
        """SHA-256 of everything in these histories: equal digests, equal training data."""
        found = hashlib.sha256()
        for field in fields(self):
            array = np.ascontiguousarray(getattr(self, field.name))
            found.update(f"{field.name} {array.dtype.str} {array.shape}\n".encode())
            found.update(array.tobytes())
        return found.hexdigest()


def _offsets(lengths: Int64Array) -> Int64Array:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def recut(histories: TrainingHistories, slice_events: int, generator: np.random.Generator) -> TrainingHistories:
    """The same events with the borders moved that a count alone decided, so that none can be learned by heart.

    Every stretch of slices that were full, up to the next border of another kind, begins with a slice of 1 to
    `slice_events` events drawn at random, goes on with full ones and ends with what is left. No slice comes out that
    bridges a longer gap or spans a longer time than any did before: borders in time stay, and so do those of a stretch
    that would grow too long.

    Args:
        histories: cut at `slice_events`, or less.
        slice_events: events at which a slice is full.
        generator: draws one length for each stretch.
    """
    firsts_T = np.flatnonzero(~_follows_full(histories, slice_events))
    starts_T = histories.slice_starts_S1[firsts_T]
    num_events_T = np.diff(np.append(starts_T, histories.num_events))
    is_long_T = np.diff(np.append(firsts_T, histories.num_slices)) > 1
    phases_T = np.where(is_long_T, generator.integers(0, slice_events, len(firsts_T)), 0)
    longest_ms = _spans_ms(histories.ts_ms_E, histories.slice_starts_S1).max(initial=0)
    tried_S1, stretches_S = _cut_stretches(starts_T, num_events_T, phases_T, slice_events)
    grown_S = _spans_ms(histories.ts_ms_E, tried_S1) > longest_ms
    phases_T[np.unique(stretches_S[grown_S])] = 0
    slice_starts_S1, stretches_S = _cut_stretches(starts_T, num_events_T, phases_T, slice_events)
    users_S = histories.users_of_slices()[firsts_T][stretches_S]
    slices_U = np.bincount(users_S, minlength=histories.num_users)
    return replace(histories, slice_starts_S1=slice_starts_S1, user_starts_U1=_offsets(slices_U))


def _follows_full(histories: TrainingHistories, slice_events: int) -> BoolArray:
    """(S,) whether a slice follows a full one of its user, after no longer a gap than there is within slices."""
    starts_S = histories.slice_starts_S1[:-1]
    is_inner_E = np.ones(histories.num_events, dtype=np.bool_)
    is_inner_E[starts_S] = False
    longest_gap_ms = histories.gaps_ms_E[is_inner_E].max(initial=0)
    follows_S = np.zeros(histories.num_slices, dtype=np.bool_)
    same_user = np.diff(histories.users_of_slices()) == 0
    is_full = histories.slice_lengths()[:-1] == slice_events
    follows_S[1:] = same_user & is_full & (histories.gaps_ms_E[starts_S[1:]] <= longest_gap_ms)
    return follows_S


def _cut_stretches(
    starts_T: Int64Array, num_events_T: Int64Array, phases_T: Int64Array, slice_events: int
) -> tuple[Int64Array, Int64Array]:
    """Slice offsets of T stretches, and the stretch of each slice; a phase above 0 is the first slice's length."""
    num_heads_T = (phases_T > 0).astype(np.int64)
    num_slices_T = num_heads_T - (phases_T - num_events_T) // slice_events
    stretches_S = np.repeat(np.arange(len(starts_T)), num_slices_T)
    ranks_S = np.arange(len(stretches_S)) - np.repeat(np.cumsum(num_slices_T) - num_slices_T, num_slices_T)
    full_before_S = np.maximum(0, ranks_S - num_heads_T[stretches_S])
    begun_S = np.where(ranks_S > 0, phases_T[stretches_S], 0)
    starts_S = starts_T[stretches_S] + begun_S + full_before_S * slice_events
    return np.append(starts_S, starts_T[-1] + num_events_T[-1]), stretches_S


def _spans_ms(ts_ms_E: Int64Array, slice_starts_S1: Int64Array) -> Int64Array:
    return ts_ms_E[slice_starts_S1[1:] - 1] - ts_ms_E[slice_starts_S1[:-1]]


def first_touches(histories: TrainingHistories) -> BoolArray:
    """(E,) whether an event is its user's first with that item. O(E log E)."""
    users_E = histories.users_of_events()
    order = np.lexsort((histories.item_rows_E, users_E))
    same_as_before = (np.diff(users_E[order]) == 0) & (np.diff(histories.item_rows_E[order]) == 0)
    first_E = np.ones(histories.num_events, dtype=np.bool_)
    first_E[order[1:]] = ~same_as_before
    return first_E


def next_targets(histories: TrainingHistories, *, skip_repeats: bool) -> Int64Array:
    """(E,) int64 row of the item that follows each event, 0 where there is nothing to predict.

    Args:
        histories: the events.
        skip_repeats: whether items that the user had touched before are no targets.

    An unknown item is never a target; neither is anything after a user's last event.
    """
    rows_E = histories.item_rows_E
    users_E = histories.users_of_events()
    targets_E = np.zeros(histories.num_events, dtype=np.int64)
    is_target_E = rows_E >= FIRST_NAME_ROW
    if skip_repeats:
        is_target_E = is_target_E & first_touches(histories)
    follows = (np.diff(users_E) == 0) & is_target_E[1:]
    targets_E[:-1] = np.where(follows, rows_E[1:], 0)
    return targets_E


def initial_half_lives_ms(histories: TrainingHistories, num_half_lives: int) -> list[float]:
    """Half-lives to start training from: quantiles of the gaps between slices, and one without an end.

    Args:
        histories: the training part only.
        num_half_lives: H, at least 1.

    Returns:
        H rising half-lives in milliseconds; each at least twice the one before.
    """
    endless_ms = 100.0 * 365 * 24 * 3_600_000
    ends_ms_S = histories.slice_ends_ms()
    same_user = np.diff(histories.users_of_slices()) == 0
    gaps_ms = np.diff(ends_ms_S)[same_user]
    if not len(gaps_ms):
        gaps_ms = np.array([3_600_000])
    shares = np.linspace(0, 1, num_half_lives + 1)[1:-1] if num_half_lives > 1 else np.zeros(0)
    half_lives_ms: list[float] = []
    for gap_ms in np.quantile(gaps_ms, shares):
        floor_ms = 2 * half_lives_ms[-1] if half_lives_ms else 1000.0
        half_lives_ms.append(max(float(gap_ms), floor_ms))
    return [*half_lives_ms, endless_ms]
