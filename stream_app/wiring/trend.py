"""Wiring of the `trend` role."""

from __future__ import annotations

import time

from stream_app import tables, topics
from stream_app.agents.trend import TrendProcessor, TrendTopics
from stream_app.faustkit import BatchApp
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.settings import Settings
from stream_app.settings_rules import trend_rule
from stream_app.stages.trend import TrendStage
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report, metrics: RoleMetrics) -> RoleApp:
    """Join the `trend` role to its topics and table."""
    names = TrendTopics(trends=topics.prefixed(settings.prefix, topics.ITEM_TRENDS))

    def new_processor(partition: int) -> TrendProcessor:
        return TrendProcessor(TrendStage(settings.partitions, trend_rule(settings)), names, time.monotonic)

    app.attach(topics.prefixed(settings.prefix, topics.ITEM_ACTIVITY), new_processor, table=tables.ITEM_STATISTICS)
    return RoleApp(app, metrics)
