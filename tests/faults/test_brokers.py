"""Brokers that are lost one by one and all at once: the roles wait for them and go on."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka.errors import NotCoordinatorForGroupError

from stream_app.lag import group_name
from stream_app.roles import ROLES
from tests.faults.chain import Chain, check_same, through_chain, without_broker
from tests.faults.cluster import Cluster
from tests.faults.conftest import MakeRig, Scale
from tests.faults.feeds import EPOCH_S, clicks, write_log
from tests.faults.verify import check

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

SEED = 31


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Three running nodes."""
    with Cluster() as running:
        yield running


def test_a_worker_goes_on_with_two_of_three_brokers_and_after_all_were_gone(
    cluster: Cluster, make_rig: MakeRig
) -> None:
    rig = make_rig(cluster.bootstrap_servers, replication=3)
    with rig.worker() as worker:
        worker.wait_ready()
        rig.send(clicks(0, 300))
        cluster.kill(1)
        rig.send(clicks(300, 600))
        rig.wait_caught_up(worker)
        rig.send(clicks(600, 900))
        cluster.kill(*cluster.numbers)
        cluster.start(*cluster.numbers)
        rig.send(clicks(900, 1000))
        rig.wait_caught_up(worker)
        worker.stop()
    assert check(rig).statuses.keys() == {0, 1}


def test_offsets_that_a_broker_cannot_give_are_not_taken_for_none(cluster: Cluster, make_rig: MakeRig) -> None:
    rig = make_rig(cluster.bootstrap_servers, replication=3)
    assert rig.try_commit({0: 7})

    async def asked_elsewhere(admin: Any) -> list[int]:
        coordinator = await admin.find_coordinator(group_name(rig.settings, "sequence"))
        refused = []
        for node in cluster.numbers:
            try:
                await admin.list_consumer_group_offsets(group_name(rig.settings, "sequence"), node)
            except NotCoordinatorForGroupError:
                refused.append(node)
        assert coordinator not in refused
        return refused

    assert len(rig.administer(asked_elsewhere)) == len(cluster.numbers) - 1
    assert rig.committed() == {0: 7}


def test_all_roles_go_on_while_brokers_of_a_cluster_come_and_go(
    cluster: Cluster, make_rig: MakeRig, scale: Scale, tmp_path: Path
) -> None:
    if not scale.is_long:
        pytest.skip("only in the long form: make faults")
    rig = make_rig(cluster.bootstrap_servers, replication=3, epoch_s=EPOCH_S)
    log = tmp_path / "events.ndjson"
    write_log(log, scale.num_events, SEED)
    rng = random.Random(SEED)

    async def lose_brokers(chain: Chain) -> None:
        for time in range(scale.num_kills):
            await chain.wait_sent(scale.num_events * time // scale.num_kills)
            lost = cluster.numbers if time % 5 == 4 else [rng.choice(cluster.numbers)]
            async with chain.sending:
                cluster.kill(*lost)
                await asyncio.to_thread(cluster.start, *lost)

    found = asyncio.run(through_chain(rig.settings, log, events_per_s=scale.events_per_s, misfortune=lose_brokers))
    check_same(without_broker(rig.settings, log), found)
    check(rig, *ROLES)
