"""`sliceflow tail`: the lists as they are published."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import click
import msgspec

from stream_app.cli._context import printable, reachable_settings
from stream_app.kafka import partition_of
from stream_app.records import Recommendation
from stream_app.settings import Settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import RECOMMENDATIONS, prefixed

SHOWN_ITEMS = 8
"""Items shown of each list: about one line of a terminal."""


@click.command("tail")
@click.option("--user", help="Only this user's lists.")
@click.option("--from-start", is_flag=True, help="Begin with the oldest list that is there, not with the next one.")
@click.option("--limit", type=click.IntRange(min=1), help="End after so many lists.")
@click.option("--json", "as_json", is_flag=True, help="Print the records as they are, one a line.")
@click.pass_context
def command(ctx: click.Context, user: str | None, from_start: bool, limit: int | None, as_json: bool) -> None:
    """Follow the lists as they are published, until Ctrl-C."""
    settings = reachable_settings(ctx)
    with suppress(KeyboardInterrupt):
        asyncio.run(_follow(settings, user, from_start, limit, as_json))


async def _follow(settings: Settings, user: str | None, from_start: bool, limit: int | None, as_json: bool) -> None:
    topic = prefixed(settings.prefix, RECOMMENDATIONS)
    key = None if user is None else user.encode("utf-8")
    num_shown = 0
    async with TopicReader(settings) as reader:
        partitions = None if key is None else [partition_of(key, await reader.num_partitions(topic))]
        async for record in reader.follow(topic, partitions, from_start=from_start):
            if record.value is None or (key is not None and record.key != key):
                continue
            click.echo(record.value.decode("utf-8") if as_json else line_of(record))
            num_shown += 1
            if num_shown == limit:
                return


def line_of(record: StoredRecord) -> str:
    """One line for a published list; a record that is none is named with its place."""
    try:
        shown = msgspec.json.decode(record.value or b"", type=Recommendation)
    except ValueError as error:
        return f"(no list at partition {record.partition}, offset {record.offset}: {printable(str(error))})"
    at = datetime.fromtimestamp(shown.event_ts / 1000, UTC).isoformat(timespec="milliseconds")
    rest = len(shown.items) - SHOWN_ITEMS
    items = " ".join(line.item_id for line in shown.items[:SHOWN_ITEMS]) + (f" +{rest}" if rest > 0 else "")
    return printable(f"{at}  {shown.user_id}  {items or '(empty)'}")
