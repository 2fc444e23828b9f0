"""Values that are removed, and runs that are taken in part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stream_app.faustkit import Effects, Stored
from stream_app.faustkit.changelog import ChangelogFold
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, StoreMemory
from tests.faustkit.test_keeping import CHANGELOG, Bench, run, soon

__all__ = ["run", "soon"]

KEPT = {b"a": Stored(1, b"v"), b"b": Stored(2, b"v")}


def run_of(num: int) -> Run:
    """A run with gaps between the offsets."""
    return Run("input", 0, range(10, 10 + 2 * num, 2), [b"k"] * num, [b"v"] * num, [0] * num, [()] * num)


def test_a_removed_value_is_gone_at_once_and_its_null_lies_behind_all_changes(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.state.take(Effects(changes=KEPT), 3)
        await bench.state.keep()
        bench.changelog.gate.clear()
        await bench.state.take(Effects(changes={b"!": Stored(3, b"")}, removed=[b"a", b"unknown"]), 4)
        assert bench.state.get_many([b"a", b"b"]) == [None, KEPT[b"b"]]
        bench.changelog.gate.set()
        await bench.state.keep()
        assert [bench.state.store.get(key) for key in (b"a", b"b")] == [None, KEPT[b"b"]]
        await bench.state.take(Effects(changes={b"a": Stored(5, b"new")}), 6)
        assert bench.state.get_many([b"a"]) == [Stored(5, b"new")]

    bench = run(scenario)
    told = [(record.key, record.value is None) for record in bench.changelog.records if record.topic == CHANGELOG]
    assert told[2:5] == [(b"!", False), (b"a", True), (b"unknown", True)]


def test_recovery_forgets_what_was_removed(run: Any, tmp_path: Path) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.state.take(Effects(changes=KEPT), 3)
        await bench.state.keep()
        await bench.state.take(Effects(removed=[b"a"]), 4)
        await bench.state.keep()

    records = run(scenario).changelog.records
    num = len(records)
    keys, values = [record.key for record in records], [record.value for record in records]
    store = PartitionStore(tmp_path / "recovered", StoreMemory(1024 * 1024))
    ChangelogFold(store).apply(Run(CHANGELOG, 0, range(num), keys, values, [0] * num, [()] * num))
    assert dict(store.items()) == {b"b": KEPT[b"b"]}
    store.close()


def test_what_was_taken_of_a_run_is_kept_before_the_rest_comes(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        state, whole = bench.state, run_of(3)
        left = await state.take_run(Effects(changes={b"a": Stored(10, b"v")}, num_taken=1), whole)
        assert left is not None and list(left.offsets) == [12, 14]
        assert bench.kept == [11] and state.store.get(b"a") == Stored(10, b"v")
        assert await state.take_run(Effects(num_taken=2), left) is None
        assert bench.kept == [11, 15]

    run(scenario)


def test_nothing_taken_keeps_what_came_before(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.state.take(Effects(changes={b"a": Stored(8, b"v")}), 9)
        whole = run_of(2)
        left = await bench.state.take_run(Effects(num_taken=0), whole)
        assert left is whole
        assert bench.state.store.get(b"a") == Stored(8, b"v") and bench.kept[-1] == 9

    run(scenario)


def test_a_run_that_is_taken_whole_is_kept_with_others(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        bench.changelog.gate.clear()
        assert await bench.state.take_run(Effects(changes={b"a": Stored(10, b"v")}), run_of(1)) is None
        assert bench.kept == []
        bench.changelog.gate.set()
        await bench.until(lambda: bench.kept == [11])

    run(scenario)
