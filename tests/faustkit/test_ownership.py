"""A partition has one owner: whoever was it before can write nothing more to its changelog."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.faustkit import keeping
from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.effects import Effects
from stream_app.faustkit.keeping import PartitionState
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.ownership import OWNER_KEY, claim_partition
from stream_app.faustkit.producing import FencedError
from stream_app.faustkit.store import PartitionStore, Stored, StoreMemory
from tests.support import create_topics, read_all

pytestmark = pytest.mark.kafka


class Owner:
    """A process that owned the partition at some time."""

    def __init__(self, broker: EmbeddedBroker, changelog: str, folder: Path) -> None:
        self.outbox = Outbox({"bootstrap_servers": [broker.bootstrap_servers]}, client_id=folder.name)
        self.store = PartitionStore(folder / "0", StoreMemory(8 * 1024 * 1024))
        self.changelog = changelog
        self.kept: list[int] = []
        self.errors: list[BaseException] = []

    async def take_over(self) -> PartitionState:
        """Claim the partition."""
        await self.outbox.start()
        writer = await claim_partition(self.outbox, "group", self.changelog, 0)
        return PartitionState(
            self.store,
            (self.changelog, 0),
            self.outbox,
            writer,
            keeping.KeepClock(),
            on_kept=self.kept.append,
            on_error=self.errors.append,
        )

    async def stop(self) -> None:
        """Let go of everything."""
        await self.outbox.stop()
        self.store.close()


def test_a_process_that_wakes_late_overwrites_nothing(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "KEEP_S", 60.0)  # nothing is kept but when the scenario says so
    changelog = topic_prefix + "table-changelog"

    async def scenario() -> tuple[Owner, Owner]:
        await create_topics(broker.bootstrap_servers, {changelog: 1}, {"cleanup.policy": "compact"})
        sleeper, successor = (Owner(broker, changelog, tmp_path / name) for name in ("sleeper", "successor"))
        try:
            old = await sleeper.take_over()
            await old.take(Effects(changes={b"k": Stored(4, b"old")}), 5)
            await old.keep()
            # Asleep from here on, with a change in hand.
            await old.take(Effects(changes={b"k": Stored(6, b"late")}), 7)
            new = await successor.take_over()
            await new.take(Effects(changes={b"k": Stored(9, b"new")}), 10)
            await new.keep()
            await old.keep()
            assert sleeper.store.get(b"k") == Stored(4, b"old")
            return sleeper, successor
        finally:
            await sleeper.stop()
            await successor.stop()

    sleeper, successor = asyncio.run(scenario())
    assert (sleeper.kept, successor.kept) == ([5], [10])
    assert successor.errors == []
    (error,) = sleeper.errors
    assert isinstance(error, FencedError) and "another process has taken over" in str(error)
    records = asyncio.run(read_all(broker.bootstrap_servers, changelog, 1))
    values = [record.value[8:] for record in records if record.key != OWNER_KEY]
    assert values == [b"old", b"new"]
    marks = [dict(record.headers) for record in records if record.key == OWNER_KEY]
    assert [int(mark[OWNER_HEADER]) for mark in marks] == [0, 1]
