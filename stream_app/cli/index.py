"""`sliceflow index`: look into the items that can be recommended, and ask for neighbours and by text."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from index import ItemIndexError, LiveIndex
from stream_app.cli._context import echo_json, printable, reachable_settings
from stream_app.cli.recommend import find_titles
from stream_app.errors import SliceflowError
from stream_app.index_check import MIN_RECALL, IndexCheck, check_index
from stream_app.index_snapshots import BUILT_FOLDER, index_folder, open_snapshots
from stream_app.item_loading import LoadedItems, load_items
from stream_app.item_queries import ItemQueries, NearItem
from stream_app.kafka import connection
from stream_app.models import served_model
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import ITEM_VECTORS, ITEMS, prefixed

as_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
count_option = click.option("--count", type=click.IntRange(min=1, max=1000), default=10, show_default=True)


@click.group("index")
def command() -> None:
    """Look into the item index: what can be recommended, and what is near to what.

    Everything is read from the topics, without a group; the running roles notice nothing.
    """


@command.command("status")
@as_json_option
@click.pass_context
def status(ctx: click.Context, as_json: bool) -> None:
    """Show what is in the index; exit code 1 where vectors of the release are missing."""
    settings = reachable_settings(ctx)
    facts = _facts(_loaded(settings), settings)
    if as_json:
        echo_json(facts)
    else:
        for name, value in facts.items():
            click.echo(f"{name.replace('_', ' ')}: {printable(str(value))}")
    if not facts["complete"]:
        ctx.exit(1)


@command.command("build")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Folder of the snapshots.")
@as_json_option
@click.pass_context
def build(ctx: click.Context, out: Path | None, as_json: bool) -> None:
    """Build the index that serves many items (index_kind live) from the topics, and write it as a snapshot.

    Without --out it goes into the state folder, where roles of this machine start from it.
    """
    settings = reachable_settings(ctx)
    facts = asyncio.run(_build(settings, out or index_folder(settings) / BUILT_FOLDER))
    if as_json:
        echo_json(facts)
    else:
        click.echo(
            f"{facts['items']:,} items, {facts['kind']}, recall {facts['recall']:.3f}, "
            f"in {facts['seconds']:.1f} s to {facts['folder']}"
        )


@command.command("check")
@as_json_option
@click.pass_context
def check(ctx: click.Context, as_json: bool) -> None:
    """Compare the index with exact search: recall and time of a search; exit code 1 below a recall of .95."""
    settings = reachable_settings(ctx)
    loaded = _loaded(settings)
    if not len(loaded.view.index):
        raise _empty(settings)
    found = check_index(loaded.view.index)
    if as_json:
        echo_json(found)
    else:
        click.echo(_check_line(found))
    if found.recall < MIN_RECALL:
        ctx.exit(1)


@command.command("similar")
@click.argument("item")
@count_option
@as_json_option
@click.pass_context
def similar(ctx: click.Context, item: str, count: int, as_json: bool) -> None:
    """Show the items nearest to ITEM, by the cosine of their vectors."""
    settings = reachable_settings(ctx)
    _show(settings, item, _queries(settings).similar(item, count), as_json)


@command.command("search")
@click.argument("text")
@count_option
@as_json_option
@click.pass_context
def search(ctx: click.Context, text: str, count: int, as_json: bool) -> None:
    """Show the items that TEXT means to the model's item tower; the model must be one that reads words."""
    settings = reachable_settings(ctx)
    from stream_app.item_reading import text_tower

    text_D = text_tower(settings).vector(text)
    if not text_D.any():
        raise SliceflowError(
            f"No word of {text!r} means anything to the model.", mend="use words that titles or tags have"
        )
    _show(settings, text, _queries(settings).search(text_D, count), as_json)


def _loaded(settings: Settings) -> LoadedItems:
    return asyncio.run(load_items(settings, served_model(settings), settings.index_kind))


def _queries(settings: Settings) -> ItemQueries:
    return ItemQueries(_loaded(settings).view.index)


def _facts(loaded: LoadedItems, settings: Settings) -> dict[str, Any]:
    index = loaded.view.index
    return {
        "release": index.release,
        "index_kind": settings.index_kind,
        "items": len(index),
        "dim": index.dim,
        "complete": loaded.view.is_complete,
        "catalogue_records_behind": loaded.catalogue_behind,
        "refused": dict(loaded.view.refused),
        "version": loaded.view.version,
    }


async def _build(settings: Settings, folder: Path) -> dict[str, Any]:
    """Build and write; what came of it.

    Raises:
        SliceflowError: There is nothing to build from, or what was built finds too little.
    """
    begun_s = time.perf_counter()
    loaded = await load_items(settings, served_model(settings), "live")
    index = loaded.view.index
    assert isinstance(index, LiveIndex), "that kind was asked for"
    if not len(index):
        raise _empty(settings)
    item_vectors = prefixed(settings.prefix, ITEM_VECTORS)
    snapshots, _ = await open_snapshots(connection(settings), item_vectors, folder)
    try:
        await asyncio.to_thread(index.compact)
        await asyncio.to_thread(snapshots.save, index, loaded.view.place)
    except ItemIndexError as error:
        raise SliceflowError(error.message, mend=error.mend) from error
    except OSError as error:
        raise SliceflowError(f"The snapshot could not be written: {error}.", mend="name another --out") from error
    return {
        "items": len(index),
        "kind": index.status.kind or "exact",
        "recall": index.status.recall,
        "seconds": time.perf_counter() - begun_s,
        "folder": str(folder),
    }


def _check_line(found: IndexCheck) -> str:
    return (
        f"recall@{found.recall_at} {found.recall:.4f} over {found.queries} searches in {found.items:,} items; "
        f"p50 {found.p50_ms:.2f} ms, p99 {found.p99_ms:.2f} ms (exact: {found.exact_p50_ms:.2f}, "
        f"{found.exact_p99_ms:.2f})"
    )


def _empty(settings: Settings) -> SliceflowError:
    return SliceflowError(
        f"There is no vector of release {served_model(settings).release} on {prefixed(settings.prefix, ITEM_VECTORS)}.",
        mend="run the encode role with this model: `sliceflow worker encode`",
    )


def _show(settings: Settings, asked: str, near: Sequence[NearItem], as_json: bool) -> None:
    """Print items with their titles."""

    async def titles() -> dict[str, str]:
        async with TopicReader(settings) as reader:
            ids = [asked, *(one.item_id for one in near)]
            return await find_titles(reader, prefixed(settings.prefix, ITEMS), ids)

    title_of = asyncio.run(titles())
    if as_json:
        rows = [{"item_id": one.item_id, "title": title_of.get(one.item_id), "score": one.score} for one in near]
        echo_json({"asked": asked, "items": rows})
        return
    click.echo(printable(f"{asked} {title_of.get(asked, '')}").rstrip())
    table = Table("item", "title", "score")
    for one in near:
        title = escape(printable(title_of.get(one.item_id, "")))
        table.add_row(escape(printable(one.item_id)), title, f"{one.score:.4f}")
    Console().print(table)
