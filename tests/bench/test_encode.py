"""The bench of the encode stage: what is compared is the same thing, and figures are made of the right times."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from encoders.compression import compressed
from stream_app.records import SliceRecord, SliceVectorRecord, unpack_vector
from stream_app.slice_encoding import encode_slices
from tests.bench.encode import PLAIN, STAGE, Way, Work, cpu_flags, example_work, history_rows, result_of
from tests.bench.history_cost import LENGTHS, HistoryCosts, OneUser
from tests.bench.plain_model import PLAIN_BATCH, Variant, largest_difference, plain_call, plain_variants
from tests.bench.run_cost import ENCODE, SEQUENCE, OneByOne, RunCosts, outputs_of, run_costs, slice_runs
from tests.bench.timing import Took
from tests.encoders.cases import made_up_model


@pytest.fixture(scope="module")
def work() -> Work:
    return example_work(1)


def test_stage_and_plain_call_make_the_same_codes(work: Work) -> None:
    inputs = tuple(part[:40] for part in work.inputs())
    made = Variant("plain", plain_call(work.encoder._model), 16).all_of(inputs)
    staged = Work(work.encoder, [work.runs[0][:40]], work.settings).staged()
    assert work.num_slices == PLAIN_BATCH
    assert [vector.seq for vector in staged] == [record.seq for record in work.runs[0][:40]]
    codes_SD = np.stack([unpack_vector(vector.slice_vector) for vector in staged])
    assert np.abs(codes_SD - made.codes_SD.numpy()).max() < 1e-5


def test_a_user_encoded_step_by_step_is_as_if_encoded_from_scratch(work: Work) -> None:
    user = OneUser(work.settings, work.encoder, 30, work.encoder.item_vectors()[0])
    for _ in range(20):  # the user goes back once
        stepped = user.take_next()[-1]
    again = user.encode_again(None)[-1]
    assert (stepped.seq, stepped.items) == (again.seq, again.items)
    difference = np.abs(unpack_vector(stepped.user_vector) - unpack_vector(again.user_vector)).max()
    assert difference < 1e-5
    assert sum(len(vector.items) for vector in user.encode_again(17)) in range(17, 33)


def test_variants_differ_from_the_plain_call_by_their_arithmetic_alone() -> None:
    model = made_up_model(3).model
    inputs = (
        *(torch.randint(1, 3, (20, 16)) for _ in range(3)),
        torch.randint(1, 17, (20,)),
        *(torch.randint(1, 3, (20, 16)) for _ in range(3)),
        torch.randn(20, 4, 64),
        torch.rand(20) < 0.5,
    )
    one, *_, plain = plain_variants(model)
    wanted = plain.all_of(inputs)
    assert largest_difference(wanted, wanted) == 0.0
    assert largest_difference(one.all_of(inputs), wanted) < 1e-4
    rounded = Variant("bf16", plain_call(compressed(model, "bf16"))).all_of(inputs)
    assert largest_difference(rounded, wanted) > 1e-4


def test_a_memory_that_enters_the_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="expected one that is merged after it"):
        plain_call(made_up_model(3, merge="tokens").model)


def test_events_one_by_one_come_to_the_vectors_of_the_stage(work: Work) -> None:
    alone = OneByOne(work.settings, work.encoder, 40)
    with ThreadPoolExecutor(1) as executor:
        caused = asyncio.run(outputs_of(alone.sequence(), alone.runs()))
        vectors = asyncio.run(outputs_of(alone.encode(executor), slice_runs(caused)))
    made = [msgspec.json.decode(one.value or b"", type=SliceVectorRecord) for run in vectors for one in run if one.key]
    rows = [row for run in slice_runs(caused) for row in zip(run.keys, run.values, strict=True)]
    records = [msgspec.json.decode(value or b"", type=SliceRecord) for key, value in rows if key]
    wanted = encode_slices(work.encoder, records, {}, work.settings.event_types)
    assert [one.slice_vector for one in made] == [one.slice_vector for one in wanted]
    assert run_costs(alone, 1).num_runs == {SEQUENCE: 40, ENCODE: len(slice_runs(caused))}


def test_figures_are_medians_of_the_rounds() -> None:
    times = {STAGE: [Took(1.0, 9.0), Took(2.0, 9.0)], PLAIN: [Took(2.0, 9.0), Took(2.0, 9.0)]}
    ways = {name: Way(lambda: None, 0.0) for name in times}
    by_roles = {length: [Took(0.002 if length == 5_000 else 0.001, 1.0)] for length in LENGTHS}
    costs = HistoryCosts(by_roles, {length: [Took(0.01, 1.0)] for length in LENGTHS}, by_roles)
    runs = RunCosts({SEQUENCE: 10, ENCODE: 20}, {role: [Took(0.01, 1.0)] for role in (SEQUENCE, ENCODE)})
    result = result_of(ways, times, 100, costs, runs)
    rate = result.figures["stage_rate_over_plain"]
    assert (rate.value, rate.spread, rate.reached) == (1.5, (1.0, 2.0), True)
    assert result.figures["stage_slices_per_cpu_s"].value == pytest.approx(100 / 1.5)
    assert result.figures["event_at_5000_over_50"].value == 2.0
    assert result.figures["encode_run_of_one_ms"].value == pytest.approx(0.5)
    assert result.figures["sequence_run_of_one_ms"].value == pytest.approx(1.0)
    assert result.figures["last_200_again_over_event_at_5000"].value == 5.0
    assert history_rows(costs)[0] == ["10", "1.00", "10.00", "1.00"]


def test_flags_of_the_processor(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("model name\t: x\nflags\t\t: fpu avx512_bf16\n", "utf-8")
    assert cpu_flags(told).split() == ["fpu", "avx512_bf16"]
    assert cpu_flags(tmp_path / "none") == ""
