"""Owning a partition: from its claim on, no earlier owner can write to its changelog.

A process that is paused for so long that its partitions go to another may wake in the middle of a write. Positions
in the values alone do not help against that: compaction keeps the last record of a key, not the one with the greatest
position.
"""

from __future__ import annotations

import msgspec

from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import Writer

OWNER_KEY = b"\xfffaustkit-owner"
"""Key of the marks, so that compaction leaves one of them. What makes them marks is their header."""


async def claim_partition(outbox: Outbox, group: str, changelog: str, partition: int) -> Writer:
    """Become the only one who can write to this partition of the changelog.

    The mark is written before anybody asks for the changelog's end: so what is read up to there is all there will
    ever be of earlier owners.

    Args:
        outbox: Where to write.
        group: The consumer group.
        changelog: Full name of the changelog topic.
        partition: The partition.

    Returns:
        The writer in whose name to publish everything that this partition causes.

    Raises:
        SendError: Kafka did not take it.
    """
    writer = await outbox.claim(f"{group}:{changelog}:{partition}")
    generation = {"producer_id": writer.producer_id, "epoch": writer.epoch}
    mark = OutRecord(
        changelog, partition, OWNER_KEY, msgspec.json.encode(generation), [(OWNER_HEADER, b"%d" % writer.epoch)]
    )
    await outbox.publish([mark], writer)
    return writer
