"""Wiring of the `recommend` role."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from index import build_index
from stream_app import tables, topics
from stream_app.agents.recommend import RecommendProcessor, RecommendTopics
from stream_app.faustkit import BatchApp
from stream_app.kafka import connection
from stream_app.models import list_rule, served_model
from stream_app.settings import Settings
from stream_app.settings_rules import trend_rule
from stream_app.views import ItemView, TopicEnds, TrendLog
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    """Join the `recommend` role to its topics and table."""
    model = served_model(settings)
    names = {name: topics.prefixed(settings.prefix, name) for name in (topics.ITEM_VECTORS, topics.ITEMS)}
    items = ItemView(build_index("faiss", model.dim, model.release), settings.partitions)
    trends = TrendLog(
        connection(settings),
        topics.prefixed(settings.prefix, topics.ITEM_TRENDS),
        settings.partitions,
        trend_rule(settings),
        on_progress=app.watchdog.note_progress,
    )
    catalogue = TopicEnds(connection(settings), names[topics.ITEMS], settings.partitions)
    executor = ThreadPoolExecutor(1, thread_name_prefix="index")
    rule = list_rule(settings, model)
    written = RecommendTopics(recommendations=topics.prefixed(settings.prefix, topics.RECOMMENDATIONS))

    def new_processor(partition: int) -> RecommendProcessor:
        trends.add_view(partition)
        return RecommendProcessor(rule, written, trends, items, catalogue, executor)

    async def before() -> None:
        await catalogue.start()
        followers = items.followers(connection(settings), names[topics.ITEM_VECTORS], names[topics.ITEMS])
        for follower in followers:
            await follower.start()
        for follower in followers:
            await follower.wait_caught_up()
        await items.wait_complete(report)
        report(f"index of {len(items.index)} items, release {model.release}")

    app.before_open(trends.restart)
    app.attach(topics.prefixed(settings.prefix, topics.SLICE_VECTORS), new_processor, table=tables.USER_VECTORS)
    return RoleApp(app, before)
