"""What the tests of the metrics share: reading the exposition as Prometheus does."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def samples_of(text: str) -> Samples:
    """Every sample of an exposition by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value_of(source: CollectorRegistry | str, name: str, **labels: str) -> float:
    """One sample of a registry or an exposition."""
    text = source if isinstance(source, str) else generate_latest(source).decode()
    return samples_of(text)[name, frozenset(labels.items())]
