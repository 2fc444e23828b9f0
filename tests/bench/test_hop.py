"""The measurement of one hop: which output answers which event, the figures, and a small run of the real thing."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from tests.bench.hop import OURS, RELAY, Record, Round, match, measure, result_of

RECORDS = st.lists(st.tuples(st.sampled_from([b"u", b"v", b"w"]), st.sampled_from([b"1", b"2"])), max_size=20)


def match_user_by_user(due: list[Record], received: list[Record]) -> tuple[list[float], int]:
    """The slow oracle: the outputs of each user in turn, beside those that are due. Event n is sent at second n,
    and all is received at second 100."""
    outputs = defaultdict(list)
    for key, value in received:
        outputs[key].append(value)
    hops_ms, num_too_many = [0.0] * len(due), 0
    for user in {key for key, _ in due} | set(outputs):
        places = [place for place, (key, _) in enumerate(due) if key == user]
        num_too_many += max(0, len(outputs[user]) - len(places))
        for number, place in enumerate(places):
            is_right = number < len(outputs[user]) and outputs[user][number] == due[place][1]
            hops_ms[place] = 1000.0 * (100 - place) if is_right else float("nan")
    return hops_ms, num_too_many


@given(RECORDS, RECORDS)
def test_the_nth_output_of_a_user_answers_the_nth_event(due: list[Record], received: list[Record]) -> None:
    sent_s = [float(place) for place in range(len(due))]
    hops_ms_E, num_too_many = match(due, sent_s, [(record, 100.0) for record in received])
    wanted, num_wanted_too_many = match_user_by_user(due, received)
    np.testing.assert_array_equal(hops_ms_E, wanted)
    assert num_too_many == num_wanted_too_many


def test_a_lost_a_wrong_and_a_repeated_output_are_all_told() -> None:
    due = [(b"u", b"1"), (b"v", b"1"), (b"u", b"2"), (b"w", b"1")]
    received = [((b"u", b"1"), 1.0), ((b"u", b"x"), 1.0), ((b"w", b"1"), 1.0), ((b"w", b"1"), 2.0)]
    hops_ms_E, num_too_many = match(due, [0.5] * 4, received)
    np.testing.assert_array_equal(hops_ms_E, [500.0, np.nan, np.nan, 500.0])
    assert Round("relay", hops_ms_E, num_too_many, 0.0).num_wrong == 3


def test_the_ratio_is_taken_of_each_pair_of_rounds() -> None:
    def one(contender: str, hop_ms: float) -> Round:
        return Round(contender, np.full(10, hop_ms), 0, 0.1)

    pairs = [(10.0, 20.0), (2.0, 10.0), (4.0, 4.0)]
    rounds = [one(who.name, ms) for pair in pairs for who, ms in zip((RELAY, OURS), pair, strict=True)]
    result = result_of(500, 30, rounds)
    assert (result.figures["p99_ratio"].value, result.figures["p99_ratio"].spread) == (2.0, (1.0, 5.0))
    assert result.figures["faustkit_p99_ms"].value == 10.0
    assert result.is_sound


@pytest.mark.kafka
@pytest.mark.slow
def test_a_small_run(broker: EmbeddedBroker, tmp_path: Path) -> None:
    rounds = asyncio.run(measure(broker.bootstrap_servers, 100, 1, 1, tmp_path))
    result = result_of(100, 1, rounds)
    assert [(one.contender, len(one.hops_ms_E)) for one in rounds] == [("relay", 100), ("faustkit", 100)]
    assert result.figures["wrong_outputs"].value == 0
    assert result.figures["relay_p50_ms"].value > 0
