"""A namespace of a replay's own: topics, groups and state folder that nothing else uses, made and removed by it.

Whatever runs in the application's own namespace is neither read by its groups nor written to. A namespace is known as
made by a replay from a note in the state folder, and nothing without such a note is ever used or removed.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec
from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupIdNotFound,
    GroupLoadInProgressError,
    NonEmptyGroup,
    TopicAlreadyExistsError,
    for_code,
)
from aiokafka.protocol.admin import DeleteGroupsRequest

from stream_app.errors import TopicMismatchError, UsageError
from stream_app.kafka import admin_client
from stream_app.lag import group_name
from stream_app.preflight import ensure_topics
from stream_app.roles import ROLES
from stream_app.settings import Settings
from stream_app.topics import EVENTS, TopicSpec, prefixed, topic_specs

NOTE_FILE: Final = "made-by-replay.json"

SET_ON_TOPIC: Final = 1
"""Kafka's number for a configuration that somebody has set on the topic itself."""

RETENTION: Final = re.compile(r"(local\.)?retention\.(ms|bytes)|remote\..*")
"""What is not taken over: a replay writes old record times, and time retention would remove them at once."""

EMPTY_WITHIN_S: Final = 20.0
"""Longest wait for a group to lose its members beyond the session timeout: a stopped worker stays a member, by its
static name, until then."""

GONE_WITHIN_S: Final = 30.0
"""Longest wait until removed topics are gone."""

POLL_S: Final = 0.2


def fresh_name() -> str:
    """A name that no other namespace has: the time (UTC), and some random characters."""
    return f"replay-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def namespace_of(settings: Settings, name: str) -> Settings:
    """The settings of the namespace `name` beside that of `settings`: its prefix, and a state folder of its own.

    Raises:
        UsageError: Such a name cannot stand in the name of a topic.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,80}", name) or name in (".", ".."):
        raise UsageError(
            f"--namespace {name!r} cannot stand in the names of topics.", mend="use letters, digits, `.`, `_` and `-`"
        )
    folder = settings.state_path / "namespaces" / name
    return msgspec.structs.replace(settings, prefix=f"{settings.prefix}{name}-", state_dir=str(folder))


def make_namespace(settings: Settings, own: Settings) -> Settings:
    """Make the topics of the namespace `own`, shaped as those of `settings` are where they are there.

    Partitions, replicas and configuration are taken over, but for retention. A namespace that an earlier replay made
    is used as it is. Not for use inside a running loop.

    Returns:
        The settings of the namespace, with the number of partitions that it has.

    Raises:
        UsageError: Topics of that prefix are there, and no replay made them.
        TopicMismatchError: The topics cannot be made, or do not fit.
        KafkaUnreachableError: The broker does not answer.
    """
    own = asyncio.run(_make(settings, own))
    ensure_topics(own, create=True)
    return own


def remove_namespace(own: Settings) -> int:
    """Remove the topics, groups and state folder of a namespace that a replay made; how many topics that were.

    Its roles must have been stopped. Not for use inside a running loop.

    Raises:
        UsageError: No replay made it, or its roles still run.
        KafkaUnreachableError: The broker does not answer.
    """
    if not _note(own).is_file():
        raise UsageError(
            f"No replay made a namespace with the prefix {own.prefix}: there is no {_note(own)}.",
            mend="name one that `sliceflow replay --namespace NAME` made with this state folder",
        )
    num_topics = asyncio.run(_remove(own))
    shutil.rmtree(own.state_path)
    return num_topics


def _note(own: Settings) -> Path:
    return own.state_path / NOTE_FILE


async def _make(settings: Settings, own: Settings) -> Settings:
    async with admin_client(settings) as admin:
        topics = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
        present = [spec.name for spec in topic_specs(own.prefix, own.partitions) if spec.name in topics]
        if present and not _note(own).is_file():
            raise UsageError(
                f"There are topics of that namespace already ({present[0]}), and {_note(own)} does not say that a "
                "replay made them.",
                mend="choose another --namespace, or --fresh",
            )
        like = topics.get(prefixed(own.prefix, EVENTS)) or topics.get(prefixed(settings.prefix, EVENTS))
        own = msgspec.structs.replace(own, partitions=len(like) if like else settings.partitions)
        _write_note(own)
        missing = [spec for spec in topic_specs(own.prefix, own.partitions) if spec.name not in topics]
        models = {spec.name: f"{settings.prefix}{spec.name.removeprefix(own.prefix)}" for spec in missing}
        configs = await set_configs(admin, [name for name in models.values() if name in topics])
        await _create(admin, [_new_topic(spec, topics, configs, models[spec.name], own) for spec in missing])
    return own


def _write_note(own: Settings) -> None:
    path = _note(own)
    path.parent.mkdir(parents=True, exist_ok=True)
    facts = {"prefix": own.prefix, "made": datetime.now(UTC).isoformat(timespec="seconds")}
    if not path.exists():
        path.write_bytes(msgspec.json.encode(facts) + b"\n")


def _new_topic(
    spec: TopicSpec,
    topics: Mapping[str, Sequence[Any]],
    configs: Mapping[str, Mapping[str, str]],
    model: str,
    own: Settings,
) -> NewTopic:
    """A topic as `model` is, where that is there, but with our retention."""
    taken = {name: value for name, value in configs.get(model, {}).items() if not RETENTION.fullmatch(name)}
    num_replicas = len(topics[model][0]["replicas"]) if model in topics else own.replication
    return NewTopic(spec.name, spec.num_partitions, num_replicas, topic_configs={**spec.full_config(), **taken})


async def set_configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    """What is set on each topic itself."""
    if not names:
        return {}
    found: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names]):
        for error_code, _message, _kind, name, entries in answer.resources:
            if error_code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries if entry[3] == SET_ON_TOPIC}
    return found


async def _create(admin: Any, wanted: Sequence[NewTopic]) -> None:
    if not wanted:
        return
    answer = await admin.create_topics(list(wanted))
    for name, error_code, *message in answer.topic_errors:
        if error_code not in (0, TopicAlreadyExistsError.errno):
            reason = (message and message[0]) or for_code(error_code).__name__
            raise TopicMismatchError(
                f"The broker refused to create {name}: {reason}.", mend="check the rights of the Kafka user"
            )


async def _remove(own: Settings) -> int:
    give_up_s = time.monotonic() + own.session_timeout_s + EMPTY_WITHIN_S
    async with admin_client(own) as admin:
        for role in ROLES:
            # Groups first: while one has members, its role runs and the topics are in use.
            while await _is_in_use(admin, group_name(own, role)):
                if time.monotonic() > give_up_s:
                    raise UsageError(
                        f"The role {role} of the namespace {own.prefix} still runs.", mend="stop it, then remove again"
                    )
                await asyncio.sleep(POLL_S)
        there = {topic["topic"] for topic in await admin.describe_topics()}
        names = [spec.name for spec in topic_specs(own.prefix, own.partitions) if spec.name in there]
        if names:
            await admin.delete_topics(names)
        give_up_s = time.monotonic() + GONE_WITHIN_S
        while left := {topic["topic"] for topic in await admin.describe_topics()} & set(names):
            if time.monotonic() > give_up_s:
                raise TopicMismatchError(
                    f"{len(left)} topics were removed but are still there after {GONE_WITHIN_S:g} s.",
                    mend="look at the broker's log",
                )
            await asyncio.sleep(POLL_S)
    return len(names)


async def _is_in_use(admin: Any, group: str) -> bool:
    """Remove a group; True where it has members, and stays."""
    try:
        node = await admin.find_coordinator(group)
    except (GroupCoordinatorNotAvailableError, GroupLoadInProgressError):
        return True  # nobody can tell yet
    answer = await admin._send_request(DeleteGroupsRequest([group]), node)
    for _, error_code in answer.results:
        if error_code == NonEmptyGroup.errno:
            return True
        if error_code not in (0, GroupIdNotFound.errno):
            raise for_code(error_code)(group)
    return False
