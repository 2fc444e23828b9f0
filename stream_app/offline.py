"""The stream as training and evaluation need it: asked before each event what it would offer.

Events are taken in order of time, as a replay takes them. Before each one it can be asked what list the stream
would give its user at that moment: with the history up to just before, and the trends of the last complete epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from encoders.contract import SliceEncoder
from stream_app.offline_roles import OfflineRoles
from stream_app.records import STRICT_HEADER, ActivityRecord, Event, SliceRecord, SliceVectorRecord
from stream_app.settings import Settings
from stream_app.settings_rules import slicing_rule
from stream_app.stages.intake import Content, Tick
from stream_app.stages.listing import take_vectors
from stream_app.stages.ranking import Candidates, features, gather
from stream_app.stages.sequence import SequenceEffects
from stream_app.stages.slicing import UserHistory, apply_event

CHUNK_EVENTS = 2048
"""Events encoded in one batch."""

_STRICT = ((STRICT_HEADER, b"1"),)


@dataclass(frozen=True)
class Moment:
    """Just before an event: what the stream would offer its user, and whether the item is new to the user.

    `features_CF` belongs to the candidates of `found`, in their order; both are None where nothing was asked.
    """

    event: Event
    is_target: bool
    found: Candidates | None = None
    features_CF: npt.NDArray[np.float64] | None = None


@dataclass(frozen=True)
class _Step:
    """One event with what the roles made of it: activity of the tick before it, and of itself; slice vectors."""

    event: Event
    before: list[ActivityRecord]
    activity: list[ActivityRecord]
    vectors: list[SliceVectorRecord]


class OfflineStream:
    """All roles in memory, on a single partition, one event at a time.

    Two things differ from a replay: nothing is known of the catalogue, so every item counts as available; and every
    revision of a slice is encoded, not only the newest of a run, since every moment may be asked for.
    """

    def __init__(self, settings: Settings, encoder: SliceEncoder) -> None:
        self._settings = settings
        self._encoder = encoder
        self._roles = OfflineRoles(settings, encoder, 1)
        self._offset = 0
        self._epoch = -1

    def walk(self, events: Sequence[Event], *, ask_from_ms: int) -> Iterator[Moment]:
        """Take events in order of time; moments at or after `ask_from_ms` on new items carry candidates."""
        for start in range(0, len(events), CHUNK_EVENTS):
            for step in self._cut_and_encode(events[start : start + CHUNK_EVENTS]):
                self._roles.count(step.before)
                yield self._moment(step, ask_from_ms)
                self._roles.count(step.activity)
                take_vectors(step.vectors, self._roles.profiles, self._encoder.release)

    def _cut_and_encode(self, events: Sequence[Event]) -> list[_Step]:
        cut = [(event, *self._cut(event)) for event in events]
        made = self._roles.encode([record for _, _, _, records in cut for record in records])
        vectors = {(vector.user_id, vector.seq, vector.revision): vector for vector in made}
        return [
            _Step(event, before, activity, [vectors[key] for key in map(_slice_key, records) if key in vectors])
            for event, before, activity, records in cut
        ]

    def _cut(self, event: Event) -> tuple[list[ActivityRecord], list[ActivityRecord], list[SliceRecord]]:
        before: list[ActivityRecord] = []
        epoch = event.ts // self._settings.epoch_ms
        if epoch > self._epoch:
            self._epoch = epoch
            before = self._take(Tick(epoch * self._settings.epoch_ms, last=False)).activity
        effects = self._take(event)
        # In order of time nothing is repaired, so a slice that only closes has the vector that it had.
        changed = [record for record in effects.slices if record.fresh or not record.closed]
        return before, effects.activity, changed

    def _take(self, content: Content) -> SequenceEffects:
        effects = self._roles.cut(0, [(self._offset, content, _STRICT)])
        self._offset += 1
        return effects

    def _moment(self, step: _Step, ask_from_ms: int) -> Moment:
        event = step.event
        profile = self._roles.profiles.get(event.user_id)
        is_applied = any(record.item_id is not None for record in step.activity)
        is_target = is_applied and profile is not None and event.item_id not in profile.seen
        if not is_target or event.ts < ask_from_ms:
            return Moment(event, is_target)
        query = self._roles.queries([event.user_id])[event.user_id]
        trends = self._roles.trends_at(event.ts // self._settings.epoch_ms - 1)
        found = gather(query, trends, self._settings.candidates, lambda _: True)
        return Moment(event, True, found, features(query, found, trends, self._roles.index.vectors_of))


def _slice_key(record: SliceRecord) -> tuple[str, int, int]:
    return record.user_id, record.seq, record.revision


def history_slices(events: Sequence[Event], settings: Settings) -> dict[str, UserHistory]:
    """Every user's whole history, cut by the very function the stream uses, nothing forgotten."""
    rule = replace(slicing_rule(settings), history_events=max(1, len(events)))
    histories: dict[str, UserHistory] = {}
    for offset, event in enumerate(events):
        apply_event(histories.setdefault(event.user_id, UserHistory()), event, offset, rule)
    return histories
