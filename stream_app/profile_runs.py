"""A run of slice vectors beside the profiles that are kept of its users: what the run brings that is new to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from stream_app import tables
from stream_app.faustkit import Stored, Values
from stream_app.records import SliceVectorRecord
from stream_app.stages.profile import UserProfile

_VECTOR = msgspec.json.Decoder(SliceVectorRecord)


@dataclass(frozen=True)
class ProfileRun:
    """What is new in a run, for a stage to take.

    Args:
        profiles: Of the users of the run, as they are kept; the stage changes them in place and adds new users.
        news: The records that the profiles do not reflect yet, in order.
        ends: Offset of the newest of them by user.
    """

    profiles: dict[str, UserProfile]
    news: list[SliceVectorRecord]
    ends: dict[str, int]

    def changes(self) -> dict[bytes, Stored]:
        """The profiles to keep, as the stage left them.

        Who has no news is left alone: what is read again may end earlier than what a profile reflects already.
        """
        return {
            tables.key_of(user_id): Stored(offset, tables.encode_value(self.profiles[user_id]))
            for user_id, offset in self.ends.items()
            if user_id in self.profiles
        }


def profile_run(rows: Sequence[tuple[int, bytes]], values: Values) -> ProfileRun:
    """Read slice vectors, given as offset and value, and the profiles of their users."""
    records = [(_VECTOR.decode(value), offset) for offset, value in rows]
    kept = tables.load_values(values, list(dict.fromkeys(record.user_id for record, _ in records)), tables.PROFILE)
    news = [
        (record, offset) for record, offset in records if record.user_id not in kept or offset > kept[record.user_id][0]
    ]
    return ProfileRun(
        profiles={user_id: profile for user_id, (_, profile) in kept.items()},
        news=[record for record, _ in news],
        ends={record.user_id: offset for record, offset in news},
    )
