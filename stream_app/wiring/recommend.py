"""Wiring of the `recommend` role."""

from __future__ import annotations

from stream_app import tables, topics
from stream_app.agents.recommend import RecommendProcessor, RecommendTopics
from stream_app.faustkit import BatchApp
from stream_app.kafka import connection
from stream_app.models import list_rule, served_model
from stream_app.scorer_view import ScorerLog
from stream_app.settings import Settings
from stream_app.wiring.held_views import hold_views
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    """Join the `recommend` role to its topics and table."""
    model = served_model(settings)
    rule = list_rule(settings, model)
    views = hold_views(settings, app, model, report)
    scorers = ScorerLog(
        connection(settings),
        topics.prefixed(settings.prefix, topics.SCORER_WEIGHTS),
        rule,
        on_progress=app.watchdog.note_progress,
    )
    written = RecommendTopics(recommendations=topics.prefixed(settings.prefix, topics.RECOMMENDATIONS))

    def new_processor(partition: int) -> RecommendProcessor:
        views.trends.add_view(partition)
        scorers.add_view(partition)
        return RecommendProcessor(rule, written, views.trends, scorers, views.items)

    app.before_open(scorers.restart)
    app.attach(topics.prefixed(settings.prefix, topics.SLICE_VECTORS), new_processor, table=tables.USER_VECTORS)
    return RoleApp(app, views.before)
