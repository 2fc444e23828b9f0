"""What the server tells Prometheus: its requests, what it holds, and what it sees of the whole flow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from stream_app.monitoring.role_metrics import FRESHNESS_SECONDS, WORK_SECONDS
from stream_app.web.state.flow import Flow
from stream_app.web.state.held import Held

CONTENT_TYPE: Final = CONTENT_TYPE_PLAIN_0_0_4


class ServerMetrics:
    """Counts of one server, in a registry of its own; each name ends in its unit.

    Args:
        held: What the server knows.
        num_streams: How many streams are open.
    """

    def __init__(self, held: Held, num_streams: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_FlowCollector(held.flow))
        self._requests = Counter(
            "sliceflow_http_requests", "Requests answered.", ["route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "sliceflow_http_request_seconds",
            "From a request's arrival to its answer; of a stream, to its end.",
            ["route"],
            registry=self._registry,
            buckets=WORK_SECONDS,
        )
        self._freshness = Histogram(
            "sliceflow_list_arrival_seconds",
            "From an event's arrival at the server to that of the list that answers it.",
            registry=self._registry,
            buckets=FRESHNESS_SECONDS,
        )
        self._counters: dict[tuple[str, int], Counter] = {}
        self._timers: dict[str, Histogram] = {}
        self._watch("sliceflow_http_streams", "Streams that are open.", num_streams)
        self._watch("sliceflow_serve_users", "Users whose slices are held.", lambda: len(held.users))
        self._watch("sliceflow_serve_items", "Items in the catalogue.", lambda: len(held.catalogue))
        self._watch("sliceflow_serve_item_vectors", "Items in the index.", lambda: len(held.index))

    def note_request(self, route: str, status: int, seconds: float) -> None:
        """Count a request."""
        # Looking a child up by its labels takes longer than counting.
        if (counter := self._counters.get((route, status))) is None:
            counter = self._counters[route, status] = self._requests.labels(route, str(status))
        if (timer := self._timers.get(route)) is None:
            timer = self._timers[route] = self._seconds.labels(route)
        counter.inc()
        timer.observe(seconds)

    def note_freshness(self, seconds: float) -> None:
        """Take the time from an event's arrival to its list's."""
        self._freshness.observe(seconds)

    def text(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self._registry)

    def _watch(self, name: str, text: str, value_of: Callable[[], int]) -> None:
        Gauge(name, text, registry=self._registry).set_function(lambda: float(value_of()))


class _FlowCollector(Collector):
    """The lag of each role and the end of each topic, as the server asked for them last."""

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def collect(self) -> Iterator[Metric]:
        """One family for each."""
        answer = self._flow.answer()
        lag = GaugeMetricFamily("sliceflow_role_lag_records", "Records of its input a role is behind.", labels=["role"])
        members = GaugeMetricFamily("sliceflow_role_workers", "Workers in a role's consumer group.", labels=["role"])
        for role in answer.roles:
            lag.add_metric([role.role], role.lag_records)
            members.add_metric([role.role], role.members)
        ends = GaugeMetricFamily("sliceflow_topic_end_records", "Sum of a topic's end offsets.", labels=["topic"])
        for topic in answer.topics:
            ends.add_metric([topic.name], topic.end_offset)
        yield from (lag, members, ends)
