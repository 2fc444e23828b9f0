"""What Kafka is told: its properties, its logging, and the ports it listens on.

One node is broker and controller at once (KRaft), on the loopback interface only. What differs from Kafka's
defaults, and why, stands beside each value.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from stream_app.broker.errors import BrokerConfigError, PortTakenError

LOOPBACK: Final = "127.0.0.1"
NODE_ID: Final = 1
MAX_RECORD_BYTES: Final = 16 * 1024 * 1024
"""Largest record batch: holds 16,000 slice vectors of 1 KiB, far above what one batch carries."""

LONG_MAX: Final = 2**63 - 1

SERVER_PORTS: Final = range(15_000, 32_000)
"""Ports below those that systems give to outgoing connections (from 32,768 on Linux, 49,152 on others).

A client that keeps trying to reach a broker that is down would otherwise be given that broker's own port one day:
it then speaks to itself, and the broker cannot come back.
"""

NUM_PORT_TRIES: Final = 100

FIXED: Final[Mapping[str, str]] = {
    # Topics are made by the application with the shape they need; a misspelt name must not make one.
    "auto.create.topics.enable": "false",
    "num.partitions": "4",
    # One node: nothing to replicate to, and few partitions so that the first group starts quickly.
    "default.replication.factor": "1",
    "min.insync.replicas": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "8",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "transaction.state.log.num.partitions": "4",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "4",
    # A group assigns its partitions at once; Kafka waits 3 s for further members.
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # Replayed logs keep the event times of years ago: no age check, no retention by time may drop them.
    "log.message.timestamp.type": "CreateTime",
    "log.message.timestamp.before.max.ms": str(LONG_MAX),
    "log.message.timestamp.after.max.ms": str(LONG_MAX),
    "log.retention.ms": "-1",
    "log.retention.bytes": "-1",
    # Segments roll by size alone, for the same reason (an old event time would roll one at each record).
    "log.roll.ms": str(LONG_MAX),
    "log.segment.bytes": str(256 * 1024 * 1024),
    # Index files are preallocated per partition: 1 MiB, not 10, for hundreds of small partitions.
    "log.index.size.max.bytes": str(1024 * 1024),
    "message.max.bytes": str(MAX_RECORD_BYTES),
    "replica.fetch.max.bytes": str(MAX_RECORD_BYTES),
    # One machine, few clients: as few threads as keep requests from waiting for each other.
    "num.network.threads": "2",
    "num.io.threads": "4",
    "background.threads": "2",
    "num.recovery.threads.per.data.dir": "2",
    "log.cleaner.threads": "1",
    # A node that was killed is registered until its session ends, and its successor waits for that: 3 s, not
    # 9. Shorter would let a stall of the machine fence the only broker.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "300",
    # Signs the node off at a clean stop, so that the next start needn't wait for its session.
    "controlled.shutdown.enable": "true",
}

MANAGED: Final = frozenset(
    {
        "process.roles",
        "node.id",
        "controller.quorum.voters",
        "controller.listener.names",
        "listeners",
        "advertised.listeners",
        "listener.security.protocol.map",
        "inter.broker.listener.name",
        "log.dirs",
        "log.dir",
        "metadata.log.dir",
    }
)
"""Properties that follow from the data folder and the ports; they cannot be set from outside."""

_LOGGING: Final = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = ${sys:sliceflow.log}
appender.file.filePattern = ${sys:sliceflow.log}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 8MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 2
rootLogger.level = INFO
rootLogger.appenderRefs = file
rootLogger.appenderRef.file.ref = file
"""


def logging_properties() -> str:
    """Return the log4j2 configuration: one file, named by the property `sliceflow.log`, 3 x 8 MB at most."""
    return _LOGGING


def server_properties(*, log_dir: Path, client_port: int, controller_port: int, extra: Mapping[str, str]) -> str:
    """Return the text of Kafka's properties file.

    Args:
        log_dir: Folder of Kafka's data.
        client_port: Port for clients.
        controller_port: Port of the controller, for the node itself.
        extra: Further properties, which win over the defaults here.

    Raises:
        BrokerConfigError: `extra` names a property that is managed here, or the folder's name has a comma.
    """
    if managed := sorted(MANAGED & set(extra)):
        raise BrokerConfigError(
            f"The broker settings {', '.join(managed)} follow from the data folder and the port.",
            mend="leave them out; choose the folder and the port instead.",
        )
    if "," in str(log_dir):
        raise BrokerConfigError(
            f"The data folder {log_dir} has a comma in its name, which Kafka takes for the end of it.",
            mend="choose another data folder.",
        )
    listeners = f"CLIENT://{LOOPBACK}:{client_port}"
    own = {
        "process.roles": "broker,controller",
        "node.id": str(NODE_ID),
        "controller.quorum.voters": f"{NODE_ID}@{LOOPBACK}:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{controller_port}",
        "advertised.listeners": listeners,
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "CLIENT",
        "log.dirs": str(log_dir),
    }
    return format_properties({**FIXED, **extra, **own})


def format_properties(values: Mapping[str, str]) -> str:
    """Write a Java properties file (ISO-8859-1 with Unicode escapes), one line per entry, sorted.

    >>> format_properties({"b": "x y", "a": "c:\\\\d"})
    'a=c:\\\\\\\\d\\nb=x y\\n'
    """
    return "".join(f"{_escape(key)}={_escape(value)}\n" for key, value in sorted(values.items()))


def _escape(text: str) -> str:
    named = {"\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return "".join(named.get(char) or (char if " " <= char <= "~" else _utf16_escape(char)) for char in text)


def _utf16_escape(char: str) -> str:
    raw = char.encode("utf-16-be")
    return "".join(f"\\u{raw[i] << 8 | raw[i + 1]:04x}" for i in range(0, len(raw), 2))


def choose_ports(*, fixed: int | None, preferred: tuple[int, int] | None = None) -> tuple[int, int]:
    """Choose the ports for clients and for the controller.

    Between the choice and Kafka's own bind another process may take a port; whoever starts Kafka tries again
    then.

    Args:
        fixed: The client port that was asked for, or None for any free one.
        preferred: The ports of the last run, taken again if they are free.

    Returns:
        `(client port, controller port)`, both free a moment ago and not equal.

    Raises:
        PortTakenError: The fixed port is in use.
        BrokerConfigError: The fixed port is not one, or none is free.
    """
    if fixed is not None:
        _check_fixed(fixed)
    last_client, last_controller = preferred or (0, 0)
    client = _this_or_free(fixed or last_client)
    return client, _this_or_free(last_controller, besides=client)


def _check_fixed(port: int) -> None:
    if not 1 <= port <= 65535:
        raise BrokerConfigError(f"Port {port} is not one.", mend="choose a port from 1 to 65535, or none.")
    if not is_port_free(port):
        raise PortTakenError(
            f"Port {port} of {LOOPBACK} is in use by another process.",
            mend="choose another port, or none to have a free one chosen.",
        )


def is_port_free(port: int) -> bool:
    """Say whether a server could listen on a loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As Java's server sockets do: a port whose last connections are still winding down is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def _this_or_free(wanted: int, besides: int = 0) -> int:
    """Return the wanted port, or if it is 0 or taken any free one that no outgoing connection is given.

    Args:
        wanted: The port, or 0 for none.
        besides: A port that is not returned.

    Raises:
        BrokerConfigError: None was found.
    """
    chosen = random.SystemRandom()
    for port in (wanted, *(chosen.choice(SERVER_PORTS) for _ in range(NUM_PORT_TRIES))):
        if port not in (0, besides) and is_port_free(port):
            return port
    raise BrokerConfigError(
        f"No free port of {LOOPBACK} was found among {NUM_PORT_TRIES} from {SERVER_PORTS.start} on.",
        mend="see which process holds so many ports, or name a free one.",
    )
