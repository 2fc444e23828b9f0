"""A main segment built in a process of its own is the same, and when that process fails the index builds it itself."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as numpy_examples

from index import LiveIndex, LiveOptions, SwapRefusedError, built_apart
from index.building import BuildOrder, divided_and_built
from index.built_apart import read_array, read_main, read_order, write_array, write_main, write_order
from index.contract import Partition
from index.inverted_file import InvertedFile
from index.main_segment import MainSegment, RecallGoal
from index.parts import new_partition
from index.sampling import filled_up
from index.sizes import SizeRule
from tests.index.cases import DIM, names, vectors

NUM_ITEMS = 3000
IDS = names(NUM_ITEMS)
VECTORS_ND = vectors(NUM_ITEMS, seed=1)
QUERIES_QD = vectors(40, seed=2)


def order_of(partition: Partition | None = None, least: float = 0.9) -> BuildOrder:
    """To build the items backwards, for which any number will do."""
    numbers_R = np.arange(NUM_ITEMS)[::-1].copy()
    return BuildOrder(numbers_R, VECTORS_ND, filled_up(QUERIES_QD, VECTORS_ND), RecallGoal(0.95, least), 1, partition)


def earlier() -> Partition:
    """A partition that leaves out some rows."""
    partition = new_partition(VECTORS_ND, 1)
    parts_N = partition.parts_N.copy()
    parts_N[::7] = -1
    return Partition(partition.centres_PD, parts_N)


def assert_alike(found: MainSegment, expected: MainSegment) -> None:
    """Of the same items, the same candidates with every effort."""
    assert isinstance(found.structure, InvertedFile)
    assert (found.effort, found.recall) == (expected.effort, expected.recall)
    assert np.array_equal(found.numbers_R, expected.numbers_R)
    for effort in expected.structure.efforts:
        given, wanted = (
            one.structure.candidates(QUERIES_QD, 20, effort, None, 1.0).tolist() for one in (found, expected)
        )
        assert given == wanted


@pytest.mark.parametrize("partition", [None, earlier()], ids=["new", "gone on with"])
def test_another_process_builds_the_very_same(partition: Partition | None) -> None:
    order = order_of(partition)
    assert_alike(built_apart.built_apart(order), divided_and_built("ivf", order))


def test_another_process_refuses_what_finds_too_little() -> None:
    with pytest.raises(SwapRefusedError) as refused:
        built_apart.built_apart(order_of(least=1.1))
    assert refused.value.wanted == 1.1
    assert 0.9 < refused.value.recall <= 1.0


def test_what_goes_through_the_pipes_comes_back() -> None:
    order = order_of(earlier())
    stream = io.BytesIO()
    write_order(stream, order)
    stream.seek(0)
    again = read_order(stream)
    assert (again.goal, again.num_threads) == (order.goal, order.num_threads)
    assert order.earlier is not None and again.earlier is not None
    for found, expected in (
        (again.numbers_R, order.numbers_R),
        (again.vectors_RD, order.vectors_RD),
        (again.queries_SD, order.queries_SD),
        (again.earlier.centres_PD, order.earlier.centres_PD),
        (again.earlier.parts_N, order.earlier.parts_N),
    ):
        assert found.dtype == expected.dtype and np.array_equal(found, expected)
    main = divided_and_built("ivf", order)
    stream = io.BytesIO()
    write_main(stream, main)
    stream.seek(0)
    assert_alike(read_main(stream, order), main)


@given(numpy_examples.arrays(np.float32, numpy_examples.array_shapes(min_dims=1, max_dims=2, min_side=0, max_side=5)))
def test_any_array_comes_back(array: Any) -> None:
    stream = io.BytesIO()
    write_array(stream, array)
    written = stream.getvalue()
    assert np.array_equal(read_array(io.BytesIO(written)), array, equal_nan=True)
    with pytest.raises(EOFError):
        read_array(io.BytesIO(written[:-1]))


def filled(apart_from: int) -> LiveIndex:
    """An index of all items, as yet without a main segment."""
    options = LiveOptions(
        sizes=SizeRule(flat=100, kind="ivf"), goal=RecallGoal(0.95, 0.5), apart_from=apart_from, compacts_itself=False
    )
    index = LiveIndex(DIM, "r1", options)
    index.upsert(IDS, VECTORS_ND)
    return index


@pytest.fixture
def index() -> LiveIndex:
    """An index that has inverted files built in a process of their own, however few the items."""
    return filled(apart_from=0)


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """All that are started to build."""
    started: list[subprocess.Popen[bytes]] = []
    start = subprocess.Popen

    def noted(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(*arguments, **options))
        return started[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    return started


def test_an_index_has_its_main_segment_built_by_another_process(
    index: LiveIndex, processes: list[subprocess.Popen[bytes]], caplog: pytest.LogCaptureFixture
) -> None:
    index.compact()
    assert [process.returncode for process in processes] == [0]
    assert (index.status.kind, index.status.main_items, index.status.generation) == ("ivf", NUM_ITEMS, 1)
    assert not caplog.records
    other = filled(apart_from=NUM_ITEMS + 1)
    other.compact()
    assert len(processes) == 1
    assert index.search(QUERIES_QD, 10).ids == other.search(QUERIES_QD, 10).ids


def test_contents_for_an_empty_index_are_built_in_the_process_itself(
    index: LiveIndex, processes: list[subprocess.Popen[bytes]]
) -> None:
    contents = index.contents()
    index.swap(contents)
    assert len(processes) == 1
    LiveIndex(DIM, "r1", LiveOptions(sizes=SizeRule(flat=100, kind="ivf"), apart_from=0)).swap(contents)
    assert len(processes) == 1


def test_when_the_process_is_killed_the_index_builds_by_itself_and_says_so(
    index: LiveIndex,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def kill_first(stream: Any, order: BuildOrder) -> None:
        os.kill(processes[0].pid, signal.SIGKILL)
        write_order(stream, order)

    monkeypatch.setattr(built_apart, "write_order", kill_first)
    index.compact()
    assert [process.returncode for process in processes] == [-signal.SIGKILL]
    assert (index.status.kind, index.status.generation) == ("ivf", 1)
    assert "ended with -9" in caplog.text


def test_where_no_process_can_be_started_the_index_builds_by_itself(
    index: LiveIndex, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    index.compact()
    assert index.status.kind == "ivf"
    assert "/nowhere/python" in caplog.text


def test_a_process_whose_order_is_cut_off_ends_without_a_word() -> None:
    stream = io.BytesIO()
    write_order(stream, order_of())
    cut = stream.getvalue()[:-1]
    done = subprocess.run([sys.executable, "-m", built_apart.BUILDER], input=cut, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")


def test_a_process_whose_answer_nobody_reads_ends_without_a_word() -> None:
    pipe = subprocess.PIPE
    command = [sys.executable, "-m", built_apart.BUILDER]
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        process.stdout.close()
        with process.stdin as stream:
            write_order(stream, order_of())
        assert process.stderr.read() == b""
    assert process.returncode == 1
