"""`sliceflow demo`: everything on this machine, and one click that changes a list."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from stream_app.cli._context import address_file, echo_json, plain_settings, printable
from stream_app.cli._signals import stop_event, terminate_as_interrupt, unless_stopped
from stream_app.errors import SliceflowError
from stream_app.roles import SERVE

if TYPE_CHECKING:
    from rich.console import Console

    from stream_app.demo import ExampleData, LogFacts, ShownItem
    from stream_app.settings import Settings
    from stream_app.supervisor import RoleEvent

EXIT_VARIABLE: Final = "DEMO_EXIT"
"""Where this is 1, the demo ends after its click instead of running on."""

READY_WITHIN_S: Final = 120.0
"""Longest wait for the roles; ten seconds are usual, most of them for loading libraries."""

SHOWN_ITEMS: Final = 10
CLICKED_RANK: Final = 3
SHOWN_HISTORY: Final = 5
FOLDER = click.Path(path_type=Path, file_okay=False)


@dataclass(frozen=True)
class Outcome:
    """What the click did; `latency_ms` from just before it was sent until the new list arrived."""

    before: list[ShownItem]
    event: dict[str, Any]
    after: list[ShownItem]
    latency_ms: float

    def plain(self) -> dict[str, Any]:
        """As plain values."""
        before, after = ([item.plain() for item in items] for items in (self.before, self.after))
        ids = [[item.item_id for item in items] for items in (self.before, self.after)]
        return {
            "before": before,
            "event": self.event,
            "after": after,
            "changed": ids[0] != ids[1],
            "latency_ms": round(self.latency_ms, 1),
        }


@click.command("demo")
@click.option("--example", type=FOLDER, help="Folder of the data. [default: examples/movietweetings]")
@click.option("--model", type=FOLDER, help="Folder of the model. [default: `model` beside the data]")
@click.pass_context
def command(ctx: click.Context, example: Path | None, model: Path | None) -> None:
    """Start a broker and all roles, replay a sample of film ratings, and show what one click changes.

    Nothing of it is kept. It runs on until Ctrl-C, so that you can send events of your own; with DEMO_EXIT=1
    it ends, and its last line is JSON.
    """
    from rich.console import Console

    from stream_app.demo import demo_settings, example_places, find_example

    found = find_example([example] if example else example_places())
    settings = demo_settings(plain_settings(ctx).state_path, found.config, model or found.model)
    console = Console(highlight=False)
    with terminate_as_interrupt():
        outcome = _run_demo(settings, found, console)
    if os.environ.get(EXIT_VARIABLE) == "1":
        echo_json(outcome.plain())


def _run_demo(settings: Settings, example: ExampleData, console: Console) -> Outcome:
    """Start what does not need a loop, run the story, and put everything away.

    Raises:
        SliceflowError: Something failed.
    """
    from stream_app.local_broker import local_broker, with_broker
    from stream_app.models import served_model
    from stream_app.preflight import ensure_topics
    from stream_app.supervisor import lock_folder

    say = _teller(console)
    served_model(settings)
    _forget_stores(settings, lock_folder)
    with local_broker(None, address_file(settings), say) as broker:
        say(f"broker: a real Kafka on {broker.bootstrap_servers}")
        reached = with_broker(settings, broker.bootstrap_servers)
        say(f"topics: {len(ensure_topics(reached, create=True))}")
        return asyncio.run(_with_roles(reached, example, console, say))


def _forget_stores(settings: Settings, lock_folder: Callable[[Path], Any]) -> None:
    """Remove what an earlier demo kept: its broker's data is gone, so its stores mean nothing."""
    lock = lock_folder(settings.state_path)
    try:
        shutil.rmtree(settings.state_path / "stores", ignore_errors=True)
    finally:
        lock.release()


def _teller(console: Console) -> Callable[[str], None]:
    started_s = time.monotonic()

    def say(text: str) -> None:
        console.print(f"{time.monotonic() - started_s:6.1f} s  {text}", markup=False, soft_wrap=True)

    return say


async def _with_roles(
    settings: Settings, example: ExampleData, console: Console, say: Callable[[str], None]
) -> Outcome:
    from stream_app.cli.serve import page_address
    from stream_app.role_process import Worker
    from stream_app.supervisor import Supervisor, workers_of

    def on_event(event: RoleEvent) -> None:
        if event.event in ("died", "restarting") and event.worker is not None:
            say(f"{event.worker.label} {event.event}: {event.reason}")

    workers = [*workers_of({}), Worker(SERVE)]
    with stop_event() as stop:
        async with Supervisor(settings, workers, on_event=on_event) as supervisor:
            await unless_stopped(stop, supervisor.wait_ready(READY_WITHIN_S))
            say(f"roles: {', '.join(worker.label for worker in workers)} are ready")
            say(f"page: {page_address(settings)}")
            story = _story(settings, example, console, say)
            outcome = await unless_stopped(stop, supervisor.watch(story))
            if os.environ.get(EXIT_VARIABLE) != "1":
                _print_next(console, settings, page_address(settings), outcome)
                await supervisor.watch(_wait(stop))
        say("stopped")
    return outcome


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


async def _story(settings: Settings, example: ExampleData, console: Console, say: Callable[[str], None]) -> Outcome:
    from stream_app.demo import read_facts, read_titles
    from stream_app.replay import caught_up
    from stream_app.replay.producer import replay_log, send_items
    from stream_app.replay.readers import open_log

    facts, titles = read_facts(example.events), read_titles(example.items)
    say(f"catalogue: {await send_items(example.items, settings)} films sent")
    sent = await replay_log(open_log(example.events), settings)
    say(f"events: {sent.num_events:,} ratings of {len(sent.users):,} users sent, with their own times")
    await caught_up.wait_caught_up(settings)
    say("every role has caught up")
    return await _click(settings, facts, titles, console)


async def _click(settings: Settings, facts: LogFacts, titles: dict[str, str], console: Console) -> Outcome:
    """Show a list, click on it, show the list that answers."""
    import msgspec

    from stream_app.cli.recommend import find_list
    from stream_app.demo import AFTER_MS, ListWatch, marked, shown_list
    from stream_app.records import Event

    user = facts.chosen_user()
    found = await find_list(settings, user)
    if found is None or not found.recommendation.items:
        raise SliceflowError(f"The user {user} has no list after the replay.", mend="read the logs of the roles")
    before = shown_list(found.recommendation.items, titles)
    _print_history(console, user, facts.histories[user], titles)
    _print_list(console, "the list before", before)
    clicked = before[min(CLICKED_RANK, len(before)) - 1]
    event = Event(user_id=user, item_id=clicked.item_id, type="click", ts=facts.newest_ms + AFTER_MS)
    async with ListWatch(settings, user) as watch:
        console.print()
        console.print(
            printable(f"user {user} clicks on {clicked.title} ({clicked.item_id})"),
            markup=False,
            soft_wrap=True,
        )
        made, latency_ms = await watch.answer_to(event)
    after = marked(before, shown_list(made.items, titles))
    _print_list(console, f"the list {latency_ms:.0f} ms later", after)
    return Outcome(before, msgspec.to_builtins(event), after, latency_ms)


def _print_history(console: Console, user: str, history: Sequence[str], titles: dict[str, str]) -> None:
    lately = "; ".join(titles.get(item_id) or item_id for item_id in reversed(history[-SHOWN_HISTORY:]))
    console.print()
    console.print(
        printable(f"user {user} has rated {len(history)} films, lately {lately}"),
        markup=False,
        soft_wrap=True,
    )


def _print_list(console: Console, title: str, items: Sequence[ShownItem]) -> None:
    from rich.markup import escape
    from rich.table import Table

    moved = ["moved"] if any(item.moved for item in items) else []
    table = Table("rank", "film", "score", "sources", *moved, title=title, title_justify="left", box=None)
    for rank, item in enumerate(items[:SHOWN_ITEMS], start=1):
        name = escape(printable(item.title or item.item_id))
        row = [str(rank), name, f"{item.score:.2f}", brief_sources(item.sources)]
        table.add_row(*row, *([item.moved] if moved else []))
    console.print()
    console.print(table)


def brief_sources(sources: Sequence[str]) -> str:
    """The sources of an item on one short line: ``index, popular 15m 1h, transition``.

    >>> brief_sources(["index", "popular_15m", "popular_1h", "transition"])
    'index, popular 15m 1h, transition'
    """
    memories: dict[str, list[str]] = {}
    for source in sources:
        kind, _, memory = source.partition("_")
        memories.setdefault(kind, []).append(memory)
    return ", ".join(" ".join([kind, *found]).strip() for kind, found in memories.items())


def _print_next(console: Console, settings: Settings, page: str, outcome: Outcome) -> None:
    user, item_id = outcome.event["user_id"], outcome.after[0].item_id
    program = _program()
    lines = (
        "",
        f"It runs on until Ctrl-C. The page is at {page}; in another terminal:",
        "",
        f"  export SLICEFLOW_HOME={shlex.quote(str(settings.state_path))}",
        f"  {program} tail",
        f"  {program} send --user {shlex.quote(user)} --item {shlex.quote(item_id)}",
        f"  {program} recommend {shlex.quote(user)}",
        "",
    )
    for line in lines:
        console.print(line, markup=False, soft_wrap=True)


def _program() -> str:
    """How to call this program from a shell: by name where it is on PATH, else as it is installed."""
    beside = Path(sys.executable).parent / "sliceflow"
    if shutil.which("sliceflow") is None and beside.is_file():
        return shlex.quote(str(beside))
    return "sliceflow"
