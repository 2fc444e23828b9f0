"""Protocols on small logs: who is asked what, when, and what is known then."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given

from stream_app.evaluation.baselines import Panel, Popularity
from stream_app.evaluation.judging import OURS, Findings, Lists, prequential, temporal
from stream_app.evaluation.statistics import DecayedPopularity
from stream_app.records import Event
from tests.evaluation.cases import MINUTE_MS, event, logs
from tests.examples import examples

FOREVER_S = 1e12

LOG = [
    event("a", "p", 0),
    event("b", "p", 1),
    event("b", "q", 2),
    event("c", "r", 3),
    # The split is here.
    event("a", "q", 10),  # new to a: p is seen, q and r compete with one user each, a tie: rank 2
    event("a", "q", 11),  # a repeat
    event("d", "q", 12),  # d has no past
    event("d", "s", 13),  # nobody knows s
    event("b", "r", 14),  # r (1 user) and s (1 user) compete
    event("a", "s", 15),  # r (2 users) and s (1): rank 2
]
FROM_MS = LOG[4].ts


def counted() -> Panel:
    return Panel([Popularity("counts", DecayedPopularity(FOREVER_S))])


def silent(line: str) -> None:
    """Nobody is told."""


def ranks_of(findings: Findings, method: str = "counts") -> list[float | None]:
    return [None if math.isnan(rank) else rank for rank in findings.answers[method].ranks]


def test_each_new_item_is_asked_for_before_it_is_taken_in() -> None:
    found = prequential(LOG, FROM_MS, counted(), None, silent)
    assert [(one.user_id, one.item_id) for one in found.targets] == [("a", "q"), ("d", "s"), ("b", "r"), ("a", "s")]
    assert ranks_of(found) == [2, None, 2, 2]
    assert found.num_candidates == [2, 2, 2, 2]
    assert found.known == [True, False, True, True]
    assert found.lists == [0, 1, 2, 3]
    assert found.num_items == 4
    # Minutes since the item's first touch, by whomever.
    ages_ms = [one.item_age_ms for one in found.targets]
    assert ages_ms == [8 * MINUTE_MS, None, 11 * MINUTE_MS, 2 * MINUTE_MS]


def test_one_list_for_each_user_with_all_later_items_relevant() -> None:
    found = temporal(LOG, FROM_MS, counted(), None, silent)
    # d has no past at the split; nothing after it is known: s is no candidate, q and r tie for a.
    assert found.users == ["a", "b"]
    assert [(one.user_id, one.item_id) for one in found.targets] == [("a", "q"), ("a", "s"), ("b", "r")]
    assert [one.item_age_ms for one in found.targets] == [8 * MINUTE_MS, None, 7 * MINUTE_MS]
    assert found.lists == [0, 0, 1]
    assert ranks_of(found) == [2, None, 1]
    assert found.num_candidates == [2, 1]


class Stream:
    """Lists that are always the same; keeps what it was asked."""

    def __init__(self, listed: Sequence[str]) -> None:
        self.listed = listed
        self.walked: list[Event] = []

    def __call__(self, events: Sequence[Event], from_ms: int) -> Lists:
        return self._walk(events, from_ms)

    def _walk(self, events: Sequence[Event], from_ms: int) -> Iterator[Sequence[str] | None]:
        for one in events:
            yield self.listed if one.ts >= from_ms else None
            self.walked.append(one)


def test_the_streams_lists_are_judged_on_the_same_targets() -> None:
    stream = Stream(["r", "nobody knows this", "q"])
    found = prequential(LOG, FROM_MS, counted(), stream, silent)
    assert ranks_of(found, OURS) == [2, None, 1, None]
    assert found.answers[OURS].num_ranked == [2, 2, 2, 2]
    assert stream.walked == LOG


def test_one_list_asks_the_stream_as_of_the_split() -> None:
    stream = Stream(["r", "q"])
    found = temporal(LOG, FROM_MS, counted(), stream, silent)
    assert ranks_of(found, OURS) == [2, None, 1]
    # Beside the past, the stream sees nothing but one event of each user, at the split.
    assert stream.walked[:4] == LOG[:4]
    assert [(one.user_id, one.ts) for one in stream.walked[4:]] == [("a", FROM_MS), ("b", FROM_MS)]


def test_a_list_that_was_not_given_counts_as_empty() -> None:
    found = prequential(LOG, FROM_MS, counted(), lambda events, from_ms: iter([None] * len(events)), silent)
    assert ranks_of(found, OURS) == [None] * 4
    assert all(math.isnan(value) for value in found.answers[OURS].novelty)


def test_what_the_first_items_are_like() -> None:
    found = prequential(LOG, FROM_MS, counted(), Stream(["r"]), silent).answers[OURS]
    # r had 1, 1, 1 and 2 users when it was listed, of 3, 4, 4 and 4 users in all.
    assert found.mean_users == [1, 1, 1, 2]
    assert found.novelty == pytest.approx([math.log2(3), 2, 2, 1])
    # Users of p q r s: 2 1 1, 2 3 1, 2 3 1 1, 2 3 2 1. Those with fewer count, those with as many count half.
    assert found.mean_percentile == pytest.approx([1 / 3, 0.5 / 3, 1 / 4, 2 / 4])
    assert found.shown == {2}


@examples(40)
@given(logs())
def test_what_comes_after_a_target_does_not_change_its_ranks(events: list[Event]) -> None:
    from_ms = events[len(events) // 2].ts
    whole = prequential(events, from_ms, counted(), None, silent)
    cut = prequential(events[:-1], from_ms, counted(), None, silent)
    assert repr(whole.answers["counts"].ranks[: len(cut.targets)]) == repr(cut.answers["counts"].ranks)


@examples(40)
@given(logs())
def test_one_list_depends_on_the_past_alone(events: list[Event]) -> None:
    from_ms = events[len(events) // 2].ts
    found = temporal(events, from_ms, counted(), None, silent)
    past = [one for one in events if one.ts < from_ms]
    probes = [event(target.user_id, target.item_id, 10**6) for target in found.targets]
    again = temporal([*past, *probes], from_ms, counted(), None, silent)
    assert repr(again.answers["counts"].ranks) == repr(found.answers["counts"].ranks)
