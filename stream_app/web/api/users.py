"""Users: who was active, and what is known of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from stream_app.topics import SLICES, prefixed
from stream_app.web.answers import Placed, SeenUser, UserAnswer, UsersAnswer
from stream_app.web.calls import Call
from stream_app.web.histories import facts_of, timeline, user_answer
from stream_app.web.problems import Problem
from stream_app.web.service import Service
from stream_app.web.state.users import MAX_SLICES, HeldUser, SeenSlice, slices_of


class UsersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How users are asked for."""

    count: Annotated[int, Meta(ge=1, le=1000, description="users at most")] = 50


async def newest(call: Call) -> UsersAnswer:
    """Those that were active last, newest first."""
    query = call.query(UsersQuery)
    users = [
        SeenUser(user_id=user_id, last_seen_ts=user.last_ts)
        for user_id, user in call.service.held.users.newest(query.count)
        if user.last_ts >= 0
    ]
    return UsersAnswer(users=users)


async def one(call: Call) -> UserAnswer:
    """A user's timeline, slices and profile."""
    service, user_id = call.service, call.id_in_path("user_id")
    user = service.held.users.get(user_id) or HeldUser()
    slices = await _all_slices(service, user_id, user)
    if not slices:
        raise Problem(
            404,
            f"Nothing is known of the user {user_id!r}: not in memory, nor among the newest records of the topics.",
            mend="`sliceflow inspect` reads the topics whole",
        )
    facts = facts_of(service.held, slices, user.slice_vectors())
    catalogue = service.held.catalogue
    return user_answer(user_id, timeline(slices, catalogue), facts, catalogue)


async def erase(call: Call) -> Placed:
    """Have a user erased: each role forgets all that lies before this, as the record comes by."""
    sender = call.service.sender
    placed = await sender.send([sender.erasure(call.id_in_path("user_id"))])
    return placed[0]


async def _all_slices(service: Service, user_id: str, user: HeldUser) -> Sequence[SeenSlice]:
    """The slices of a user: those held, and older ones of the history that the sequence role keeps."""
    held = user.seen_slices()
    is_all = service.tail.is_whole(prefixed(service.settings.prefix, SLICES)) and not service.held.users.has_forgotten
    if (is_all and len(held) < MAX_SLICES) or (held and held[0].seq == 0):
        return held
    history = await service.lookups.history(user_id)
    found = {part.seq: part for part in (slices_of(history) if history is not None else ())}
    for part in held:
        known = found.get(part.seq)
        if known is None or part.revision >= known.revision:
            found[part.seq] = part
    return [found[seq] for seq in sorted(found)]
