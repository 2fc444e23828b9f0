"""Wiring of the `encode` role."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from stream_app import tables, topics
from stream_app.agents.encode import EncodeProcessor, EncodeTopics
from stream_app.batching import SliceBatcher
from stream_app.drift_meter import DriftMeter
from stream_app.erasing import CutAtErasures, erased_records
from stream_app.faustkit import BatchApp
from stream_app.item_publishing import ItemPublisher, ItemTopics
from stream_app.item_reading import item_reader
from stream_app.kafka import connection
from stream_app.models import load_encoder
from stream_app.monitoring.processors import CarryingEncode
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.settings import Settings
from stream_app.wiring.role_app import Report, RoleApp, owned_partitions

if TYPE_CHECKING:  # torch takes seconds to import
    from encoders.runtime import SliceEncoderRuntime


def build(settings: Settings, app: BatchApp, report: Report, metrics: RoleMetrics) -> RoleApp:
    """Join the `encode` role to its topics and table."""
    encoder = load_encoder(settings)
    report(f"release {encoder.release}")
    executor = ThreadPoolExecutor(1, thread_name_prefix="encoder")
    note_batch = metrics.work_meter("encode", "slices", "A batch of the encoder")
    batcher = SliceBatcher(encoder, executor, settings.event_types, note_batch)
    slices, slice_vectors, drift = (
        topics.prefixed(settings.prefix, name) for name in (topics.SLICES, topics.SLICE_VECTORS, topics.DRIFT)
    )
    names = EncodeTopics(slice_vectors, drift)
    meter = DriftMeter(
        encoder,
        executor,
        settings.event_types,
        users_share=settings.drift_users_share,
        instance=app.config.instance_id,
    )

    note_overlap = metrics.setter(
        "drift_overlap_ratio", "Share of the ten best items that merged and newly encoded user vectors have in common."
    )
    _watch_gpu(metrics)

    def new_processor(partition: int) -> CutAtErasures:
        meter.forget(partition)
        processor = EncodeProcessor(batcher, names, meter)
        carrying = CarryingEncode(processor, names.slice_vectors, names.drift, note_overlap)
        return CutAtErasures(carrying, erased_records)

    app.attach(slices, new_processor, table=tables.USER_MEMORY)
    _publish_items(app, slices, _item_publisher(settings, app, encoder, executor))
    return RoleApp(app, metrics)


def _item_publisher(
    settings: Settings, app: BatchApp, encoder: SliceEncoderRuntime, executor: ThreadPoolExecutor
) -> ItemPublisher:
    names = ItemTopics(
        items=topics.prefixed(settings.prefix, topics.ITEMS),
        item_vectors=topics.prefixed(settings.prefix, topics.ITEM_VECTORS),
        dead_letter=topics.prefixed(settings.prefix, topics.DEAD_LETTER),
        num_partitions=settings.partitions,
    )
    return ItemPublisher(
        item_reader(settings, encoder),
        encoder.item_vectors(),
        encoder.release,
        names,
        app.outbox,
        app.config.app_id,
        connection(settings),
        executor,
    )


def _publish_items(app: BatchApp, slices: str, publisher: ItemPublisher) -> None:
    """Have the items of those partitions published that this process has of `slices`."""

    async def stop(*_: Any, **__: Any) -> None:
        await publisher.stop()

    app.before_open(lambda: publisher.restart(owned_partitions(app.consumer, slices)))
    app.on_partitions_revoked.connect(stop)
    app.on_before_shutdown.connect(stop)


def _watch_gpu(metrics: RoleMetrics) -> None:
    # Imported here: torch takes seconds, and the encoder has loaded it by now.
    from encoders.gpu_memory import gpu_memory_bytes, has_gpu

    if has_gpu():
        metrics.watch("gpu_memory_bytes", "Memory of GPUs that torch holds.", lambda: float(gpu_memory_bytes()))
