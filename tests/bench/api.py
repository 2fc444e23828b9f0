"""The HTTP API: how many lists a second one server gives out on one core, and how long a request takes at a set rate.

The server is a process of its own, held to one core where the system lets us. It is asked over kept connections for
users drawn at random. How many a second it answers, and how long the slowest in a hundred take while all connections
ask again at once, is asked by wrk where that is installed, since it takes far less of a machine than a client of
ours. At a set rate each request has a time at which it is due, and its wait counts from then on: what a slow answer
holds up is not left out; and answers are checked: the right user, a whole list.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.demo import CONFIG_FILE, ITEMS_FILE, MODEL_FOLDER
from stream_app.kafka import partition_of
from stream_app.local_broker import with_broker
from stream_app.preflight import ensure_topics
from stream_app.records import RankedItem, Recommendation, encode
from stream_app.replay.producer import send_items
from stream_app.replay.readers import read_items
from stream_app.role_process import RoleProcess, Worker, settings_environment, worker_command
from stream_app.roles import SERVE
from stream_app.settings import Settings, load_settings
from stream_app.topics import RECOMMENDATIONS, prefixed
from tests.bench.api_clients import LIST_ITEMS, Answers, Connection, as_fast_as_it_goes, at_a_rate, by_wrk
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish
from tests.bench.stack import cpu_s, peak_memory_mib
from tests.support import publish

RATE_TARGET: Final = 2000.0
P99_TARGET_MS: Final = 10.0

WARM_S: Final = 2.0
"""Seconds of requests before those that count."""

READY_WITHIN_S: Final = 120.0
PAUSE_S: Final = 0.1
"""Between two looks whether the server is ready, and two batches of lists."""


def list_records(
    settings: Settings, users: Sequence[str], item_ids: Sequence[str], seed: int
) -> list[tuple[str, int, bytes, bytes]]:
    """A list for each user, of items drawn at random."""
    draw, topic = random.Random(seed), prefixed(settings.prefix, RECOMMENDATIONS)
    records = []
    for place, user_id in enumerate(users):
        items = [
            RankedItem(item_id=item_id, score=round(draw.random(), 6), sources=["index", "popular_1d", "transition"])
            for item_id in draw.sample(item_ids, LIST_ITEMS)
        ]
        made = Recommendation(
            recommendation_id=f"{seed:04}{place:08}",
            user_id=user_id,
            event_ts=1_700_000_000_000,
            partition=0,
            offset=place,
            release="bench",
            index_version="bench/0",
            epoch=0,
            has_vector=True,
            items=items,
        )
        key = user_id.encode()
        records.append((topic, partition_of(key, settings.partitions), key, encode(made)))
    return records


@asynccontextmanager
async def serving(settings: Settings, folder: Path) -> AsyncIterator[tuple[int, str, int]]:
    """A server process, ready: its id, host and port.

    Raises:
        RuntimeError: It ended before.
    """
    environ = settings_environment(settings, os.environ)
    log_file = folder / "serve.log"
    process = await RoleProcess.start(worker_command(Worker(SERVE)), environ=environ, log_file=log_file)
    try:
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(process.pid, {min(os.sched_getaffinity(0))})
        if not await asyncio.wait_for(process.wait_ready(), READY_WITHIN_S):
            raise RuntimeError(f"The server did not start; read {log_file}.")
        host, _, port = (settings.state_path / SERVE / "address").read_text().strip(" /\n").rpartition(":")
        host = host.removeprefix("http://")
        await _wait_caught_up(host, int(port))
        yield process.pid, host, int(port)
    finally:
        await process.stop(10)


async def _wait_caught_up(host: str, port: int) -> None:
    connection = Connection(host, port)
    await connection.open()
    async with asyncio.timeout(READY_WITHIN_S):
        while not await connection.get("/readyz"):
            await asyncio.sleep(PAUSE_S)
    connection.close()


async def _keep_publishing(
    settings: Settings, users: Sequence[str], item_ids: Sequence[str], per_s: int, stop: asyncio.Event
) -> None:
    """Publish new lists at a rate, until `stop` is set."""
    number = 1
    while not stop.is_set():
        due_s = time.monotonic() + PAUSE_S
        some = random.Random(number).sample(users, min(len(users), round(per_s * PAUSE_S)))
        await publish(settings.kafka.bootstrap_servers, list_records(settings, some, item_ids, number))
        number += 1
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))


@dataclass(frozen=True)
class Options:
    """What is measured."""

    num_users: int
    num_connections: int
    seconds: float
    rate: float
    lists_per_s: int


async def measure(settings: Settings, options: Options, folder: Path) -> BenchResult:
    """All phases, one after the other."""
    users = [f"user-{number}" for number in range(options.num_users)]
    item_ids = [str(item["item_id"]) for item in read_items(EXAMPLE / ITEMS_FILE)]
    await send_items(EXAMPLE / ITEMS_FILE, settings)
    await publish(settings.kafka.bootstrap_servers, list_records(settings, users, item_ids, 0))
    async with serving(settings, folder) as (pid, host, port):
        connections = [Connection(host, port) for _ in range(options.num_connections)]
        await asyncio.gather(*(one.open() for one in connections))
        await as_fast_as_it_goes(connections, users, WARM_S)
        used_s = cpu_s(pid)
        fast = await by_wrk(
            f"http://{host}:{port}", options.num_users, options.num_connections, options.seconds, folder
        )
        fast = fast or await as_fast_as_it_goes(connections, users, options.seconds)
        used_s = cpu_s(pid) - used_s
        paced = await at_a_rate(connections, users, options.seconds, options.rate)
        stop = asyncio.Event()
        publishing = asyncio.create_task(_keep_publishing(settings, users, item_ids, options.lists_per_s, stop))
        busy = await at_a_rate(connections, users, options.seconds, options.rate)
        stop.set()
        await publishing
        memory_mib = peak_memory_mib(pid)
        for connection in connections:
            connection.close()
    return result_of(options, fast, used_s, paced, busy, memory_mib)


def result_of(
    options: Options, fast: Answers, used_s: float, paced: Answers, busy: Answers, memory_mib: float | None
) -> BenchResult:
    """The figures."""
    per_s = fast.num_answers / fast.length_s
    figures = {
        "requests_per_s": Figure(per_s, RATE_TARGET, "higher"),
        "p99_ms_at_full_speed": Figure(fast.p99_ms, P99_TARGET_MS),
        "server_cpu_us_per_request": Figure(used_s / max(1, fast.num_answers) * 1e6),
        "p50_ms_at_rate": Figure(paced.percentile_ms(50)),
        "p99_ms_at_rate": Figure(paced.percentile_ms(99), P99_TARGET_MS),
        "p99_ms_at_rate_with_new_lists": Figure(busy.percentile_ms(99), P99_TARGET_MS),
        "wrong_answers": Figure(fast.num_wrong + paced.num_wrong + busy.num_wrong, 0, "same"),
    }
    if memory_mib is not None:
        figures["server_peak_memory_mib"] = Figure(memory_mib)
    return BenchResult("api", figures, {"options": vars(options), "client": "wrk" if fast.num_untimed else "own"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=5000, help="users that are asked for")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each phase")
    parser.add_argument("--rate", type=float, default=RATE_TARGET, help="requests a second where the rate is set")
    parser.add_argument("--lists-per-s", type=int, default=500, help="new lists a second in the last phase")
    given = parser.parse_args(arguments)
    options = Options(given.users, given.connections, given.seconds, given.rate, given.lists_per_s)
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-bench-")
    with temporary as name, terminate_as_interrupt(), EmbeddedBroker(None) as broker:
        overrides = {
            "state_dir": name,
            "model": str(EXAMPLE / MODEL_FOLDER),
            "serve_port": 0,
            "serve_requests_per_s": 1_000_000,
        }
        own = load_settings(EXAMPLE / CONFIG_FILE, environ={}, overrides=overrides)
        settings = with_broker(own, broker.bootstrap_servers)
        ensure_topics(settings, create=True)
        result = uvloop.run(measure(settings, options, Path(name)))
    return finish(result)


if __name__ == "__main__":
    sys.exit(main())
