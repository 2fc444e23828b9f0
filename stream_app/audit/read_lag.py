"""Waiting for the roles to work off their input, for at most so long."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from stream_app.audit.findings import Check
from stream_app.audit.lag import CatchUp, Place
from stream_app.audit.reading import RunsReader
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name
from stream_app.replay.report import Progress
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.topics import prefixed

POLL_S: Final = 0.25
"""Pause between two looks at the committed offsets: roles commit as often."""

MAX_MARKS: Final = 1000
"""A partition that is behind by no more than this is read, to see whether anything but marks of transactions is left:
those have offsets but are never delivered, so nobody commits them."""


async def check_lag(settings: Settings, reader: RunsReader, bound_s: float, show: Progress) -> Check:
    """Wait until every role has reached where its input ends now, for at most `bound_s` seconds.

    Raises:
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: A topic does not exist.
    """
    check = Check("lag", "every role works off its input, and no partition stands still")
    bounds: dict[Place, tuple[int, int]] = {}
    for role, name in ROLE_INPUTS.items():
        topic = prefixed(settings.prefix, name)
        for partition, ends in (await reader.bounds(topic)).items():
            bounds[Place(role, topic, partition)] = ends
    started_s = time.monotonic()
    async with admin_client(settings) as admin:
        watch = CatchUp(bounds, await _committed(admin, settings))
        await _pass_marks(reader, watch)
        while (num_behind := watch.num_behind) and time.monotonic() - started_s < bound_s:
            show(f"waiting for the roles: {num_behind:,} records behind")
            await asyncio.sleep(POLL_S)
            watch.take(await _committed(admin, settings))
    waited_s = time.monotonic() - started_s
    await _pass_marks(reader, watch)
    watch.judge(check, waited_s)
    return check


async def _committed(admin: Any, settings: Settings) -> dict[Place, int]:
    found: dict[Place, int] = {}
    for role, name in ROLE_INPUTS.items():
        topic = prefixed(settings.prefix, name)
        offsets = await committed_offsets(admin, group_name(settings, role))
        found |= {Place(role, topic, number): at for (seen, number), at in offsets.items() if seen == topic}
    return found


async def _pass_marks(reader: RunsReader, watch: CatchUp) -> None:
    for place, (reached, end) in watch.behind().items():
        if end - reached <= MAX_MARKS:
            runs = reader.runs(place.topic, place.partition, reached, end)
            if not [run async for run in runs]:
                watch.reached(place)
