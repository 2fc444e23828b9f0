"""What a load costs each role: processor time an event, memory, bytes kept of users and items, recovery.

A log goes through all roles at full speed; then the stores are removed and recovered from their changelogs.
`sliceflow plan` computes with these figures (`stream_app/planning/measured.json`).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import msgspec
import torch
from prometheus_client.parser import text_string_to_metric_families

from stream_app.broker import EmbeddedBroker
from stream_app.cli._signals import terminate_as_interrupt
from stream_app.cli.replay import ReplayOptions, run_replay
from stream_app.event_log import read_events
from stream_app.local_broker import with_broker
from stream_app.monitoring.endpoint import metrics_port
from stream_app.preflight import ensure_topics
from stream_app.replay.readers import open_log
from stream_app.replay.report import LinePrinter
from stream_app.roles import ROLES
from stream_app.settings import Settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import topic_specs
from stream_app.wiring import store_folder
from tests.bench.common import ROOT, BenchResult, Figure, finish
from tests.bench.datasets import DATASETS, require, skipped_without_data
from tests.bench.replay import train_quickly
from tests.bench.stack import RunningRoles, cpu_s, peak_memory_mib, running_roles

FIRST_PORT: Final = 29_400
"""Of the roles' metrics; the ports behind it must be free."""

ASK_S: Final = 20.0

PLAN_FILE: Final = ROOT / "stream_app" / "planning" / "measured.json"
GROWING: Final[Mapping[str, str]] = MappingProxyType(
    {
        "events": "events",
        "slices": "topic_records_slices",
        "slice-vectors": "topic_records_slice-vectors",
        "item-activity": "topic_records_item-activity",
        "recommendations": "topic_records_recommendations",
    }
)
"""The topics that get about one record for each event, and what their bytes are divided by: the ticks of the replay
count as part of the events. `choices` depends on `score_users_share`."""

USER_ROLES: Final = frozenset({"sequence", "encode", "choose", "recommend"})
"""The roles that keep something of each user."""


def folder_bytes(folder: Path) -> int:
    """Bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def topic_bytes(data_dir: Path) -> dict[str, int]:
    """Bytes of the log segments of each topic, all partitions together; indexes, which Kafka makes large, left out."""
    found: dict[str, int] = {}
    for path in data_dir.rglob("*.log"):
        topic = path.parent.name.rpartition("-")[0]
        if path.stem.isdigit() and topic:
            found[topic] = found.get(topic, 0) + path.stat().st_size
    return found


async def num_records_of(settings: Settings) -> dict[str, int]:
    """Offsets of each topic from its first to its end, all partitions together."""
    async with TopicReader(settings) as reader:
        bounds = {spec.name: await reader.bounds(spec.name) for spec in topic_specs("", settings.partitions)}
    return {topic: sum(end - start for start, end in places.values()) for topic, places in bounds.items()}


def recovery_of(role: str) -> tuple[float, float]:
    """Changelog records that a running role recovered, and the seconds from its assignment until it read input."""
    address = f"http://127.0.0.1:{metrics_port(FIRST_PORT, role, 0)}/metrics"
    with urllib.request.urlopen(address, timeout=ASK_S) as answer:
        families = text_string_to_metric_families(answer.read().decode())
    values = {sample.name: sample.value for family in families for sample in family.samples}
    return values["sliceflow_recovered_records_total"], values["sliceflow_recovery_seconds"]


class Costs:
    """Processor seconds of each process, from one moment on."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = {name: cpu_s(pid) for name, pid in self._pids.items()}

    def per_event_ms(self, num_events: int) -> dict[str, float]:
        """Milliseconds an event since then."""
        return {name: (cpu_s(pid) - self._before[name]) * 1000 / num_events for name, pid in self._pids.items()}


async def measure(settings: Settings, path: Path, limit: int | None, broker_pid: int) -> dict[str, Figure]:
    """Figures of a replay at full speed, and of the recovery of everything it left."""
    figures: dict[str, Figure] = {}
    async with running_roles(settings) as roles:
        facts = await replayed(settings, path, limit, roles, broker_pid, figures)
    for topic, num_records in (await num_records_of(settings)).items():
        figures[f"topic_records_{topic}"] = Figure(num_records)
    remove_stores(settings)
    async with running_roles(settings):
        for role in ROLES:
            num_recovered, seconds = recovery_of(role)
            figures[f"recovered_records_{role}"] = Figure(num_recovered)
            figures[f"recovery_s_{role}"] = Figure(seconds)
    # After the recovery: what is there now is each value once, without the overwritten ones.
    for role in ROLES:
        figures[f"store_bytes_{role}"] = Figure(folder_bytes(store_folder(settings, role, 0)))
    figures["users"] = Figure(facts["users"])
    figures["events"] = Figure(facts["events_in"])
    return figures


async def replayed(
    settings: Settings,
    path: Path,
    limit: int | None,
    roles: RunningRoles,
    broker_pid: int,
    figures: dict[str, Figure],
) -> dict[str, Any]:
    """Replay the log; its totals, with the costs put into `figures`."""
    assert roles.supervisor is not None
    pids = {"kafka": broker_pid, **roles.pids}
    costs = Costs(pids)
    options = ReplayOptions(type_map={}, limit=limit)
    show = LinePrinter(lambda text: print(text, flush=True))
    work = run_replay(settings, open_log(path), options, show, asyncio.Event())
    facts: dict[str, Any] = await roles.supervisor.watch(work)
    for name, cost_ms in costs.per_event_ms(facts["events_in"]).items():
        figures[f"cpu_ms_per_event_{name}"] = Figure(cost_ms)
        if (mib := peak_memory_mib(pids[name])) is not None:
            figures[f"peak_mib_{name}"] = Figure(mib)
    figures["balanced"] = Figure(facts["balanced"], True, "same")
    figures["replay_s"] = Figure(facts["seconds"])
    return facts


def remove_stores(settings: Settings) -> None:
    """Remove the files of all stores, so that they must be recovered."""
    for role in ROLES:
        for path in sorted(store_folder(settings, role, 0).rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@contextmanager
def broker_with_folder(settings: Settings) -> Iterator[tuple[Settings, EmbeddedBroker]]:
    """A broker with empty topics for the block: the settings that reach it, and the broker."""
    with EmbeddedBroker(None) as broker:
        reached = with_broker(settings, broker.bootstrap_servers)
        ensure_topics(reached, create=True)
        yield reached, broker


def figures_for_plan(data: str) -> dict[str, Any]:
    """What `sliceflow plan` computes with, out of the result files: values with their places.

    Raises:
        OSError: A result is missing.
    """
    own = f"bench/results/sizing-{data}.json"

    def figure(name: str, per: str = "", file: str = own) -> dict[str, Any]:
        targets = json.loads((ROOT / file).read_text("utf-8"))["targets"]
        value = targets[name]["value"] / (targets[per]["value"] if per else 1)
        return {"value": float(f"{value:.6g}"), "file": file, "figure": name, "per": per}

    return {
        "machine": _machine_in_words(data, json.loads((ROOT / own).read_text("utf-8"))),
        "roles": {role: _role_figures(role, figure) for role in ROLES},
        "kafka": {
            "cpu_ms_per_event": figure("cpu_ms_per_event_kafka"),
            "record_bytes": {topic: figure(f"topic_bytes_{topic}", per) for topic, per in GROWING.items()},
        },
        "recovery_records_per_s": figure("records_per_s", file="bench/results/recovery.json"),
        "latency_p50_ms": figure("p50_ms", file="bench/results/latency.json"),
        "latency_p99_ms": figure("p99_ms", file="bench/results/latency.json"),
        "latency_events_per_s": json.loads((ROOT / "bench/results/latency.json").read_text("utf-8"))["rate"],
    }


def _role_figures(role: str, figure: Callable[..., dict[str, Any]]) -> dict[str, Any]:
    made = {"cpu_ms_per_event": figure(f"cpu_ms_per_event_{role}"), "peak_mib": figure(f"peak_mib_{role}")}
    if role in USER_ROLES:
        made["store_bytes_per_user"] = figure(f"store_bytes_{role}", "users")
    elif role == "trend":
        made["store_bytes_per_item"] = figure(f"store_bytes_{role}", "items")
    return made


def _machine_in_words(data: str, result: Mapping[str, Any]) -> str:
    machine, targets = result["machine"], result["targets"]
    return (
        f"{machine['cores']} cores ({machine['cpu']}), {machine['memory_gib']:g} GiB, load {machine['load']:g}: "
        f"{targets['events']['value']:,} events of {targets['users']['value']:,} users of the log {data} as a replay, "
        f"a model of 64 dimensions, one broker beside the roles, score_users_share {result['score_users_share']:g}"
    )


def keep(data: str) -> None:
    """Write the figures of the newest results into the package."""
    PLAN_FILE.write_text(json.dumps(figures_for_plan(data), indent=1) + "\n", "utf-8")


def run(data: str, limit: int | None, share: float, time_budget_s: float) -> int:
    """Measure with one log; the exit code.

    Raises:
        DataMissing: It is not there.
    """
    path = require(DATASETS[data])
    with tempfile.TemporaryDirectory(prefix="sliceflow-bench-") as folder:
        plain = DATASETS[data].settings(Path(folder))
        settings = msgspec.structs.replace(plain, metrics_port=FIRST_PORT, score_users_share=share)
        train_quickly(path, settings, limit, time_budget_s)
        with broker_with_folder(settings) as (reached, broker):
            figures = asyncio.run(measure(reached, path, limit, broker.pid))
            sizes = topic_bytes(broker.data_dir)
        events = read_events(path, settings, limit=limit).events
    figures["items"] = Figure(len({event.item_id for event in events}))
    for topic, num_bytes in sorted(sizes.items()):
        if not topic.startswith("__"):
            figures[f"topic_bytes_{topic}"] = Figure(num_bytes)
    return finish(BenchResult(f"sizing-{data}", figures, {"limit": limit, "score_users_share": share}))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", choices=sorted(DATASETS), default="deskdrop")
    parser.add_argument("--limit", type=int, help="take the first so many events only")
    parser.add_argument("--share", type=float, default=0.1, help="share of the users that the scorer learns from")
    parser.add_argument("--time-budget", type=float, default=20.0, help="seconds for training the model")
    parser.add_argument("--keep", action="store_true", help="then let `sliceflow plan` compute with the results")
    options: Any = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with terminate_as_interrupt(), skipped_without_data("bench-sizing"):
        exit_code = run(options.data, options.limit, options.share, options.time_budget)
        if options.keep and exit_code == 0:
            keep(options.data)
        return exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
