"""Who takes part, how each is started, and how what it keeps is read back."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Final, get_args

import msgspec

from stream_app.faustkit.store import unseal
from tests.bench.common import ROOT
from tests.bench.sequence import ours
from tests.bench.sequence.job import Task, Variant
from tests.bench.sequence.peers import common
from tests.bench.sequence.peers.kafka_streams import launch as streams
from tests.bench.sequence.verify import State, StateFormat

PEERS: Final = "tests.bench.sequence.peers"
PEERS_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
OURS: Final = "faustkit"
"""Name of our own contender, which all others are compared with."""

STOCK: Final = "stock Faust"
STOCK_EVENTS: Final = 100_000
"""Stock Faust works off some 3,000 events a second: this many show its rate in half a minute."""


def _nothing_lacks() -> str:
    return ""


def _as_told(task: Task) -> str:
    return task.state_topic


def _none(task: Task) -> str:
    return ""


@dataclass(frozen=True)
class Contender:
    """One system that does the job.

    Args:
        name: As it stands in tables.
        module: The module to run, with the task as its first argument.
        keeps: Where it keeps its state.
        version: Looks up its version.
        state_topic: Full name of the state topic of a task; empty where it has none.
        makes_state_topic: It creates the state topic itself, with settings of its own.
        state_format: How records of the state topic are read back.
        has_group: It commits offsets to a consumer group; one that does not says itself when it is done.
        python: The interpreter that runs it.
        arguments: Further arguments, after the task.
        variants: What it can do.
        max_events: It is measured on at most so many events; None: on all.
        lacks: Says what is missing to run it here; empty: nothing.
    """

    name: str
    module: str
    keeps: str
    version: Callable[[], str]
    state_topic: Callable[[Task], str] = _as_told
    makes_state_topic: bool = False
    state_format: StateFormat = field(default_factory=lambda: StateFormat(common.decode_state))
    has_group: bool = True
    python: Path = Path(sys.executable)
    arguments: tuple[str, ...] = ()
    variants: tuple[Variant, ...] = get_args(Variant)
    max_events: int | None = None
    lacks: Callable[[], str] = _nothing_lacks

    @property
    def slug(self) -> str:
        """The name as part of topics and groups, and on the command line: ``stock-faust``."""
        return self.name.lower().replace(" ", "-")

    def command(self, task: Task) -> list[str]:
        """The command line that does `task`; it runs in the project's folder."""
        return [str(self.python), "-m", self.module, msgspec.json.encode(task).decode(), *self.arguments]


def _distribution(name: str) -> Callable[[], str]:
    return lambda: f"{name} {metadata.version(name)}"


def _peers_distribution(name: str) -> Callable[[], str]:
    """The version in the peers' own environment, which has to be asked."""
    script = f"from importlib import metadata; print(metadata.version({name!r}))"

    def look() -> str:
        found = subprocess.run([PEERS_PYTHON, "-c", script], capture_output=True, text=True, check=True)
        return f"{name} {found.stdout.strip()}"

    return look


def _lacks_peers_environment() -> str:
    return "" if PEERS_PYTHON.exists() else f"{PEERS_PYTHON.relative_to(ROOT)} is not there (make .venv-peers)"


def _streams_version() -> str:
    return f"kafka-streams {streams.version()}"


def _lacks_jdk() -> str:
    return streams.why_not() or ""


def _our_state(value: bytes) -> State:
    return ours.decode_state(unseal(value).payload)


_STREAMS: Final = Contender(
    name="Kafka Streams",
    module=f"{PEERS}.kafka_streams",
    keeps="RocksDB + changelog",
    version=_streams_version,
    state_topic=streams.state_topic,
    makes_state_topic=True,
    state_format=StateFormat(streams.decode_state),
    lacks=_lacks_jdk,
)

CONTENDERS: Final = (
    Contender(
        name=OURS,
        module="tests.bench.sequence.ours",
        keeps="RocksDB + changelog",
        version=_distribution("sliceflow"),
        state_format=StateFormat(_our_state, marker_header="faustkit-owner"),
    ),
    Contender(
        name="bare aiokafka",
        module=f"{PEERS}.bare",
        keeps="memory + changelog",
        version=_distribution("aiokafka"),
    ),
    _STREAMS,
    replace(_STREAMS, name="Kafka Streams EOS", arguments=("exactly_once_v2",)),
    Contender(
        name="Quix Streams",
        module=f"{PEERS}.quix",
        keeps="RocksDB + changelog",
        version=_peers_distribution("quixstreams"),
        state_topic=common.quix_state_topic,
        makes_state_topic=True,
        state_format=StateFormat(common.decode_state, common.quix_user_of),
        python=PEERS_PYTHON,
        lacks=_lacks_peers_environment,
    ),
    Contender(
        name="Bytewax",
        module=f"{PEERS}.bytewax_flow",
        keeps="memory",
        version=_peers_distribution("bytewax"),
        state_topic=_none,
        has_group=False,
        python=PEERS_PYTHON,
        lacks=_lacks_peers_environment,
    ),
    Contender(
        name=STOCK,
        module=f"{PEERS}.stock_faust",
        keeps="RocksDB + changelog",
        version=_distribution("faust-streaming"),
        state_topic=common.faust_state_topic,
        variants=("each",),
        max_events=STOCK_EVENTS,
    ),
)
"""All contenders; ours first."""


def chosen(slugs: Sequence[str]) -> tuple[Contender, ...]:
    """The contenders of these slugs, in the order of `CONTENDERS`; all where `slugs` is empty.

    Raises:
        ValueError: A slug is unknown.
    """
    known = {contender.slug: contender for contender in CONTENDERS}
    if unknown := sorted(set(slugs) - known.keys()):
        raise ValueError(f"Unknown contenders: {', '.join(unknown)}. There are: {', '.join(known)}.")
    return tuple(one for one in CONTENDERS if not slugs or one.slug in slugs)
