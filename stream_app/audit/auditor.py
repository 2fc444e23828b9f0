"""The audit of one namespace: its checks, in the order in which they must be made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from stream_app.audit.findings import Check
from stream_app.audit.read_changelogs import check_changelogs
from stream_app.audit.read_events import EventReader
from stream_app.audit.read_lag import check_lag
from stream_app.audit.reading import RunsReader
from stream_app.audit.repeats import Output, Repeats, list_output, slice_output, slice_vector_output
from stream_app.replay.report import Progress
from stream_app.settings import Settings
from stream_app.topics import RECOMMENDATIONS, SLICE_VECTORS, SLICES, prefixed


@dataclass(frozen=True)
class AuditOptions:
    """What is checked: within how many seconds the lag must be worked off, and whether stores are compared."""

    bound_s: float
    stores: bool


async def audit(settings: Settings, options: AuditOptions, show: Progress) -> list[Check]:
    """Check what is on the topics and in the stores of this machine.

    Args:
        settings: The settings that the roles run with.
        options: What is checked.
        show: Takes the progress.

    Returns:
        The outcome of each check.

    Raises:
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: A topic does not exist, or lost records while it was read.
    """
    async with (
        RunsReader(settings, "read_committed", show) as committed,
        RunsReader(settings, "read_uncommitted", show) as reader,
    ):
        lag = await check_lag(settings, committed, options.bound_s, show)
        changelogs = await check_changelogs(settings, reader, with_stores=options.stores)
        events = await EventReader(settings, committed, changelogs.held).check()
        lists = Check("lists", "the same recommendation id, the same bytes")
        await _check_repeats(settings, reader, RECOMMENDATIONS, lists, list_output)
        revisions = Check("revisions", "the same revision of a slice, the same content")
        await _check_repeats(settings, reader, SLICES, revisions, slice_output)
        await _check_repeats(settings, reader, SLICE_VECTORS, revisions, slice_vector_output)
    kept = [changelogs.stores, changelogs.positions]
    return [lag, events.input, events.letters, events.histories, *kept, lists, revisions]


async def _check_repeats(
    settings: Settings, reader: RunsReader, name: str, check: Check, read: Callable[[bytes], Output]
) -> None:
    topic = prefixed(settings.prefix, name)
    repeats = Repeats(check, read)
    for partition, (begin, end) in (await reader.bounds(topic)).items():
        async for run in reader.runs(topic, partition, begin, end):
            repeats.take(run)
    check.facts[name] = {"records": repeats.num_records, "identities": repeats.num_identities}
    told = f"{name}: {repeats.num_records:,} records, {repeats.num_identities:,} different"
    check.summary = f"{check.summary}; {told}" if check.summary else told
