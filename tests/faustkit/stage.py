"""Topics, input, worker processes and the oracle of the tests of the counting app."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import TracebackType
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete

from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.store import PartitionStore, StoreMemory, unseal
from tests.faustkit.counting import TABLE, Task, Told
from tests.support import committed, create_topics, read_all, wait_until

NUM_PARTITIONS = 2
START_S = 120.0
"""A worker on a busy machine imports Faust, joins its group and recovers in this time."""

STOP_S = 25.0
"""A clean stop has 20 s, then the process ends all the same."""


async def remove_before(servers: str, topic: str, num_partitions: int, offset: int) -> None:
    """What retention does: remove the records of each partition before `offset`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=servers)
    await admin.start()
    try:
        partitions = [TopicPartition(topic, number) for number in range(num_partitions)]
        await admin.delete_records(dict.fromkeys(partitions, RecordsToDelete(before_offset=offset)))
    finally:
        await admin.close()


class Process:
    """A worker in a process of its own; killed at the end whatever happens."""

    def __init__(self, arguments: list[str], log: Path, *, is_module: bool = True) -> None:
        self.log = log
        command = [sys.executable, *(["-m"] if is_module else []), *arguments]
        with log.open("ab") as sink:
            self._process = subprocess.Popen(command, stdout=sink, stderr=subprocess.STDOUT)

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def text(self) -> str:
        """All it has printed."""
        return self.log.read_text(errors="replace")

    def wait_for(self, text: str) -> None:
        """Wait until it has printed `text`."""

        def printed() -> bool:
            assert self._process.poll() is None, self.text()
            return text in self.text()

        wait_until(printed, START_S, f"{text!r} from the worker")

    def kill(self) -> None:
        """kill -9."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self._process.send_signal(signal.SIGSTOP)

    def wake(self) -> None:
        """SIGCONT."""
        self._process.send_signal(signal.SIGCONT)

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_S)

    def wait(self) -> int:
        """The exit code, once it ends by itself."""
        return self._process.wait(START_S + STOP_S)


class Stage:
    """The topics of one test and all that is on them."""

    def __init__(self, servers: str, prefix: str, folder: Path, num_partitions: int = NUM_PARTITIONS) -> None:
        self.servers = servers
        self.prefix = prefix
        self.folder = folder
        self.num_partitions = num_partitions
        self._num_processes = 0
        self._num_sent = 0
        names = ("inputs", "outputs", f"{TABLE}-changelog")
        asyncio.run(create_topics(servers, {prefix + name: num_partitions for name in names}))

    def worker(self, worker: str = "w", **task: Any) -> Process:
        """Start a worker; those of the same name share a folder."""
        self._num_processes += 1
        whole = Task(servers=self.servers, prefix=self.prefix, folder=str(self.folder / worker), worker=worker, **task)
        log = self.folder / f"{self._num_processes}.log"
        return Process(["tests.faustkit.counting", msgspec.json.encode(whole).decode()], log)

    def send(self, num: int, *, keys: int = 7, value: bytes | None = None) -> None:
        """Publish events, in turn to all partitions."""

        async def scenario() -> None:
            async with AIOKafkaProducer(bootstrap_servers=self.servers, acks="all") as producer:
                sent = []
                for number in range(self._num_sent, self._num_sent + num):
                    sent.append(
                        await producer.send(
                            self.prefix + "inputs",
                            b"value %d" % number if value is None else value,
                            key=b"key %d" % (number * number % keys),
                            partition=number % self.num_partitions,
                            timestamp_ms=1000 + number,
                            headers=[("number", b"%d" % number)],
                        )
                    )
                await asyncio.gather(*sent)

        asyncio.run(scenario())
        self._num_sent += num

    def remove_before(self, offset: int) -> None:
        """Remove the input of each partition before `offset`."""
        asyncio.run(remove_before(self.servers, self.prefix + "inputs", self.num_partitions, offset))

    def grow(self, *names: str) -> None:
        """Add a partition to some of the topics."""

        async def scenario() -> None:
            admin = AIOKafkaAdminClient(bootstrap_servers=self.servers)
            await admin.start()
            try:
                more = NewPartitions(self.num_partitions + 1)
                await admin.create_partitions({self.prefix + name: more for name in names})
            finally:
                await admin.close()

        asyncio.run(scenario())

    def read(self, name: str) -> list[Any]:
        """All records of one of the topics."""
        return asyncio.run(read_all(self.servers, self.prefix + name, self.num_partitions))

    def told(self) -> list[Told]:
        """What the workers published."""
        return [msgspec.json.decode(record.value, type=Told) for record in self.read("outputs")]

    def committed(self) -> list[int]:
        """Committed offset of each partition, -1 for none."""
        group = self.prefix + "counting"
        return asyncio.run(committed(self.servers, group, self.prefix + "inputs", self.num_partitions))

    def ends(self) -> list[int]:
        """End of each input partition."""
        counts = Counter(number % self.num_partitions for number in range(self._num_sent))
        return [counts[partition] for partition in range(self.num_partitions)]

    def wait_committed(self) -> None:
        """Wait until the group has committed everything."""
        wait_until(lambda: self.committed() == self.ends(), what="everything to be committed")

    def wait_told(self, num: int) -> None:
        """Wait until at least so many events are answered (repeats not counted)."""
        wait_until(
            lambda: len({(told.partition, told.offset) for told in self.told()}) >= num,
            what=f"{num} outputs",
        )

    def check(self, *workers: str) -> None:
        """The oracle: outputs are complete and right, and changelog and stores hold the counts."""
        counts: dict[int, Counter[str]] = {number: Counter() for number in range(self.num_partitions)}
        wanted = {}
        for record in self.read("inputs"):
            key = record.key.decode()
            counts[record.partition][key] += 1
            number = {"number": record.headers[0][1].decode()}
            wanted[record.partition, record.offset] = (
                key,
                record.value.decode(),
                record.timestamp,
                number,
                counts[record.partition][key],
            )
        seen: dict[tuple[int, int], Any] = {}
        for told in self.told():
            facts = (told.key, told.value, told.timestamp_ms, told.headers, told.count)
            assert seen.setdefault((told.partition, told.offset), facts) == facts, "a repeat told otherwise"
        assert seen == wanted
        folded: dict[int, dict[str, int]] = {number: {} for number in range(self.num_partitions)}
        for record in self.read(f"{TABLE}-changelog"):
            if OWNER_HEADER in dict(record.headers):
                continue
            folded[record.partition][record.key.decode()] = int(unseal(record.value).payload)
        assert folded == counts
        for worker in workers:
            assert self.stored(worker) == counts

    def stored(self, worker: str) -> dict[int, dict[str, int]]:
        """What the stores of a worker hold; it must have ended."""
        memory = StoreMemory(4 * 1024 * 1024)
        held = {}
        for number in range(self.num_partitions):
            store = PartitionStore(self.folder / worker / TABLE / str(number), memory)
            held[number] = {key.decode(): int(stored.payload) for key, stored in store.items()}
            store.close()
        return held
