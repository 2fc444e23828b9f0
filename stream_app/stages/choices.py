"""What the choose role makes of slice vectors: a user's choice of an item new to them, beside what would have been
offered at that moment.

Pure: the index is asked by whoever holds it, between `search_for` and `queries_for`. The profile and the trends are
those of the moment before the choice, which is what a list can know (predict first, learn after).

Shapes: C candidates, F features.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from stream_app.records import ChoiceRecord, SliceVectorRecord, pack_vector
from stream_app.stages import learning
from stream_app.stages.listing import LISTS_AT_ONCE, Search, queries_of, search_of
from stream_app.stages.profile import UserProfile, take_slice_vector
from stream_app.stages.ranking import Candidates, Query
from stream_app.stages.score_rule import ScoreRule, hash_of

MAX_NEGATIVES = 60
"""Candidates beside the chosen one that are learned from; 32 lost .01 of NDCG@10 on shop sessions."""

WHOLE_ONE_IN = 8
"""Of so many choices one is published with all candidates: only there the item's place in the list can be told."""

CHOICES_AT_ONCE = 256
"""Choices that the index is asked for together; each holds the set of what its user has seen, at most some 100 KB."""


@dataclass(frozen=True)
class Choice:
    """A record whose newest item is new to its user, and the user's profile as it was before."""

    record: SliceVectorRecord
    profile: UserProfile

    @property
    def item_id(self) -> str:
        """The item taken."""
        return self.record.items[-1]


def take_choices(records: Iterable[SliceVectorRecord], profiles: dict[str, UserProfile], release: str) -> list[Choice]:
    """Bring the profiles up to date (changed in place; new users are added); the choices on the way, in order.

    Records of other releases are left out.
    """
    choices: list[Choice] = []
    for record in records:
        if record.release != release:
            continue
        profile = profiles.setdefault(record.user_id, UserProfile())
        if is_choice(record, profile):
            # A shallow copy will do: taking a vector replaces the lists of a profile, and changes none.
            choices.append(Choice(record, copy.copy(profile)))
        take_slice_vector(profile, record)
    return choices


def is_choice(record: SliceVectorRecord, profile: UserProfile) -> bool:
    """Whether the newest item of `record` is new to a user of whom a vector is known. An event that came late is none:
    its item is not the newest.
    """
    *before, item_id = record.items
    return record.fresh and profile.release == record.release and item_id not in profile.seen and item_id not in before


def at_one_moment(
    choices: Sequence[Choice], queries: Sequence[Query]
) -> Iterator[tuple[int | None, Sequence[Choice], Sequence[Query]]]:
    """The choices in order with their queries, cut where other trends are joined, at most `LISTS_AT_ONCE` in a part;
    with the epoch that each part joins.
    """
    start = 0
    for end, choice in enumerate(choices, start=1):
        epoch = choice.record.join_epoch
        if end == len(choices) or choices[end].record.join_epoch != epoch or end - start == LISTS_AT_ONCE:
            yield epoch, choices[start:end], queries[start:end]
            start = end


def search_for(choices: Sequence[Choice], candidates: int) -> Search:
    """What to ask the index for these choices (at least one)."""
    return search_of([str(place) for place in range(len(choices))], _profiles_by_place(choices), candidates)


def queries_for(search: Search, choices: Sequence[Choice], found: Sequence[Sequence[str]]) -> list[Query]:
    """What the list before each choice would have been made for, with the items that the index gave."""
    queries = queries_of(search, _profiles_by_place(choices), found)
    return [
        replace(queries[str(place)], silent_ms=max(0, choice.record.last_ts - choice.profile.last_ts))
        for place, choice in enumerate(choices)
    ]


def choice_record(
    choice: Choice, found: Candidates, features_CF: npt.NDArray[np.float64], rule: ScoreRule
) -> ChoiceRecord | None:
    """The record that tells of a choice beside what was `offered` before it; None where it teaches nothing."""
    chosen = found.place_of(choice.item_id)
    is_whole = choice_hash(choice.record.user_id, choice.record.last_ts, choice.item_id) % WHOLE_ONE_IN == 0
    if chosen < 0:
        nothing = learning.Example(np.zeros((0, features_CF.shape[1])), -1)
        return _record(choice, nothing, rule, is_whole=True) if is_whole else None
    if is_whole:
        return _record(choice, learning.Example(features_CF, chosen), rule, is_whole=True)
    return _record(choice, learning.sample(features_CF, chosen, MAX_NEGATIVES), rule, is_whole=False)


def choice_hash(user_id: str, ts_ms: int, item_id: str) -> int:
    """What a choice is drawn by: the same wherever it lies on the topics."""
    return hash_of(user_id.encode("utf-8", "surrogatepass"), b"%d" % ts_ms, item_id.encode("utf-8", "surrogatepass"))


def _profiles_by_place(choices: Sequence[Choice]) -> Mapping[str, UserProfile]:
    return {str(place): choice.profile for place, choice in enumerate(choices)}


def _record(choice: Choice, example: learning.Example, rule: ScoreRule, *, is_whole: bool) -> ChoiceRecord:
    record = choice.record
    return ChoiceRecord(
        user_id=record.user_id,
        item_id=choice.item_id,
        event_ts=record.last_ts,
        partition=record.partition,
        offset=record.offset,
        release=record.release,
        epoch=rule.epoch_of(record.join_epoch, record.last_ts),
        chosen=example.chosen,
        num_candidates=len(example.features_CF),
        features=pack_vector(np.asarray(example.features_CF, dtype=np.float32)),
        is_whole=is_whole,
        num_spread=example.num_spread,
        weight=example.weight,
    )
