"""Wiring of the `recommend` role."""

from __future__ import annotations

from stream_app import tables, topics
from stream_app.agents.recommend import RecommendProcessor, RecommendTopics
from stream_app.erasing import CutAtErasures, erased_records
from stream_app.faustkit import BatchApp
from stream_app.kafka import connection
from stream_app.models import list_rule, served_model
from stream_app.monitoring.processors import TimedRecommend
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.refused_vectors import RefusedVectors
from stream_app.scorer_view import ScorerLog
from stream_app.settings import Settings
from stream_app.wiring.held_views import hold_views
from stream_app.wiring.role_app import Report, RoleApp, owned_partitions


def build(settings: Settings, app: BatchApp, report: Report, metrics: RoleMetrics) -> RoleApp:
    """Join the `recommend` role to its topics and table."""
    model = served_model(settings)
    rule = list_rule(settings, model)
    slice_vectors = topics.prefixed(settings.prefix, topics.SLICE_VECTORS)
    refused = RefusedVectors(topics.prefixed(settings.prefix, topics.DEAD_LETTER), app.outbox.publish)
    views = hold_views(settings, app, model, report, metrics, refused.take)
    scorers = ScorerLog(
        connection(settings),
        topics.prefixed(settings.prefix, topics.SCORER_WEIGHTS),
        rule,
        on_progress=app.watchdog.note_progress,
    )
    written = RecommendTopics(recommendations=topics.prefixed(settings.prefix, topics.RECOMMENDATIONS))

    note_lists = metrics.freshness_meter()

    def new_processor(partition: int) -> CutAtErasures:
        views.trends.add_view(partition)
        scorers.add_view(partition)
        processor = RecommendProcessor(rule, written, views.trends, scorers, views.items)
        return CutAtErasures(TimedRecommend(processor, note_lists), erased_records)

    app.before_open(scorers.restart)
    app.before_open(lambda: refused.own(owned_partitions(app.consumer, slice_vectors)))
    app.attach(slice_vectors, new_processor, table=tables.USER_VECTORS)
    return RoleApp(app, metrics, views.before)
