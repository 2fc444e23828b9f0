"""Wiring of the `choose` role."""

from __future__ import annotations

from stream_app import tables, topics
from stream_app.agents.choose import ChooseProcessor, ChooseRule, ChooseTopics
from stream_app.erasing import CutAtErasures, erased_records
from stream_app.faustkit import BatchApp
from stream_app.models import served_model
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.settings import Settings
from stream_app.settings_rules import score_rule
from stream_app.wiring.held_views import hold_views
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report, metrics: RoleMetrics) -> RoleApp:
    """Join the `choose` role to its topics and table."""
    model = served_model(settings)
    views = hold_views(settings, app, model, report, metrics)
    rule = ChooseRule(model.release, settings.candidates, score_rule(settings))
    written = ChooseTopics(choices=topics.prefixed(settings.prefix, topics.CHOICES))

    def new_processor(partition: int) -> CutAtErasures:
        views.trends.add_view(partition)
        return CutAtErasures(ChooseProcessor(rule, written, views.trends, views.items), erased_records)

    app.attach(topics.prefixed(settings.prefix, topics.SLICE_VECTORS), new_processor, table=tables.USER_CHOICES)
    return RoleApp(app, metrics, views.before)
