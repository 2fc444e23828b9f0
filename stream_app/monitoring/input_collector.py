"""Lag and commit age, looked up when Prometheus asks: partitions come and go with each assignment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from stream_app.faustkit.standing import InputStanding

InputsOf = Callable[[], Sequence[InputStanding]]
"""Gives the assigned input partitions at the last look; called from any thread."""

LABELS = ("role", "topic", "partition")


class InputCollector(Collector):
    """Gives one sample for each partition that is assigned now.

    Args:
        role: The role.
        prefix: Of all topic names; left out in the label.
        inputs_of: Gives the partitions.
    """

    def __init__(self, role: str, prefix: str, inputs_of: InputsOf) -> None:
        self._role = role
        self._prefix = prefix
        self._inputs_of = inputs_of

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """The names alone."""
        return iter(self._families())

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The samples of this moment."""
        lag, age = self._families()
        for one in self._inputs_of():
            labels = (self._role, one.topic.removeprefix(self._prefix), str(one.partition))
            if one.lag is not None:
                lag.add_metric(labels, one.lag)
            age.add_metric(labels, one.uncommitted_s)
        yield from (lag, age)

    def _families(self) -> tuple[GaugeMetricFamily, GaugeMetricFamily]:
        lag = GaugeMetricFamily("sliceflow_lag_records", "Records of the input not committed yet.", labels=LABELS)
        age = GaugeMetricFamily(
            "sliceflow_commit_age_seconds",
            "For how long nothing was committed of what was fetched; 0 when all is.",
            labels=LABELS,
        )
        return lag, age
