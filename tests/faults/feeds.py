"""Event logs with everything in them that logs have: late, doubled and broken lines, a hot user, odd names."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.bench.common import EXAMPLE
from tests.faults.rig import Sent

START_MS: Final = 1_700_000_000_000
EPOCH_S: Final = 300.0
"""Epoch length for these logs, which are longer in event time than in events: some twenty events an epoch and user."""

MAX_STEP_MS: Final = 4_000
"""Event time moves on by up to so much with each event: 5,000 events are three hours, ten users' sessions each."""

MONTH_MS: Final = 30 * 86_400_000
HOT_SHARE: Final = 0.2
"""Part of all events that belong to one user."""

ODD_TEXTS: Final = (
    "ünï çødé",
    "用户七",
    "👩\u200d👩\u200d👧",
    "\u202eright to left",
    "tab\tand\rreturn",
    "line\nbreak",
    "\x1b[31mred\x1b[0m\x07",
    "\u2028\u2029\x85",
    "'\"; DROP TABLE users; --",
    "../../etc/passwd",
    " space around ",
    "%s%n{0}${x}",
    "\ufeffmark",
    "e\u0301",
    "\x7f\x01",
    "ÿ",
    "\U0010ffff\ufffe",
    "null",
    "-0",
    "😀" * 256,
)
"""Texts that are valid ids, and that careless code stumbles over: as keys, in JSON, in files, on terminals."""

BROKEN: Final = (b'{"user_id":"17","item_id":', b"click!", b"[1]", b'{"user_id":"u1"}', b"\xff\xfe", b"{}")
"""Lines that are no events."""

Row = dict[str, Any]


def model_items() -> list[str]:
    """The items that the example's model was trained with."""
    items: list[str] = json.loads((EXAMPLE / "model" / "items.json").read_text("utf-8"))
    return items


def good_rows(num_events: int, rng: random.Random) -> Iterator[Row]:
    """Events in order of time, no two of one time."""
    users = [*ODD_TEXTS, *(f"user-{number}" for number in range(max(10, num_events // 25)))]
    items = [*model_items()[:300], *ODD_TEXTS]
    ts = START_MS
    for _ in range(num_events):
        ts += rng.randint(2, MAX_STEP_MS)
        user = "user-hot" if rng.random() < HOT_SHARE else rng.choice(users)
        # The smaller of two draws: some items are much more popular than others.
        item = items[min(rng.randrange(len(items)), rng.randrange(len(items)))]
        yield {"user_id": user, "item_id": item, "type": rng.choice(["rating", "click", "purchase"]), "ts": ts}


def write_log(path: Path, num_events: int, seed: int) -> Counter[str]:
    """Write a log of `num_events` good events, NDJSON, and others between.

    Returns:
        How many there are of what was put between, by what must become of it: ``duplicate`` and ``late_too_old`` are
        drops, ``out_of_order`` is applied or, where its slice is full, dropped, and the others are dead letters.
    """
    rng = random.Random(seed)
    planted: Counter[str] = Counter()
    seen: set[str] = set()
    with path.open("wb") as file:
        for row in good_rows(num_events, rng):
            _write(file, row)
            kind = rng.random()
            if kind < 0.02:
                _write(file, row)
                planted["duplicate"] += 1
            elif kind < 0.04:
                # In the same slice, for only the newest is as good as new after a repair.
                _write(file, {**row, "ts": row["ts"] - 1, "type": "browse"})
                planted["out_of_order"] += 1
            elif kind < 0.05 and row["user_id"] in seen:
                _write(file, {**row, "ts": row["ts"] - MONTH_MS})
                planted["late_too_old"] += 1
            elif kind < 0.06:
                file.write(rng.choice(BROKEN) + b"\n")
                planted["broken"] += 1
            elif kind < 0.065:
                _write(file, {**row, "type": "gaze"})
                planted["unknown_type"] += 1
            seen.add(row["user_id"])
    return planted


def _write(file: Any, row: Row) -> None:
    file.write(json.dumps(row).encode("utf-8") + b"\n")


def clicks(start: int, stop: int, *, num_users: int = 7, **fields: Any) -> list[Sent]:
    """Plain events, one a second, numbered from `start`; all have `fields`."""
    return [click(f"u{number % num_users}", number, **fields) for number in range(start, stop)]


def click(user_id: str, number: int = 0, **fields: Any) -> Sent:
    """One event at second `number` of an item of five; its record has the event's time."""
    ts = START_MS + 1000 * number
    event = {"user_id": user_id, "item_id": f"i{number % 5}", "type": "click", "ts": ts, **fields}
    return Sent(user_id.encode("utf-8"), json.dumps(event).encode("utf-8"), ts)
