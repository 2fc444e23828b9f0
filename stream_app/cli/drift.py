"""`sliceflow drift`: how close the merged user vectors are to a full re-encoding, as measured while the stream runs."""

from __future__ import annotations

import asyncio
from typing import Final

import click
import msgspec

from stream_app.cli._context import echo_json, printable, reachable_settings
from stream_app.errors import SliceflowError
from stream_app.records import DriftRecord
from stream_app.settings import Settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import DRIFT, prefixed

MIN_OVERLAP: Final = 0.95
"""Share of the ten best items that must be the same, on average."""

READ_WITHIN_S: Final = 20.0
"""Deadline of the reading: a person waits."""


@click.command("drift")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, as_json: bool) -> None:
    """Show how close the user vectors are to a full re-encoding; exit code 1 where that is not known, or where they
    have less than 0.95 of the ten best items in common.

    The encode role measures it on a sample of the users (`drift_users_share`), on those whose slices it has seen from
    the first one on. Shown is the newest record of any worker, over its last 100 checks.
    """
    settings = reachable_settings(ctx)
    found = asyncio.run(newest_drift(settings))
    if found is None:
        raise SliceflowError(
            f"Nothing was measured yet: {prefixed(settings.prefix, DRIFT)} is empty.",
            mend="wait until a sampled user has had some 16 events; a larger drift_users_share samples more users",
        )
    if as_json:
        echo_json(found)
    else:
        click.echo(printable(line_of(found)))
    if found.mean_overlap_10 < MIN_OVERLAP:
        ctx.exit(1)


async def newest_drift(settings: Settings) -> DriftRecord | None:
    """The newest figures of any worker; None where there are none.

    Raises:
        TopicMismatchError: There is no topic `drift`.
        KafkaUnreachableError: The broker did not deliver in time.
        SliceflowError: The newest record holds no figures.
    """
    async with TopicReader(settings, timeout_s=READ_WITHIN_S) as reader:
        async for record in reader.read_backwards(prefixed(settings.prefix, DRIFT), 0):
            if record.value is not None:
                return _decoded(record, record.value)
    return None


def _decoded(record: StoredRecord, value: bytes) -> DriftRecord:
    try:
        return msgspec.json.decode(value, type=DriftRecord)
    except ValueError as error:
        raise SliceflowError(
            f"The newest record of {record.topic} holds no figures of the drift: {error} (offset {record.offset}).",
            mend="see who else writes to that topic; the next check of the encode role brings new figures",
        ) from error


def line_of(found: DriftRecord) -> str:
    """The figures in one line for people."""
    return (
        f"top-10 overlap {found.mean_overlap_10:.4f}, cosine {found.mean_cosine:.6f} (least {found.min_cosine:.6f}) "
        f"over {found.checks} checks of {found.users} users ({found.slices} slices encoded anew), "
        f"{found.users_left_out} users left out; release {found.release}, worker {found.instance}"
    )
