"""What the sequence stage does for the scorer: each event of a replayed user it learns from, and marks of progress."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import ProgressRecord, SliceRecord
from stream_app.stages.encoding import newest_revisions
from tests.stages.cases import EPOCH_MS, NOBODY_SAMPLED, Entry, Tick, Worker, asked, event, logs, newest

ALL_SAMPLED = replace(NOBODY_SAMPLED, users_share=1.0)

cuts_of_logs = st.sets(st.integers(1, 29), max_size=8)


def sampled(slices: list[SliceRecord]) -> list[SliceRecord]:
    return [record for record in slices if record.sampled]


def test_in_a_replay_each_event_is_published_and_live_events_once_a_run() -> None:
    log: list[Entry] = [Tick(0), *(event("a", item, ts) for ts, item in enumerate("pqrpqr"))]
    worker = Worker(score=ALL_SAMPLED).run_all(log)  # the even offsets are strict
    assert [(record.offset, [one.item_id for one in record.events]) for record in sampled(worker.slices)] == [
        (2, ["p", "q"]),
        (4, ["p"]),
        (6, ["p", "q", "r"]),
    ]
    assert all(record.fresh and record.join_epoch == -1 for record in sampled(worker.slices))
    assert sampled(Worker().run_all(log).slices) == []


@given(logs(), cuts_of_logs, st.sets(st.integers(1, 60), max_size=8))
def test_what_the_scorer_learns_from_does_not_depend_on_runs(log: list[Entry], cuts: set[int], more: set[int]) -> None:
    straight = Worker(score=ALL_SAMPLED).run_all(log, range(30)).slices
    in_runs = Worker(score=ALL_SAMPLED).run_all(log, cuts).slices
    assert sampled(in_runs) == sampled(straight)
    bounds = [0, *sorted(cut for cut in more if cut < len(in_runs)), len(in_runs)]
    kept = [part for start, end in pairwise(bounds) for part in newest_revisions(in_runs[start:end])]
    assert sampled(kept) == sampled(straight)
    assert newest(kept) == newest(straight)


@given(logs(), cuts_of_logs)
def test_sampling_changes_no_slice_and_no_list(log: list[Entry], cuts: set[int]) -> None:
    plain, more = Worker().run_all(log, cuts).slices, Worker(score=ALL_SAMPLED).run_all(log, cuts).slices
    found = {key: msgspec.structs.replace(record, sampled=False) for key, record in newest(more).items()}
    assert found == newest(plain)
    assert asked(more) == asked(plain)


@given(logs(), cuts_of_logs)
def test_nothing_of_an_epoch_comes_behind_a_mark_that_it_is_over(log: list[Entry], cuts: set[int]) -> None:
    worker = Worker(score=ALL_SAMPLED).run_all(log, cuts)
    marked, num_marks = -1, 0
    for record in worker.published:
        if isinstance(record, ProgressRecord):
            assert record.epoch >= marked
            marked, num_marks = record.epoch, num_marks + 1
        elif isinstance(record, SliceRecord) and record.fresh and record.join_epoch is not None:
            assert ALL_SAMPLED.epoch_of(record.join_epoch, 0) >= marked
    newest_ms = worker.stage.totals.clock.newest_ms
    assert marked == newest_ms // ALL_SAMPLED.scorer_epoch_ms
    assert num_marks <= 2 * len(log)


def test_a_mark_comes_when_the_scorer_epoch_or_the_replay_begins_or_ends() -> None:
    log: list[Entry] = [event("a", "p", 0), Tick(EPOCH_MS), Tick(2 * EPOCH_MS), Tick(2 * EPOCH_MS + 1, last=True)]
    marks = [one for one in Worker().run_all(log, range(30)).published if isinstance(one, ProgressRecord)]
    assert [(mark.epoch, mark.strict) for mark in marks] == [(0, True), (1, True), (1, False)]
