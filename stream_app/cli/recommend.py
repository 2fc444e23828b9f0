"""`sliceflow recommend`: the current list of a user, read from the `recommendations` topic."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_app.cli._context import echo_json, printable, reachable_settings
from stream_app.errors import SliceflowError, TopicMismatchError
from stream_app.kafka import partition_of
from stream_app.records import Item, Recommendation
from stream_app.settings import Settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import ITEMS, RECOMMENDATIONS, prefixed

MAX_TITLE_OFFSETS: Final = 200_000
"""How far back each partition of `items` is searched for titles: about a second's reading. Lists of larger
catalogues show ids for what was not found."""

READ_WITHIN_S: Final = 20.0
"""Deadline of one reading: a person waits."""


@dataclass(frozen=True)
class FoundList:
    """A published list, where it lies, and the titles that were found for its items."""

    recommendation: Recommendation
    record: StoredRecord
    titles: dict[str, str]


@click.command("recommend")
@click.argument("user")
@click.option("--count", type=click.IntRange(min=1), help="Show only the first items.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, user: str, count: int | None, as_json: bool) -> None:
    """Show the current list of USER; exit code 1 where there is none."""
    settings = reachable_settings(ctx)
    found = asyncio.run(find_list(settings, user, count))
    if found is None:
        raise SliceflowError(
            f"There is no list for the user {user!r} in {prefixed(settings.prefix, RECOMMENDATIONS)}.",
            mend="send an event with `sliceflow send`, and see with `sliceflow doctor` that the roles follow",
        )
    if as_json:
        echo_json(_plain(found))
    else:
        _print(found)


async def find_list(settings: Settings, user: str, count: int | None = None) -> FoundList | None:
    """The newest list of `user`, cut to `count` items, with titles; None where there is none.

    Raises:
        TopicMismatchError: The topic of the lists does not exist.
        KafkaUnreachableError: The broker did not deliver in time.
        SliceflowError: The newest record of the user is no list.
    """
    topic = prefixed(settings.prefix, RECOMMENDATIONS)
    key = user.encode("utf-8")
    async with TopicReader(settings, timeout_s=READ_WITHIN_S) as reader:
        partition = partition_of(key, await reader.num_partitions(topic))
        record = await _newest(reader, topic, partition, key)
        if record is None or record.value is None:
            return None
        shown = _decoded(record)
        shown = msgspec.structs.replace(shown, items=shown.items[:count])
        titles = await find_titles(reader, prefixed(settings.prefix, ITEMS), [line.item_id for line in shown.items])
    return FoundList(shown, record, titles)


def _decoded(record: StoredRecord) -> Recommendation:
    try:
        return msgspec.json.decode(record.value or b"", type=Recommendation)
    except ValueError as error:
        raise SliceflowError(
            f"The newest record of this user is no list: {error} "
            f"({record.topic}, partition {record.partition}, offset {record.offset}).",
            mend="see who else writes to that topic; an event of the user brings a new list",
        ) from error


async def _newest(reader: TopicReader, topic: str, partition: int, key: bytes) -> StoredRecord | None:
    async for record in reader.read_backwards(topic, partition):
        if record.key == key:
            return record
    return None


async def find_titles(reader: TopicReader, topic: str, item_ids: Iterable[str]) -> dict[str, str]:
    """The titles of these items, as far as the newest `MAX_TITLE_OFFSETS` records of each partition tell."""
    titles: dict[str, str] = {}
    try:
        num_partitions = await reader.num_partitions(topic)
    except TopicMismatchError:
        return titles  # a list without titles is still a list
    wanted: dict[int, set[bytes]] = {}
    for item_id in item_ids:
        key = item_id.encode("utf-8")
        wanted.setdefault(partition_of(key, num_partitions), set()).add(key)
    for partition, keys in wanted.items():
        await _titles_in(reader, topic, partition, keys, titles)
    return titles


async def _titles_in(reader: TopicReader, topic: str, partition: int, keys: set[bytes], titles: dict[str, str]) -> None:
    missing = set(keys)
    async for record in reader.read_backwards(topic, partition, max_offsets=MAX_TITLE_OFFSETS):
        if record.key not in missing:
            continue
        missing.discard(record.key)
        if title := _title(record.value):
            titles[record.key.decode("utf-8")] = title
        if not missing:
            return


def _title(value: bytes | None) -> str | None:
    try:
        return msgspec.json.decode(value, type=Item).title if value else None
    except ValueError:
        return None  # a damaged record of the catalogue must not hide a list


def _plain(found: FoundList) -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(found.recommendation)
    for line in plain["items"]:
        line["title"] = found.titles.get(line["item_id"])
    return plain


def _print(found: FoundList) -> None:
    shown = found.recommendation
    table = Table("rank", "item", "title", "score", "sources", box=None)
    for rank, line in enumerate(shown.items, start=1):
        title = escape(printable(found.titles.get(line.item_id, "")))
        table.add_row(str(rank), escape(printable(line.item_id)), title, f"{line.score:.4f}", ", ".join(line.sources))
    console = Console()
    console.print(table)
    console.print(printable(provenance(shown)), markup=False, highlight=False)


def provenance(shown: Recommendation) -> str:
    """One line that says what the list was made from."""
    at = datetime.fromtimestamp(shown.event_ts / 1000, UTC).isoformat(timespec="milliseconds")
    return (
        f"list {shown.recommendation_id} for the event at {at} "
        f"(partition {shown.partition}, offset {shown.offset}); "
        f"release {shown.release or '-'}, index {shown.index_version or '-'}, epoch {shown.epoch}, "
        f"{'with' if shown.has_vector else 'without'} a user vector"
    )
