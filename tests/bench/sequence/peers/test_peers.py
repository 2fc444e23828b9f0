"""Each peer does the whole job, output by output and state by state; and what peers share is right."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from tests.bench.sequence.contenders import CONTENDERS, OURS, Contender
from tests.bench.sequence.figures import Cell, Planned, Round
from tests.bench.sequence.job import HISTORY_EVENTS, Load, Task, Variant
from tests.bench.sequence.load import put_load
from tests.bench.sequence.measure import Stage, run_round
from tests.bench.sequence.peers.common import (
    NO_EVENTS,
    add_item,
    decode_state,
    faust_state_topic,
    quix_state_topic,
    quix_user_of,
)
from tests.bench.sequence.verify import Expected, expect

LOAD = Load(3003, 60)
"""Small, with users far beyond `HISTORY_EVENTS` and users with one event. No other test has it."""

PEERS = [one for one in CONTENDERS if one.name != OURS and not one.name.startswith("Kafka Streams")]
"""Those in Python; Kafka Streams has tests of its own."""

RUNS = [(peer, variant) for peer in PEERS for variant in peer.variants]


@given(st.lists(st.from_regex(r"i[0-9]{1,5}", fullmatch=True), min_size=1, max_size=3 * HISTORY_EVENTS))
def test_a_state_holds_the_newest_items_and_counts_all(items: list[str]) -> None:
    state = NO_EVENTS
    for number, item in enumerate(items, 1):
        state, count, oldest = add_item(state, item)
        kept = items[max(0, number - HISTORY_EVENTS) : number]
        assert (count, oldest) == (number, kept[0])
        assert decode_state(state) == (number, kept)


def test_state_topics_are_named_as_the_peers_name_them() -> None:
    task = Task(
        servers="", group="g", input_topic="in", output_topic="out", state_topic="state", folder="", num_events=1
    )
    assert faust_state_topic(task) == "g-histories-changelog"
    assert quix_state_topic(task) == "changelog__g--in--default"


def test_a_user_is_found_in_a_key_of_quix() -> None:
    assert quix_user_of(b"u|17|h") == b"u|17"


@pytest.fixture(scope="module")
def expected(broker: EmbeddedBroker) -> Expected:
    """What the load must lead to; it is on its topic."""
    asyncio.run(put_load(broker.bootstrap_servers, LOAD))
    return expect(LOAD)


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.parametrize(("peer", "variant"), RUNS, ids=[f"{peer.slug}-{variant}" for peer, variant in RUNS])
def test_a_peer_does_the_job(broker: EmbeddedBroker, expected: Expected, peer: Contender, variant: Variant) -> None:
    if lacking := peer.lacks():
        pytest.skip(lacking)
    made = asyncio.run(one_round(broker, expected, peer, variant))
    assert not made.failure
    assert made.exit_code == 0
    assert made.num_repeats == 0
    if variant == "each":
        assert made.num_outputs == LOAD.num_events
    else:
        assert len(expected.lasts) <= made.num_outputs < LOAD.num_events


async def one_round(broker: EmbeddedBroker, expected: Expected, peer: Contender, variant: Variant) -> Round:
    """A round of the bench, on the session's broker."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap_servers)
    await admin.start()
    try:
        # The place makes the group's name; its offsets outlive the round.
        place = RUNS.index((peer, variant)) + LOAD.num_events
        planned = Planned(place, 0, Cell(LOAD, variant), peer, LOAD)
        return await run_round(Stage(broker.bootstrap_servers, broker.pid, admin), planned, expected)
    finally:
        await admin.close()
