"""The topics of one test, its workers as real processes, and what stands on the topics."""

from __future__ import annotations

import asyncio
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import CommitFailedError

from stream_app.kafka import admin_client, partition_of
from stream_app.lag import committed_offsets, group_name
from stream_app.preflight import ensure_topics
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings, load_settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import EVENTS, prefixed
from stream_app.wiring import store_folder
from tests.bench.common import EXAMPLE
from tests.faults.launcher import NO_TROUBLE, Task, Trouble, command
from tests.support import wait_until

READY_S: Final = 120.0
"""A worker on a busy machine imports its libraries, joins its group and recovers in this time."""

STOP_S: Final = 30.0
"""A clean stop has 20 s, then the process ends all the same."""

CAUGHT_UP_S: Final = 240.0
"""A role that has to wait for the session of a dead worker to end, and then to catch up, is done in this time."""

MAX_REQUEST_BYTES: Final = 512 * 1024 * 1024
"""Larger than any record that a test sends, before it is compressed: it is Kafka that refuses."""


class Sent(NamedTuple):
    """One record for `events`."""

    key: bytes | None
    value: bytes | None
    timestamp_ms: int = 0


class RoleWorker:
    """A worker in a process of its own, which ends with this one; killed at the end of its block whatever happens."""

    def __init__(self, task: Task, log: Path) -> None:
        self.role = task.role
        self.log = log
        with log.open("ab") as sink:
            self._process = subprocess.Popen(command(task), stdin=subprocess.PIPE, stdout=sink, stderr=sink)

    def __enter__(self) -> RoleWorker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        assert self._process.stdin is not None
        self._process.stdin.close()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def text(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str, deadline_s: float = READY_S) -> None:
        """Wait until it has printed `text`."""

        def printed() -> bool:
            seen = text in self.text()
            assert seen or self.is_running, self.text()
            return seen

        wait_until(printed, deadline_s, f"{text!r} from the {self.role} worker")

    def wait_ready(self) -> RoleWorker:
        """Wait until it reads its input; itself."""
        self.wait_for('{"ready":')
        return self

    def signal(self, number: int) -> None:
        """Send a signal."""
        self._process.send_signal(number)

    def kill(self) -> None:
        """kill -9."""
        self.signal(signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM; it must end cleanly."""
        self.signal(signal.SIGTERM)
        assert self._process.wait(STOP_S) == 0, self.text()

    def wait(self, deadline_s: float = READY_S) -> int:
        """The exit code, once it ends by itself."""
        return self._process.wait(deadline_s)


def example_settings(servers: str, prefix: str, folder: Path, **values: Any) -> Settings:
    """The settings of the example, with its model, for topics and state of one's own."""
    overrides = {
        "kafka": {"bootstrap_servers": servers},
        "prefix": prefix,
        "state_dir": str(folder / "state"),
        "model": str(EXAMPLE / "model"),
        "partitions": 2,
        **values,
    }
    return load_settings(EXAMPLE / "sliceflow.toml", environ={}, overrides=overrides)


@dataclass(frozen=True)
class Rig:
    """The topics of one test, made at once; `folder` takes state and logs."""

    settings: Settings
    folder: Path

    def __post_init__(self) -> None:
        ensure_topics(self.settings, create=True)

    def name(self, topic: str) -> str:
        """The full name of a topic."""
        return prefixed(self.settings.prefix, topic)

    def worker(self, role: str = "sequence", instance: int = 0, trouble: Trouble = NO_TROUBLE) -> RoleWorker:
        """Start a worker; those of the same role and instance share a state folder."""
        number = len(list(self.folder.glob("*.log")))
        task = Task(settings=self.settings, role=role, instance=instance, trouble=trouble)
        return RoleWorker(task, self.folder / f"{number}-{role}-{instance}.log")

    def store(self, table: str, partition: int, role: str = "sequence", instance: int = 0) -> Path:
        """Where the store of a partition lives."""
        return store_folder(self.settings, role, instance) / table / str(partition)

    def send(
        self,
        records: Sequence[Sent],
        topic: str = EVENTS,
        *,
        partition: int | None = None,
        compression: str | None = None,
    ) -> None:
        """Publish records in order, each to the partition of its key unless one is named, and wait for all."""
        asyncio.run(self._send(records, self.name(topic), partition, compression))

    async def _send(self, records: Sequence[Sent], topic: str, partition: int | None, compression: str | None) -> None:
        producer = AIOKafkaProducer(
            bootstrap_servers=self.settings.kafka.bootstrap_servers,
            enable_idempotence=True,
            max_request_size=MAX_REQUEST_BYTES,
            compression_type=compression,
        )
        async with producer:
            sent = []
            for key, value, timestamp_ms in records:
                place = partition_of(key or b"", self.settings.partitions) if partition is None else partition
                sent.append(await producer.send(topic, value, key=key, partition=place, timestamp_ms=timestamp_ms))
            for acknowledgement in sent:
                await acknowledgement

    def read(self, topic: str) -> list[StoredRecord]:
        """All records that are on a topic now, each partition in order."""

        async def scenario() -> list[StoredRecord]:
            async with TopicReader(self.settings) as reader:
                return [record async for record in reader.read_all(self.name(topic))]

        return asyncio.run(scenario())

    def bounds(self, topic: str) -> dict[int, tuple[int, int]]:
        """First and end offset of each partition of a topic."""

        async def scenario() -> dict[int, tuple[int, int]]:
            async with TopicReader(self.settings) as reader:
                return await reader.bounds(self.name(topic))

        return asyncio.run(scenario())

    def committed(self, role: str = "sequence") -> dict[int, int]:
        """What a role has committed of its input, by partition; without those of which it has committed nothing."""

        async def scenario() -> dict[int, int]:
            async with admin_client(self.settings) as admin:
                offsets = await committed_offsets(admin, group_name(self.settings, role))
            return {number: at for (topic, number), at in offsets.items() if topic == self.name(ROLE_INPUTS[role])}

        return asyncio.run(scenario())

    def try_commit(self, offsets: dict[int, int], role: str = "sequence") -> bool:
        """Commit these offsets in the name of a role; False while its group has members."""

        async def scenario() -> None:
            async with AIOKafkaConsumer(
                bootstrap_servers=self.settings.kafka.bootstrap_servers,
                group_id=group_name(self.settings, role),
                enable_auto_commit=False,
            ) as consumer:
                partitions = {
                    TopicPartition(self.name(ROLE_INPUTS[role]), number): at for number, at in offsets.items()
                }
                consumer.assign(list(partitions))
                await consumer.commit(partitions)

        try:
            asyncio.run(scenario())
        except CommitFailedError:
            return False
        return True

    def behind(self, role: str = "sequence") -> int:
        """How many offsets of its input a role has not committed."""
        committed = self.committed(role)
        bounds = self.bounds(ROLE_INPUTS[role])
        return sum(end - max(start, committed.get(number, 0)) for number, (start, end) in bounds.items())

    def wait_caught_up(self, *workers: RoleWorker) -> None:
        """Wait until the roles of these running workers have committed all their input, one after the other."""

        def is_done(worker: RoleWorker) -> bool:
            assert worker.is_running, worker.text()
            return self.behind(worker.role) == 0

        for worker in workers:
            worker.wait_ready()
            wait_until(partial(is_done, worker), CAUGHT_UP_S, f"{worker.role} to catch up")

    def delete_records(self, topic: str, partition: int, offset: int) -> None:
        """Remove what lies before `offset`, as retention does."""

        async def scenario(admin: Any) -> None:
            await admin.delete_records({TopicPartition(self.name(topic), partition): RecordsToDelete(offset)})

        self.administer(scenario)

    def configure(self, topic: str, name: str, value: str) -> None:
        """Set one property of a topic."""

        async def scenario(admin: Any) -> None:
            await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, self.name(topic), {name: value})])

        self.administer(scenario)

    def administer(self, work: Any) -> Any:
        """Do something with an admin client: `work` is given it, and awaited; what it gives."""

        async def scenario() -> Any:
            async with admin_client(self.settings) as admin:
                return await work(admin)

        return asyncio.run(scenario())


def last_line(worker: RoleWorker) -> str:
    """The reason with which a worker has ended."""
    lines = [line for line in worker.text().splitlines() if line.startswith(("sliceflow: ", "Error: "))]
    return lines[-1] if lines else ""
