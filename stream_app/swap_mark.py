"""The mark of a swap: while it stands, a role's changelog is being replaced, and no worker of the role may start.

The mark is the metadata of the group's committed offsets. So it is set in one step with the offsets that the new state
fits to, for all partitions or for none; and Kafka takes it only while the group has no member. A worker looks for it
after it has joined the group, before it touches anything: so a worker that Kafka had not heard of when the mark was set
sees it, and one that it had heard of keeps it from being set.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    IllegalGenerationError,
    NotCoordinatorForGroupError,
    RebalanceInProgressError,
    UnknownMemberIdError,
    for_code,
)
from aiokafka.protocol.commit import OffsetCommitRequest

from stream_app.errors import SliceflowError
from stream_app.kafka import admin_client
from stream_app.lag import COORDINATOR_WITHIN_S, group_name
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.topics import prefixed

MARK: Final = "sliceflow: the state is being swapped"
"""Metadata of the offsets while a swap goes on. What workers commit carries none."""

POLL_S: Final = 0.2
"""Pause between two tries while the group's coordinator is not there, or workers are."""

BEYOND_SESSION_S: Final = 5.0
"""How much longer than a session workers are waited for: time for Kafka to notice, and for whoever stops them."""

_NOT_YET: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)
_HAS_MEMBERS: Final = (UnknownMemberIdError, IllegalGenerationError, RebalanceInProgressError)


class SwapPendingError(SliceflowError):
    """The changelog of a role holds neither its old nor its new state, since a swap was broken off."""


class GroupInUseError(SliceflowError):
    """Workers of the role run."""


async def refuse_pending(settings: Settings, role: str) -> None:
    """Return when no swap of the role's state is pending.

    Raises:
        SwapPendingError: One is.
        KafkaUnreachableError: The broker does not answer.
    """
    async with admin_client(settings) as admin:
        if is_marked(await committed(admin, settings, role)):
            raise SwapPendingError(
                f"A rebuild of the role {role} was broken off while its new state replaced the old one, or is still "
                "at it.",
                mend=f"run `sliceflow rebuild {role}` to its end, then start the workers",
            )


async def wait_unused(admin: Any, settings: Settings, role: str, show: Callable[[str], None]) -> None:
    """Return when the role's group has no members; a stopped worker stays one until its session ends.

    Raises:
        GroupInUseError: It still has some, well after the session of a stopped one would have ended.
    """
    group = group_name(settings, role)
    give_up_s = time.monotonic() + settings.session_timeout_s + BEYOND_SESSION_S
    while num_members := await _num_members(admin, group):
        if time.monotonic() > give_up_s:
            raise _in_use(role, group)
        show(f"waiting until {num_members} workers of the role {role} have stopped")
        await asyncio.sleep(POLL_S)


def is_marked(found: Mapping[int, tuple[int, str]]) -> bool:
    """Whether a swap is pending, by what `committed` gives."""
    return any(metadata == MARK for _, metadata in found.values())


async def committed(admin: Any, settings: Settings, role: str) -> dict[int, tuple[int, str]]:
    """Offset and metadata that the role's group has committed for each partition of its input."""
    topic = prefixed(settings.prefix, ROLE_INPUTS[role])
    give_up_s = time.monotonic() + COORDINATOR_WITHIN_S
    while True:
        try:
            answer = await admin.list_consumer_group_offsets(group_name(settings, role))
        except _NOT_YET:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(POLL_S)
            continue
        found = {tp.partition: (one.offset, one.metadata) for tp, one in answer.items() if tp.topic == topic}
        return {number: one for number, one in found.items() if one[0] >= 0}


async def commit(admin: Any, settings: Settings, role: str, offsets: Mapping[int, int], metadata: str) -> None:
    """Commit offsets in the name of the role's group, which must have no member; all of them or none.

    Raises:
        GroupInUseError: It has members.
        KafkaError: Kafka did not take them.
    """
    topic, group = prefixed(settings.prefix, ROLE_INPUTS[role]), group_name(settings, role)
    wanted = [(topic, [(number, offset, metadata) for number, offset in sorted(offsets.items())])]
    request = OffsetCommitRequest(
        group, OffsetCommitRequest.DEFAULT_GENERATION_ID, "", OffsetCommitRequest.DEFAULT_RETENTION_TIME, wanted
    )
    give_up_s = time.monotonic() + COORDINATOR_WITHIN_S
    while True:
        try:
            node = await admin.find_coordinator(group)
            answer = await admin._send_request(request, node)
            _raise_first_error(answer)
        except _NOT_YET:
            if time.monotonic() > give_up_s:
                raise
            await asyncio.sleep(POLL_S)
        except _HAS_MEMBERS as error:
            raise _in_use(role, group) from error
        else:
            return


async def _num_members(admin: Any, group: str) -> int:
    try:
        (answer,) = await admin.describe_consumer_groups([group])
    except _NOT_YET:
        return 0  # a group that nobody coordinates has no members; committing tells for certain
    return sum(len(members) for _, _, _, _, _, members, *_ in answer.groups)


def _in_use(role: str, group: str) -> GroupInUseError:
    return GroupInUseError(
        f"Workers of the role {role} run: its group {group} has members.", mend="stop them, on every machine"
    )


def _raise_first_error(answer: Any) -> None:
    for _, partitions in answer.topics:
        for _, error_code in partitions:
            if error_code:
                raise for_code(error_code)()
