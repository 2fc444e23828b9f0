"""What a recommendation needs to know of a user: the vector, the items seen, the newest items."""

from __future__ import annotations

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
    newest event (ms).
    """

    seen: list[str] = []
    slices: list[tuple[int, list[str]]] = []
    user_vector: bytes = b""
    release: str = ""
    answered: int = -1
    last_ts: int = -1


def take_slice_vector(profile: UserProfile, record: SliceVectorRecord) -> None:
    """Bring `profile` (changed in place) up to a slice revision; repeats change nothing."""
    known = dict.fromkeys(profile.seen)
    known.update(dict.fromkeys(record.items))
    profile.seen = list(known)[-MAX_SEEN:]
    # By slice, not by arrival: a repaired slice may come after newer ones.
    slices = dict(profile.slices) | {record.seq: record.items[-NUM_RECENT:]}
    profile.slices = sorted(slices.items())[-NUM_RECENT:]
    profile.user_vector = unpack_vector(record.user_vector).tobytes()
    profile.release = record.release
    profile.last_ts = max(profile.last_ts, record.last_ts)


def recent_items(profile: UserProfile) -> list[str]:
    """The newest items, newest first, each once."""
    items = [item_id for _, part in profile.slices for item_id in part]
    return list(dict.fromkeys(reversed(items[-NUM_RECENT:])))
