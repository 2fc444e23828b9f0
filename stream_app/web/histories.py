"""A user's history in the words of the API: slices, timeline, profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from stream_app.records import SliceVectorRecord, unpack_vector
from stream_app.stages.popularity import decay
from stream_app.web.answers import CategoryShare, Profile, SliceFacts, SliceNews, TimelineEvent, UserAnswer
from stream_app.web.state.catalogue import Catalogue
from stream_app.web.state.held import Held
from stream_app.web.state.users import SeenSlice
from stream_app.web.streams import event_bytes

MS_PER_DAY: Final = 86_400_000.0
NUM_CATEGORIES: Final = 8


def slice_event(held: Held, user_id: str) -> bytes:
    """The newest slice of a user who is held, as it is told on the user's stream."""
    user = held.users.get(user_id)
    slices = [] if user is None else user.seen_slices()
    if user is None or not slices:
        return b""
    facts = facts_of(held, slices, user.slice_vectors())[-1]
    return event_bytes("slice", SliceNews(slice=facts, events=timeline(slices[-1:], held.catalogue)))


def facts_of(held: Held, slices: Sequence[SeenSlice], vectors: Mapping[int, SliceVectorRecord]) -> list[SliceFacts]:
    """Slices (at least one, oldest first) as they are shown; their shares fade by the longest half-life of trends."""
    return slice_facts(slices, vectors, held.settings.event_types, max(held.settings.half_lives_s) * 1000)


def slice_facts(
    slices: Sequence[SeenSlice],
    vectors: Mapping[int, SliceVectorRecord],
    weights: Mapping[str, float],
    half_life_ms: float,
) -> list[SliceFacts]:
    """Slices (at least one, oldest first) as they are shown.

    Args:
        slices: The slices.
        vectors: What the encoder made of them, by number, as far as it is known.
        weights: Weight of each event type.
        half_life_ms: By which the shares fade.
    """
    end_ts = slices[-1].events[-1].ts
    masses = [
        sum(weights.get(event.type, 1.0) for event in part.events) * decay(end_ts - part.events[-1].ts, half_life_ms)
        for part in slices
    ]
    total = sum(masses) or 1.0
    return [
        SliceFacts(
            seq=part.seq,
            closed=part.closed,
            start_ts=part.events[0].ts,
            end_ts=part.events[-1].ts,
            num_events=len(part.events),
            vector_norm=_norm(vectors.get(part.seq)),
            weight=round(mass / total, 4),
        )
        for part, mass in zip(slices, masses, strict=True)
    ]


def timeline(slices: Sequence[SeenSlice], catalogue: Catalogue) -> list[TimelineEvent]:
    """The events of slices, oldest first."""
    return [
        TimelineEvent(
            item_id=event.item_id, title=catalogue.title(event.item_id), type=event.type, ts=event.ts, seq=part.seq
        )
        for part in slices
        for event in part.events
    ]


def user_answer(
    user_id: str, events: list[TimelineEvent], slices: list[SliceFacts], catalogue: Catalogue
) -> UserAnswer:
    """A user's page (at least one event)."""
    last_ts = events[-1].ts
    days = max(1.0, (last_ts - events[0].ts) / MS_PER_DAY)
    categories = Counter(name for event in events for name in catalogue.categories(event.item_id))
    total = sum(categories.values())
    top = sorted(categories.items(), key=lambda one: (-one[1], one[0]))[:NUM_CATEGORIES]
    profile = Profile(
        top_categories=[CategoryShare(category=name, share=round(count / total, 4)) for name, count in top],
        events_per_day=round(len(events) / days, 3),
        types=dict(sorted(Counter(event.type for event in events).items())),
    )
    return UserAnswer(
        user_id=user_id,
        last_seen_ts=last_ts,
        num_events=len(events),
        events=events,
        slices=slices,
        profile=profile,
    )


def _norm(record: SliceVectorRecord | None) -> float | None:
    return None if record is None else round(float(np.linalg.norm(unpack_vector(record.slice_vector))), 4)
