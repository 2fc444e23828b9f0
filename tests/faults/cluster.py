"""A Kafka cluster of three nodes on this machine, each broker and controller at once, that may be lost one by one."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import IO, Final

from stream_app.broker.config import FIXED, LOOPBACK, choose_ports, format_properties, logging_properties
from stream_app.broker.install import cache_folder, install
from stream_app.broker.jars import load_lock
from stream_app.broker.java import find_java
from stream_app.broker.launch import (
    MAIN_CLASS,
    DataFolder,
    Installation,
    aot_flags,
    file_size,
    java_command,
    new_kafka_uuid,
    wait_ready,
)
from stream_app.broker.maven import fetch_jar
from stream_app.broker.process import KafkaProcess

NUM_NODES: Final = 3
HEAP_MB: Final = 256
READY_S: Final = 90.0
"""Three nodes that start at once on two cores find each other in five seconds."""

REPLICATED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "default.replication.factor": "3",
        "min.insync.replicas": "2",
        "offsets.topic.replication.factor": "3",
        "transaction.state.log.replication.factor": "3",
        "transaction.state.log.min.isr": "2",
    }
)
"""Everything lies on all three nodes, and what two of them have is acknowledged: one may be lost."""


class _Node:
    """One node: its folder, its ports, and its process while it runs."""

    def __init__(self, number: int, folder: DataFolder, ports: tuple[int, int]) -> None:
        self.number = number
        self.folder = folder
        self.client_port, self.controller_port = ports
        self.process: KafkaProcess | None = None
        self.log_start = 0

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"{LOOPBACK}:{self.client_port}"


class Cluster:
    """Three nodes on a temporary folder, for as long as a block runs.

    ::

        with Cluster() as cluster:
            cluster.kill(2)
    """

    def __init__(self) -> None:
        self._path = Path(tempfile.mkdtemp(prefix="sliceflow-cluster-"))
        self._nodes = {
            number: _Node(number, DataFolder(self._path / str(number)), ports)
            for number, ports in enumerate(_distinct_ports(), start=1)
        }
        self._ready: Installation | None = None
        self._keep: IO[str] | None = None

    @property
    def bootstrap_servers(self) -> str:
        """Where clients connect: all three addresses, whoever runs."""
        return ",".join(node.address for node in self._nodes.values())

    @property
    def numbers(self) -> list[int]:
        """The numbers of all nodes."""
        return list(self._nodes)

    def __enter__(self) -> Cluster:
        """Start all nodes."""
        self._ready = install(
            load_lock(), find_java(os.environ), cache_folder(os.environ), fetch=fetch_jar, on_progress=_say_nothing
        )
        cluster_id = new_kafka_uuid()
        voters = ",".join(f"{node.number}@{LOOPBACK}:{node.controller_port}" for node in self._nodes.values())
        for node in self._nodes.values():
            _format(node, cluster_id, voters, self._ready.bootstrap)
        self._keep = (self._path / "keep").open("w")
        try:
            self.start(*self._nodes)
        except BaseException:
            self._put_away()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all nodes and remove their data."""
        self._put_away()

    def start(self, *numbers: int) -> None:
        """Start these nodes at once, and wait until each answers."""
        started = [self._launch(self._nodes[number]) for number in numbers]
        deadline_s = time.monotonic() + READY_S
        for node, process in zip((self._nodes[number] for number in numbers), started, strict=True):
            wait_ready(process, node.folder, port=node.client_port, log_start=node.log_start, deadline_s=deadline_s)

    def kill(self, *numbers: int) -> None:
        """kill -9 these nodes."""
        for number in numbers:
            node = self._nodes[number]
            if node.process is not None:
                node.process.kill()
                node.process = None

    def _launch(self, node: _Node) -> KafkaProcess:
        assert self._ready is not None and self._keep is not None, "used before it was entered"
        node.log_start = file_size(node.folder.log_file)
        command = java_command(
            self._ready.java,
            self._ready.jars,
            node.folder,
            heap_mb=HEAP_MB,
            flags=aot_flags(self._ready),
            main=[MAIN_CLASS, str(node.folder.properties_file)],
        )
        node.process = KafkaProcess.launch(
            command, folder=node.folder.path, output=node.folder.output_file, inherit=self._keep.fileno()
        )
        return node.process

    def _put_away(self) -> None:
        self.kill(*self._nodes)
        if self._keep is not None:
            self._keep.close()
        shutil.rmtree(self._path, ignore_errors=True)


def _say_nothing(text: str) -> None:
    """Drop a line of progress."""


def _distinct_ports() -> list[tuple[int, int]]:
    """Client and controller port of each node."""
    found: list[tuple[int, int]] = []
    taken: set[int] = set()
    while len(found) < NUM_NODES:
        ports = choose_ports(fixed=None)
        if not taken.intersection(ports):
            found.append(ports)
            taken.update(ports)
    return found


def _format(node: _Node, cluster_id: str, voters: str, bootstrap: Path) -> None:
    """Make the empty data folder of a node, and write its configuration."""
    folder = node.folder
    folder.kafka.mkdir(parents=True)
    folder.log_file.parent.mkdir()
    shutil.copyfile(bootstrap, folder.kafka / bootstrap.name)
    ids = {"version": "1", "cluster.id": cluster_id, "directory.id": new_kafka_uuid(), "node.id": str(node.number)}
    (folder.kafka / "meta.properties").write_text(format_properties(ids), "ascii")
    listener = f"CLIENT://{node.address}"
    own = {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{listener},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "advertised.listeners": listener,
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": str(folder.kafka),
    }
    folder.properties_file.write_text(format_properties({**FIXED, **REPLICATED, **own}), "ascii")
    folder.logging_file.write_text(logging_properties(), "ascii")
