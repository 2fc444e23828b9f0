"""The histories a model is trained on: flat arrays of events, cut into slices, grouped by user.

Shapes: E events, S slices, U users; a trailing 1 marks offsets (one more than the thing counted).
"""

from __future__ import annotations

from dataclasses import dataclass

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
        slice_weights_S: float32 weights above zero with which slices enter the memory.

    Raises:
        ValueError: if lengths, offsets, times or weights contradict each other.
    """

    item_rows_E: Int64Array
    type_rows_E: Int64Array
    ts_ms_E: Int64Array
    gaps_ms_E: Int64Array
    slice_starts_S1: Int64Array
    user_starts_U1: Int64Array
    slice_weights_S: Float32Array

    def __post_init__(self) -> None:
        num_events = len(self.item_rows_E)
        for name in ("type_rows_E", "ts_ms_E", "gaps_ms_E"):
            if len(getattr(self, name)) != num_events:
                raise ValueError(f"{name} has {len(getattr(self, name))} events, item_rows_E {num_events}")
        _check_offsets(self.slice_starts_S1, num_events, "slice_starts_S1")
        _check_offsets(self.user_starts_U1, self.num_slices, "user_starts_U1")
        if len(self.slice_weights_S) != self.num_slices or not np.all(self.slice_weights_S > 0):
            raise ValueError(f"slice_weights_S: expected {self.num_slices} weights, all above zero")
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
            self.slice_weights_S[kept_S],
        )


def _offsets(lengths: Int64Array) -> Int64Array:
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


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
