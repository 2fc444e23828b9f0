"""A stock Faust app that counts events by key in a table, to see what becomes of the counts.

    python -m tests.faustkit.stock '{"servers": ..., "prefix": ..., "folder": ...}'

It prints ``counted`` with the key and the count of each event.
"""

from __future__ import annotations

import sys
from typing import Any

import faust
import msgspec
from faust.tables.recovery import Recovery

TABLE = "counts"


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """Where the app reads and keeps, and how often it commits."""

    servers: str
    prefix: str
    folder: str
    commit_interval_s: float = 0.2


def changelog_of(prefix: str) -> str:
    """Full name of the changelog; Faust puts the app's name before the table's."""
    return f"{prefix}counting-{TABLE}-changelog"


def main(task: Task) -> None:
    """Run the app until it is killed."""
    app = faust.App(
        task.prefix + "counting",
        broker=f"aiokafka://{task.servers}",
        broker_commit_interval=task.commit_interval_s,
        # Kafka waits so long for a killed process before another gets its partitions.
        broker_session_timeout=6.0,
        broker_heartbeat_interval=1.0,
        consumer_auto_offset_reset="earliest",
        datadir=task.folder,
        store="rocksdb://",
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )
    # It tells of a recovery that does not get on once a minute; a test need not wait for that.
    Recovery.stats_interval, Recovery.flush_timeout_secs = 0.5, 1.0
    counts = app.Table(TABLE, default=int, key_type=bytes, value_type=int)

    @app.agent(app.topic(task.prefix + "inputs", key_type=bytes, value_serializer="raw"))
    async def count(stream: Any) -> None:
        async for event in stream.events():
            counts[event.key] += 1
            print(f"counted {event.key.decode()} {counts[event.key]}", flush=True)

    faust.Worker(app, loglevel="info").execute_from_commandline()


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Task))
