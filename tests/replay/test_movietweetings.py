"""The sample in `examples/movietweetings` reads, and is what its attribution says it is."""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stream_app.replay.readers import describe, open_log, read_items

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parents[2] / "examples" / "movietweetings"
EVENTS, ITEMS = SAMPLE / "events.ndjson.gz", SAMPLE / "items.ndjson.gz"
MAX_SAMPLE_BYTES = 600_000


@pytest.fixture(scope="module")
def make_sample() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_sample", SAMPLE / "make_sample.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stated() -> dict[str, str]:
    """The table of the attribution: value by name."""
    text = (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    return dict(re.findall(r"^\| ([a-z ]+) \| (\S+) \|$", text, flags=re.MULTILINE))


def rfc3339(ts_ms: int | None) -> str:
    assert ts_ms is not None
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def test_the_counts_are_those_of_the_attribution() -> None:
    summary, items = describe(EVENTS), list(read_items(ITEMS))
    assert stated() == {
        "events": str(summary.num_rows),
        "users": str(summary.num_users),
        "items in events": str(summary.num_items),
        "items described": str(len(items)),
        "event type": ", ".join(summary.types),
        "first event": rfc3339(summary.first_ts),
        "last event": rfc3339(summary.last_ts),
    }
    assert summary.is_sorted
    assert summary.num_malformed == 0


def test_every_user_has_enough_events_and_every_item_a_title() -> None:
    rows = [row for chunk in open_log(EVENTS).iter_chunks() for row in chunk if isinstance(row, dict)]
    assert min(Counter(row["user_id"] for row in rows).values()) >= 5
    items = list(read_items(ITEMS))
    assert {item["item_id"] for item in items} == {row["item_id"] for row in rows}
    assert all(item["title"] for item in items)


def test_the_licence_goes_with_the_data_and_the_sample_stays_small() -> None:
    text = (SAMPLE / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "Copyright (c) 2013 Simon Dooms" in text
    assert "The above copyright notice and this permission notice shall be included" in text
    assert sum(path.stat().st_size for path in (EVENTS, ITEMS)) < MAX_SAMPLE_BYTES


def test_making_the_sample_again_gives_the_same_bytes(tmp_path: Path, make_sample: ModuleType) -> None:
    """Cut from a full copy made of the sample itself: the parameters then select everything.

    The lines are compared, since another zlib may pack them otherwise; the files of two runs must be equal.
    """
    rows = [row for chunk in open_log(EVENTS).iter_chunks() for row in chunk if isinstance(row, dict)]
    columns = {"user": "user_id", "item": "item_id", "type": "type", "ts": "ts"}
    full, first, second = (tmp_path / name for name in ("full", "first", "second"))
    for folder in (full, first, second):
        folder.mkdir()
    table = pa.table({column: [row[field] for row in rows] for column, field in columns.items()})
    pq.write_table(table, full / "events.parquet")
    (full / "items.ndjson.gz").write_bytes(ITEMS.read_bytes())
    make_sample.make_sample(full, first, last_events=len(rows))
    make_sample.make_sample(full, second, last_events=len(rows))
    for path in (EVENTS, ITEMS):
        made = (first / path.name).read_bytes()
        assert gzip.decompress(made) == gzip.decompress(path.read_bytes())
        assert made == (second / path.name).read_bytes()
        assert made[4:8] == bytes(4), "the header holds no time"


def test_the_cut_keeps_whole_users_of_the_last_events(tmp_path: Path, make_sample: ModuleType) -> None:
    users = ["early", "a", "b", "a", "c", "a", "b", "b"]
    with (tmp_path / "events.ndjson").open("w", encoding="utf-8") as file:
        for number, user in enumerate(["a", *users]):
            ts = 1_380_000_000_000 + number
            file.write(json.dumps({"user": user, "item": number, "type": "rating", "ts": ts}) + "\n")
    kept = make_sample.select_events(tmp_path / "events.ndjson", len(users), 3)
    assert [event["user_id"] for event in kept] == ["a", "b", "a", "a", "b", "b"]
    assert [event["item_id"] for event in kept] == ["2", "3", "4", "6", "7", "8"]
