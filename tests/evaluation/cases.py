"""Small event logs to be judged on."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from stream_app.records import Event

START_MS = 1_700_000_000_000
MINUTE_MS = 60_000


def event(user_id: str, item_id: str, minute: float, type: str = "click") -> Event:
    """An event in few words."""
    return Event(user_id=user_id, item_id=item_id, type=type, ts=START_MS + int(minute * MINUTE_MS))


def walked_log(num_events: int, num_items: int = 40, num_users: int = 30, seed: int = 0) -> list[Event]:
    """Users who go through the items one after the other, with jumps, so that an item tells the next one."""
    generator = np.random.default_rng(seed)
    places = generator.integers(0, num_items, num_users)
    events = []
    for number in range(num_events):
        user = int(generator.integers(0, num_users))
        step = 1 if generator.random() < 0.8 else int(generator.integers(0, num_items))
        places[user] = (places[user] + step) % num_items
        events.append(event(f"u{user}", f"i{places[user]}", number))
    return events


@st.composite
def logs(draw: st.DrawFn, max_size: int = 40) -> list[Event]:
    """A few users and items, with repeats, ties in time and long pauses."""
    steps = draw(
        st.lists(
            st.tuples(st.sampled_from("abcd"), st.sampled_from("pqrstuv"), st.sampled_from([0, 1, 7, 45, 600])),
            min_size=1,
            max_size=max_size,
        )
    )
    minute, events = 0, []
    for user, item, gap in steps:
        minute += gap
        events.append(event(user, item, minute))
    return events
