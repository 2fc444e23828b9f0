"""Dead letters of refused vectors: written by whoever owns the partition, however early they were refused."""

from __future__ import annotations

import asyncio

from index.checks import NOT_FINITE, WRONG_RELEASE
from stream_app.faustkit import OutRecord, Run
from stream_app.refused_vectors import MAX_WAITING, RefusedVectors


class Letters:
    """Takes what is published."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, str, str]] = []
        self.refused = RefusedVectors("dead", self.publish)

    async def publish(self, records: list[OutRecord]) -> None:
        for record in records:
            facts = {name: (value or b"").decode() for name, value in record.headers}
            assert (record.topic, facts["class"], facts["topic"]) == ("dead", "rejected", "item-vectors")
            self.sent.append((facts["partition"], facts["offset"], facts["reason"]))


def run(partition: int, num: int = 3) -> Run:
    return Run("item-vectors", partition, range(num), [b"a"] * num, [b"?"] * num, [0] * num, [()] * num)


def test_letters_wait_until_their_partition_is_owned() -> None:
    async def story() -> None:
        letters = Letters()
        letters.refused.take(run(0), 1, NOT_FINITE)
        letters.refused.take(run(1), 2, NOT_FINITE)
        await asyncio.sleep(0)
        assert letters.sent == []
        await letters.refused.own([1])
        assert letters.sent == [("1", "2", NOT_FINITE)]
        letters.refused.take(run(1), 0, NOT_FINITE)
        await asyncio.sleep(0)
        await letters.refused.own([0])
        assert letters.sent[1:] == [("1", "0", NOT_FINITE), ("0", "1", NOT_FINITE)]

    asyncio.run(story())


def test_other_releases_are_told_once_and_a_flood_is_bounded() -> None:
    async def story() -> None:
        letters = Letters()
        for _ in range(3):
            letters.refused.take(run(0), 0, WRONG_RELEASE)
        for _ in range(MAX_WAITING + 5):
            letters.refused.take(run(1), 0, NOT_FINITE)
        await letters.refused.own([0, 1])
        assert letters.sent.count(("0", "0", WRONG_RELEASE)) == 1
        assert len(letters.sent) == MAX_WAITING + 1

    asyncio.run(story())
