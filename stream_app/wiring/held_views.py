"""What the roles that look up candidates hold in full: trends, item index, catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from index import build_index
from stream_app import topics
from stream_app.faustkit import BatchApp
from stream_app.held_items import HeldItems
from stream_app.item_view import ItemView
from stream_app.kafka import connection
from stream_app.models import ServedModel
from stream_app.settings import Settings
from stream_app.settings_rules import trend_rule
from stream_app.topic_ends import TopicEnds
from stream_app.trend_log import TrendLog
from stream_app.wiring.role_app import Report


@dataclass(frozen=True)
class HeldViews:
    """The views of a process, and what to await before the role starts."""

    trends: TrendLog
    items: HeldItems
    before: Callable[[], Awaitable[None]]


def hold_views(settings: Settings, app: BatchApp, model: ServedModel, report: Report) -> HeldViews:
    """The views for a role; trends are read anew at each assignment."""
    names = {name: topics.prefixed(settings.prefix, name) for name in (topics.ITEM_VECTORS, topics.ITEMS)}
    view = ItemView(build_index("faiss", model.dim, model.release), settings.partitions)
    trends = TrendLog(
        connection(settings),
        topics.prefixed(settings.prefix, topics.ITEM_TRENDS),
        settings.partitions,
        trend_rule(settings),
        on_progress=app.watchdog.note_progress,
    )
    catalogue = TopicEnds(connection(settings), names[topics.ITEMS], settings.partitions)

    async def before() -> None:
        await catalogue.start()
        followers = view.followers(connection(settings), names[topics.ITEM_VECTORS], names[topics.ITEMS])
        for follower in followers:
            await follower.start()
        for follower in followers:
            await follower.wait_caught_up()
        await view.wait_complete(report)
        report(f"index of {len(view.index)} items, release {model.release}")

    app.before_open(trends.restart)
    items = HeldItems(view, catalogue, ThreadPoolExecutor(1, thread_name_prefix="index"))
    return HeldViews(trends, items, before)
