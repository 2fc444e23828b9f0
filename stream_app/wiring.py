"""The only place where the parts meet: settings become role apps."""

from __future__ import annotations

import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from encoders.contract import SliceEncoder
from index import build_index
from stream_app import tables, topics
from stream_app.agents.encode import EncodeProcessor, EncodeTopics
from stream_app.agents.recommend import RecommendConfig, RecommendProcessor
from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.agents.trend import TrendProcessor, TrendTopics
from stream_app.faustkit import AppConfig, BatchApp, OutRecord
from stream_app.kafka import connection, faust_credentials, partition_of
from stream_app.lag import group_name
from stream_app.models import ServedModel, load_encoder, served_model
from stream_app.records import ItemVectorRecord, VectorsCompleteRecord, encode, pack_vector
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, slicing_rule, trend_rule, weights_milli
from stream_app.stages.scoring import feature_names
from stream_app.stages.sequence import SequenceStage
from stream_app.stages.trend import TrendStage
from stream_app.views import ItemView, TrendLog

ROLES = ("sequence", "trend", "encode", "recommend")

Report = Callable[[str], None]


@dataclass(frozen=True)
class RoleApp:
    """A role, ready to run: its app, and what to await before it starts."""

    app: BatchApp
    before: Callable[[], Awaitable[None]] | None = None


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
    """
    builders: Mapping[str, Callable[[Settings, BatchApp, Report], RoleApp]] = {
        "sequence": _sequence,
        "trend": _trend,
        "encode": _encode,
        "recommend": _recommend,
    }
    app = BatchApp.create(_app_config(settings, role, instance))
    return builders[role](settings, app, report)


def store_folder(settings: Settings, role: str, instance: int) -> Path:
    """Where the stores of one worker live."""
    namespace = settings.prefix.strip(".-_") or "default"
    return settings.state_path / "stores" / namespace / f"{role}-{instance}"


def _app_config(settings: Settings, role: str, instance: int) -> AppConfig:
    return AppConfig(
        app_id=group_name(settings, role),
        connection=connection(settings),
        credentials=faust_credentials(settings),
        store_folder=store_folder(settings, role, instance),
        instance_id=f"{socket.gethostname()}-{role}-{instance}",
        store_memory_bytes=settings.store_memory_mb * 1024 * 1024,
        session_timeout_s=settings.session_timeout_s,
        changelog_prefix=settings.prefix,
    )


def _sequence(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    rules = clean_rules(settings)
    names = SequenceTopics(
        slices=topics.prefixed(settings.prefix, topics.SLICES),
        activity=topics.prefixed(settings.prefix, topics.ITEM_ACTIVITY),
        dead_letter=topics.prefixed(settings.prefix, topics.DEAD_LETTER),
        status=topics.prefixed(settings.prefix, topics.STATUS),
        num_partitions=settings.partitions,
    )

    def new_processor(partition: int) -> SequenceProcessor:
        stage = SequenceStage(
            partition,
            slicing_rule(settings),
            epoch_ms=settings.epoch_ms,
            allowed_lateness_ms=int(settings.allowed_lateness_s * 1000),
            weights_milli=weights_milli(settings),
        )
        return SequenceProcessor(stage, rules, names)

    app.attach(topics.prefixed(settings.prefix, topics.EVENTS), new_processor, table=tables.USER_HISTORIES)
    return RoleApp(app)


def _trend(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    names = TrendTopics(trends=topics.prefixed(settings.prefix, topics.ITEM_TRENDS))

    def new_processor(partition: int) -> TrendProcessor:
        return TrendProcessor(TrendStage(settings.partitions, trend_rule(settings)), names, time.monotonic)

    app.attach(topics.prefixed(settings.prefix, topics.ITEM_ACTIVITY), new_processor, table=tables.ITEM_STATISTICS)
    return RoleApp(app)


def _encode(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    encoder = load_encoder(settings)
    report(f"release {encoder.release}")
    executor = ThreadPoolExecutor(1, thread_name_prefix="encoder")
    item_vectors = _item_vector_records(settings, encoder)
    names = EncodeTopics(slice_vectors=topics.prefixed(settings.prefix, topics.SLICE_VECTORS))

    def new_processor(partition: int) -> EncodeProcessor:
        return EncodeProcessor(encoder, executor, settings.event_types, names, item_vectors[partition])

    app.attach(topics.prefixed(settings.prefix, topics.SLICES), new_processor, table=tables.USER_MEMORY)
    return RoleApp(app)


def _item_vector_records(settings: Settings, encoder: SliceEncoder) -> dict[int, list[OutRecord]]:
    """For each partition: the vectors of its share of the trained items, then a marker that they are all there.

    Whoever owns partition p of `slices` publishes partition p of `item-vectors`; both have equal counts.
    """
    topic = topics.prefixed(settings.prefix, topics.ITEM_VECTORS)
    records: dict[int, list[OutRecord]] = {partition: [] for partition in range(settings.partitions)}
    for item_id, vector_D in zip(*encoder.item_vectors(), strict=True):
        key = tables.key_of(item_id)
        value = encode(ItemVectorRecord(item_id=item_id, release=encoder.release, vector=pack_vector(vector_D)))
        partition = partition_of(key, settings.partitions)
        records[partition].append(OutRecord(topic, partition, key, value))
    for partition, listed in records.items():
        marker = VectorsCompleteRecord(release=encoder.release, num_items=len(listed))
        listed.append(OutRecord(topic, partition, b"\xff" + encoder.release.encode(), encode(marker)))
    return records


def _recommend(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    model = served_model(settings)
    names = {name: topics.prefixed(settings.prefix, name) for name in (topics.ITEM_VECTORS, topics.ITEMS)}
    items = ItemView(build_index("faiss", model.dim, model.release), settings.partitions)
    trends = TrendLog(
        connection(settings),
        topics.prefixed(settings.prefix, topics.ITEM_TRENDS),
        settings.partitions,
        trend_rule(settings),
    )
    executor = ThreadPoolExecutor(1, thread_name_prefix="index")
    config = _recommend_config(settings, model)

    def new_processor(partition: int) -> RecommendProcessor:
        trends.add_view(partition)
        return RecommendProcessor(config, trends, items, executor)

    async def before() -> None:
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


def _recommend_config(settings: Settings, model: ServedModel) -> RecommendConfig:
    return RecommendConfig(
        recommendations=topics.prefixed(settings.prefix, topics.RECOMMENDATIONS),
        events=topics.prefixed(settings.prefix, topics.EVENTS),
        release=model.release,
        weights_F=model.scorer.vector(feature_names(settings.half_lives_s)),
        list_items=settings.list_items,
        candidates=settings.candidates,
    )
