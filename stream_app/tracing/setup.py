"""Whether and how a process is traced, by its settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from stream_app.errors import SettingsError
from stream_app.lag import group_name
from stream_app.roles import SERVE
from stream_app.settings import Settings
from stream_app.topics import CHOICES, RECOMMENDATIONS, SLICE_VECTORS, SLICES, prefixed

if TYPE_CHECKING:  # OpenTelemetry is an extra
    from stream_app.tracing.process import ProcessTracing
    from stream_app.tracing.requests import RequestTracer
    from stream_app.tracing.runs import RunTracer

EXTRA: Final = "tracing"
"""The extra of this package that brings OpenTelemetry."""

CARRYING: Final = (SLICES, SLICE_VECTORS, CHOICES, RECOMMENDATIONS)
"""The topics that lead from an event to its list, and to what the scorer learns from: their records carry traces."""


def run_tracer(settings: Settings, role: str, instance_id: str) -> RunTracer | None:
    """What traces the runs of a role; None where nothing is traced.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    tracing = _process_tracing(settings, role, instance_id)
    if tracing is None:
        return None
    from stream_app.tracing.runs import RunTracer

    carrying = [prefixed(settings.prefix, topic) for topic in CARRYING]
    return RunTracer(tracing, role, group_name(settings, role), carrying)


def request_tracer(settings: Settings, instance_id: str) -> RequestTracer | None:
    """What traces the requests of the server; None where nothing is traced.

    Raises:
        SettingsError: OpenTelemetry is not installed.
    """
    tracing = _process_tracing(settings, SERVE, instance_id)
    if tracing is None:
        return None
    from stream_app.tracing.requests import RequestTracer

    return RequestTracer(tracing)


def _process_tracing(settings: Settings, role: str, instance_id: str) -> ProcessTracing | None:
    if settings.trace_exporter == "none":
        return None
    try:
        from stream_app.tracing.process import ProcessTracing
    except ModuleNotFoundError as error:
        raise SettingsError(
            f'trace_exporter is "{settings.trace_exporter}", but OpenTelemetry is not installed ({error}).',
            mend=f"pip install 'sliceflow[{EXTRA}]', or set trace_exporter = \"none\"",
        ) from error
    return ProcessTracing.of(settings, role, instance_id)
