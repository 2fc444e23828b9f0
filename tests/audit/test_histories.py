"""The fold of the log beside what the sequence role kept, over random logs that are cut at random."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.audit import scratch
from stream_app.audit.histories import LogFold
from stream_app.audit.runs import cut_after
from stream_app.audit.scratch import ScratchTable, scratch_table
from stream_app.faustkit import Stored
from stream_app.faustkit.run import Run
from stream_app.faustkit.store import PartitionStore, StoreMemory
from stream_app.records import TICK_HEADER, Event, encode
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.tables import PARTITION_KEY
from tests.audit.cases import CHANGELOG, SETTINGS, Record, SequenceRole, audited, new_check, run
from tests.stages.cases import Dead, Entry, Tick, logs

pytestmark = pytest.mark.slow

RULES = clean_rules(SETTINGS)
CUTS = st.sets(st.integers(0, 60))


def log_of(made: Sequence[Entry]) -> Run:
    """The records of a log; every second offset, as where transactions leave gaps. Times are in seconds."""
    records = []
    for place, entry in enumerate(made):
        if isinstance(entry, Tick):
            text = b"%d" % (entry.ts * 1000) + (b" last" if entry.last else b"")
            records.append(Record(2 * place, b"", b"", [(TICK_HEADER, text)]))
        elif isinstance(entry, Dead):
            records.append(Record(2 * place, b"u", b"{"))
        else:
            event = msgspec.structs.replace(entry, ts=entry.ts * 1000, type="click")
            records.append(Record(2 * place, event.user_id.encode(), encode(event)))
    return run(records)


def kept_by_role(log: Run, cuts: Iterable[int]) -> list[dict[bytes, Stored]]:
    """What the role holds after each of its runs."""
    role = SequenceRole()
    held = []
    for part in cut_after(log, cuts):
        role.take(part)
        held.append(dict(role.held))
    return held


NON_EMPTY = logs().filter(lambda made: any(isinstance(entry, Event) for entry in made))


@settings(deadline=None)  # each example opens a store
@given(NON_EMPTY, CUTS, CUTS)
def test_what_the_role_kept_is_what_the_log_gives(made: list[Entry], role_cuts: set[int], cuts: set[int]) -> None:
    log = log_of(made)
    held = kept_by_role(log, role_cuts)[-1]
    check = audited(log, held, log.next_offset, cuts)
    assert (check.status, check.breaches, check.num_checked) == ("pass", [], len(held))


@settings(deadline=None)  # each example opens a store
@given(NON_EMPTY, CUTS, CUTS, st.data())
def test_values_of_several_moments_pass_beside_a_role_at_work(
    made: list[Entry], role_cuts: set[int], cuts: set[int], data: st.DataObject
) -> None:
    log = log_of(made)
    moments = kept_by_role(log, role_cuts)
    number = data.draw(st.integers(0, len(moments) - 1))
    committed = max(stored.position for stored in moments[number].values()) + 1
    # Of what was kept since the commit, some is in the changelog already.
    seen = dict(moments[number])
    for later in moments[number + 1 :]:
        seen |= {key: stored for key, stored in later.items() if data.draw(st.booleans())}
    assert audited(log, seen, committed, cuts).breaches == []


@settings(deadline=None)  # each example opens a store
@given(NON_EMPTY, CUTS, CUTS, st.data())
def test_every_value_that_differs_is_named(
    made: list[Entry], role_cuts: set[int], cuts: set[int], data: st.DataObject
) -> None:
    log = log_of(made)
    moments = kept_by_role(log, role_cuts)
    held = dict(moments[-1])
    key = data.draw(st.sampled_from(sorted(held)))
    damage = data.draw(st.sampled_from(["bytes", "position", "missing", "foreign", "stale"]))
    if damage == "bytes":
        held[key] = Stored(held[key].position, held[key].payload + b"x")
    elif damage == "position":
        held[key] = Stored(held[key].position + 1, held[key].payload)
    elif damage == "missing":
        del held[key]
    elif damage == "foreign":
        key = b"z"
        held[key] = Stored(0, b"")
    else:
        older = data.draw(st.sampled_from(moments))
        if older.get(key) == held[key]:
            return
        held.pop(key)
        if key in older:
            held[key] = older[key]
    check = audited(log, held, log.next_offset, cuts)
    shown = "(the partition's totals)" if key == PARTITION_KEY else repr(key.decode())
    assert [(breach.topic, breach.partition, breach.key) for breach in check.breaches] == [(CHANGELOG, 0, shown)]


def test_nothing_kept_of_nothing_read_passes() -> None:
    check = new_check()
    with scratch_table() as table:
        fold = LogFold(check, sequence_stage(SETTINGS, 0), table, CHANGELOG, {}, 0)
        assert fold.newest == -1
        fold.finish()
    assert check.num_breaches == 0


def test_the_table_on_disk_holds_what_was_put(tmp_path: Path) -> None:
    store = PartitionStore(tmp_path / "table", StoreMemory(1024 * 1024))
    table = ScratchTable(store)
    expected: dict[bytes, Stored] = {}
    for number in range(5):
        changes = {
            b"%d" % key: Stored(number, b"%d" % key) for key in range(number, scratch.MAX_PENDING_KEYS // 3 + number)
        }
        table.put(changes)
        expected |= changes
        keys = list(expected)[-3:] + list(expected)[:3]
        assert table.get_many([*keys, b"none"]) == [*[expected[key] for key in keys], None]
    assert table.get_many(list(expected)) == list(expected.values())
    store.close()


def test_the_table_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_table() as table:
        table.put({b"k": Stored(1, b"v")})
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
