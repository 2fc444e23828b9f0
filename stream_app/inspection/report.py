"""An inspection as one value, put together from what was recomputed and what was published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from stream_app.inspection.choice import (
    Choice,
    InspectedCandidate,
    ListChanges,
    Recommender,
    RemovedItem,
    differences,
    list_changes,
)
from stream_app.inspection.trace import Trace, TracedEvent
from stream_app.inspection.vectors import InspectedSlice, InspectedVector, Revision, encode_user
from stream_app.records import Recommendation, SliceVectorRecord
from stream_app.stages.trend_view import TrendView

PUBLISHED, RECOMPUTED = "published", "recomputed"
"""Where the list that is shown comes from."""


class InspectedList(msgspec.Struct, frozen=True, kw_only=True):
    """The list that answers the user's newest event.

    `origin` tells whether it is the published one, or was made anew because that is not (or no longer) there.
    `epoch_by` says how its epoch of trends is known. `differences` lists what differs between the published list and
    the same made anew: empty where they are equal, None where only one of them is there.
    """

    origin: str
    epoch_by: str
    recommendation: Recommendation
    differences: list[str] | None


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All there is to say of a user at one moment; without an applied event there is neither vector nor list."""

    events: list[TracedEvent]
    slices: list[InspectedSlice]
    vector: InspectedVector | None
    answer: InspectedList | None = msgspec.field(name="list")
    candidates: list[InspectedCandidate]
    removed: list[RemovedItem]


class WithoutEvent(msgspec.Struct, frozen=True, kw_only=True):
    """What would be without the records at `offsets`, and what that changes in the list."""

    offsets: list[int]
    snapshot: Snapshot
    changes: ListChanges


class Inspection(msgspec.Struct, frozen=True, kw_only=True):
    """One user as of an event time.

    Args:
        user_id: The user.
        source: The topic or file that was read.
        partition: The user's partition of `events`.
        at_ms: The event time asked for; None: the newest there is.
        release: The model's release.
        half_lives_ms: The half-lives of the merged vectors.
        weights: The scorer's weights by feature.
        snapshot: What is.
        without: What would be without an event, where that was asked.
        notes: What a reader must know to trust the rest.
    """

    user_id: str
    source: str
    partition: int
    at_ms: int | None
    release: str
    half_lives_ms: list[float]
    weights: dict[str, float]
    snapshot: Snapshot
    without: WithoutEvent | None
    notes: list[str]


@dataclass(frozen=True)
class Published:
    """What the topics hold of a user: lists by the offset they answer, and vectors and their order by revision."""

    lists: Mapping[int, Recommendation] = field(default_factory=dict)
    vectors: Mapping[Revision, SliceVectorRecord] = field(default_factory=dict)
    order: Sequence[Revision] = ()


NOTHING_PUBLISHED = Published()


def snapshot_of(
    traced: Trace, trends: TrendView | None, epoch_by: str, recommender: Recommender, published: Published
) -> Snapshot:
    """Everything there is to say of a user.

    Args:
        traced: The user's events and slices.
        trends: As of the epoch that the list joins; None where no list is due.
        epoch_by: How that epoch is known.
        recommender: What lists are made with.
        published: What was published.
    """
    settings = recommender.settings
    user = encode_user(traced, recommender.encoder, settings.event_types, published.order)
    if user is None or trends is None:
        return Snapshot(events=traced.events, slices=[], vector=None, answer=None, candidates=[], removed=[])
    choice = recommender.choose(user, trends)
    return Snapshot(
        events=traced.events,
        slices=user.slices,
        vector=user.vector(published.vectors),
        answer=_list_of(choice, published.lists.get(user.asked.offset), epoch_by),
        candidates=choice.candidates,
        removed=choice.removed,
    )


def without_event(offsets: Sequence[int], before: Snapshot, after: Snapshot) -> WithoutEvent:
    """What changes from one snapshot to the other; both lists as they were made anew, so that like is compared."""
    return WithoutEvent(
        offsets=sorted(offsets), snapshot=after, changes=list_changes(_made_items(before), _made_items(after))
    )


def _list_of(choice: Choice, published: Recommendation | None, epoch_by: str) -> InspectedList:
    made = choice.recommendation
    return InspectedList(
        origin=RECOMPUTED if published is None else PUBLISHED,
        epoch_by=epoch_by,
        recommendation=made if published is None else published,
        differences=None if published is None else differences(published, made),
    )


def _made_items(snapshot: Snapshot) -> list[str]:
    return [one.item_id for one in snapshot.candidates if one.is_listed]
