"""The metrics of one role process: what is counted while it works, and what is looked up when somebody asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from stream_app.monitoring.input_collector import InputCollector, InputsOf
from stream_app.topics import changelog_name

MS_PER_S: Final = 1000
CHANGELOG_ENDING: Final = changelog_name("", "")

RUN_RECORDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4000)
"""Records of a run, or slices of a batch: from one event alone to `faustkit.run.MAX_RUN_RECORDS`."""

WORK_SECONDS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""What one call or one run takes: half a millisecond for a slice on a GPU, seconds for a full run on a slow disk."""

FRESHNESS_SECONDS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Event to list: some ten milliseconds when all is well, minutes while a role is behind."""


class RoleMetrics:
    """Counts for one process, in a registry of its own; each name ends in its unit. It is faustkit's `Meter` too.

    Args:
        role: The role, a label of every metric.
        prefix: Of all topic names; left out in the label `topic`.
    """

    def __init__(self, role: str, prefix: str = "") -> None:
        self.registry = CollectorRegistry()
        self.role = role
        self._prefix = prefix
        ProcessCollector(registry=self.registry)
        self._runs = self._histogram("run_records", "Records of a run.", RUN_RECORDS)
        self._run_seconds = self._histogram("run_seconds", "From a run's start to its outputs' acknowledgement.")
        self._published = self._counter("published_records", "Records acknowledged, by topic.", "topic")
        self._published_on: dict[str, Counter] = {}  # finding a label's counter costs more than counting
        self._recovered = self._counter("recovered_records", "Changelog records taken at assignments.")
        self._assignments = self._counter("assignments", "How often partitions were dealt out to this process.")
        self._opened = self._gauge("recovery_seconds", "From the newest assignment until input was read.")

    def note_run(self, num_records: int, seconds: float) -> None:
        """As `faustkit.Meter`."""
        self._runs.observe(num_records)
        self._run_seconds.observe(seconds)

    def note_published(self, topic: str, num_records: int) -> None:
        """As `faustkit.Meter`. Changelogs count as one topic: each role has one."""
        counter = self._published_on.get(topic)
        if counter is None:
            name = "changelog" if topic.endswith(CHANGELOG_ENDING) else topic.removeprefix(self._prefix)
            counter = self._published_on[topic] = self._published.labels(self.role, name)
        counter.inc(num_records)

    def note_recovered(self, num_records: int) -> None:
        """As `faustkit.Meter`."""
        self._recovered.inc(num_records)

    def note_opened(self, seconds: float) -> None:
        """As `faustkit.Meter`."""
        self._assignments.inc()
        self._opened.set(seconds)

    def watch_inputs(self, inputs_of: InputsOf, is_ready: Callable[[], bool]) -> None:
        """Look up lag, commit age and readiness at each question; both are called from another thread."""
        self.registry.register(InputCollector(self.role, self._prefix, inputs_of))
        self._gauge("ready", "1 while stores are recovered and input is read.").set_function(lambda: float(is_ready()))

    def watch(self, name: str, text: str, value_of: Callable[[], float]) -> None:
        """Look up one more number at each question; `value_of` is called from another thread."""
        self._gauge(name, text).set_function(value_of)

    def setter(self, name: str, text: str) -> Callable[[float], None]:
        """A function that takes the newest value of a number; there is no sample before the first."""
        gauge = Gauge(f"sliceflow_{name}", text, ["role"], registry=self.registry)
        return lambda value: gauge.labels(self.role).set(value)

    def work_meter(self, name: str, unit: str, text: str) -> Callable[[int, float], None]:
        """A function that takes how much one call did, and its seconds: two histograms.

        Args:
            name: What the call does: ``encode``, ``index_search``.
            unit: What it does it to: ``slices``, ``users``.
            text: What it is, in words.
        """
        sizes = self._histogram(f"{name}_{unit}", f"{text}: {unit} of a call.", RUN_RECORDS)
        seconds_taken = self._histogram(f"{name}_seconds", f"{text}: seconds of a call.")

        def note(size: int, seconds: float) -> None:
            sizes.observe(size)
            seconds_taken.observe(seconds)

        return note

    def freshness_meter(self) -> Callable[[int], None]:
        """A function that takes the time (ms since 1970) of an event whose list was acknowledged just now."""
        freshness = self._histogram(
            "freshness_seconds", "From the append of the oldest event of a run to that of its list.", FRESHNESS_SECONDS
        )
        return lambda event_ms: freshness.observe(max(0.0, time.time() - event_ms / MS_PER_S))

    def tally(self, name: str, text: str, label: str) -> Callable[[Mapping[str, int]], None]:
        """A function that takes how often something happened since the last call, by name."""
        counter = self._counter(name, text, label)

        def take(counts: Mapping[str, int]) -> None:
            for value, num in counts.items():
                counter.labels(self.role, value).inc(num)

        return take

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = WORK_SECONDS) -> Histogram:
        made = Histogram(f"sliceflow_{name}", text, ["role"], registry=self.registry, buckets=buckets)
        return made.labels(self.role)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"sliceflow_{name}", text, ["role"], registry=self.registry).labels(self.role)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        made = Counter(f"sliceflow_{name}", text, ["role", *labels], registry=self.registry)
        return made if labels else made.labels(self.role)
