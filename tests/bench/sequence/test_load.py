"""The input of the sequence bench: names, partitions, and a topic that holds what it should."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from aiokafka.partitioner import DefaultPartitioner

from stream_app.broker import EmbeddedBroker
from tests.bench.sequence.job import NUM_PARTITIONS, Load
from tests.bench.sequence.load import parse_load, partitions_of, put_load
from tests.bench.sequence.topics import num_records, read_topic


@pytest.mark.parametrize("load", [Load(1_000_000, 5_000), Load(10, 3, "uniform")])
def test_a_load_is_known_by_its_name(load: Load) -> None:
    assert parse_load(load.name) == load


@pytest.mark.parametrize("name", ["", "10-3", "10-3-even", "10-3-uniform-7", "ten-3-uniform"])
def test_another_name_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="EVENTS-USERS-SPREAD"):
        parse_load(name)


def test_partitions_are_those_of_kafkas_clients() -> None:
    users_E = np.array([5, 17, 5, 0, 4711, 17, 999_999])
    everywhere = list(range(NUM_PARTITIONS))
    wanted = [DefaultPartitioner()(b"u%d" % user, everywhere, everywhere) for user in users_E.tolist()]
    assert partitions_of(users_E).tolist() == wanted
    assert len(set(wanted)) > 1


@pytest.mark.kafka
def test_the_topic_holds_each_event_once_and_each_users_in_order(broker: EmbeddedBroker) -> None:
    load = Load(20_003, 50)

    async def put_and_read() -> tuple[int, dict[bytes, list[bytes]]]:
        topic = await put_load(broker.bootstrap_servers, load)
        found: dict[bytes, list[bytes]] = {}
        async for _, records in read_topic(broker.bootstrap_servers, topic):
            for record in records:
                found.setdefault(record.key, []).append(record.value)
        return await num_records(broker.bootstrap_servers, topic), found

    num_found, found = asyncio.run(put_and_read())
    wanted: dict[bytes, list[bytes]] = {}
    for key, value in load.records():
        wanted.setdefault(key, []).append(value)
    assert num_found == load.num_events
    assert found == wanted
