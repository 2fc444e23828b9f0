"""Each role is killed in the middle of a replay: totals and everybody's last list are as if nothing had happened."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from stream_app.cli.replay import ReplayOptions, run_replay
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, MODEL_FOLDER
from stream_app.kafka import admin_client
from stream_app.lag import committed_offsets, group_name
from stream_app.records import Recommendation
from stream_app.replay.planning import event_time_ms
from stream_app.replay.readers import open_log
from stream_app.roles import ROLE_INPUTS, ROLES
from stream_app.settings import Settings, load_settings
from stream_app.topic_reader import TopicReader
from stream_app.topics import RECOMMENDATIONS, prefixed
from tests.bench.stack import RunningRoles, fresh_broker, running_roles

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NUM_EVENTS = 2400
NUM_PARTITIONS = 2
REPLAY_S = 5.0
"""How long sending the log takes: long enough that a role is in the middle of it when it is killed."""

POLL_S = 0.05


@dataclass(frozen=True)
class Outcome:
    """What a replay left behind.

    `facts` is its JSON line without the time it took; `lists` the newest list of every user, by user id;
    `num_inputs` how many records each role worked off.
    """

    facts: Mapping[str, Any]
    lists: Mapping[str, Recommendation]
    num_inputs: Mapping[str, int]


@pytest.fixture(scope="module")
def log_file(small_example: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first events of the sample, some of them twice and with lines between that are no events."""
    path = tmp_path_factory.mktemp("log") / EVENTS_FILE
    with gzip.open(small_example / EVENTS_FILE) as full, gzip.open(path, "wb") as made:
        for number, line in zip(range(NUM_EVENTS), full, strict=False):
            made.write(line)
            if number % 100 == 99:
                made.write(line)
            if number % 150 == 149:
                made.write(b'{"user_id":"17","item_id":\n')
    return path


def settings_for(example: Path, state_folder: Path) -> Settings:
    """The example's settings and model, with state in a folder of its own."""
    overrides = {
        "state_dir": str(state_folder),
        "model": str(example / MODEL_FOLDER),
        "partitions": NUM_PARTITIONS,
    }
    return load_settings(example / CONFIG_FILE, environ={}, overrides=overrides)


@pytest.fixture
def settings(small_example: Path, tmp_path: Path) -> Settings:
    return settings_for(small_example, tmp_path)


def outcome_of(settings: Settings, log_file: Path, kills: Mapping[str, int]) -> Outcome:
    """Replay the log on a broker of its own, so that every name is the same in each run, and offsets too.

    Args:
        settings: Without a Kafka address.
        log_file: The log.
        kills: The roles to kill, one after the other, each once it has worked off more than so many records.
    """
    with fresh_broker(settings) as (reached, _):
        return asyncio.run(_replay(reached, log_file, kills))


async def _replay(settings: Settings, log_file: Path, kills: Mapping[str, int]) -> Outcome:
    log = open_log(log_file)
    options = ReplayOptions(type_map={}, speed=_seconds_of(log_file) / REPLAY_S)
    async with running_roles(settings) as roles:
        assert roles.supervisor is not None
        killing = asyncio.create_task(_kill_in_turn(settings, roles, kills))
        replaying = run_replay(settings, log, options, lambda text: None, asyncio.Event())
        facts = await roles.supervisor.watch(replaying)
        await killing
        done = await _done(settings)
        assert roles.num_deaths == dict.fromkeys(kills, 1)
    facts.pop("seconds")
    return Outcome(facts, await _newest_lists(settings), done)


def _seconds_of(log_file: Path) -> float:
    """The time from the first event to the last, in seconds."""
    times = [event_time_ms(row) for chunk in open_log(log_file).iter_chunks() for row in chunk if isinstance(row, dict)]
    return (times[-1] - times[0]) / 1000


async def _kill_in_turn(settings: Settings, roles: RunningRoles, kills: Mapping[str, int]) -> None:
    for role, after in kills.items():
        while (await _done(settings))[role] <= after:
            await asyncio.sleep(POLL_S)
        os.kill(roles.pids[role], signal.SIGKILL)
        while role not in roles.num_deaths:
            await asyncio.sleep(POLL_S)


async def _done(settings: Settings) -> dict[str, int]:
    """How many records of its input each role has committed."""
    done = {}
    async with admin_client(settings) as admin:
        for role, name in ROLE_INPUTS.items():
            offsets = await committed_offsets(admin, group_name(settings, role))
            topic = prefixed(settings.prefix, name)
            done[role] = sum(offset for (seen, _), offset in offsets.items() if seen == topic)
    return done


async def _newest_lists(settings: Settings) -> dict[str, Recommendation]:
    lists: dict[str, Recommendation] = {}
    async with TopicReader(settings) as reader:
        async for record in reader.read_all(prefixed(settings.prefix, RECOMMENDATIONS)):
            assert record.value is not None
            made = msgspec.json.decode(record.value, type=Recommendation)
            lists[made.user_id] = made
    return lists


@pytest.fixture(scope="module")
def undisturbed(small_example: Path, log_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The outcome of a replay in which nothing ends."""
    return outcome_of(settings_for(small_example, tmp_path_factory.mktemp("undisturbed")), log_file, {})


def differences(expected: Outcome, found: Outcome) -> list[str]:
    """What differs, by user and field; empty where the outcomes are the same."""
    told = [] if expected.facts == found.facts else [f"totals: {expected.facts} became {found.facts}"]
    for user in sorted({*expected.lists, *found.lists}):
        one, other = (_plain(outcome.lists.get(user)) for outcome in (expected, found))
        changed = [name for name in Recommendation.__struct_fields__ if one.get(name) != other.get(name)]
        told += [f"{user}: {name}: {one.get(name)} became {other.get(name)}" for name in changed]
    return told


def _plain(made: Recommendation | None) -> dict[str, Any]:
    return {} if made is None else msgspec.to_builtins(made)


def test_the_undisturbed_replay_is_worth_comparing_with(undisturbed: Outcome) -> None:
    num_twice, num_broken = NUM_EVENTS // 100, NUM_EVENTS // 150
    facts = undisturbed.facts
    assert facts["balanced"] is True
    assert facts["events_in"] == NUM_EVENTS + num_twice + num_broken
    assert (facts["applied"], facts["dead_lettered"]) == (NUM_EVENTS, num_broken)
    assert facts["dropped"] == {"duplicate": num_twice}
    assert facts["users"] == facts["recommendations"] == len(undisturbed.lists) > 100
    assert len({made.epoch for made in undisturbed.lists.values()}) > 10


def test_a_difference_is_told(undisturbed: Outcome) -> None:
    user, made = next(iter(undisturbed.lists.items()))
    other = {**undisturbed.lists, user: msgspec.structs.replace(made, items=made.items[:-1])}
    told = differences(undisturbed, replace(undisturbed, lists=other))
    assert [line.split(":")[:2] for line in told] == [[user, " items"]]
    assert len(differences(undisturbed, replace(undisturbed, facts={}, lists={}))) > len(undisturbed.lists)


@pytest.mark.parametrize("role", ROLES)
def test_a_role_that_is_killed_changes_nothing(
    role: str, settings: Settings, log_file: Path, undisturbed: Outcome
) -> None:
    found = outcome_of(settings, log_file, {role: undisturbed.num_inputs[role] // 3})
    assert differences(undisturbed, found) == []


def test_all_roles_killed_one_after_the_other_change_nothing(
    settings: Settings, log_file: Path, undisturbed: Outcome
) -> None:
    kills = _at_shares(undisturbed, [0.2, 0.3, 0.4, 0.4, 0.5, 0.5])
    assert differences(undisturbed, outcome_of(settings, log_file, kills)) == []


def _at_shares(undisturbed: Outcome, shares: Sequence[float]) -> dict[str, int]:
    return {role: int(undisturbed.num_inputs[role] * share) for role, share in zip(ROLES, shares, strict=True)}
