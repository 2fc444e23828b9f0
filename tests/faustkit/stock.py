"""A stock Faust app that fails on every event, to see what it does about it."""

from __future__ import annotations

import sys
from typing import Any

import faust


def main(servers: str, prefix: str, folder: str) -> None:
    """Run the app until it is killed."""
    app = faust.App(
        prefix + "counting",
        broker=f"aiokafka://{servers}",
        broker_commit_interval=0.2,
        consumer_auto_offset_reset="earliest",
        datadir=folder,
        topic_allow_declare=False,
        topic_disable_leader=True,
        web_enabled=False,
        autodiscover=False,
    )

    @app.agent(app.topic(prefix + "inputs", value_serializer="raw"))
    async def failing(stream: Any) -> None:
        async for _ in stream:
            raise ValueError("this event is poison")

    faust.Worker(app, loglevel="info").execute_from_commandline()


if __name__ == "__main__":
    main(*sys.argv[1:])
