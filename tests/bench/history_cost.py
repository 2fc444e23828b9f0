"""What an event costs by the length of its user's history: as the roles do it, and with everything encoded again.

The roles' way is that of the stages `sequence` and `encode`, one event a run: the user's history and memory are read
from their bytes and written to them again, as the tables keep them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

import numpy as np

from encoders.contract import SliceEncoder
from stream_app import tables
from stream_app.records import Event, SliceRecord, SliceVectorRecord
from stream_app.settings import Settings
from stream_app.settings_rules import sequence_stage
from stream_app.slice_encoding import encode_slices
from stream_app.stages.encoding import newest_revisions
from stream_app.stages.intake import take_record
from stream_app.stages.merging import UserMemory
from stream_app.stages.sequence import KeptHistory
from tests.bench.timing import Took, cpu_ratios, in_turn

LENGTHS: Final = (10, 50, 500, 5_000, 10_000)
EVENT_GAP_MS: Final = 60_000
FIRST_TS: Final = 1_600_000_000_000
LAST_EVENTS: Final = 200
"""Of the usual window of a sequence model that reads its window again."""
RUN_EVENTS: Final = 100
"""Events of a run while the history is made; fewer than are kept of a user."""

ROUND_EVENTS: Final = 16
"""After so many the user goes back to where the measurement began: an event of each place in a slice, and a history
that stays as long as it is meant to be."""

_USER: Final = "user"


class _State(NamedTuple):
    """What is kept of a user: events so far, and the values of the tables."""

    num_events: int = 0
    history: bytes | None = None
    memory: bytes | None = None


class OneUser:
    """A user with a history of a given length, and what the roles keep of it.

    Args:
        settings: How the stream is cut.
        encoder: The model.
        num_events: Length of the history.
        items: To draw items from.
        seed: Decides which.
    """

    def __init__(
        self, settings: Settings, encoder: SliceEncoder, num_events: int, items: Sequence[str], seed: int = 0
    ) -> None:
        self._encoder = encoder
        self._weights = settings.event_types
        self._type = next(iter(settings.event_types))
        self._items = items
        self._generator = np.random.default_rng(seed)
        self._stage = sequence_stage(settings, 0)
        self._stage.restore([], None)
        self._state = _State()
        self.slices: dict[int, SliceRecord] = {}
        """The newest revision of each slice."""
        for start in range(0, num_events, RUN_EVENTS):
            self.take(min(RUN_EVENTS, num_events - start))
        self._begin = self._state

    def take_next(self) -> list[SliceVectorRecord]:
        """What both stages make of one more event; see `ROUND_EVENTS`."""
        if self._state.num_events >= self._begin.num_events + ROUND_EVENTS:
            self._state = self._begin
        return self.take(1)

    def _next_events(self, num_events: int) -> list[Event]:
        first = self._state.num_events
        return [
            Event(
                user_id=_USER,
                item_id=self._items[int(self._generator.integers(len(self._items)))],
                type=self._type,
                ts=FIRST_TS + EVENT_GAP_MS * number,
            )
            for number in range(first, first + num_events)
        ]

    def take(self, num_events: int) -> list[SliceVectorRecord]:
        """What both stages make of one run with the user's next events."""
        state = self._state
        end = state.num_events + num_events
        self._stage.begin_run([_USER], self._load)
        for offset, event in enumerate(self._next_events(num_events), state.num_events):
            take_record(self._stage, event, offset, (), is_counted=False)
        effects = self._stage.end_run(end - 1, 1)
        records = newest_revisions(effects.slices)
        self.slices.update((record.seq, record) for record in records)
        memories = {} if state.memory is None else {_USER: tables.MEMORY.decode(state.memory)}
        vectors = encode_slices(self._encoder, records, memories, self._weights)
        history = tables.encode_value(effects.changed[_USER].history)
        self._state = _State(end, history, tables.encode_value(memories[_USER]))
        return vectors

    def encode_again(self, num_events: int | None) -> list[SliceVectorRecord]:
        """The newest slices from scratch, as many as hold so many events; all where that is None."""
        chosen: list[SliceRecord] = []
        for record in reversed(self.slices.values()):
            if num_events is not None and sum(len(one.events) for one in chosen) >= num_events:
                break
            chosen.append(record)
        fresh: dict[str, UserMemory] = {}
        return encode_slices(self._encoder, chosen[::-1], fresh, self._weights)

    def _load(self, users: Sequence[str]) -> Mapping[str, KeptHistory]:
        num_events, history, _ = self._state
        if history is None or _USER not in users:
            return {}
        return {_USER: KeptHistory(tables.HISTORY.decode(history), num_events - 1)}


@dataclass(frozen=True)
class HistoryCosts:
    """Runs by the length of the history: of one event as the roles do it, and with the last events or all of them
    encoded again."""

    by_roles: Mapping[int, Sequence[Took]]
    last_again: Mapping[int, Sequence[Took]]
    all_again: Mapping[int, Sequence[Took]]

    def ratio(self, length: int, other: int) -> float:
        """What an event costs at one length over what it costs at another, in the roles' way."""
        return float(np.median(cpu_ratios(self.by_roles[length], self.by_roles[other])))


def history_costs(
    settings: Settings, encoder: SliceEncoder, items: Sequence[str], num_events: int, num_again: int
) -> HistoryCosts:
    """Measure all lengths in turn.

    Args:
        settings: How the stream is cut.
        encoder: The model.
        items: To draw items from.
        num_events: Events of each length, one at a time.
        num_again: How often everything is encoded again.
    """
    users = {length: OneUser(settings, encoder, length, items) for length in LENGTHS}
    return HistoryCosts(
        in_turn({length: user.take_next for length, user in users.items()}, num_events),
        in_turn({length: partial(user.encode_again, LAST_EVENTS) for length, user in users.items()}, num_again),
        in_turn({length: partial(user.encode_again, None) for length, user in users.items()}, num_again),
    )
