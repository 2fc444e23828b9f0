"""The swap: a role's changelog takes on the new state, all or nothing.

1. The group's offsets are committed with a mark (`swap_mark`). From here on no worker of the role starts.
2. The differences go into the changelog, in the name of a new owner, so that no earlier one can write any more. A
   changelog that is damaged is made anew instead.
3. It is read once more as a new worker would, and must give exactly the new state.
4. The role's stores on this machine are removed: they are filled from the changelog.
5. The mark is taken away. From here on the new state is in force.

Until 1 the old state is in force. Whoever dies between 1 and 5 leaves the mark, so that nobody works on a state that is
neither; the next rebuild starts from the input again, and finds in the changelog what is left to do.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Final

from aiokafka.admin import NewTopic
from aiokafka.errors import TopicAlreadyExistsError, UnknownTopicOrPartitionError, for_code

from stream_app import tables
from stream_app.errors import SliceflowError
from stream_app.faustkit.effects import OutRecord
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.ownership import claim_partition, mark_input
from stream_app.faustkit.producing import SendError
from stream_app.faustkit.store import PartitionStore, Stored, seal
from stream_app.faustkit.topic_id import topic_id
from stream_app.kafka import admin_client, as_unreachable, connection
from stream_app.lag import group_name
from stream_app.rebuild_folds import ROLE_TABLES
from stream_app.rebuilding import Differences, Rebuilt, Stores, compare, open_stores
from stream_app.replay.namespaces import set_configs
from stream_app.replay.report import Progress
from stream_app.roles import ROLE_INPUTS
from stream_app.settings import Settings
from stream_app.swap_mark import MARK, commit
from stream_app.topics import prefixed, topic_specs
from stream_app.wiring import store_folder

RECORDS_AT_ONCE: Final = 2000
"""Records that are published together: at some KB each a few MB."""

SETTLED_WITHIN_S: Final = 30.0
"""Longest wait until a topic that was removed is gone, or one that was made has its leaders."""

POLL_S: Final = 0.1


class SwapError(SliceflowError):
    """The swap could not be finished; its mark stays."""


async def swap(
    settings: Settings, rebuilt: Rebuilt, old: Stores, differences: Differences, folder: Path, show: Progress
) -> None:
    """Put the new state into force.

    Args:
        settings: The settings that the role runs with.
        rebuilt: The new state, made while no worker ran.
        old: The state in force as its changelog gives it.
        differences: How they differ.
        folder: An empty folder, for reading the changelog once more.
        show: Takes the progress.

    Raises:
        GroupInUseError: A worker runs; nothing was changed.
        SwapError: The changelog could not be written, or does not give the new state; the mark stays.
        KafkaUnreachableError: The broker does not answer.
    """
    role = rebuilt.role
    async with admin_client(settings) as admin:
        # 1
        await commit(admin, settings, role, rebuilt.offsets, MARK)
        # 2
        input_id = await _new_input_id(admin, settings, role, old)
        if differences.damage:
            show(f"making {rebuilt.changelog} anew")
            await _make_anew(admin, settings, rebuilt.changelog, len(rebuilt.new))
        if differences.damage or differences.num_differing or input_id:
            await _write(settings, rebuilt, None if differences.damage else old, input_id, show)
            # 3
            await _verify(settings, rebuilt, folder, show)
        # 4
        remove_stores(settings, role)
        # 5
        await commit(admin, settings, role, rebuilt.offsets, "")


def remove_stores(settings: Settings, role: str) -> None:
    """Remove the stores of all workers of a role on this machine; none may run."""
    workers = store_folder(settings, role, 0).parent
    for worker in workers.glob(f"{role}-*"):
        shutil.rmtree(worker / ROLE_TABLES[role], ignore_errors=True)


def records_of(rebuilt: Rebuilt, partition: int, old: PartitionStore | None) -> Iterator[OutRecord]:
    """The records that lead from the old state of a partition to the new one, in every store that reflects the old.

    A key is removed before it is set: else a store would keep a value whose source position is greater.

    Args:
        rebuilt: The new state.
        partition: A partition of the changelog.
        old: The state that the changelog gives there; None: it is empty.
    """
    whole = ((key, value, None) for key, value in rebuilt.new[partition].items())
    last: list[OutRecord] = []
    for key, value, was in whole if old is None else rebuilt.differing(partition, old):
        made = list(_records_of_key(rebuilt.changelog, partition, key, value, was))
        if tables.is_partition_key(key):
            last = made  # it vouches for everything before it
        else:
            yield from made
    yield from last


def _records_of_key(
    changelog: str, partition: int, key: bytes, value: Stored | None, was: Stored | None
) -> Iterator[OutRecord]:
    if was is not None:
        yield OutRecord(changelog, partition, key, None)
    if value is not None:
        yield OutRecord(changelog, partition, key, seal(value.position, value.payload))


async def _new_input_id(admin: Any, settings: Settings, role: str, old: Stores) -> str:
    """Id of the input where the changelog says that it reflects another one; else nothing: workers write it down."""
    number = await topic_id(admin._client, prefixed(settings.prefix, ROLE_INPUTS[role]))
    is_other = any(store.input_id not in (None, str(number)) for store in old.values())
    return str(number) if number is not None and is_other else ""


async def _write(settings: Settings, rebuilt: Rebuilt, old: Stores | None, input_id: str, show: Progress) -> None:
    changelog, group = rebuilt.changelog, group_name(settings, rebuilt.role)
    async with _outbox(settings, group) as outbox:
        for partition in rebuilt.new:
            writer = await claim_partition(outbox, group, changelog, partition)
            num_sent = 0
            for chunk in _chunks(records_of(rebuilt, partition, None if old is None else old[partition])):
                await outbox.publish(chunk, writer)
                num_sent += len(chunk)
                show(f"{changelog}[{partition}]: {num_sent:,} records written")
            if input_id:
                await mark_input(outbox, changelog, partition, writer, input_id)


def _chunks(records: Iterable[OutRecord]) -> Iterator[list[OutRecord]]:
    left = iter(records)
    while chunk := list(islice(left, RECORDS_AT_ONCE)):
        yield chunk


@asynccontextmanager
async def _outbox(settings: Settings, group: str) -> AsyncIterator[Outbox]:
    outbox = Outbox(connection(settings), client_id=group)
    with as_unreachable(settings):
        await outbox.start()
    try:
        yield outbox
    except SendError as error:
        raise SwapError(
            f"The changelog could not be written: {error}.", mend="see that the broker is well, then rebuild again"
        ) from error
    finally:
        await outbox.stop()


async def _verify(settings: Settings, rebuilt: Rebuilt, folder: Path, show: Progress) -> None:
    with open_stores(folder, len(rebuilt.new)) as found:
        differences = await compare(settings, rebuilt, found, show)
        if differences.damage or differences.num_differing:
            seen = differences.damage or f"it differs from the new state in {differences.num_differing:,} keys"
            raise SwapError(
                f"{rebuilt.changelog} was written, but {seen}: somebody else writes to it.",
                mend="stop whoever does, then rebuild again",
            )


async def _make_anew(admin: Any, settings: Settings, changelog: str, num_partitions: int) -> None:
    """Remove the changelog, and make it as it was but empty."""
    spec = next(spec for spec in topic_specs(settings.prefix, num_partitions) if spec.name == changelog)
    found = {topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}
    config, num_replicas = spec.full_config(), settings.replication
    if changelog in found:
        config |= (await set_configs(admin, [changelog])).get(changelog, {})
        num_replicas = len(found[changelog][0]["replicas"])
        answer = await admin.delete_topics([changelog])
        _check(answer.topic_error_codes, "remove", UnknownTopicOrPartitionError.errno)
        await _wait_until(admin, lambda topics: changelog not in topics, f"{changelog} is still there")
    answer = await admin.create_topics([NewTopic(changelog, num_partitions, num_replicas, topic_configs=config)])
    _check([error[:2] for error in answer.topic_errors], "make", TopicAlreadyExistsError.errno)

    def has_leaders(topics: dict[str, Any]) -> bool:
        partitions = topics.get(changelog, [])
        return len(partitions) == num_partitions and all(one["leader"] >= 0 for one in partitions)

    await _wait_until(admin, has_leaders, f"{changelog} has no leader for each of {num_partitions} partitions")


def _check(results: Iterable[tuple[str, int]], verb: str, harmless: int) -> None:
    for name, error_code in results:
        if error_code not in (0, harmless):
            raise SwapError(
                f"The broker refused to {verb} {name}: {for_code(error_code).__name__}.",
                mend="give the Kafka user that right, then rebuild again",
            )


async def _wait_until(admin: Any, condition: Callable[[dict[str, Any]], bool], seen: str) -> None:
    give_up_s = time.monotonic() + SETTLED_WITHIN_S
    while not condition({topic["topic"]: topic["partitions"] for topic in await admin.describe_topics()}):
        if time.monotonic() > give_up_s:
            raise SwapError(
                f"After {SETTLED_WITHIN_S:g} s {seen}.", mend="look at the broker's log, then rebuild again"
            )
        await asyncio.sleep(POLL_S)
