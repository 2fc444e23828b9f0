"""What must hold after every fault: state and outputs are those of a log that nothing ever happened to.

The log itself is folded by the very stage that the `sequence` role uses, in one go and in one process, and everything
the role keeps and publishes is compared with that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from stream_app import tables
from stream_app.faustkit.changelog import OWNER_HEADER
from stream_app.faustkit.store import Stored, unseal
from stream_app.records import MARK_KEY, SliceRecord, StatusRecord
from stream_app.role_process import settings_environment
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.stages.clean import Rejection
from stream_app.stages.intake import read_record, take_record
from stream_app.stages.sequence import KeptHistory, SequenceStage
from stream_app.stages.slicing import UserHistory
from stream_app.topics import DEAD_LETTER, EVENTS, SLICES, STATUS
from tests.faults.rig import Rig

AUDIT_S: Final = 120.0

Key = tuple[int, bytes]
"""Partition and key of a table."""

SliceKey = tuple[str, int]
"""User and number of a slice."""

Revision = tuple[int, bool, Sequence[tuple[str, int]]]
"""Revision, whether it is closed, and the items and times in it."""


@dataclass
class Expected:
    """What the log comes to.

    `letters` holds the reason for each refused record, by partition and offset; `statuses` the totals of each
    partition without the watermark.
    """

    histories: dict[Key, UserHistory] = field(default_factory=dict)
    slices: dict[SliceKey, Revision] = field(default_factory=dict)
    letters: dict[tuple[int, int], str] = field(default_factory=dict)
    statuses: dict[int, dict[str, Any]] = field(default_factory=dict)


def fold_log(rig: Rig) -> Expected:
    """Fold all of `events`."""
    expected = Expected()
    rules = clean_rules(rig.settings)
    stages: dict[int, SequenceStage] = {}
    histories: dict[str, KeptHistory] = {}
    offsets: dict[int, int] = {}
    for record in rig.read(EVENTS):
        number = record.partition
        if number not in stages:
            stages[number] = sequence_stage(rig.settings, number)
            stages[number].begin_run([], lambda users: {user: histories[user] for user in users if user in histories})
        content = read_record(record.key, record.value, record.timestamp_ms, record.headers, rules)
        take_record(stages[number], content, record.offset, record.headers, is_counted=False)
        if isinstance(content, Rejection):
            expected.letters[number, record.offset] = content.reason
        offsets[number] = record.offset
    for number, stage in stages.items():
        effects = stage.end_run(offsets[number], 1)
        histories.update(effects.changed)
        expected.histories.update({(number, _key(user)): kept.history for user, kept in effects.changed.items()})
        expected.slices.update({(one.user_id, one.seq): _revision(one) for one in effects.slices})
        expected.statuses[number] = _totals(stage.status(offsets[number]))
    return expected


def fold_changelog(rig: Rig, table: str) -> dict[Key, Stored]:
    """The newest value of each key of a table, by source position."""
    folded: dict[Key, Stored] = {}
    for record in rig.read(f"{table}-changelog"):
        if any(name == OWNER_HEADER for name, _ in record.headers):
            continue
        assert record.key is not None and record.value is not None, f"a deletion at {record}"
        stored = unseal(record.value)
        known = folded.get((record.partition, record.key))
        if known is None or stored.position >= known.position:
            folded[record.partition, record.key] = stored
    return folded


def newest_slices(rig: Rig) -> dict[SliceKey, Revision]:
    """The newest revision of each slice on its topic; the same revision is always the same slice."""
    newest: dict[SliceKey, Revision] = {}
    for record in rig.read(SLICES):
        if record.key == MARK_KEY:
            continue
        made = msgspec.json.decode(record.value or b"", type=SliceRecord)
        revision = _revision(made)
        known = newest.get((made.user_id, made.seq))
        if known is not None and known[0] == revision[0]:
            assert known == revision, f"revision {revision[0]} of {made.user_id!r} {made.seq} told otherwise"
        if known is None or known[0] <= revision[0]:
            newest[made.user_id, made.seq] = revision
    return newest


def letters(rig: Rig) -> dict[tuple[int, int], str]:
    """The reason of each dead letter by the record it names; one that is there twice is the same twice."""
    found: dict[tuple[int, int], str] = {}
    for record in rig.read(DEAD_LETTER):
        facts = {name: (value or b"").decode("utf-8") for name, value in record.headers}
        assert facts["class"] == "rejected" and facts["topic"] == rig.name(EVENTS) and facts["detail"], facts
        origin = int(facts["partition"]), int(facts["offset"])
        assert found.setdefault(origin, facts["reason"]) == facts["reason"]
    return found


def newest_statuses(rig: Rig) -> dict[int, dict[str, Any]]:
    """The newest totals of each partition."""
    newest = {}
    for record in rig.read(STATUS):
        status = msgspec.json.decode(record.value or b"", type=StatusRecord)
        newest[status.partition] = _totals(status)
    return newest


def check_sequence(rig: Rig) -> Expected:
    """All that the `sequence` role keeps on topics is what the log comes to; the log's own fold.

    Raises:
        AssertionError: Something differs.
    """
    expected = fold_log(rig)
    folded = fold_changelog(rig, tables.USER_HISTORIES)
    histories = {
        key: tables.HISTORY.decode(value.payload) for key, value in folded.items() if key[1] != tables.PARTITION_KEY
    }
    _same("histories", histories, expected.histories)
    _same("slices", newest_slices(rig), expected.slices)
    _same("dead letters", letters(rig), expected.letters)
    _same("totals", newest_statuses(rig), expected.statuses)
    return expected


def check_audit(rig: Rig, roles: Collection[str], *, may_differ: Collection[str] = ()) -> None:
    """`sliceflow audit` finds nothing wrong with the roles that took part.

    Args:
        rig: The topics and the state folder.
        roles: The roles that have worked; of the others it is right that they are behind.
        may_differ: Checks that the fault itself has made impossible.

    Raises:
        AssertionError: It finds something; with what it says.
    """
    ran = subprocess.run(
        [sys.executable, "-m", "stream_app.cli", "audit", "--json", "--bound-s", "0"],
        env=settings_environment(rig.settings, os.environ),
        capture_output=True,
        text=True,
        timeout=AUDIT_S,
    )
    checks = {made["check"]: made for made in map(msgspec.json.decode, ran.stdout.splitlines())}
    assert {"lag", "input", "dead-letters", "histories", "stores", "positions", "lists"} <= set(checks), ran.stderr
    for name, made in checks.items():
        # Two roles may read one topic, so that who is behind is told by name only.
        breaches = [breach for breach in made["breaches"] if name != "lag" or breach["seen"].split()[0] in roles]
        assert not breaches or name in may_differ, f"{name}: {made}"


def check(rig: Rig, *roles: str) -> Expected:
    """All of the above, once these roles (none named: `sequence`) have caught up; what the log comes to.

    Raises:
        AssertionError: Something differs.
    """
    expected = check_sequence(rig)
    check_audit(rig, roles or ("sequence",))
    return expected


def _same(what: str, found: Mapping[Any, Any], expected: Mapping[Any, Any]) -> None:
    keys = [key for key in {**expected, **found} if found.get(key) != expected.get(key)]
    told = "\n".join(f"{key}: expected {expected.get(key)}, found {found.get(key)}" for key in keys[:5])
    assert not keys, f"{len(keys)} of the {what} differ:\n{told}"


def _key(user_id: str) -> bytes:
    return tables.key_of(user_id)


def _revision(made: SliceRecord) -> Revision:
    return made.revision, made.closed, [(event.item_id, event.ts) for event in made.events]


def _totals(status: StatusRecord) -> dict[str, Any]:
    return {
        "events": status.events,
        "applied": status.applied,
        "dead_lettered": status.dead_lettered,
        "dropped": status.dropped,
        "users": status.users,
    }
