"""Are the topics of an app there, in the shape it relies on? Asked before anything is read, and at each assignment.

Faust ignores an input topic that is missing at its start and never reads it, even when it is created later; and when
a topic is deleted, it is left out of the next assignment without a word.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from stream_app.errors import TopicMismatchError
from stream_app.faustkit.topic_id import topic_id

TopicIds = Mapping[str, uuid.UUID | None]
"""The id that Kafka gave each topic when it was created; None where it knows no ids."""


@dataclass(frozen=True)
class SeenTopics:
    """What was seen of the topics of an app.

    Args:
        ids: The id of each input.
        num_partitions: Partitions of each input and changelog.
    """

    ids: TopicIds = field(default_factory=dict)
    num_partitions: Mapping[str, int] = field(default_factory=dict)


SETTLE_S = 5.0
"""How long a new topic may take to be known to every broker of a cluster: usually well under a second."""

POLL_S = 0.2
"""Time between two looks while topics settle."""


async def check_topics(
    connection: Mapping[str, Any], inputs: Collection[str], changelogs: Mapping[str, str]
) -> SeenTopics:
    """Return when all topics are there and fit each other.

    Args:
        connection: Keyword arguments for aiokafka clients.
        inputs: The topics that are read.
        changelogs: The changelog topic for each input topic that has one.

    Returns:
        What was seen, for `refuse_recreated` and `refuse_grown`.

    Raises:
        TopicMismatchError: Topics are missing, or a changelog has another number of partitions than its input; all of
            them in one message.
        KafkaError: The broker does not answer.
    """
    admin = AIOKafkaAdminClient(**connection)
    await admin.start()
    try:
        found, problems = await _settled(admin, inputs, changelogs)
        if problems:
            mend = "create what is missing, with equal numbers of partitions"
            raise TopicMismatchError(" ".join(problems), mend=mend)
        names = {*inputs, *changelogs.values()}
        ids = {topic: await topic_id(admin._client, topic) for topic in inputs}
        return SeenTopics(ids, {name: found[name] for name in names})
    finally:
        await admin.close()


def refuse_recreated(known: TopicIds, seen: TopicIds) -> None:
    """Return when every topic is still the one it was.

    Raises:
        TopicMismatchError: A topic was deleted and created anew.
    """
    recreated = sorted(topic for topic, number in known.items() if number is not None and seen.get(topic) != number)
    if recreated:
        raise TopicMismatchError(
            f"Topics were deleted and created anew while they were read: {', '.join(recreated)}. Their offsets say "
            "nothing about what was done before.",
            mend="let the group begin anew with empty stores and changelogs",
        )


def refuse_grown(known: Mapping[str, int], seen: Mapping[str, int]) -> None:
    """Return when no topic has more partitions than it had.

    Args:
        known: Partitions of each topic when the app took it up.
        seen: Partitions now. Fewer are no news but of a broker that lags behind: Kafka takes none away.

    Raises:
        TopicMismatchError: Partitions were added; names all such topics.
    """
    if grown := grown_topics(known, seen):
        told = " ".join(f"The topic {name} has {seen[name]} partitions, but had {known[name]}." for name in grown)
        raise TopicMismatchError(
            f"{told} Partitions were added while it was read: keys lie in others now than their state.",
            mend="create all topics anew that are cut alike, with equal numbers of partitions, and let the group begin "
            "anew with empty stores and changelogs",
        )


def grown_topics(known: Mapping[str, int], seen: Mapping[str, int]) -> list[str]:
    """The topics with more partitions than are known, in order of their names."""
    return sorted(name for name, number in seen.items() if number > known.get(name, number))


def refuse_other_input(input_id: str | None, topic: str, seen: TopicIds) -> None:
    """Return when the positions in a store are those of this very topic.

    Args:
        input_id: What the store says of it; None where no changelog has told it.
        topic: Name of the input.
        seen: The ids there are now.

    Raises:
        TopicMismatchError: The topic was deleted and created anew while nobody read it. All its records would pass for
            ones that are done.
    """
    number = seen.get(topic)
    if number is not None and input_id not in (None, str(number)):
        raise TopicMismatchError(
            f"The state reflects the topic {topic} with id {input_id}, but that name now is a topic with id "
            f"{number}: it was deleted and created anew.",
            mend="rebuild the role from its input, or let the group begin anew with empty stores and changelogs",
        )


def topic_problems(
    num_partitions: Mapping[str, int], inputs: Collection[str], changelogs: Mapping[str, str]
) -> list[str]:
    """What is wrong, one sentence each.

    Args:
        num_partitions: Partitions of every topic there is.
        inputs: The topics that are read.
        changelogs: The changelog topic for each input topic that has one.
    """
    problems = [
        f"The topic {name} is missing."
        for name in sorted({*inputs, *changelogs.values()})
        if not num_partitions.get(name)
    ]
    for topic, changelog in sorted(changelogs.items()):
        seen, expected = num_partitions.get(changelog, 0), num_partitions.get(topic, 0)
        if seen and expected and seen != expected:
            problems.append(f"The changelog {changelog} has {seen} partitions, but its input {topic} has {expected}.")
    return problems


async def _settled(
    admin: AIOKafkaAdminClient, inputs: Collection[str], changelogs: Mapping[str, str]
) -> tuple[Mapping[str, int], list[str]]:
    """Partitions of every topic there is, and what is lastingly wrong with them."""
    give_up_s = time.monotonic() + SETTLE_S
    while True:
        # All topics are asked for: asking for a missing one by its name would create it on many clusters.
        found = {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}
        problems = topic_problems(found, inputs, changelogs)
        if not problems or time.monotonic() > give_up_s:
            return found, problems
        await asyncio.sleep(POLL_S)
