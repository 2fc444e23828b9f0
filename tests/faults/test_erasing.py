"""Users are erased while roles are killed: it comes to what the log comes to, and nothing of the erased is left."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import pytest

from stream_app import tables
from stream_app.faustkit.store import PartitionStore, StoreMemory
from stream_app.records import ERASE_TYPE
from stream_app.role_process import settings_environment
from stream_app.roles import ROLES
from stream_app.topics import RECOMMENDATIONS
from tests.faults.chain import Chain, check_same, kill_points, through_chain, without_broker
from tests.faults.conftest import MakeRig, Scale
from tests.faults.feeds import EPOCH_S, good_rows
from tests.faults.rig import Rig
from tests.faults.verify import check_audit

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

SEED: Final = 21
ERASED_SHARE: Final = 0.03
"""Erasures, for each good event; most of their users come back."""

NUM_GONE: Final = 12
"""Users who are erased at the end, and do not come back."""

MAX_DELAY_S: Final = 0.3
REBUILD_S: Final = 180.0

USER_TABLES: Final = {
    "sequence": tables.USER_HISTORIES,
    "encode": tables.USER_MEMORY,
    "recommend": tables.USER_VECTORS,
    "choose": tables.USER_CHOICES,
}


def write_log(path: Path, num_events: int) -> set[bytes]:
    """Write good events with erasures between; the users who are erased and do not come back."""
    rng = random.Random(SEED)
    seen: list[str] = []
    with path.open("w", encoding="utf-8") as file:
        ts = 0
        for row in good_rows(num_events, rng):
            ts = row["ts"]
            file.write(json.dumps(row) + "\n")
            seen.append(row["user_id"])
            if rng.random() < ERASED_SHARE:
                user_id = rng.choice(seen[-200:])
                file.write(json.dumps({"user_id": user_id, "type": ERASE_TYPE, "ts": ts}) + "\n")
        gone = rng.sample(sorted(set(seen)), NUM_GONE)
        for user_id in gone:
            file.write(json.dumps({"user_id": user_id, "type": ERASE_TYPE, "ts": ts}) + "\n")
    return {tables.key_of(user_id) for user_id in gone}


def kept_users(rig: Rig, role: str) -> set[bytes]:
    """The users of whom a role keeps something in its stores."""
    found: set[bytes] = set()
    for partition in range(rig.settings.partitions):
        store = PartitionStore(rig.store(USER_TABLES[role], partition, role), StoreMemory(1024 * 1024))
        found |= {key for key, _ in store.items() if key != tables.PARTITION_KEY}
        store.close()
    return found


def rebuilt(rig: Rig, role: str) -> dict[str, Any]:
    """What `sliceflow rebuild` says of a role's state, made anew from its input."""
    ran = subprocess.run(
        [sys.executable, "-m", "stream_app.cli", "rebuild", role, "--json"],
        env=settings_environment(rig.settings, os.environ),
        capture_output=True,
        text=True,
        timeout=REBUILD_S,
    )
    assert ran.returncode == 0, ran.stderr
    facts: dict[str, Any] = json.loads(ran.stdout)
    return facts


def listed_users(rig: Rig) -> dict[bytes, bool]:
    """Whether the newest record of each user on the topic of lists is a list."""
    return {record.key: record.value is not None for record in rig.read(RECOMMENDATIONS) if record.key}


def test_users_are_erased_whatever_dies(make_rig: MakeRig, scale: Scale, tmp_path: Path) -> None:
    num_events = scale.num_events // 5
    gone = write_log(tmp_path / "events.ndjson", num_events)
    rig = make_rig(epoch_s=EPOCH_S)
    rng = random.Random(SEED)
    points = kill_points(num_events, tuple(USER_TABLES), scale.num_kills // 2, rng)

    async def kill_at_each_point(chain: Chain) -> None:
        for point, victim in points:
            await chain.wait_sent(point)
            await asyncio.sleep(rng.uniform(0, MAX_DELAY_S))  # the moment is to be random
            await chain.kill(victim)

    expected = without_broker(rig.settings, tmp_path / "events.ndjson")
    found = asyncio.run(
        through_chain(
            rig.settings,
            tmp_path / "events.ndjson",
            events_per_s=scale.events_per_s,
            misfortune=kill_at_each_point,
        )
    )
    check_same(expected, found)
    check_audit(rig, ROLES)
    users = kept_users(rig, "sequence")
    assert len(users) > NUM_GONE and not users & gone
    assert kept_users(rig, "encode") == kept_users(rig, "recommend") == users
    assert kept_users(rig, "choose") <= users
    for role in USER_TABLES:
        facts = rebuilt(rig, role)
        assert (facts["added"], facts["changed"], facts["removed"]) == (0, 0, 0), facts
    listed = listed_users(rig)
    assert {user for user, has_list in listed.items() if has_list} == users
    assert gone <= listed.keys()
