"""What the roles that look up candidates hold in full: trends, item index, catalogue."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from index import build_index
from stream_app import topics
from stream_app.faustkit import BatchApp
from stream_app.held_items import HeldItems
from stream_app.index_snapshots import BUILT_FOLDER, IndexSnapshots, index_folder, keep_saving, open_snapshots
from stream_app.item_view import ItemView, OnRefused, take_no_note
from stream_app.kafka import connection
from stream_app.models import ServedModel
from stream_app.monitoring.role_metrics import RoleMetrics
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


@dataclass
class _Filling:
    """What comes before a role starts: its items are read whole, from a snapshot on where there is one."""

    settings: Settings
    app: BatchApp
    view: ItemView
    catalogue: TopicEnds
    report: Report
    saving: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Fill the view, and go on following."""
        await self.catalogue.start()
        kafka, prefix = connection(self.settings), self.settings.prefix
        item_vectors = topics.prefixed(prefix, topics.ITEM_VECTORS)
        snapshots = await self._start_from_snapshot(item_vectors) if self.settings.index_kind == "live" else None
        followers = self.view.followers(kafka, item_vectors, topics.prefixed(prefix, topics.ITEMS))
        for follower in followers:
            await follower.start()
        for follower in followers:
            await follower.wait_caught_up()
        await self.view.wait_complete(self.report)
        self.report(f"index of {len(self.view.index)} items, release {self.view.index.release}")
        if snapshots is not None:
            self.saving = asyncio.create_task(keep_saving(self.view, snapshots), name="index snapshots")

    async def _start_from_snapshot(self, item_vectors: str) -> IndexSnapshots:
        namespace = index_folder(self.settings)
        own = namespace / self.app.config.store_folder.name
        kafka = connection(self.settings)
        snapshots, ends = await open_snapshots(kafka, item_vectors, own, [namespace / BUILT_FOLDER])
        self.report(await asyncio.to_thread(snapshots.load, self.view, ends))
        return snapshots


def hold_views(
    settings: Settings,
    app: BatchApp,
    model: ServedModel,
    report: Report,
    metrics: RoleMetrics,
    on_refused: OnRefused = take_no_note,
) -> HeldViews:
    """The views for a role; trends are read anew at each assignment."""
    view = ItemView(build_index(settings.index_kind, model.dim, model.release), settings.partitions, on_refused)
    trends = TrendLog(
        connection(settings),
        topics.prefixed(settings.prefix, topics.ITEM_TRENDS),
        settings.partitions,
        trend_rule(settings),
        on_progress=app.watchdog.note_progress,
    )
    catalogue = TopicEnds(connection(settings), topics.prefixed(settings.prefix, topics.ITEMS), settings.partitions)
    filling = _Filling(settings, app, view, catalogue, report)
    app.before_open(trends.restart)
    metrics.watch("index_items", "Items in the index.", lambda: float(len(view.index)))
    metrics.watch("vectors_refused", "Item vectors that were no good.", lambda: float(view.refused.total()))
    note_search = metrics.work_meter("index_search", "users", "A search of the index")
    items = HeldItems(view, catalogue, ThreadPoolExecutor(1, thread_name_prefix="index"), note_search)
    return HeldViews(trends, items, filling.run)
