"""Role `score` without Kafka: what it publishes and keeps is a function of the choices, wherever it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app import tables
from stream_app.agents.score import SCORER_KEY, ScoreProcessor, ScoreTopics
from stream_app.faustkit import Effects, Run, Stored
from stream_app.records import (
    MARK_KEY,
    ChoiceRecord,
    ProgressRecord,
    ScorerEpochRecord,
    ScorerRecord,
    encode,
    pack_vector,
)
from stream_app.stages.learning import Scorer, initial_state
from stream_app.stages.score_rule import ScoreRule
from stream_app.stages.scorer_epochs import IDLE_MS, ScorerStage, ServedScorer

RELEASE = "slices-1"
NAMES = ["popularity", "transition"]
NUM_SOURCES = 2
DAY_MS = 86_400_000

Entry = tuple[bytes, bytes, int]
"""Key, value and record time."""


def served(release: str = RELEASE) -> ServedScorer:
    return ServedScorer(release, lambda: initial_state(Scorer(feature_names=NAMES, weights=[1.0, 0.0])))


def processor(
    kept: Mapping[bytes, Stored],
    *,
    choices_per_epoch: int = 100,
    release: str = RELEASE,
    saved_after: int = 1,
    learned_from: int = 1,
) -> ScoreProcessor:
    """A worker that has just taken over."""
    rule = ScoreRule(epoch_ms=10, scorer_epoch_ms=100, users_share=1.0, choices_per_epoch=choices_per_epoch)
    stage = ScorerStage(NUM_SOURCES, rule, served(release), saved_after=saved_after, learned_from=learned_from)
    made = ScoreProcessor(stage, ScoreTopics("scorer-weights"))
    made.restore(iter(sorted(kept.items())))
    return made


def choice(
    number: int, epoch: int, *, partition: int = 0, offset: int | None = None, chosen: int = 0, whole: bool = False
) -> Entry:
    """User u<number> takes the candidate at place `chosen` of three; features are the same in all choices."""
    features_CF = np.array([[3.0, 0.0], [2.0, 1.0], [1.0, 2.0]] if chosen >= 0 else np.zeros((0, 2)), np.float32)
    record = ChoiceRecord(
        user_id=f"u{number}",
        item_id="i",
        event_ts=epoch * 100 + number,
        partition=partition,
        offset=number if offset is None else offset,
        release=RELEASE,
        epoch=epoch,
        chosen=chosen,
        num_candidates=len(features_CF),
        features=pack_vector(features_CF),
        is_whole=whole,
    )
    return b"u", encode(record), 0


def mark(partition: int, epoch: int, *, strict: bool = True, at_ms: int = 0) -> Entry:
    return MARK_KEY, encode(ProgressRecord(partition=partition, epoch=epoch, strict=strict)), at_ms


class Worker:
    """Takes a log in runs; what is published and kept is there when the next one starts."""

    def __init__(
        self, log: Sequence[Entry], *, choices_per_epoch: int = 100, saved_after: int = 1, learned_from: int = 1
    ) -> None:
        self.log = log
        self.choices_per_epoch = choices_per_epoch
        self.saved_after = saved_after
        self.learned_from = learned_from
        self.kept: dict[bytes, Stored] = {}
        self.published: list[tuple[bytes | None, bytes]] = []
        self.processor = self.started()

    def started(self) -> ScoreProcessor:
        """A new processor on what is kept."""
        return processor(
            self.kept,
            choices_per_epoch=self.choices_per_epoch,
            saved_after=self.saved_after,
            learned_from=self.learned_from,
        )

    def get_many(self, keys: Sequence[bytes]) -> list[Stored | None]:
        """The values of `keys`."""
        return [self.kept.get(key) for key in keys]

    def run(self, start: int, end: int, *, num_kept: int | None = None) -> None:
        """Take a run. With `num_kept` the worker dies when so many of its changes are in the changelog."""
        effects: Effects = asyncio.run(self.processor.process(run_of(self.log, start, end), self))
        self.published += [(output.key, output.value or b"") for output in effects.outputs]
        for key, stored in list(effects.changes.items())[:num_kept]:
            known = self.kept.get(key)
            assert known is None or known.position <= stored.position, f"{key!r} went back"
            self.kept[key] = stored
        if num_kept is not None:
            self.processor = self.started()

    def run_all(self, cuts: Sequence[int] = ()) -> Worker:
        """Take the whole log, cut into runs."""
        bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(self.log)}), len(self.log)]
        for start, end in pairwise(bounds):
            self.run(start, end)
        return self

    def scorers(self) -> dict[int, ScorerRecord]:
        """The scorers by epoch; one that was published again must be the same."""
        found: dict[int, bytes] = {}
        for key, value in self.published:
            if key == SCORER_KEY:
                epoch = msgspec.json.decode(value, type=ScorerRecord).epoch
                assert found.setdefault(epoch, value) == value
        return {epoch: msgspec.json.decode(value, type=ScorerRecord) for epoch, value in found.items()}

    def complete(self) -> list[int]:
        """The epochs that were told complete."""
        return [msgspec.json.decode(value, type=ScorerEpochRecord).epoch for key, value in self.published if not key]

    def learned(self) -> bytes:
        """What was learned."""
        return self.kept[tables.LEARNED_KEY].payload if tables.LEARNED_KEY in self.kept else b""

    def num_waiting(self) -> int:
        """Slots that hold a choice."""
        return sum(bool(stored.payload) for key, stored in self.kept.items() if tables.slot_of(key) is not None)


def run_of(log: Sequence[Entry], start: int, end: int) -> Run:
    return Run(
        topic="choices",
        partition=0,
        offsets=range(start, end),
        keys=[key for key, _, _ in log[start:end]],
        values=[value for _, value, _ in log[start:end]],
        timestamps_ms=[at_ms for _, _, at_ms in log[start:end]],
        headers=[()] * (end - start),
    )


def test_an_epoch_is_learned_from_once_all_sources_are_past_it() -> None:
    log = [mark(0, 5), mark(1, 5), choice(0, 5), choice(1, 5, partition=1), mark(0, 6), choice(2, 6), mark(1, 6)]
    worker = Worker(log)
    worker.run(0, 6)
    assert (worker.scorers(), worker.complete(), worker.num_waiting()) == ({}, [4], 3)
    worker.run(6, 7)
    made = worker.scorers()
    assert list(made) == [5] and worker.complete() == [4, 5]
    assert (made[5].num_choices, made[5].release) == (2, RELEASE)
    assert worker.num_waiting() == 1, "the choice of epoch 6 waits"


def test_what_users_take_is_ranked_higher_afterwards() -> None:
    # Three epochs in which everybody takes the third candidate, which the model's own scorer puts last.
    log = [choice(number, number // 100, chosen=2, whole=True) for number in range(300)] + [mark(0, 9), mark(1, 9)]
    made = Worker(log).run_all().scorers()
    assert list(made) == [0, 1, 2]
    # At rank 3 of 3: 1 / log2(4) is 0.5; after learning at most as bad.
    assert made[0].quality["all"] == {"choices": 100, "HR@10": 1.0, "NDCG@10": 0.5}
    scorers = [msgspec.json.decode(made[epoch].scorer, type=Scorer) for epoch in (0, 2)]
    assert scorers[0] != scorers[1]
    assert made[2].quality["all"]["NDCG@10"] >= 0.5


def test_quality_counts_whole_choices_by_day_and_misses_as_zero() -> None:
    later = choice(DAY_MS // 100, DAY_MS // 100, whole=True)  # a day after the others, first of its list
    log = [choice(0, 0, chosen=1, whole=True), choice(1, 0, chosen=-1, whole=True), choice(2, 0), later]
    made = Worker([*log, *(mark(source, DAY_MS) for source in (0, 1))]).run_all().scorers()
    assert made[0].num_choices == 2
    first = {"choices": 2, "HR@10": 0.5, "NDCG@10": pytest.approx(0.5 / np.log2(3))}
    assert made[0].quality == {"all": first, "day": first}
    last = made[DAY_MS // 100].quality
    assert (last["day"]["choices"], last["all"]["choices"]) == (1, 3)


@given(order=st.permutations(range(12)), cuts=st.sets(st.integers(1, 15)))
@settings(deadline=None)
def test_neither_order_nor_partitions_nor_runs_matter(order: Sequence[int], cuts: set[int]) -> None:
    straight = Worker([*(choice(number, number % 2) for number in range(12)), mark(0, 2), mark(1, 2)]).run_all()
    places = {number: place for place, number in enumerate(order)}
    shuffled = [choice(number, number % 2, partition=places[number] % 2, offset=places[number]) for number in order]
    worker = Worker([*shuffled, mark(1, 2), mark(0, 2)]).run_all(sorted(cuts))
    assert worker.learned() == straight.learned()
    assert worker.scorers() == straight.scorers()


@given(
    cuts=st.sets(st.integers(1, 25), max_size=6),
    dies_in=st.integers(0, 6),
    num_kept=st.integers(0, 12),
    saved_after=st.sampled_from([1, 7, 99]),
    learned_from=st.sampled_from([1, 7]),
)
@settings(deadline=None)
def test_whatever_of_a_run_was_kept_nothing_is_lost_or_learned_twice(
    cuts: set[int], dies_in: int, num_kept: int, saved_after: int, learned_from: int
) -> None:
    log = []
    for epoch in range(4):
        log += [choice(5 * epoch + number, epoch, partition=number % 2) for number in range(5)]
        log += [mark(0, epoch + 1), mark(1, epoch + 1)]
    straight = Worker(log, choices_per_epoch=4, saved_after=saved_after, learned_from=learned_from).run_all()
    assert list(straight.scorers()) == ([0, 1, 2, 3] if learned_from == 1 else [1, 3])
    bounds = [0, *sorted(cuts), len(log)]
    worker = Worker(log, choices_per_epoch=4, saved_after=saved_after, learned_from=learned_from)
    for number, (start, end) in enumerate(pairwise(bounds)):
        if number == dies_in:
            worker.run(start, end, num_kept=num_kept)
            start = 1 + max([-1, *(kept.position for key, kept in worker.kept.items() if key == tables.PARTITION_KEY)])
        if start < end:
            worker.run(start, end)
    assert worker.scorers() == straight.scorers()
    assert worker.learned() == straight.learned()
    assert worker.num_waiting() == straight.num_waiting() == {1: 0, 7: 0, 99: 16}[saved_after]


def test_few_choices_wait_for_those_of_the_next_epochs() -> None:
    log = [choice(number, number // 2) for number in range(8)]
    together = Worker([*log, mark(0, 4), mark(1, 4)], learned_from=3)
    together.run_all()
    assert {epoch: made.num_choices for epoch, made in together.scorers().items()} == {1: 4, 3: 4}
    one_by_one = [*log[:2], mark(0, 1), mark(1, 1), *log[2:], mark(0, 2), mark(1, 2), mark(0, 4), mark(1, 4)]
    assert Worker(one_by_one, learned_from=3).run_all().scorers() == together.scorers()


def test_what_is_published_twice_counts_once() -> None:
    log = [choice(0, 0), choice(1, 0), choice(0, 0), choice(1, 0), mark(0, 1), mark(1, 1)]
    assert Worker(log).run_all().scorers()[0].num_choices == 2


def test_an_epoch_has_only_so_many_choices_the_same_in_any_order() -> None:
    def learned_from(order: Sequence[int]) -> bytes:
        log = [choice(number, 0, offset=place) for place, number in enumerate(order)]
        worker = Worker([*log, mark(0, 1), mark(1, 1)], choices_per_epoch=5)
        worker.run(0, len(order))
        assert worker.num_waiting() == 5
        worker.run(len(order), len(worker.log))
        assert worker.scorers()[0].num_choices == 5
        return worker.learned()

    assert learned_from(range(20)) == learned_from(range(19, -1, -1))


def test_a_choice_of_an_epoch_that_is_over_counts_in_the_next() -> None:
    log = [mark(0, 3), mark(1, 3), choice(0, 1), mark(0, 4), mark(1, 4)]
    assert list(Worker(log).run_all().scorers()) == [3]


def test_a_silent_live_source_is_not_waited_for_and_one_of_a_replay_is() -> None:
    for strict, complete in ((False, [4]), (True, [])):
        log = [mark(0, 1, strict=strict), mark(0, 5, strict=strict, at_ms=IDLE_MS + 1)]
        assert Worker(log).run_all().complete() == complete


def test_another_release_begins_anew_and_old_choices_teach_it_nothing() -> None:
    log = [choice(0, 0), mark(0, 1), mark(1, 1), choice(1, 1), mark(0, 2), mark(1, 2)]
    worker = Worker(log)
    worker.run(0, 4)
    assert list(worker.scorers()) == [0]
    worker.processor = processor(worker.kept, release="slices-2")
    worker.run(4, 6)
    assert list(worker.scorers()) == [0]
    assert worker.complete() == [0, 1]
    assert worker.num_waiting() == 0


def test_a_choice_with_other_features_than_the_scorer_knows_is_left_out() -> None:
    odd = msgspec.json.decode(choice(0, 0)[1], type=ChoiceRecord)
    odd = msgspec.structs.replace(odd, features=pack_vector(np.zeros(5, np.float32)))
    far = msgspec.structs.replace(msgspec.json.decode(choice(1, 0)[1], type=ChoiceRecord), chosen=3)
    begun = Worker([choice(2, 0), mark(0, 1), mark(1, 1)]).run_all().scorers()[0]
    log = [(b"u", encode(odd), 0), (b"u", encode(far), 0), choice(2, 0), mark(0, 1), mark(1, 1)]
    assert Worker(log).run_all().scorers()[0].scorer == begun.scorer
