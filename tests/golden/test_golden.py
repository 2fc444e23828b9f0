"""Replays that must come to what they came to when their golden file was made.

`movietweetings.ndjson` is a whole recording, text to read and to compare. `deskdrop.digests` belongs to a log that is
no part of this project, so it holds nothing but digests of our own output. `pytest tests/golden --update-golden`
writes both anew; whoever does so reads the difference before committing it.

The last bits of vectors differ between kinds of processors, so scores are compared with a tolerance here, and digests
hold no scores.
"""

from __future__ import annotations

import gzip
from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import pytest
from click.testing import CliRunner

from stream_app.cli import main
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, MODEL_FOLDER
from stream_app.recording import RecordedList, RecordedReplay, read_recording
from tests.bench.datasets import DATASETS, DataMissing, require
from tests.replay_cases import SAMPLE

GOLDEN: Final = Path(__file__).parent
SCORE_TOLERANCE: Final = "0.00001"
"""Differences seen between instruction sets are below 2e-6."""

NUM_USERS: Final = 24
NUM_EVENTS: Final = 600
DESKDROP_EVENTS: Final = 4000


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether the golden files are to be written anew."""
    return bool(request.config.getoption("--update-golden"))


def replay(log: Path, *options: str, **settings: object) -> dict[str, Any]:
    """`sliceflow replay --offline` with the demo's model; its facts. A difference to the golden file fails the test."""
    environ = {
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": str(SAMPLE / MODEL_FOLDER),
        **{f"SLICEFLOW_{name.upper()}": orjson.dumps(value).decode() for name, value in settings.items()},
    }
    result = CliRunner().invoke(main, ["replay", str(log), "--offline", "--json", *options], env=environ)
    assert result.exit_code == 0, result.stderr
    facts: dict[str, Any] = orjson.loads(result.stdout)
    return facts


@pytest.fixture(scope="module")
def busy_users(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first events of the sample's busiest users, with repeats, late events and lines that are none."""
    with gzip.open(SAMPLE / EVENTS_FILE) as file:
        rows = [orjson.loads(line) for line in file]
    busiest = Counter(row["user_id"] for row in rows).most_common(NUM_USERS)
    users = {user for user, _ in busiest}
    lines: list[bytes] = []
    for number, row in enumerate([row for row in rows if row["user_id"] in users][:NUM_EVENTS]):
        lines.append(orjson.dumps(row))
        if number % 50 == 10:
            lines.append(orjson.dumps({**row, "item_id": rows[number]["item_id"], "ts": row["ts"] - 300_000}))
        if number % 100 == 20:
            lines += [orjson.dumps(row), orjson.dumps({**row, "type": "gaze"}), b'{"user_id":']
    path = tmp_path_factory.mktemp("log") / "events.ndjson"
    path.write_bytes(b"\n".join(lines) + b"\n")
    return path


@pytest.mark.slow
def test_the_sample_comes_to_the_golden_lists_and_slices(busy_users: Path, update_golden: bool) -> None:
    golden = GOLDEN / "movietweetings.ndjson"
    options = ["--record", str(golden)] if update_golden else ["--check", str(golden)]
    tolerance = [] if update_golden else ["--score-tolerance", SCORE_TOLERANCE]
    facts = replay(busy_users, "--send-unknown-types", *options, *tolerance, list_items=10)
    assert facts["balanced"] is True
    assert facts["users"] == facts["recommendations"] > 15
    assert facts["dead_letter_reasons"] == {"not_json": 6, "unknown_type": 6}
    assert facts["dropped"]["duplicate"] == 6


@pytest.mark.slow
def test_deskdrop_comes_to_the_golden_digests(tmp_path: Path, update_golden: bool) -> None:
    dataset = DATASETS["deskdrop"]
    try:
        log = require(dataset)
    except DataMissing as missing:
        pytest.skip(str(missing))
    out, golden = tmp_path / "out.ndjson", GOLDEN / "deskdrop.digests"
    replay(log, "--limit", str(DESKDROP_EVENTS), "--record", str(out), event_types=dict(dataset.event_types))
    found = digests_of(out)
    if update_golden:
        golden.write_text("\n".join(found) + "\n", encoding="ascii")
    assert found == golden.read_text(encoding="ascii").splitlines()


def digests_of(path: Path) -> list[str]:
    """A line for all slices together, and one for each user: digests of the id and of the list without its scores."""
    recording = read_recording(path)
    slices: list[bytes] = []
    lists: list[str] = []
    for line, record in zip(recording.lines, recording.records(), strict=True):
        if isinstance(record, RecordedList):
            items = [(item.item_id, item.sources) for item in record.items]
            value = msgspec.json.encode([record.event_ts, record.epoch, record.release, items])
            lists.append(f"{digest([record.user_id.encode()])} {digest([value])}")
        elif not isinstance(record, RecordedReplay):
            slices.append(line)
    return [f"slices {digest(slices)}", *sorted(lists)]


def digest(parts: Sequence[bytes]) -> str:
    """Eight bytes in hexadecimal."""
    return blake2b(b"\n".join(parts), digest_size=8).hexdigest()
