"""Topics preflight: do all topics exist in the shape the roles rely on? Create them, or refuse to start."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from aiokafka.admin import NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code

from stream_app.errors import TopicMismatchError
from stream_app.kafka import admin_client
from stream_app.settings import Settings
from stream_app.topics import MAX_RECORD_BYTES, TopicSpec, topic_specs

VISIBLE_WITHIN_S: Final = 30.0
"""How long created topics may take to be visible with a leader for each partition. One broker needs
milliseconds, a loaded cluster a few seconds."""

POLL_S: Final = 0.05
"""Pause between two looks at the metadata while waiting for new topics."""

_CHECKED_CONFIG: Final = ("cleanup.policy", "max.message.bytes")


@dataclass(frozen=True)
class TopicState:
    """One topic as it is, beside what it should be.

    `num_partitions` is None where the topic is missing. `problems` forbid a start (each tells seen, expected
    and mend); `notes` are worth a look. `created` tells that this call created it.
    """

    spec: TopicSpec
    num_partitions: int | None
    cleanup: str = ""
    max_message_bytes: int = 0
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    created: bool = False

    @property
    def name(self) -> str:
        """The topic's full name."""
        return self.spec.name

    @property
    def is_missing(self) -> bool:
        """Whether the topic does not exist (or not with a leader for every partition, yet)."""
        return self.num_partitions is None


def inspect_topics(settings: Settings) -> list[TopicState]:
    """The state of every topic, in the order of the flow; changes nothing. Not for use inside a running loop.

    Raises:
        KafkaUnreachableError: The broker does not answer.
    """

    async def look() -> list[TopicState]:
        async with admin_client(settings) as admin:
            return await _inspect(admin, _specs(settings))

    return asyncio.run(look())


def ensure_topics(settings: Settings, create: bool) -> list[TopicState]:
    """Make sure that every topic exists in the right shape; any number of processes may do so at once.

    Topics of the wrong shape are never changed: a person must decide what becomes of their records.

    Args:
        settings: The settings; `partitions` and `replication` shape what is created.
        create: Create what is missing.

    Returns:
        The state of every topic, all present and without problems.

    Raises:
        TopicMismatchError: Topics are missing (without `create`), of the wrong shape, or cannot be created;
        all
            of them in one message.
        KafkaUnreachableError: The broker does not answer.
    """
    return asyncio.run(_ensure(settings, create))


async def _ensure(settings: Settings, create: bool) -> list[TopicState]:
    specs = _specs(settings)
    async with admin_client(settings) as admin:
        states = await _inspect(admin, specs)
        _refuse_problems(states)
        missing = [state.spec for state in states if state.is_missing]
        if not missing:
            return states
        if not create:
            raise TopicMismatchError(
                f"{_num_topics(len(missing))} missing: {', '.join(spec.name for spec in missing)}.",
                mend="run `sliceflow topics --create`",
            )
        created = await _create(admin, missing, settings.replication)
        states = await _wait_until_visible(admin, specs)
        _refuse_problems(states)
        return [replace(state, created=state.name in created) for state in states]


def _specs(settings: Settings) -> list[TopicSpec]:
    return topic_specs(settings.prefix, settings.partitions)


def _num_topics(count: int) -> str:
    return "1 topic is" if count == 1 else f"{count} topics are"


def _refuse_problems(states: Sequence[TopicState]) -> None:
    problems = [problem for state in states for problem in state.problems]
    if problems:
        raise TopicMismatchError(
            "Topics are not in the shape that is needed: " + " ".join(problems),
            mend="do what is said at each topic, or use another `prefix` to start with topics of your own",
        )


# ---------------------------------------------------------------- looking


async def _inspect(admin: Any, specs: Sequence[TopicSpec]) -> list[TopicState]:
    # All topics are asked for, because asking for a missing one by name creates it on many clusters.
    partitions = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    counts = {
        spec.name: len(partitions[spec.name])
        for spec in specs
        if partitions.get(spec.name) and all(part["leader"] >= 0 for part in partitions[spec.name])
    }
    configs = await _configs(admin, list(counts))
    return [judge(spec, counts.get(spec.name), configs.get(spec.name)) for spec in specs]


async def _configs(admin: Any, names: Sequence[str]) -> dict[str, dict[str, str]]:
    if not names:
        return {}
    wanted = {name: "" for name in _CHECKED_CONFIG}
    answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name, wanted) for name in names])
    found: dict[str, dict[str, str]] = {}
    for answer in answers:
        for error_code, _message, _kind, name, entries in answer.resources:
            if error_code == 0:
                found[name] = {entry[0]: entry[1] for entry in entries}
    return found


def judge(spec: TopicSpec, num_partitions: int | None, config: dict[str, str] | None) -> TopicState:
    """The state of one topic, from what the broker tells of it (None: nothing, so it is missing).

    Only co-partitioned topics must have the number of partitions asked for. The cleanup policy must hold
    every part that is needed; a part too many is noted.
    """
    if num_partitions is None or config is None:
        return TopicState(spec, None)
    cleanup = config.get("cleanup.policy", "")
    max_bytes = int(config.get("max.message.bytes", "0"))
    problems = [
        problem
        for problem in (
            _partition_problem(spec, num_partitions),
            _cleanup_problem(spec, cleanup),
            _size_problem(spec, max_bytes),
        )
        if problem
    ]
    extra = _parts(cleanup) - _parts(spec.cleanup)
    notes = [f"{spec.name} also has cleanup.policy {part}: {_LOST[part]}" for part in sorted(extra)]
    return TopicState(spec, num_partitions, cleanup, max_bytes, tuple(problems), tuple(notes))


_LOST: Final = {
    "compact": "older records of a key may be dropped before they are read.",
    "delete": "records may be dropped by age, and state that lives in them is lost.",
}


def _parts(policy: str) -> set[str]:
    return {part.strip() for part in policy.split(",") if part.strip()} & set(_LOST)


def _partition_problem(spec: TopicSpec, seen: int) -> str:
    if not spec.group or seen == spec.num_partitions:
        return ""
    return (
        f"{spec.name} has {seen} partitions, expected {spec.num_partitions} "
        f"as all topics that are cut by {spec.group}: "
        f"set partitions = {seen} where all of them have so many, else create it anew."
    )


def _cleanup_problem(spec: TopicSpec, seen: str) -> str:
    if _parts(spec.cleanup) <= _parts(seen):
        return ""
    return (
        f"{spec.name} has cleanup.policy={seen or 'none'}, expected {spec.cleanup}: "
        f"alter its configuration to cleanup.policy=[{spec.cleanup}]."
    )


def _size_problem(spec: TopicSpec, seen_bytes: int) -> str:
    needed = int(spec.config.get("max.message.bytes", MAX_RECORD_BYTES))
    if seen_bytes >= needed:
        return ""
    return (
        f"{spec.name} has max.message.bytes={seen_bytes}, expected at least {needed}: "
        f"alter its configuration to max.message.bytes={needed}."
    )


# ---------------------------------------------------------------- creating


async def _create(admin: Any, specs: Sequence[TopicSpec], replication: int) -> set[str]:
    """Create topics; the names of those that this call created (others may be quicker)."""
    wanted = [NewTopic(spec.name, spec.num_partitions, replication, topic_configs=spec.full_config()) for spec in specs]
    answer = await admin.create_topics(wanted)
    created: set[str] = set()
    refused: list[str] = []
    for name, error_code, *message in answer.topic_errors:
        if error_code == 0:
            created.add(name)
        elif error_code != TopicAlreadyExistsError.errno:
            refused.append(f"{name} ({(message and message[0]) or for_code(error_code).__name__})")
    if refused:
        raise TopicMismatchError(
            f"The broker refused to create {', '.join(refused)}.",
            mend="check `replication` against the number of brokers, and the user's rights",
        )
    return created


async def _wait_until_visible(admin: Any, specs: Sequence[TopicSpec]) -> list[TopicState]:
    give_up_at = time.monotonic() + VISIBLE_WITHIN_S
    while True:
        states = await _inspect(admin, specs)
        missing = [state.name for state in states if state.is_missing]
        if not missing:
            return states
        if time.monotonic() > give_up_at:
            raise TopicMismatchError(
                f"{_num_topics(len(missing))} created but without a leader after {VISIBLE_WITHIN_S:g} s: "
                f"{', '.join(missing)}.",
                mend="look at the broker's log, then start again",
            )
        await asyncio.sleep(POLL_S)
