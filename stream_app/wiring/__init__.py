"""The only place where the parts meet: settings become role apps.

One module for each role, imported when the role is built, so that a process holds only what its role needs.
"""

from __future__ import annotations

import importlib
import socket
from pathlib import Path

from stream_app.faustkit import AppConfig, BatchApp
from stream_app.faustkit.run import MAX_RUN_RECORDS
from stream_app.kafka import connection
from stream_app.lag import group_name
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.roles import ROLES
from stream_app.settings import Settings
from stream_app.swap_mark import refuse_pending
from stream_app.tracing.setup import run_tracer
from stream_app.wiring.credentials import faust_credentials
from stream_app.wiring.role_app import Report, RoleApp

GATHER_MS = {"trend": 50, "choose": 50, "score": 50}
"""Trends need not be faster than an epoch, nor choices and what is learned from them faster than a scorer-epoch;
gathering them leaves Kafka and the machine to those a list waits for."""

RUN_RECORDS = {"choose": 500, "recommend": 1000}
"""Where a record may cost a whole list, runs are short: one of full length would take minutes on a busy machine, and
the watchdog would end the process before it is done, again and again. Recommend gains from longer ones: a user gets one
list for all events of a run."""

__all__ = ["ROLES", "RoleApp", "build_app", "store_folder"]


def build_app(settings: Settings, role: str, *, instance: int = 0, report: Report = print) -> RoleApp:
    """Make the app of a role.

    Args:
        settings: With a Kafka address.
        role: One of `ROLES`.
        instance: Number of this worker among those of its role on this machine; it names its store folder and
            its static group membership.
        report: Takes a line of progress for people.

    Raises:
        ModelError: The role needs a model, and its folder is missing, damaged or does not fit the settings.
        SettingsError: Runs are to be traced, and OpenTelemetry is not installed.
        ValueError: There is no such role.
    """
    if role not in ROLES:
        raise ValueError(f"no role {role!r}; roles are {', '.join(ROLES)}")
    module = importlib.import_module(f"stream_app.wiring.{role}")
    metrics = RoleMetrics(role, settings.prefix)
    app = BatchApp(_app_config(settings, role, instance, metrics))
    app.before_open(lambda: refuse_pending(settings, role))
    role_app: RoleApp = module.build(settings, app, report, metrics)
    metrics.watch_inputs(app.watchdog.input_standings, role_app.is_ready)
    return role_app


def store_folder(settings: Settings, role: str, instance: int) -> Path:
    """Where the stores of one worker live."""
    namespace = settings.prefix.strip(".-_") or "default"
    return settings.state_path / "stores" / namespace / f"{role}-{instance}"


def _app_config(settings: Settings, role: str, instance: int, metrics: RoleMetrics) -> AppConfig:
    instance_id = f"{socket.gethostname()}-{role}-{instance}"
    return AppConfig(
        app_id=group_name(settings, role),
        connection=connection(settings),
        credentials=faust_credentials(settings),
        store_folder=store_folder(settings, role, instance),
        instance_id=instance_id,
        store_memory_bytes=settings.store_memory_mb * 1024 * 1024,
        session_timeout_s=settings.session_timeout_s,
        num_standbys=settings.num_standbys,
        gather_ms=GATHER_MS.get(role, 0),
        max_run_records=RUN_RECORDS.get(role, MAX_RUN_RECORDS),
        changelog_prefix=settings.prefix,
        meter=metrics,
        observer=run_tracer(settings, role, instance_id),
    )
