"""The stream as training and evaluation need it: asked before each event what it would offer.

Events are taken in order of time, as a replay takes them. Before each one it can be asked what list the stream
would give its user at that moment: with the history up to just before, and the trends of the last complete epoch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from encoders.contract import SliceEncoder
from stream_app.offline_roles import OfflineRoles
from stream_app.offline_scoring import OfflineScoring
from stream_app.records import (
    STRICT_HEADER,
    ActivityRecord,
    Event,
    ProgressRecord,
    RankedItem,
    SliceRecord,
    SliceVectorRecord,
)
from stream_app.settings import Settings
from stream_app.settings_rules import score_rule, slicing_rule
from stream_app.stages.intake import Content, Tick
from stream_app.stages.item_columns import ItemColumns
from stream_app.stages.listing import (
    KnownItems,
    ListRule,
    ScorerInForce,
    index_version,
    offered,
    take_vectors,
)
from stream_app.stages.ranking import Candidates, rank
from stream_app.stages.sequence import SequenceEffects
from stream_app.stages.slicing import UserHistory, apply_event

CHUNK_EVENTS = 2048
"""Events encoded in one batch."""

_STRICT = ((STRICT_HEADER, b"1"),)


@dataclass(frozen=True)
class Moment:
    """Just before an event: what the stream would offer its user, and whether the item is new to the user.

    `features_CF` belongs to the candidates of `found`, in their order; both are None where nothing was asked. `scorer`
    is the one in force, None where none is learned.
    """

    event: Event
    is_target: bool
    found: Candidates | None = None
    features_CF: npt.NDArray[np.float64] | None = None
    scorer: ScorerInForce | None = None

    def listed(self, num_items: int) -> list[RankedItem]:
        """The list that the stream would give now, empty where nothing was asked.

        Raises:
            ValueError: The walk learns no scorer.
        """
        if self.found is None or self.features_CF is None:
            return []
        if self.scorer is None:
            raise ValueError("This walk has no scorer; give `OfflineStream` a rule to make lists with.")
        return rank(self.found, self.features_CF, self.scorer.scorer, num_items)


@dataclass(frozen=True)
class _Step:
    """One event with what the roles made of it: activity of the tick before it, and of itself; slice vectors; and how
    far the partition was then, where that is news.
    """

    event: Event
    progress: list[ProgressRecord]
    before: list[ActivityRecord]
    activity: list[ActivityRecord]
    vectors: list[SliceVectorRecord]


class OfflineStream:
    """All roles in memory, on a single partition, one event at a time.

    Two things differ from a replay: nothing is known of the catalogue, so every item counts as available; and every
    revision of a slice is encoded, not only the newest of a run, since every moment may be asked for.

    Args:
        settings: How the stream is cut and ranked.
        encoder: The trained encoder.
        rule: What lists are made with. With it the scorer is learned as the stream learns it, and every moment has the
            one in force.
        new_items: Vectors, shape (D,), of items that were not trained. A catalogue does not tell when an item came, so
            it counts as known from its first event on.
    """

    def __init__(
        self,
        settings: Settings,
        encoder: SliceEncoder,
        rule: ListRule | None = None,
        new_items: Mapping[str, npt.NDArray[np.float32]] | None = None,
    ) -> None:
        self._settings = settings
        self._encoder = encoder
        self._roles = OfflineRoles(settings, encoder, 1)
        self._score = score_rule(settings)
        self._scoring = None if rule is None else OfflineScoring(settings, rule, self._roles, 1)
        version = index_version(encoder.release, len(self._roles.index))
        self._items = KnownItems(version, ItemColumns(self._roles.index))
        self._waiting_items = dict(new_items or {})
        self._offset = 0
        self._epoch = -1

    def walk(self, events: Sequence[Event], *, ask_from_ms: int) -> Iterator[Moment]:
        """Take events in order of time; moments at or after `ask_from_ms` on new items carry candidates.

        The scorer is learned from these moments on; what came before has had its say in the model's own scorer.
        """
        for start in range(0, len(events), CHUNK_EVENTS):
            for step in self._cut_and_encode(events[start : start + CHUNK_EVENTS]):
                self._roles.count(step.before)
                if self._scoring is not None:
                    self._scoring.learn((), step.progress)
                moment = self._moment(step, ask_from_ms)
                yield moment
                self._tell(moment, step.vectors)
                self._roles.count(step.activity)
                take_vectors(step.vectors, self._roles.profiles, self._encoder.release)
                self._meet(step.event.item_id)

    def _meet(self, item_id: str) -> None:
        """An item was touched: from now on it can be found by its vector."""
        vector_D = self._waiting_items.pop(item_id, None)
        if vector_D is not None:
            self._roles.take_items([item_id], vector_D[None])

    def _cut_and_encode(self, events: Sequence[Event]) -> list[_Step]:
        cut = [(event, *self._cut(event)) for event in events]
        made = self._roles.encode([record for *_, records in cut for record in records])
        vectors = {(vector.user_id, vector.seq, vector.revision): vector for vector in made}
        return [
            _Step(event, progress, before, activity, _found(vectors, records))
            for event, progress, before, activity, records in cut
        ]

    def _cut(
        self, event: Event
    ) -> tuple[list[ProgressRecord], list[ActivityRecord], list[ActivityRecord], list[SliceRecord]]:
        progress: list[ProgressRecord] = []
        before: list[ActivityRecord] = []
        epoch = event.ts // self._settings.epoch_ms
        if epoch > self._epoch:
            self._epoch = epoch
            ticked = self._take(Tick(epoch * self._settings.epoch_ms, last=False))
            before = ticked.activity
            progress = [] if ticked.progress is None else [ticked.progress]
        effects = self._take(event)
        # In order of time nothing is repaired, so a slice that only closes has the vector that it had.
        changed = [record for record in effects.slices if record.fresh or not record.closed]
        return progress, before, effects.activity, changed

    def _take(self, content: Content) -> SequenceEffects:
        effects = self._roles.cut(0, [(self._offset, content, _STRICT)])
        self._offset += 1
        return effects

    def _moment(self, step: _Step, ask_from_ms: int) -> Moment:
        event = step.event
        profile = self._roles.profiles.get(event.user_id)
        is_applied = any(record.item_id is not None for record in step.activity)
        if profile is None or not is_applied or event.item_id in profile.seen:
            return Moment(event, is_target=False)
        if event.ts < ask_from_ms:
            return Moment(event, is_target=True)
        silent_ms = max(0, event.ts - profile.last_ts)
        query = replace(self._roles.queries([event.user_id])[event.user_id], silent_ms=silent_ms)
        join_epoch = event.ts // self._settings.epoch_ms - 1
        trends = self._roles.trends_at(join_epoch)
        found, features_CF = offered(query, trends, self._items, self._settings.candidates)
        scorer = None if self._scoring is None else self._scoring.in_force(self._score.joined(join_epoch))
        return Moment(event, True, found, features_CF, scorer)

    def _tell(self, moment: Moment, vectors: Sequence[SliceVectorRecord]) -> None:
        """Let the scorer learn from what became of a moment."""
        profile = self._roles.profiles.get(moment.event.user_id)
        if self._scoring is None or moment.found is None or moment.features_CF is None or profile is None:
            return
        self._scoring.take_offered(vectors, profile, moment.found, moment.features_CF)


def _found(
    vectors: Mapping[tuple[str, int, int], SliceVectorRecord], records: Sequence[SliceRecord]
) -> list[SliceVectorRecord]:
    """The vectors of slice revisions, where there are any."""
    return [vectors[key] for key in map(_slice_key, records) if key in vectors]


def _slice_key(record: SliceRecord) -> tuple[str, int, int]:
    return record.user_id, record.seq, record.revision


def history_slices(events: Sequence[Event], settings: Settings) -> dict[str, UserHistory]:
    """Every user's whole history, cut by the very function the stream uses, nothing forgotten."""
    rule = replace(slicing_rule(settings), history_events=max(1, len(events)))
    histories: dict[str, UserHistory] = {}
    for offset, event in enumerate(events):
        apply_event(histories.setdefault(event.user_id, UserHistory()), event, offset, rule)
    return histories
