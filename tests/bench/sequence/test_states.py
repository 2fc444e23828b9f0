"""Made-up states, and the comparison of stores with their changelog."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.faustkit.store import unseal
from stream_app.kafka import partition_of
from tests.bench.sequence.job import HISTORY_EVENTS, NUM_PARTITIONS
from tests.bench.sequence.ours import decode_state
from tests.bench.sequence.states import made_up_states, num_differing, reflected_events

VALUES = st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"1", b"2"]))


@given(VALUES, VALUES)
def test_users_that_differ_are_counted_once(stored: dict[bytes, bytes], newest: dict[bytes, bytes]) -> None:
    users = stored.keys() | newest.keys()
    assert num_differing(stored.items(), newest) == sum(stored.get(user) != newest.get(user) for user in users)


def test_a_made_up_state_is_full_and_reflects_the_first_record() -> None:
    states = list(made_up_states(50, seed=1))
    assert states == list(made_up_states(50, seed=1)) != list(made_up_states(50, seed=2))
    for partition, key, envelope in states:
        assert partition == partition_of(key, NUM_PARTITIONS)
        assert unseal(envelope).position == 0
        num_events, items = decode_state(unseal(envelope).payload)
        assert num_events == len(items) == HISTORY_EVENTS


def test_each_partition_begins_with_a_record_that_is_reflected() -> None:
    events = reflected_events()
    assert sorted(partition for partition, _, _ in events) == list(range(NUM_PARTITIONS))
    assert all(partition == partition_of(key, NUM_PARTITIONS) for partition, key, _ in events)
