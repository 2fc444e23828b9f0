"""What a recommendation needs to know of a user: the vector, the items seen, the newest items."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from stream_app.records import SliceVectorRecord, unpack_vector

MAX_SEEN = 2000
"""Items a user is remembered to have seen; beyond, the oldest may be listed again. 2,000 ids are about 20 KB."""

NUM_RECENT = 10
"""Newest items kept for transitions."""


class UserProfile(msgspec.Struct, array_like=True):
    """What the recommend role keeps of a user.

    `seen` are item ids, oldest first; `slices` the newest slices as [seq, newest items], oldest first;
    `user_vector` float32 bytes of `release`; `answered` the event offset of the newest list; `last_ts` the time of the
    newest event (ms); `revisions` of the newest slices that `release` has encoded, by seq.
    """

    seen: list[str] = []
    slices: list[tuple[int, list[str]]] = []
    user_vector: bytes = b""
    release: str = ""
    answered: int = -1
    last_ts: int = -1
    revisions: dict[int, int] = {}


def take_slice_vector(profile: UserProfile, record: SliceVectorRecord) -> bool:
    """Bring `profile` (changed in place) up to a slice revision.

    Returns:
        False where the profile reflects it already, and nothing changed. A worker that is started again publishes some
        revisions once more, behind newer ones: the user vector must not go back to theirs.
    """
    revisions = profile.revisions if record.release == profile.release else {}
    if _is_reflected(revisions, record):
        return False
    known = dict.fromkeys(profile.seen)
    known.update(dict.fromkeys(record.items))
    profile.seen = list(known)[-MAX_SEEN:]
    # By slice, not by arrival: a repaired slice may come after newer ones.
    slices = dict(profile.slices) | {record.seq: record.items[-NUM_RECENT:]}
    profile.slices = sorted(slices.items())[-NUM_RECENT:]
    profile.user_vector = unpack_vector(record.user_vector).tobytes()
    profile.release = record.release
    profile.last_ts = max(profile.last_ts, record.last_ts)
    # A new one, as a copy of the profile may still hold the old one.
    profile.revisions = dict(sorted({**revisions, record.seq: record.revision}.items())[-NUM_RECENT:])
    return True


def _is_reflected(revisions: Mapping[int, int], record: SliceVectorRecord) -> bool:
    """Whether a revision is among the known `revisions`, or of a slice before them all: none so old is repaired."""
    if (known := revisions.get(record.seq)) is not None:
        return record.revision <= known
    return len(revisions) == NUM_RECENT and record.seq < min(revisions)


def recent_items(profile: UserProfile) -> list[str]:
    """The newest items, newest first, each once."""
    items = [item_id for _, part in profile.slices for item_id in part]
    return list(dict.fromkeys(reversed(items[-NUM_RECENT:])))
