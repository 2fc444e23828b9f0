"""Whose targets, and which: the parts of an evaluation that are looked at one by one.

- *new items* did not occur before the split, *old items* did.
- *head items* are the smallest set of items with half of the events before the split, *tail items* the other old ones.
- *items of the day* were first touched less than a day before the question, *older items* earlier, and *items unheard
  of* not at all: no method can name those.
- *new users* did nothing before the split, *returning users* did.
- one segment for each event type of a target.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from stream_app.evaluation.judging import Target
from stream_app.records import Event

Bools = npt.NDArray[np.bool_]

DAY_MS: Final = 86_400_000


def head_items(past: Sequence[Event]) -> frozenset[str]:
    """The smallest set of items with at least half of all events; ties by item id.

    >>> events = [Event(user_id="u", item_id=item, type="click", ts=0) for item in "aabcd"]
    >>> sorted(head_items(events))
    ['a', 'b']
    """
    counts = Counter(event.item_id for event in past)
    head: list[str] = []
    num_covered = 0
    for item_id, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])):
        if 2 * num_covered >= len(past):
            break
        head.append(item_id)
        num_covered += count
    return frozenset(head)


def segments(targets: Sequence[Target], past: Sequence[Event]) -> dict[str, Bools]:
    """Which of the T targets are in each segment, by its name; empty segments are left out.

    Args:
        targets: Of an evaluation.
        past: All events before the split.
    """
    items = {event.item_id for event in past}
    users = {event.user_id for event in past}
    head = head_items(past)
    is_old_T = np.array([target.item_id in items for target in targets], dtype=np.bool_)
    is_head_T = np.array([target.item_id in head for target in targets], dtype=np.bool_)
    returns_T = np.array([target.user_id in users for target in targets], dtype=np.bool_)
    types_T = np.array([target.type for target in targets], dtype=object)
    found = {
        "new items": ~is_old_T,
        "old items": is_old_T,
        "head items": is_head_T,
        "tail items": is_old_T & ~is_head_T,
        "new users": ~returns_T,
        "returning users": returns_T,
    }
    found |= {f"type {name}": types_T == name for name in sorted({target.type for target in targets})}
    return _not_empty(found)


def age_segments(targets: Sequence[Target]) -> dict[str, Bools]:
    """The same by the age of the item, for protocols that go by time."""
    ages_T = np.array([np.nan if target.item_age_ms is None else target.item_age_ms for target in targets])
    return _not_empty(
        {
            "items of the day": ages_T < DAY_MS,
            "older items": ages_T >= DAY_MS,
            "items unheard of": np.isnan(ages_T),
        }
    )


def _not_empty(found: Mapping[str, Bools]) -> dict[str, Bools]:
    return {name: chosen_T for name, chosen_T in found.items() if chosen_T.any()}
