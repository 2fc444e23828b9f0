"""Owning a partition: from its claim on, no earlier owner can write to its changelog.

A process that is paused for so long that its partitions go to another may wake in the middle of a write. Positions
in the values alone do not help against that: compaction keeps the last record of a key, not the one with the greatest
position.
"""

from __future__ import annotations

import msgspec

from stream_app.faustkit.changelog import INPUT_HEADER, OWNER_HEADER
from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.producing import Writer

OWNER_KEY = b"\xfffaustkit-owner"
"""Key of the marks, so that compaction leaves one of them. What makes them marks is their header."""

INPUT_KEY = b"\xfffaustkit-input"
"""Key of the marks that name the input. Not the one above: a claim comes before anybody knows what the changelog says
of its input, and compaction must not leave the claim alone."""


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
    await outbox.publish([_mark(OWNER_KEY, changelog, partition, writer)], writer)
    return writer


async def mark_input(outbox: Outbox, changelog: str, partition: int, writer: Writer, input_id: str) -> None:
    """Write down in a changelog which topic the positions of its values belong to.

    Whoever makes a store of this changelog then knows it too, and `refuse_other_input` has something to go by.

    Args:
        outbox: Where to write.
        changelog: Full name of the changelog topic.
        partition: The partition.
        writer: What `claim_partition` gave.
        input_id: Id of the input topic.

    Raises:
        SendError: Kafka did not take it.
    """
    mark = _mark(INPUT_KEY, changelog, partition, writer, (INPUT_HEADER, input_id.encode()))
    await outbox.publish([mark], writer)


def _mark(key: bytes, changelog: str, partition: int, writer: Writer, *headers: tuple[str, bytes]) -> OutRecord:
    generation = {"producer_id": writer.producer_id, "epoch": writer.epoch}
    owner = (OWNER_HEADER, b"%d" % writer.epoch)
    return OutRecord(changelog, partition, key, msgspec.json.encode(generation), [owner, *headers])
