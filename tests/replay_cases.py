"""Small logs for replays without a broker, and the demo's model to replay them with."""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import orjson
from hypothesis import strategies as st

from encoders.contract import SliceEncoder
from stream_app.demo import CONFIG_FILE, EVENTS_FILE, MODEL_FOLDER
from stream_app.models import list_rule, load_encoder, served_model
from stream_app.offline_replay import OfflineOutcome, OfflineReplay
from stream_app.recording import FORMAT, RecordedReplay, Recorder, Recording, recorded_settings
from stream_app.replay.planning import ReplayPlan
from stream_app.replay.readers import Row
from stream_app.settings import Settings, load_settings

SAMPLE = Path(__file__).parents[1] / "examples" / "movietweetings"
START_MS = 1_380_000_000_000
MINUTE_MS = 60_000

STEPS_MS = (0, 0, 1000, 9000, 5 * MINUTE_MS, 15 * MINUTE_MS, 31 * MINUTE_MS, 2 * 86_400_000)
"""From the same moment, over the same epoch, the next and the same slice, to the next slice and another day."""


@cache
def demo_settings(partitions: int = 4, **overrides: Any) -> Settings:
    """The demo's settings and model."""
    overrides = {"model": str(SAMPLE / MODEL_FOLDER), "partitions": partitions, **overrides}
    return load_settings(SAMPLE / CONFIG_FILE, environ={}, overrides=overrides)


@cache
def demo_encoder() -> SliceEncoder:
    """The demo's encoder, loaded once."""
    return load_encoder(demo_settings())


@cache
def known_items() -> tuple[str, ...]:
    """Some items of the demo's model."""
    return tuple(demo_encoder().item_vectors()[0][:6])


def sample_rows(num_events: int) -> list[dict[str, Any]]:
    """The first rows of the demo's log."""
    with gzip.open(SAMPLE / EVENTS_FILE) as file:
        return [orjson.loads(line) for line in islice(file, num_events)]


def row_of(user: str, item: str, ts_ms: int, kind: str = "rating") -> dict[str, Any]:
    """A row in few words."""
    return {"user_id": user, "item_id": item, "type": kind, "ts": ts_ms}


@st.composite
def logs(draw: st.DrawFn, *, is_ordered: bool, max_rows: int = 24) -> list[Row]:
    """Rows of a few users that repeat, pause and are no events now and then; in order of time, or only nearly."""
    rows: list[Row] = []
    ts_ms = START_MS
    for _ in range(draw(st.integers(1, max_rows))):
        ts_ms += draw(st.sampled_from(STEPS_MS))
        late_ms = 0 if is_ordered else draw(st.sampled_from([0, 0, 2000, 6 * MINUTE_MS, 40 * MINUTE_MS]))
        item = draw(st.sampled_from([*known_items(), "unheard-of"]))
        kind = draw(st.sampled_from(["rating", "rating", "click", "purchase", "gaze"]))
        row = row_of(draw(st.sampled_from("abcd")), item, ts_ms - late_ms, kind)
        rows.append(b'{"user_id":' if draw(st.integers(0, 5)) == 0 else row)
        if draw(st.integers(0, 7)) == 0:
            rows.append(rows[-1])
    return rows


def cut_rows(rows: Sequence[Row], cuts: Iterable[int]) -> list[Sequence[Row]]:
    """The rows, cut before each of `cuts`."""
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < len(rows)}), len(rows)]
    return [rows[start:end] for start, end in pairwise(bounds)]


def replayed(settings: Settings, chunks: Iterable[Sequence[Row]]) -> tuple[Recording, OfflineReplay]:
    """What a replay in these chunks comes to, and the replay itself."""
    recorder = Recorder()
    replay = OfflineReplay(
        settings,
        demo_encoder(),
        list_rule(settings, served_model(settings)),
        ReplayPlan(settings.partitions, settings.epoch_ms, fields=settings.fields),
        recorder=recorder,
    )
    for chunk in chunks:
        replay.take(chunk)
    return recorder.recording(first_line(replay.finish(), settings)), replay


def first_line(outcome: OfflineOutcome, settings: Settings) -> RecordedReplay:
    """The first line of a recording."""
    return RecordedReplay(
        format=FORMAT,
        events_in=outcome.sent.num_events,
        applied=outcome.totals.applied,
        dead_letters=dict(outcome.dead_letters),
        dropped=dict(outcome.totals.dropped),
        users=len(outcome.sent.users),
        settings=recorded_settings(settings),
    )
