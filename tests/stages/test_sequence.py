"""The sequence stage: only the log decides, not runs, restarts, crashes or replays."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import Event
from stream_app.stages.slicing import close_deadline
from tests.stages.cases import (
    EPOCH_MS,
    LATENESS_MS,
    RULE,
    Dead,
    Entry,
    Tick,
    Worker,
    asked,
    event,
    logs,
    newest,
    pieces,
)

CUTS = st.sets(st.integers(1, 29), max_size=8)


def newest_times(log: list[Entry]) -> list[int]:
    """Event time of the partition after each entry; replayed events (those at even offsets) do not move it."""
    times = [-1]
    for offset, entry in enumerate(log):
        moves = isinstance(entry, Tick) or (isinstance(entry, Event) and offset % 2 == 1)
        times.append(max(times[-1], entry.ts) if moves and not isinstance(entry, Dead) else times[-1])
    return times[1:]


@given(logs(), CUTS)
def test_runs_do_not_matter(log: list[Entry], cuts: set[int]) -> None:
    whole, cut = Worker().run_all(log), Worker().run_all(log, cuts)
    assert cut.table == whole.table
    assert cut.totals == whole.totals
    assert newest(cut.slices) == newest(whole.slices)
    assert asked(cut.slices) == asked(whole.slices)
    assert cut.touches() == whole.touches()
    assert cut.status() == whole.status()


@given(logs(), CUTS, CUTS)
def test_a_revision_is_published_with_the_same_events_always(log: list[Entry], cuts: set[int], more: set[int]) -> None:
    published: dict[tuple[str, int, int], object] = {}
    for worker in (Worker().run_all(log, cuts), Worker().run_all(log, more), Worker().run_all(log, range(30))):
        for record in worker.slices:
            told = (record.events, record.before)
            assert published.setdefault((record.user_id, record.seq, record.revision), told) == told


@given(st.lists(st.integers(0, 90), max_size=25).map(sorted), CUTS)
def test_in_order_nothing_changes_what_is_before_a_slice(all_ts: list[int], cuts: set[int]) -> None:
    # Neither its growth nor its closing, by silence, by the next event or by its size.
    log: list[Entry] = [event("a", f"item {place}", ts) for place, ts in enumerate(all_ts)]
    before: dict[int, object] = {}
    for record in Worker().run_all([*log, Tick(200)], cuts).slices:
        assert before.setdefault(record.seq, record.before) == record.before


def test_a_slice_brings_the_events_before_it_however_long_the_run() -> None:
    # Twelve slices of one event each in one run; all but the newest nine are forgotten by its end.
    worker = Worker().run_all([event("a", f"item {place}", 30 * place) for place in range(12)])
    assert len(worker.histories()["a"].slices) == 9
    items = {record.seq: [entry.item_id for entry in record.before] for record in worker.slices}
    assert items == {seq: [f"item {place}" for place in range(max(0, seq - 3), seq)] for seq in range(12)}


@given(logs(), CUTS)
def test_restarts_do_not_matter(log: list[Entry], cuts: set[int]) -> None:
    whole, restarted = Worker().run_all(log, range(len(log))), Worker()
    for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
        for offset in range(start, min(end, len(log))):
            restarted.run(log, range(offset, offset + 1))
        restarted.restart()
    assert restarted.table == whole.table
    assert restarted.slices == whole.slices
    assert restarted.touches() == whole.touches()
    assert restarted.status() == whole.status()


@given(logs(), CUTS, st.integers(0, 29), CUTS)
def test_replaying_changes_nothing(log: list[Entry], cuts: set[int], start: int, again: set[int]) -> None:
    worker = Worker().run_all(log, cuts)
    table, totals, status = dict(worker.table), worker.totals, worker.status()
    num_slices, num_touches = len(worker.slices), len(worker.touches())
    worker.restart()
    for offset in range(start, len(log)):
        if offset == start or offset in again:
            end = min([cut for cut in again if cut > offset and cut < len(log)], default=len(log))
            worker.run(log, range(offset, end))
    assert (worker.table, worker.totals, worker.status()) == (table, totals, status)
    assert len(worker.slices) == num_slices
    assert len(worker.touches()) == num_touches


@given(logs(), st.integers(0, 29), st.integers(1, 29), st.frozensets(st.sampled_from("ab")), CUTS)
def test_dying_while_a_run_is_kept_does_not_matter(
    log: list[Entry], start: int, length: int, lost: frozenset[str], cuts: set[int]
) -> None:
    whole, crashed = Worker().run_all(log), Worker().run_all(log[:start])
    if start < len(log):
        crashed.run(log, range(start, min(start + length, len(log))), lost=lost)
    # The next worker reads on from what was committed, in runs of its own.
    for piece in pieces(max(0, len(log) - start), {cut - start for cut in cuts}):
        crashed.run(log, range(start + piece.start, start + piece.stop))
    assert crashed.table == whole.table
    assert crashed.totals == whole.totals
    assert newest(crashed.slices) == newest(whole.slices)
    assert crashed.status() == whole.status()


@given(logs())
def test_a_silent_slice_is_closed_by_the_very_input_that_moves_the_watermark_past_it(log: list[Entry]) -> None:
    worker = Worker()
    for offset, newest_ms in enumerate(newest_times(log)):
        worker.run(log, range(offset, offset + 1))
        watermark_ms = max(-1, newest_ms - LATENESS_MS)
        deadlines = [close_deadline(history, RULE) for history in worker.histories().values()]
        assert all(deadline is None or deadline >= watermark_ms for deadline in deadlines)
        assert worker.status().watermark_ms == watermark_ms


@given(logs())
def test_everything_is_accounted_for(log: list[Entry]) -> None:
    status = Worker().run_all(log).status()
    assert status.events == sum(not isinstance(entry, Tick) for entry in log)
    assert status.dead_lettered == sum(isinstance(entry, Dead) for entry in log)
    assert status.applied + status.dead_lettered + sum(status.dropped.values()) == status.events
    assert status.users == len({entry.user_id for entry in log if isinstance(entry, Event)})


@given(logs(), CUTS)
def test_an_event_touches_its_item_at_most_once_and_asks_once(log: list[Entry], cuts: set[int]) -> None:
    worker = Worker().run_all(log, cuts)
    touches = worker.touches()
    assert len(touches) <= worker.status().applied
    assert len({record.offset for record in touches}) == len(touches)
    epochs = [newest_ms // EPOCH_MS for newest_ms in newest_times(log)]
    for record in touches:
        entry = log[record.offset]
        assert isinstance(entry, Event)
        assert record.item_id == entry.item_id
        assert record.epoch == epochs[record.offset]
        assert record.weight_milli == (3000 if entry.type == "buy" else 1000)
    newest = {user: offset for user, (offset, _, _) in asked(worker.slices).items()}
    touched = {log[record.offset].user_id: record.offset for record in touches}  # type: ignore[union-attr]
    assert newest.keys() == touched.keys()
    assert all(offset <= newest[user] for user, offset in touched.items())


def test_only_the_first_touch_of_an_item_counts_and_names_what_the_user_touched_before() -> None:
    worker = Worker(rule=replace(RULE, slice_events=9))
    worker.run_all([event("a", "p", 1), event("a", "q", 2), event("a", "q", 3), event("b", "r", 3), event("a", "s", 3)])
    touched = [(record.item_id, record.before) for record in worker.touches()]
    assert touched == [("p", ()), ("q", ("p",)), ("r", ()), ("s", ("q", "p"))]


def test_a_late_touch_is_counted_for_itself_alone() -> None:
    worker = Worker(rule=replace(RULE, slice_events=9))
    worker.run_all([event("a", "p", 1), event("a", "q", 3), event("a", "r", 2)])
    assert [(record.item_id, record.before) for record in worker.touches()] == [("p", ()), ("q", ("p",)), ("r", ())]


def test_a_late_event_in_front_brings_the_closing_forward() -> None:
    # [30, 38] waits until 48 (its timer is set again when the watermark comes to 41); with 22 in front, which
    # spans 20 at 42, only until then.
    log: list[Entry] = [
        Dead("not_json"),
        event("a", "p", 30),
        event("a", "p", 38),
        event("b", "p", 45),
        event("a", "q", 22),
        event("b", "q", 47),
    ]
    worker = Worker(rule=replace(RULE, slice_events=9))
    worker.run_all(log[:5])
    assert not worker.histories()["a"].slices[-1].closed
    worker.run(log, range(5, 6))
    assert worker.histories()["a"].slices[-1].closed


def told(worker: Worker) -> list[tuple[str, int, bool]]:
    """User, revision and freshness of the published slices."""
    return [(record.user_id, record.revision, record.fresh) for record in worker.slices]


def test_a_list_is_asked_for_by_the_event_and_not_by_the_silence_after_it() -> None:
    log: list[Entry] = [event("a", "p", 0), event("b", "p", 60)]
    first, second = (Worker().run_all(log, cuts) for cuts in ([], [1]))
    assert told(first) == [("a", 2, True), ("b", 1, True)]
    assert told(second) == [("a", 1, True), ("a", 2, False), ("b", 1, True)]
    assert asked(first.slices) == asked(second.slices)


@given(logs(), CUTS)
def test_lists_are_asked_for_in_the_order_of_their_events(log: list[Entry], cuts: set[int]) -> None:
    asking = [record for record in Worker().run_all(log, cuts).slices if record.fresh]
    assert [record.offset for record in asking] == sorted(record.offset for record in asking)
    epochs = [record.join_epoch for record in asking if record.join_epoch is not None]
    assert epochs == sorted(epochs)


def test_a_replayed_event_closes_nobodys_slice() -> None:
    silent: list[Entry] = [event("a", "p", 0), event("a", "p", 1), event("b", "p", 1 + 10 + LATENESS_MS + 1)]
    assert [told(Worker().run_all(log)) for log in (silent, [*silent, Tick(60)], [Dead("not_json"), *silent])] == [
        [("a", 2, True), ("b", 1, True)],
        [("a", 3, True), ("b", 2, True)],
        [("a", 3, True), ("b", 1, True)],
    ]


def test_strict_lists_use_the_epoch_before_their_event() -> None:
    log: list[Entry] = [Tick(5 * EPOCH_MS), event("a", "p", 5 * EPOCH_MS), event("b", "p", 5 * EPOCH_MS + 1)]
    epochs = {record.user_id: record.join_epoch for record in Worker().run_all(log).slices}
    assert epochs == {"a": None, "b": 4}


def test_marks_of_progress_are_sent_when_time_moves_on_or_the_clock_is_let_go() -> None:
    dead = Dead("not_json")
    log: list[Entry] = [dead, event("a", "p", 1), dead, event("a", "q", 2), Tick(40), Tick(40, last=True), dead]
    marks = [(r.offset, r.epoch, r.strict) for r in Worker().run_all(log, range(7)).activity if r.item_id is None]
    assert marks == [(0, -1, False), (1, 0, False), (4, 2, True), (5, 2, False)]
