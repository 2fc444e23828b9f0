"""Make `events.ndjson.gz` and `items.ndjson.gz` from a full copy of the data set.

    python examples/movietweetings/make_sample.py FOLDER

FOLDER holds `events.parquet` (columns user, item, type, ts) and `items.ndjson.gz` (item, title, genres).
The same copy gives the same files, byte for byte (with the same zlib; the lines inside with any).
"""

from __future__ import annotations

import gzip
import sys
from collections import Counter, deque
from collections.abc import Iterable
from pathlib import Path

import orjson

from stream_app.replay.readers import open_log, read_items

HERE = Path(__file__).parent

LAST_EVENTS = 30_000
"""The sample is cut from this many events at the end of the full set: one contiguous period of weeks."""

MIN_USER_EVENTS = 5
"""Users with fewer events in that period are left out: there is no sequence to learn from."""


def select_events(source: Path, last_events: int, min_user_events: int) -> list[dict[str, object]]:
    """The last events of the log, of users with enough events among them, in the order of the log."""
    window: deque[dict[str, object]] = deque(maxlen=last_events)
    for chunk in open_log(source).iter_chunks():
        for row in chunk:
            if isinstance(row, bytes):
                raise ValueError(f"{source} holds a row that is no event: {row!r}; expected a clean copy")
            window.append(row)
    num_events = Counter(event["user_id"] for event in window)
    return [event for event in window if num_events[event["user_id"]] >= min_user_events]


def write_lines(target: Path, records: Iterable[dict[str, object]]) -> None:
    """Write gzipped NDJSON whose header holds neither a time nor a name."""
    lines = b"".join(orjson.dumps(record) + b"\n" for record in records)
    with (
        target.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=raw, mtime=0) as file,
    ):
        file.write(lines)


def make_sample(
    source: Path,
    target: Path,
    *,
    last_events: int = LAST_EVENTS,
    min_user_events: int = MIN_USER_EVENTS,
) -> None:
    """Write both files of the sample into `target`."""
    events = select_events(source / "events.parquet", last_events, min_user_events)
    wanted = {event["item_id"] for event in events}
    write_lines(target / "events.ndjson.gz", events)
    write_lines(
        target / "items.ndjson.gz",
        (item for item in read_items(source / "items.ndjson.gz") if item["item_id"] in wanted),
    )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    make_sample(Path(sys.argv[1]), HERE)
