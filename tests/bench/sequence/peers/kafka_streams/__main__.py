"""The sequence job on Kafka Streams, as a process.

    python -m tests.bench.sequence.peers.kafka_streams '{"servers": ..., "group": ..., ...}' [exactly_once_v2]

Java takes the place of this process, so signals reach it. It ends with status 143 after a SIGTERM, as Java does.
"""

from __future__ import annotations

import os
import sys
from typing import get_args

import msgspec

from stream_app.errors import SliceflowError
from tests.bench.sequence.job import Task
from tests.bench.sequence.peers.kafka_streams.launch import Guarantee, command


def main(arguments: list[str]) -> None:
    """Run the job until SIGTERM; `arguments` are the task and, if it is not `at_least_once`, the guarantee."""
    task = msgspec.json.decode(arguments[0], type=Task)
    guarantee: Guarantee = msgspec.convert(arguments[1] if arguments[1:] else get_args(Guarantee)[0], Guarantee)
    try:
        line = command(task, guarantee, os.environ)
    except SliceflowError as error:
        sys.exit(str(error))
    os.execv(line[0], line)


if __name__ == "__main__":
    main(sys.argv[1:])
