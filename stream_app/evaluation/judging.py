"""Protocols: which questions are asked of every method, and what is kept of the answers.

- *prequential*: in order of time, each event from the split on that is new to its user is a target; it is ranked with
  everything known just before it, and only then taken in.
- *temporal*: one list for each user who has targets after the split, made as of the split; nothing after it is taken
  in. All of the user's new items after the split are relevant.

Shapes: L lists, T targets, N items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import numpy.typing as npt

from stream_app.evaluation.baselines import Panel, Ranking
from stream_app.evaluation.families import is_target
from stream_app.evaluation.questions import UNKNOWN_ROW, Histories, Question, Touch
from stream_app.records import Event
from stream_app.stages.metrics import Judged

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

SHOWN_ITEMS = 10
"""First items of a list that coverage, novelty and popularity are measured on."""

REPORT_EVERY = 20_000
"""Events between two lines of progress."""

Lists = Iterator[Sequence[str] | None]
"""What the stream would list just before each event, best first; None where nothing was asked of it."""

ListsOf = Callable[[Sequence[Event], int], Lists]
"""Gives `Lists` for events in order of time, asked from a time on."""

Report = Callable[[str], None]

OURS = "sliceflow"
"""Name of the stream's own lists."""


class Crowd:
    """How many users touched each item, and how that compares."""

    def __init__(self) -> None:
        self._counts = np.zeros(1024, dtype=np.int64)
        self._num_items_of = np.zeros(1024, dtype=np.int64)
        self._users: set[int] = set()
        self._num_items = 0
        self._up_to: Ints | None = None

    def take(self, touch: Touch) -> None:
        """Count a touch; repeats do not count."""
        self._up_to = None
        self._users.add(touch.user)
        if touch.item >= len(self._counts):
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        if not touch.is_new:
            return
        count = int(self._counts[touch.item])
        self._num_items += count == 0
        if count + 1 >= len(self._num_items_of):
            self._num_items_of = np.concatenate([self._num_items_of, np.zeros_like(self._num_items_of)])
        self._num_items_of[count] -= count > 0
        self._num_items_of[count + 1] += 1
        self._counts[touch.item] += 1

    def novelty(self, rows: Ints) -> float:
        """Mean self-information of items, ``-log2(share of all users who touched it)``, in bits (Zhou et al. 2010)."""
        return float(np.mean(math.log2(len(self._users)) - np.log2(self._counts[rows])))

    def mean_users(self, rows: Ints) -> float:
        """Mean number of users who touched them: average recommendation popularity (Yin et al. 2012)."""
        return float(np.mean(self._counts[rows]))

    def mean_percentile(self, rows: Ints) -> float:
        """Mean share of all items with fewer users, those with as many counted half; 0.5 without any bias."""
        if self._up_to is None:
            self._up_to = np.cumsum(self._num_items_of)
        counts = self._counts[rows]
        return float(np.mean(self._up_to[counts] - self._num_items_of[counts] / 2) / self._num_items)


@dataclass
class Answers:
    """What one method answered, list by list (NaN where a list was empty) and target by target."""

    ranks: list[float] = field(default_factory=list)
    num_ranked: list[int] = field(default_factory=list)
    novelty: list[float] = field(default_factory=list)
    mean_users: list[float] = field(default_factory=list)
    mean_percentile: list[float] = field(default_factory=list)
    shown: set[int] = field(default_factory=set)

    def add(self, ranking: Ranking, targets: Sequence[int], crowd: Crowd) -> None:
        """Keep what a ranking says of the targets (rows), and of its own first items."""
        self.ranks.extend(ranking.rank_of(row) for row in targets)
        self.num_ranked.append(ranking.num_ranked)
        rows = ranking.top(SHOWN_ITEMS)
        self.shown.update(rows.tolist())
        for values, measure in (
            (self.novelty, crowd.novelty),
            (self.mean_users, crowd.mean_users),
            (self.mean_percentile, crowd.mean_percentile),
        ):
            values.append(measure(rows) if len(rows) else math.nan)


@dataclass(frozen=True)
class Target:
    """An item that a user took, as segments need it.

    `item_age_ms` is the time from the item's first touch by anybody to the question; None where there was none yet.
    """

    user_id: str
    item_id: str
    type: str
    item_age_ms: int | None


@dataclass
class Findings:
    """All answers of an evaluation.

    Args:
        protocol: Its name.
        targets: T of them.
        lists: The list each target belongs to.
        users: The user of each list.
        num_candidates: Items that competed for each list.
        known: Whether each target was known to anyone when it was ranked.
        answers: By method.
        num_items: Items known in the end.
    """

    protocol: str
    targets: list[Target] = field(default_factory=list)
    lists: list[int] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    num_candidates: list[int] = field(default_factory=list)
    known: list[bool] = field(default_factory=list)
    answers: dict[str, Answers] = field(default_factory=dict)
    num_items: int = 0

    def judged(self, method: str) -> Judged:
        """The ranks of a method, as the measures take them."""
        found = self.answers[method]
        return Judged(
            np.array(found.ranks, dtype=np.float64),
            np.array(self.lists, dtype=np.int64),
            np.array(found.num_ranked, dtype=np.int64),
            np.array(self.num_candidates, dtype=np.int64),
            np.array(self.known, dtype=np.bool_),
        )


@dataclass(frozen=True)
class Listed:
    """The stream's own list as a `Ranking`."""

    rows: Ints

    @property
    def num_ranked(self) -> int:
        """See `Ranking`."""
        return len(self.rows)

    def rank_of(self, row: int) -> float:
        """See `Ranking`."""
        places = np.flatnonzero(self.rows == row) if row != UNKNOWN_ROW else self.rows[:0]
        return float(places[0]) + 1.0 if len(places) else math.nan

    def top(self, num_items: int) -> Ints:
        """See `Ranking`."""
        return self.rows[:num_items]


class Judge:
    """Asks all methods the same questions."""

    def __init__(self, protocol: str, panel: Panel, *, has_lists: bool) -> None:
        self._panel = panel
        names = [*([OURS] if has_lists else []), *(baseline.name for baseline in panel.baselines)]
        self.findings = Findings(protocol, answers={name: Answers() for name in names})
        self.histories = Histories()
        self._crowd = Crowd()

    def ask(self, question: Question, taken: Sequence[Event], own: Ranking | None) -> None:
        """Judge one list of each method by what the user then took (at least one item); `own` is the stream's."""
        found = self.findings
        rows = [self.histories.item_row(event.item_id) for event in taken]
        found.lists.extend([len(found.users)] * len(taken))
        found.targets.extend(
            Target(event.user_id, event.item_id, event.type, self.histories.item_age_ms(row, question.ts_ms))
            for event, row in zip(taken, rows, strict=True)
        )
        found.known.extend(row != UNKNOWN_ROW for row in rows)
        found.users.append(taken[0].user_id)
        found.num_candidates.append(question.num_candidates)
        if own is not None:
            found.answers[OURS].add(own, rows, self._crowd)
        for baseline in self._panel.baselines:
            found.answers[baseline.name].add(baseline.ranking(question), rows, self._crowd)

    def listed(self, item_ids: Sequence[str] | None) -> Listed | None:
        """The stream's list as a ranking: empty where it gave none, None where it is not judged at all."""
        if OURS not in self.findings.answers:
            return None
        rows = [row for item in item_ids or () if (row := self.histories.item_row(item)) != UNKNOWN_ROW]
        return Listed(np.array(rows, dtype=np.int64))

    def take(self, event: Event) -> None:
        """Let everybody learn from an event."""
        touch = self.histories.take(event)
        self._panel.take(touch)
        self._crowd.take(touch)
        self.findings.num_items = self.histories.num_items


def prequential(
    events: Sequence[Event], from_ms: int, panel: Panel, lists_of: ListsOf | None, report: Report
) -> Findings:
    """Walk the log; see the module.

    Args:
        events: In order of time; those before `from_ms` only build up state.
        from_ms: The split.
        panel: Fresh baselines.
        lists_of: The stream's own lists, or None to judge the baselines alone.
        report: Takes lines of progress.
    """
    judge = Judge("prequential", panel, has_lists=lists_of is not None)
    for number, (event, listed) in enumerate(_with_lists(events, from_ms, lists_of), start=1):
        if event.ts >= from_ms and is_target(judge.histories, event):
            judge.ask(judge.histories.question(event.user_id, event.ts), [event], judge.listed(listed))
        judge.take(event)
        if number % REPORT_EVERY == 0:
            report(f"{number:,} of {len(events):,} events, {len(judge.findings.targets):,} targets judged")
    return judge.findings


def temporal(events: Sequence[Event], from_ms: int, panel: Panel, lists_of: ListsOf | None, report: Report) -> Findings:
    """Judge one list for each user as of the split; see the module. Arguments as `prequential`."""
    judge = Judge("temporal", panel, has_lists=lists_of is not None)
    past = [event for event in events if event.ts < from_ms]
    for event in past:
        judge.take(event)
    taken = _taken_after(events, from_ms, judge.histories)
    # An event of each user at the split asks for the list; what is before all of them is the same for all.
    probes = [msgspec.structs.replace(first[0], ts=from_ms) for first in taken.values()]
    walked = _with_lists([*past, *probes], from_ms, lists_of)
    for number, (event, listed) in enumerate(walked, start=1):
        if number > len(past):
            question = judge.histories.question(event.user_id, from_ms)
            judge.ask(question, taken[event.user_id], judge.listed(listed))
    report(f"{len(judge.findings.users):,} users, {len(judge.findings.targets):,} targets judged")
    return judge.findings


PROTOCOLS: Mapping[str, Callable[[Sequence[Event], int, Panel, ListsOf | None, Report], Findings]] = {
    "prequential": prequential,
    "temporal": temporal,
}


def _taken_after(events: Sequence[Event], from_ms: int, histories: Histories) -> dict[str, list[Event]]:
    """The first event with each new item after the split, by user; users without a past are left out."""
    taken: dict[str, dict[str, Event]] = {}
    for event in events:
        if event.ts >= from_ms and is_target(histories, event):
            taken.setdefault(event.user_id, {}).setdefault(event.item_id, event)
    return {user_id: list(by_item.values()) for user_id, by_item in taken.items()}


def _with_lists(
    events: Sequence[Event], from_ms: int, lists_of: ListsOf | None
) -> Iterator[tuple[Event, Sequence[str] | None]]:
    if lists_of is None:
        return ((event, None) for event in events)
    return zip(events, lists_of(events, from_ms), strict=True)
