"""A round: what is read of a running contender, and that one which dies, stalls or is wrong has failed."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from stream_app.broker import EmbeddedBroker
from tests.bench.sequence import measure
from tests.bench.sequence.contenders import CONTENDERS, Contender
from tests.bench.sequence.figures import Cell, Planned, Round
from tests.bench.sequence.job import NUM_PARTITIONS, Load
from tests.bench.sequence.load import input_topic, put_load
from tests.bench.sequence.measure import Stage, cpu_s, notes_of, run_round
from tests.bench.sequence.verify import expect
from tests.support import create_topics

BY_SLUG = {contender.slug: contender for contender in CONTENDERS}


def test_moments_are_read_from_among_other_lines(tmp_path: Path) -> None:
    output = tmp_path / "output.log"
    output.write_text('starting\n{"first": 17.5}\n{"level": "info"}\n{broken}\n{"done": 19}\n{"fir', "utf-8")
    assert notes_of(output) == {"first": 17.5, "done": 19.0}


def test_cpu_seconds_of_a_process_grow() -> None:
    before = cpu_s(os.getpid())
    if before is None:
        pytest.skip("this system does not tell")
    while (now := cpu_s(os.getpid())) is not None and now <= before:
        sum(range(10_000))
    assert now is not None


def test_cpu_seconds_are_those_of_user_and_system(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "stat").write_text("17 (a b) c) S 1 1 1 0 -1 0 0 0 0 0 250 150 9 9 20 0\n", "utf-8")
    assert cpu_s(17, tmp_path) == 400 / os.sysconf("SC_CLK_TCK")
    assert cpu_s(18, tmp_path) is None


def run(broker: EmbeddedBroker, contender: Contender, load: Load, *, seed: int = 7, is_put: bool = True) -> Round:
    """One round on the session's broker; what is expected is that of the load with another seed."""

    async def run_it() -> Round:
        servers = broker.bootstrap_servers
        if is_put:
            await put_load(servers, load)
        else:
            await create_topics(servers, {input_topic(load): NUM_PARTITIONS})
        admin = AIOKafkaAdminClient(bootstrap_servers=servers)
        await admin.start()
        try:
            planned = Planned(load.num_events, 0, Cell(load, "each"), contender, load)
            made = await run_round(Stage(servers, broker.pid, admin), planned, expect(replace(load, seed=seed)))
            assert not [name for name in await admin.list_topics() if planned.run_name in name]
            return made
        finally:
            await admin.close()

    return asyncio.run(run_it())


@pytest.mark.kafka
@pytest.mark.slow
def test_a_round_that_is_right(broker: EmbeddedBroker) -> None:
    made = run(broker, BY_SLUG["faustkit"], Load(2001, 20))
    assert not made.failure
    assert (made.num_events, made.num_outputs, made.num_repeats, made.exit_code) == (2001, 2001, 0, 0)
    assert 0 < made.to_output_s <= made.to_commit_s


@pytest.mark.kafka
@pytest.mark.slow
def test_a_round_that_is_wrong_has_failed(broker: EmbeddedBroker) -> None:
    made = run(broker, BY_SLUG["faustkit"], Load(2002, 20), seed=8)
    assert made.failure.startswith("verified wrong: user u0: ")
    assert "more" in made.failure


@pytest.mark.kafka
def test_a_contender_that_ends_has_failed(broker: EmbeddedBroker) -> None:
    absent = replace(BY_SLUG["faustkit"], module="tests.bench.sequence.absent")
    made = run(broker, absent, Load(203, 20))
    assert made.failure.startswith("ended with exit code 1: ")
    assert "No module named" in made.failure


@pytest.mark.kafka
@pytest.mark.slow
def test_a_contender_that_does_not_go_on_has_failed(broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "STALLED_S", 3.0)
    made = run(broker, BY_SLUG["faustkit"], Load(204, 20), is_put=False)
    assert made.failure.startswith("no progress for 3 s")
