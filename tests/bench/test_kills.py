"""The measurement under kills: the judge must see every kind of damage; and a small run of the real thing."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.broker import EmbeddedBroker
from tests.bench.kills import LAST_KILL, judge, kill_points, measure
from tests.bench.sequence.job import Load

WANTED = {b"u": [b"u1", b"u2", b"u3"], b"v": [b"v1"]}


def test_all_right() -> None:
    judged = judge(WANTED, WANTED)
    assert (judged.num_lost, judged.num_false, judged.num_repeats, judged.problems) == (0, 0, 0, [])


def test_outputs_may_come_again_as_they_were() -> None:
    judged = judge({b"u": [b"u1", b"u2", b"u1", b"u2", b"u3"], b"v": [b"v1"]}, WANTED)
    assert (judged.num_lost, judged.num_false, judged.num_repeats, judged.problems) == (0, 0, 2, [])


def test_a_lost_event_is_found() -> None:
    judged = judge({b"u": [b"u1", b"u3"], b"v": []}, WANTED)
    assert (judged.num_lost, judged.num_false, len(judged.problems)) == (2, 0, 2)


def test_an_event_applied_twice_is_found() -> None:
    judged = judge({b"u": [b"u1", b"u2", b"u3", b"u4"], b"v": [b"v1"]}, WANTED)
    assert (judged.num_lost, judged.num_false, len(judged.problems)) == (0, 1, 1)


def test_outputs_in_another_order_are_found() -> None:
    judged = judge({b"u": [b"u2", b"u1", b"u3"], b"v": [b"v1"]}, WANTED)
    assert (judged.num_lost, judged.num_false, len(judged.problems)) == (0, 0, 1)


def test_a_user_that_nobody_sent_is_found() -> None:
    judged = judge({**WANTED, b"w": [b"w1"]}, WANTED)
    assert (judged.num_false, len(judged.problems)) == (1, 1)


@given(st.integers(1, 50), st.integers(0, 100))
def test_kills_are_spread_over_the_run(num_kills: int, seed: int) -> None:
    points = kill_points(1_000_000, num_kills, random.Random(seed))
    assert points == kill_points(1_000_000, num_kills, random.Random(seed))
    part = 1_000_000 * LAST_KILL / num_kills
    assert [int(point // part) for point in points] == list(range(num_kills))


@pytest.mark.kafka
@pytest.mark.slow
def test_a_small_run(broker: EmbeddedBroker, tmp_path: Path) -> None:
    load = Load(4000, 100)
    result = asyncio.run(measure(broker.bootstrap_servers, load, 2, 3, tmp_path))
    assert result.figures["kills"].value == 2
    assert result.is_sound, result.plain({})
