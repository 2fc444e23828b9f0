"""Wiring of the `encode` role."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from encoders.contract import SliceEncoder
from stream_app import tables, topics
from stream_app.agents.encode import EncodeProcessor, EncodeTopics
from stream_app.batching import SliceBatcher
from stream_app.drift_meter import DriftMeter
from stream_app.faustkit import BatchApp, OutRecord
from stream_app.kafka import partition_of
from stream_app.models import load_encoder
from stream_app.records import ItemVectorRecord, VectorsCompleteRecord, encode, pack_vector
from stream_app.settings import Settings
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    """Join the `encode` role to its topics and table."""
    encoder = load_encoder(settings)
    report(f"release {encoder.release}")
    executor = ThreadPoolExecutor(1, thread_name_prefix="encoder")
    batcher = SliceBatcher(encoder, executor, settings.event_types)
    item_vectors = _item_vector_records(settings, encoder)
    names = EncodeTopics(
        slice_vectors=topics.prefixed(settings.prefix, topics.SLICE_VECTORS),
        drift=topics.prefixed(settings.prefix, topics.DRIFT),
    )
    meter = DriftMeter(
        encoder,
        executor,
        settings.event_types,
        users_share=settings.drift_users_share,
        instance=app.config.instance_id,
    )

    def new_processor(partition: int) -> EncodeProcessor:
        meter.forget(partition)
        return EncodeProcessor(batcher, names, item_vectors[partition], meter)

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
