"""Keeping: changes are seen at once, kept in order a moment later, and never committed before they are kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from stream_app.faustkit import keeping
from stream_app.faustkit.effects import Effects, OutRecord
from stream_app.faustkit.keeping import KeepClock, PartitionState
from stream_app.faustkit.producing import Writer
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory

CHANGELOG = "table-changelog"
WRITER = Writer("test", producer_id=1, epoch=0)


class Changelog:
    """Acknowledges records when it is let, and notes them."""

    def __init__(self) -> None:
        self.records: list[OutRecord] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.error: Exception | None = None

    async def publish(self, records: Sequence[OutRecord], writer: Writer) -> dict[tuple[str, int], int]:
        """As the outbox does."""
        assert writer is WRITER
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        self.records.extend(records)
        return {(record.topic, record.partition): len(self.records) - 1 for record in self.records}


class Bench:
    """A state with a real store, a changelog of ours, and what was reported."""

    def __init__(self, store: PartitionStore) -> None:
        self.changelog = Changelog()
        self.kept: list[int] = []
        self.errors: list[BaseException] = []
        self.clock = KeepClock()
        outbox: Any = self.changelog
        self.state = PartitionState(
            store, (CHANGELOG, 0), outbox, WRITER, self.clock, on_kept=self.kept.append, on_error=self.errors.append
        )

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something has happened."""
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "KEEP_S", 0.001)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Callable[[Bench], Awaitable[None]]], Bench]]:
    """Runs a scenario on a new bench."""
    store = PartitionStore(tmp_path / "0", StoreMemory(8 * 1024 * 1024))

    def play(scenario: Callable[[Bench], Awaitable[None]]) -> Bench:
        async def main() -> Bench:
            bench = Bench(store)
            await scenario(bench)
            await bench.clock.stop()
            return bench

        return asyncio.run(main())

    yield play
    store.close()


def change(key: bytes, position: int, value: bytes = b"v") -> Effects:
    """The effects of a run that changed one value."""
    return Effects(changes={key: Stored(position, value)}, facts=[OutRecord("facts", 0, b"f", b"%d" % position)])


def test_a_change_is_seen_at_once_and_kept_before_it_is_committed(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        bench.changelog.gate.clear()
        await bench.state.take(change(b"a", 4), 5)
        assert bench.state.get_many([b"a", b"b"]) == [Stored(4, b"v"), None]
        assert bench.kept == [] and bench.state.store.get(b"a") is None
        bench.changelog.gate.set()
        await bench.until(lambda: bench.kept == [5])
        assert bench.state.store.get(b"a") == Stored(4, b"v")

    bench = run(scenario)
    assert [record.topic for record in bench.changelog.records] == [CHANGELOG, "facts"]


def test_a_change_while_another_is_being_kept_is_kept_too(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        bench.changelog.gate.clear()
        await bench.state.take(change(b"a", 1), 2)
        await bench.until(lambda: bench.state._lock.locked())
        await bench.state.take(change(b"a", 2), 3)
        await bench.state.take(change(b"b", 3), 4)
        assert bench.state.get_many([b"a", b"b"]) == [Stored(2, b"v"), Stored(3, b"v")]
        bench.changelog.gate.set()
        await bench.until(lambda: bench.kept == [2, 4])

    bench = run(scenario)
    assert [record.value for record in bench.changelog.records if record.topic == "facts"] == [b"1", b"3"]


def test_changes_are_kept_in_the_order_in_which_they_were_made_last(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        bench.changelog.gate.clear()
        for number, names in enumerate(("a!", "b!", "a!")):
            await bench.state.take(Effects(changes={b"%c" % ord(name): Stored(number, b"v") for name in names}), number)
        bench.changelog.gate.set()
        await bench.state.keep()

    bench = run(scenario)
    # What comes last in each run, to vouch for all before it, is the last of all.
    assert [record.key for record in bench.changelog.records][-3:] == [b"b", b"a", b"!"]


def test_a_run_without_changes_is_committed(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.state.take(Effects(), 9)
        await bench.until(lambda: bench.kept == [9])

    run(scenario)


def test_many_changes_are_kept_before_the_next_run(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "MAX_PENDING_KEYS", 3)

    async def scenario(bench: Bench) -> None:
        await bench.state.take(Effects(changes={b"%d" % n: Stored(n, b"v") for n in range(4)}), 4)
        assert bench.kept == [4]

    run(scenario)


def test_closing_keeps_what_is_pending(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.state.take(change(b"a", 1), 2)
        await bench.state.close()
        assert bench.kept[-1] == 2 and bench.state.store.get(b"a") == Stored(1, b"v")

    run(scenario)


def test_a_failure_is_reported_and_the_inputs_are_not_kept(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        bench.changelog.error = OSError("no leader")
        await bench.state.take(change(b"a", 1), 2)
        await bench.until(lambda: bool(bench.errors))
        assert bench.kept == [] and bench.state.store.get(b"a") is None

    run(scenario)


def test_all_partitions_of_a_process_are_kept_at_the_same_moment() -> None:
    seen: list[str] = []

    async def keep(name: str) -> None:
        seen.append(name)
        asyncio.get_running_loop().call_soon(seen.append, f"what came after {name}")

    async def scenario() -> None:
        clock = KeepClock()
        clock.add(lambda: keep("a"))
        clock.add(lambda: keep("b"))
        async with asyncio.timeout(10):
            while len(seen) < 4:
                await asyncio.sleep(0.001)

    asyncio.run(scenario())
    assert seen == ["a", "b", "what came after a", "what came after b"]


def test_who_is_slow_to_keep_holds_up_nobody() -> None:
    async def scenario() -> list[str]:
        clock, gate, kept = KeepClock(), asyncio.Event(), []

        async def slow() -> None:
            await gate.wait()
            kept.append("slow")

        async def quick() -> None:
            kept.append("quick")
            gate.set()

        clock.add(slow)
        async with asyncio.timeout(10):
            await asyncio.sleep(0)
            clock.add(quick)
            while len(kept) < 2:
                await asyncio.sleep(0.001)
        return kept

    assert asyncio.run(scenario()) == ["quick", "slow"]


def test_a_clock_that_was_stopped_calls_nobody_and_has_waited_for_those_it_called() -> None:
    async def scenario() -> list[str]:
        clock, gate, seen = KeepClock(), asyncio.Event(), []

        async def slow() -> None:
            seen.append("called")
            await gate.wait()
            seen.append("done")

        async def late() -> None:
            seen.append("too late")

        clock.add(slow)
        async with asyncio.timeout(10):
            while not seen:
                await asyncio.sleep(0.001)
            clock.add(late)
            stopping = asyncio.create_task(clock.stop())
            await asyncio.sleep(10 * keeping.KEEP_S)
            assert not stopping.done()
            gate.set()
            await stopping
        return seen

    assert asyncio.run(scenario()) == ["called", "done"]


def test_a_state_that_was_closed_keeps_nothing_more(run: Any) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.state.take(change(b"a", 1), 2)
        await bench.state.close()
        assert bench.kept == [2]
        await bench.state.keep()

    assert run(scenario).kept == [2]
