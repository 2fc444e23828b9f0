"""What comes in, told to those who listen: samples of events and lists, dead letters, and figures once a second."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from stream_app.faustkit import Run
from stream_app.records import MARK_KEY, TICK_HEADER, Recommendation
from stream_app.settings_rules import clean_rules
from stream_app.stages.clean import CleanRules
from stream_app.topics import EVENTS, RECOMMENDATIONS
from stream_app.web.answering import LIST, list_event
from stream_app.web.answers import ErasedUser, Figures, LiveEvent, LiveItem, LiveList
from stream_app.web.buckets import Bucket
from stream_app.web.histories import slice_event
from stream_app.web.memory import memory_mib
from stream_app.web.state.arrivals import Arrivals, Measured
from stream_app.web.state.held import Held
from stream_app.web.streams import Streams, event_bytes

LIVE: Final = ""
"""What those listen to who listen to everything. No user id is empty."""

SAMPLES_PER_S: Final = 20
"""Events, and lists, told in a second at most."""

SHOWN_ITEMS: Final = 3


def _samples() -> Bucket:
    """So many samples a second, spread over its tenths."""
    return Bucket(SAMPLES_PER_S, SAMPLES_PER_S / 10, 0.0, time.monotonic())


class LiveFeed:
    """Takes runs into what is held, and tells listeners of them.

    Args:
        held: What the server knows.
        streams: Those who listen.
        note_freshness: Told the seconds from an event's arrival to its list's.
    """

    def __init__(self, held: Held, streams: Streams, note_freshness: Callable[[float], None]) -> None:
        self._held = held
        self._streams = streams
        self._note_freshness = note_freshness
        self._rules: CleanRules = clean_rules(held.settings)
        self._arrivals = Arrivals()
        self._measured = Measured()
        self._events, self._lists = _samples(), _samples()
        self.newest_event_ts: int | None = None

    def take_events(self, run: Run) -> None:
        """Take records of `events`."""
        now_s = time.monotonic()
        self._arrivals.note(run.partition, run.offsets[0], run.offsets[-1], now_s)
        self._event(run, len(run) - 1)
        if self._streams.has(LIVE):
            for place in range(len(run)):
                if self._events.take(1, now_s) > 0:
                    break
                if (event := self._event(run, place)) is not None:
                    self._streams.tell(LIVE, event_bytes("event", event))

    def take_lists(self, run: Run) -> None:
        """Take records of `recommendations`."""
        now_s = time.monotonic()
        for key, value in zip(run.keys, run.values, strict=True):
            if key and value is not None:
                self._take_list(key.decode("utf-8", "replace"), value, now_s)
            elif key:
                self._take_erased(key.decode("utf-8", "replace"))

    def _take_list(self, user_id: str, value: bytes, now_s: float) -> None:
        made = LIST.decode(value)
        self._held.lists.put(user_id, value)
        freshness_ms = self._freshness_ms(made, now_s)
        if self._streams.has(LIVE) and self._lists.take(1, now_s) == 0:
            self._streams.tell(LIVE, event_bytes("list", self._live_list(made, freshness_ms)))
        if self._streams.has(user_id):
            self._streams.tell(user_id, list_event(self._held, made, freshness_ms))

    def _take_erased(self, user_id: str) -> None:
        self._held.lists.drop(user_id)
        if self._streams.has(user_id):
            self._streams.tell(user_id, event_bytes("erased", ErasedUser(user_id=user_id)))

    def take_slices(self, run: Run) -> None:
        """Take records of `slices`."""
        self._held.users.take_slices(run)
        for key in dict.fromkeys(run.keys):
            if key and key != MARK_KEY and self._streams.has(user_id := key.decode("utf-8", "replace")):
                self._streams.tell(user_id, slice_event(self._held, user_id))

    def take_dead_letters(self, run: Run) -> None:
        """Take records of `events-dead-letter`."""
        for letter in self._held.dead_letters.take(run):
            if self._streams.has(LIVE):
                self._streams.tell(LIVE, event_bytes("dead-letter", letter))

    def figures(self) -> Figures:
        """How the system runs now."""
        held = self._held
        return Figures(
            ts=time.time_ns() // 1_000_000,
            newest_event_ts=self.newest_event_ts,
            events_per_s=round(held.flow.rate(EVENTS), 1),
            lists_per_s=round(held.flow.rate(RECOMMENDATIONS), 1),
            dead_letters=held.running.num_dead_letters,
            dropped=held.running.dropped(),
            freshness_ms=self._measured.freshness(),
            users=held.running.num_users,
            items=len(held.catalogue) or len(held.index),
            roles=held.flow.roles,
            memory_mib=memory_mib(),
        )

    def tell_figures(self) -> None:
        """Tell the figures to those who listen."""
        if self._streams.has(LIVE):
            self._streams.tell(LIVE, event_bytes("figures", self.figures()))

    def _event(self, run: Run, place: int) -> LiveEvent | None:
        """One event as it is told; None for a tick, or for what is no event."""
        value = run.values[place]
        if value is None or any(name == TICK_HEADER for name, _ in run.headers[place]):
            return None
        try:
            event = self._rules.decode(value)
        except (ValueError, RecursionError):
            return None
        if event.ts <= run.timestamps_ms[place] + self._rules.max_future_ms:
            self.newest_event_ts = max(event.ts, self.newest_event_ts or 0)
        title = self._held.catalogue.title(event.item_id)
        return LiveEvent(user_id=event.user_id, item_id=event.item_id, title=title, type=event.type, ts=event.ts)

    def _freshness_ms(self, made: Recommendation, now_s: float) -> float | None:
        then_s = self._arrivals.time_s(made.partition, made.offset)
        if then_s is None or not self._held.is_caught_up:
            return None  # what was there before this server says nothing of how fast the roles are
        freshness_ms = max(0.0, now_s - then_s) * 1000
        self._measured.add(freshness_ms)
        self._note_freshness(freshness_ms / 1000)
        return round(freshness_ms, 1)

    def _live_list(self, made: Recommendation, freshness_ms: float | None) -> LiveList:
        title = self._held.catalogue.title
        items = [LiveItem(item_id=line.item_id, title=title(line.item_id)) for line in made.items[:SHOWN_ITEMS]]
        return LiveList(user_id=made.user_id, event_ts=made.event_ts, items=items, freshness_ms=freshness_ms)
