"""Wiring of the `score` role."""

from __future__ import annotations

from stream_app import tables, topics
from stream_app.agents.score import ScoreProcessor, ScoreTopics
from stream_app.faustkit import BatchApp
from stream_app.models import scorer_stage, served_model
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.settings import Settings
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report, metrics: RoleMetrics) -> RoleApp:
    """Join the `score` role to its topics and table."""
    model = served_model(settings)
    written = ScoreTopics(scorer_weights=topics.prefixed(settings.prefix, topics.SCORER_WEIGHTS))

    def new_processor(partition: int) -> ScoreProcessor:
        return ScoreProcessor(scorer_stage(settings, model, settings.partitions), written)

    app.attach(topics.prefixed(settings.prefix, topics.CHOICES), new_processor, table=tables.SCORER)
    return RoleApp(app, metrics)
