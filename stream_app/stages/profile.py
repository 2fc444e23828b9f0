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

    `seen` are item ids, oldest first; `before` and `current` the items before and in the newest slice, oldest
    first; `user_vector` float32 bytes of `release`; `answered` the event offset of the newest list.
    """

    seen: list[str] = []
    newest_seq: int = -1
    before: list[str] = []
    current: list[str] = []
    user_vector: bytes = b""
    release: str = ""
    answered: int = -1


def take_slice_vector(profile: UserProfile, record: SliceVectorRecord) -> None:
    """Bring `profile` (changed in place) up to a slice revision; repeats change nothing."""
    known = dict.fromkeys(profile.seen)
    known.update(dict.fromkeys(record.items))
    profile.seen = list(known)[-MAX_SEEN:]
    if record.seq > profile.newest_seq:
        profile.before = (profile.before + profile.current)[-NUM_RECENT:]
        profile.current = record.items
        profile.newest_seq = record.seq
    elif record.seq == profile.newest_seq:
        profile.current = record.items
    profile.user_vector = unpack_vector(record.user_vector).tobytes()
    profile.release = record.release


def recent_items(profile: UserProfile) -> list[str]:
    """The newest items, newest first, each once."""
    newest_first = reversed((profile.before + profile.current)[-NUM_RECENT:])
    return list(dict.fromkeys(newest_first))
