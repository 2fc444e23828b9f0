"""The picture of a soak: memory, lag and latency over time, with a line at each kill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Seen(Protocol):
    """What is drawn of a moment; see `soak.Sample`."""

    @property
    def at_s(self) -> float:
        """Seconds since the start."""

    @property
    def memory_mib(self) -> Mapping[str, float]:
        """Resident memory of each process."""

    @property
    def lag(self) -> Mapping[str, int]:
        """Records that each role has before it."""

    @property
    def latency_ms(self) -> Sequence[float]:
        """From events to their lists, in order."""


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of the values lie (at least one value).

    >>> quantile([1.0, 2.0, 3.0, 4.0], 0.5), quantile([7.0], 0.99)
    (3.0, 7.0)
    """
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def draw(samples: Sequence[Seen], kills: Sequence[tuple[float, str]], path: Path) -> None:
    """Write the picture as PNG."""
    # Imported here: the rest of the suite does without it.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (memory, lag, latency) = pyplot.subplots(3, 1, figsize=(11, 9), sharex=True, layout="constrained")
    _lines(memory, {name: _series(samples, "memory_mib", name) for name in _names(samples, "memory_mib")})
    memory.set_ylabel("resident memory, MiB")
    memory.set_ylim(bottom=0)
    _lines(lag, {name: _series(samples, "lag", name) for name in _names(samples, "lag")})
    lag.set_ylabel("records behind")
    lag.set_yscale("symlog")
    answered = [sample for sample in samples if sample.latency_ms]
    quantiles = {f"p{share * 100:g}": share for share in (0.5, 0.95, 1.0)}
    _lines(
        latency,
        {
            name: [(sample.at_s, quantile(sample.latency_ms, share)) for sample in answered]
            for name, share in quantiles.items()
        },
    )
    latency.set_ylabel("event to list, ms")
    latency.set_yscale("log")
    latency.set_xlabel("seconds; grey: a role was killed, red: the broker")
    for axes in (memory, lag, latency):
        for at_s, victim in kills:
            axes.axvline(at_s, color="red" if victim == "broker" else "lightgrey", linewidth=0.8, zorder=0)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _names(samples: Sequence[Seen], field: str) -> list[str]:
    return list(dict.fromkeys(name for sample in samples for name in getattr(sample, field)))


def _series(samples: Sequence[Seen], field: str, name: str) -> list[tuple[float, float]]:
    return [(sample.at_s, getattr(sample, field)[name]) for sample in samples if name in getattr(sample, field)]


def _lines(axes: Any, series: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    for name, points in series.items():
        axes.plot([at_s for at_s, _ in points], [value for _, value in points], label=name)
    axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
