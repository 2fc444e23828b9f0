"""What the API answers and takes, one type each: the contract with the page, and what /openapi.json is made from.

Times are milliseconds since 1970; durations carry their unit in the name.
"""

from __future__ import annotations

from typing import Any

import msgspec

# ---------------------------------------------------------------- lists


class WhyItem(msgspec.Struct, frozen=True, kw_only=True):
    """One of the user's own recent items that leads to a listed one; `weight` is at most about 1."""

    item_id: str
    title: str
    weight: float


class WhySlice(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of the user's history, and its share (0 to 1) of what leads to a listed item."""

    seq: int
    weight: float


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Which of the user's own items and slices lead to a listed item."""

    items: list[WhyItem]
    slices: list[WhySlice]


class ListedItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a list, with what the catalogue says of the item."""

    item_id: str
    title: str
    category: str | None
    price: float | None
    available: bool
    score: float
    sources: list[str]
    why: Why | msgspec.UnsetType = msgspec.UNSET


class ListAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A ranked list.

    `age_ms` is how long ago this answer was put together; that is done anew when its list or the catalogue changes.
    `num_published` comes with filters: so many of the items, the first ones, are of the published list; the others were
    added, by the user's vector (source `index`), then by popularity (`popular`), then the catalogue's newest
    (`catalogue`). `fallback` names what stands in where the user has no list; the list then has no id. `freshness_ms`
    (streams only) is the time from the event's arrival at this server to the list's.
    """

    user_id: str | None
    recommendation_id: str
    event_ts: int | None
    release: str
    epoch: int
    scorer_epoch: int
    age_ms: int
    has_vector: bool
    items: list[ListedItem]
    num_published: int | msgspec.UnsetType = msgspec.UNSET
    fallback: str | msgspec.UnsetType = msgspec.UNSET
    freshness_ms: float | msgspec.UnsetType | None = msgspec.UNSET


# ---------------------------------------------------------------- events


class Placed(msgspec.Struct, frozen=True, kw_only=True):
    """Where an event or an erasure lies on its topic, and its time."""

    partition: int
    offset: int
    ts: int


class ErasedUser(msgspec.Struct, frozen=True, kw_only=True):
    """Told to the streams of a user whose list is gone, because the user was erased."""

    user_id: str


class Accepted(msgspec.Struct, frozen=True, kw_only=True):
    """Events that Kafka has acknowledged, in the order they were sent."""

    accepted: list[Placed]


# ---------------------------------------------------------------- items


class Follower(msgspec.Struct, frozen=True, kw_only=True):
    """An item that users touched after another one; `weight` is its decayed share of the touches (long memory)."""

    item_id: str
    title: str
    weight: float


class ItemAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of an item; `touches` are decayed counts by half-life."""

    item_id: str
    title: str
    description: str | None
    category: str | None
    tags: list[str]
    price: float | None
    image: str | None
    available: bool
    vector_norm: float | None
    is_trained: bool
    touches: dict[str, float]
    first_seen_ts: int | None
    followers: list[Follower]


class NearItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item that was found, with how well it fits."""

    item_id: str
    title: str
    score: float


class SimilarAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The items whose vectors are nearest by cosine; none for an item without a vector."""

    item_id: str
    items: list[NearItem]


class BrowsedItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item in an ordered part of the catalogue; `counts` as `ItemAnswer.touches`."""

    item_id: str
    title: str
    category: str | None
    first_seen_ts: int | None
    counts: dict[str, float]


class ItemsAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the catalogue."""

    items: list[BrowsedItem]


class SearchAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Items found by text; `by` says how: "text-tower" or "words"."""

    query: str
    personalised: bool
    by: str
    items: list[NearItem]


# ---------------------------------------------------------------- users


class SeenUser(msgspec.Struct, frozen=True, kw_only=True):
    """A user, and the time of the newest event."""

    user_id: str
    last_seen_ts: int


class UsersAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Users that were active last, newest first."""

    users: list[SeenUser]


class TimelineEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a user's history, in slice `seq`."""

    item_id: str
    title: str
    type: str
    ts: int
    seq: int


class SliceFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A slice of a user's history; `weight` is its share (0 to 1) of what is merged, by time and event weights."""

    seq: int
    closed: bool
    start_ts: int
    end_ts: int
    num_events: int
    vector_norm: float | None
    weight: float


class SliceNews(msgspec.Struct, frozen=True, kw_only=True):
    """The newest slice of a user, with its events."""

    slice: SliceFacts
    events: list[TimelineEvent]


class CategoryShare(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a user's history is in a category (0 to 1); an item without one counts under its tags."""

    category: str
    share: float


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """A user's history in a few numbers."""

    top_categories: list[CategoryShare]
    events_per_day: float
    types: dict[str, int]


class UserAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A user's timeline, newest slices last; `num_events` counts what is kept."""

    user_id: str
    last_seen_ts: int
    num_events: int
    events: list[TimelineEvent]
    slices: list[SliceFacts]
    profile: Profile


# ---------------------------------------------------------------- the running system


class RoleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A role: how many records it is behind, how many workers it has, and whether any is at work."""

    role: str
    lag_records: int
    members: int
    ready: bool


class TopicFacts(msgspec.Struct, frozen=True, kw_only=True):
    """A topic: records that came in the last second, and records there ever were (the sum of end offsets)."""

    name: str
    records_per_s: float
    end_offset: int


class FlowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers on the picture of the flow."""

    roles: list[RoleFacts]
    topics: list[TopicFacts]


class Freshness(msgspec.Struct, frozen=True, kw_only=True):
    """Times from an event's arrival to its list's over the newest lists, null where there is none."""

    p50: float | None
    p99: float | None


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """How the system runs, once a second.

    `newest_event_ts` is the greatest event time seen: of a replayed log it is years behind the clock, and an event
    that is to move its lists needs a time near it.
    """

    ts: int
    newest_event_ts: int | None
    events_per_s: float
    lists_per_s: float
    dead_letters: int
    dropped: dict[str, int]
    freshness_ms: Freshness
    users: int
    items: int
    roles: list[RoleFacts]
    memory_mib: float


class LiveEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event as it comes."""

    user_id: str
    item_id: str
    title: str
    type: str
    ts: int


class LiveItem(msgspec.Struct, frozen=True, kw_only=True):
    """One of a list's first items."""

    item_id: str
    title: str


class LiveList(msgspec.Struct, frozen=True, kw_only=True):
    """A list as it comes."""

    user_id: str
    event_ts: int
    items: list[LiveItem]
    freshness_ms: float | None


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A record that was refused: why, where it lay, and how it begins."""

    class_: str = msgspec.field(name="class")
    reason: str
    topic: str
    partition: int
    offset: int
    excerpt: str


class DeadLettersAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The newest dead letters, newest first."""

    dead_letters: list[DeadLetter]


class CurvePoint(msgspec.Struct, frozen=True, kw_only=True):
    """An epoch of the training."""

    epoch: int
    train_loss: float
    validation: float | None


class DriftFacts(msgspec.Struct, frozen=True, kw_only=True):
    """How close user vectors are to a full re-encoding, over all workers; null where nothing was checked."""

    mean_cosine: float | None
    min_cosine: float | None
    mean_overlap_10: float | None
    checks: int


class ScorerFacts(msgspec.Struct, frozen=True, kw_only=True):
    """The newest scorer: the scorer-epoch it was learned up to (-1: the model's own), and how good lists were."""

    epoch: int
    quality: dict[str, dict[str, float]]


class ModelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """The release that is served."""

    release: str
    dim: int
    num_items: int
    merge: str
    slice_events: int
    slice_gap_s: float
    slice_span_s: float
    half_lives_s: list[float]
    event_types: list[str]
    trained_at: int | None
    training_curve: list[CurvePoint]
    evaluation: list[dict[str, Any]] | None
    drift: DriftFacts
    scorer: ScorerFacts


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the server works."""

    status: str


# ---------------------------------------------------------------- what is taken


class Session(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Somebody without a name: the items touched, oldest first, or events with their types and times."""

    items: list[str] = []
    events: list[dict[str, Any]] = []
    count: int = 10
