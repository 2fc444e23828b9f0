"""The sizing measurement: what it reads from folders, and the figures it leaves for `sliceflow plan`."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from stream_app.planning.measured import load_measured
from stream_app.settings import Settings
from stream_app.wiring import store_folder
from tests.bench import datasets, sizing
from tests.bench.common import ROOT
from tests.bench.sizing import PLAN_FILE, Costs, figures_for_plan, folder_bytes, remove_stores, topic_bytes


def test_bytes_of_topics_are_those_of_their_segments_in_all_partitions(tmp_path: Path) -> None:
    for name, size in (("slice-vectors-0", 10), ("slice-vectors-11", 5), ("events-0", 7)):
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        (folder / "00000000000000000000.log").write_bytes(b"x" * size)
        (folder / "00000000000000000000.index").write_bytes(b"x" * 1000)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "broker.log").write_text("started")
    assert topic_bytes(tmp_path) == {"slice-vectors": 15, "events": 7}
    assert folder_bytes(tmp_path / "data" / "events-0") == 1007


def test_costs_are_counted_from_their_beginning() -> None:
    costs = Costs({"this": os.getpid()})
    sum(number * number for number in range(2_000_000))
    assert 0 < costs.per_event_ms(10)["this"] < 60_000


def test_stores_are_removed_whole(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    folder = store_folder(settings, "trend", 0) / "table" / "0"
    folder.mkdir(parents=True)
    (folder / "file").write_text("x")
    remove_stores(settings)
    assert list(store_folder(settings, "trend", 0).iterdir()) == []


def test_what_the_plan_computes_with_is_what_the_newest_result_says() -> None:
    kept = json.loads(PLAN_FILE.read_text())
    (file,) = {one["file"] for role in kept["roles"].values() for one in role.values()}
    data = Path(file).stem.removeprefix("sizing-")
    assert figures_for_plan(data) == kept
    assert load_measured().roles.keys() == kept["roles"].keys()


def test_without_the_log_it_is_skipped_visibly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "DATA", ROOT.parent / "nowhere")
    assert sizing.main([]) == 0
    assert "skipped" in capsys.readouterr().out
