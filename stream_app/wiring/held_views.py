"""What the roles that look up candidates hold in full: trends, item index, catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

from index import build_index
from stream_app import topics
from stream_app.faustkit import BatchApp
from stream_app.kafka import connection
from stream_app.models import ServedModel
from stream_app.settings import Settings
from stream_app.settings_rules import trend_rule
from stream_app.views import ItemView, TopicEnds, TrendLog
from stream_app.wiring.role_app import Report


@dataclass(frozen=True)
class HeldViews:
    """The views of a process, one thread for its index, and what to await before the role starts."""

    trends: TrendLog
    items: ItemView
    catalogue: TopicEnds
    executor: Executor
    before: Callable[[], Awaitable[None]]


def hold_views(settings: Settings, app: BatchApp, model: ServedModel, report: Report) -> HeldViews:
    """The views for a role; trends are read anew at each assignment."""
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
    return HeldViews(trends, items, catalogue, ThreadPoolExecutor(1, thread_name_prefix="index"), before)
