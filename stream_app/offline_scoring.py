"""The roles that learn the scorer, in memory: choices, and the scorer of each scorer-epoch.

Shapes: C candidates, F features.
"""

from __future__ import annotations

import copy
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from stream_app.item_search import nearest_items
from stream_app.offline_roles import OfflineRoles
from stream_app.records import ChoiceRecord, ProgressRecord, SliceVectorRecord
from stream_app.settings import Settings
from stream_app.settings_rules import score_rule
from stream_app.stages.choices import (
    CHOICES_AT_ONCE,
    Choice,
    at_one_moment,
    choice_record,
    is_choice,
    queries_for,
    search_for,
    take_choices,
)
from stream_app.stages.learning import initial_state, scorer_of
from stream_app.stages.listing import KnownItems, ListRule, ScorerInForce, offered_each
from stream_app.stages.parts import in_parts
from stream_app.stages.profile import UserProfile
from stream_app.stages.ranking import Candidates
from stream_app.stages.scorer_epochs import ScorerStage, ServedScorer, WaitingChoice


class OfflineScoring:
    """Learns from what users take while a log goes through the roles, in order of time.

    Args:
        settings: How the stream is ranked.
        rule: What lists are made with; its scorer is the one that learning begins with.
        roles: The other roles.
        num_partitions: Partitions of `events`.
    """

    def __init__(self, settings: Settings, rule: ListRule, roles: OfflineRoles, num_partitions: int) -> None:
        self._rule = rule
        self._score = score_rule(settings)
        self._candidates = settings.candidates
        self._roles = roles
        self._trends_at = roles.another_reader()
        served = ServedScorer(rule.release, lambda: initial_state(rule.scorer))
        self._stage = ScorerStage(num_partitions, self._score, served)
        self._slots: dict[int, WaitingChoice | None] = {}
        self._scorers = [ScorerInForce(rule.scorer)]

    def take(self, vectors: Sequence[SliceVectorRecord], progress: Iterable[ProgressRecord], items: KnownItems) -> None:
        """Take slice vectors that the profiles do not know of yet, and how far their partitions are behind them."""
        self.learn(self._told(self._choices(vectors), items), progress)

    def take_offered(
        self,
        vectors: Sequence[SliceVectorRecord],
        profile: UserProfile,
        found: Candidates,
        features_CF: npt.NDArray[np.float64],
    ) -> None:
        """The same for the slice vectors of one user, when it is known already what was `offered` to them before.

        Args:
            vectors: Slice vectors that the profile does not know of yet.
            profile: The user's.
            found: The candidates just before.
            features_CF: (C, F) float64 features of the candidates, in their order.
        """
        made = (
            choice_record(Choice(vector, profile), found, features_CF, self._score)
            for vector in self._sampled(vectors)
            if is_choice(vector, profile)
        )
        self.learn((choice for choice in made if choice is not None), ())

    def learn(self, choices: Iterable[ChoiceRecord], progress: Iterable[ProgressRecord]) -> None:
        """Role `score`: collect choices, and learn from those of complete scorer-epochs."""
        stage = self._stage
        stage.begin_run(self._load)
        for choice in choices:
            stage.take_choice(choice, 0)
        for mark in progress:
            for epoch in stage.take_progress(mark, 0):
                if stage.learn(epoch) is not None:
                    self._scorers.append(ScorerInForce(scorer_of(stage.learned.state), epoch))
        self._slots.update(stage.changed)

    def in_force(self, epoch: int | None) -> ScorerInForce:
        """The scorer as of the end of scorer-epoch `epoch` (None: the newest). It never goes back."""
        place = len(self._scorers) if epoch is None else bisect_right(self._scorers, epoch, key=lambda one: one.epoch)
        del self._scorers[: max(0, place - 1)]
        return self._scorers[0]

    def _sampled(self, vectors: Sequence[SliceVectorRecord]) -> list[SliceVectorRecord]:
        return [vector for vector in vectors if self._score.is_sampled(vector.user_id.encode("utf-8"))]

    def _choices(self, vectors: Sequence[SliceVectorRecord]) -> list[Choice]:
        sampled = self._sampled(vectors)
        known = self._roles.profiles
        users = {vector.user_id for vector in sampled if vector.user_id in known}
        # Copies: the profiles themselves are brought up to date by whoever makes the lists.
        choices = take_choices(sampled, {user: copy.copy(known[user]) for user in users}, self._rule.release)
        # Trends do not go back, and the partitions come one after the other.
        return sorted(choices, key=lambda choice: choice.record.join_epoch or 0)

    def _told(self, choices: Sequence[Choice], items: KnownItems) -> Iterator[ChoiceRecord]:
        for part in in_parts(choices, CHOICES_AT_ONCE):
            search = search_for(part, self._candidates)
            found = nearest_items(self._roles.index, search)
            for epoch, some, asking in at_one_moment(part, queries_for(search, part, found)):
                assert epoch is not None, "every event of a replay is strict"
                offers = offered_each(asking, self._trends_at(epoch), items, self._candidates)
                for choice, one in zip(some, offers, strict=True):
                    if (made := choice_record(choice, *one, self._score)) is not None:
                        yield made

    def _load(self, slots: Sequence[int]) -> dict[int, WaitingChoice]:
        found = {slot: self._slots.get(slot) for slot in slots}
        return {slot: choice for slot, choice in found.items() if choice is not None}
