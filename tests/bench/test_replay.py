"""The replay measurement: its figures, the logs it knows, and what it does where they are not there."""

from __future__ import annotations

import os
from pathlib import Path
from types import ModuleType

import pytest

from stream_app.role_process import Worker
from stream_app.supervisor import RoleEvent
from tests.bench import datasets, model, replay
from tests.bench.common import ROOT
from tests.bench.datasets import DATASETS
from tests.bench.replay import Replayed, result_of
from tests.bench.stack import RunningRoles, peak_memory_mib

FACTS = {"events_in": 500, "seconds": 2.5, "balanced": True, "users": 40, "recommendations": 40}


def test_figures_of_a_replay() -> None:
    result = result_of("made", Replayed(FACTS, {"kafka": 300.0, "trend": 80.5}))
    assert result.bench == "replay-made"
    assert result.figures["events_per_s"].value == 200.0
    assert result.figures["peak_mib_total"].value == 380.5
    assert result.is_sound


@pytest.mark.parametrize("wrong", [{"balanced": False}, {"recommendations": 39}])
def test_a_replay_that_does_not_add_up_is_no_success(wrong: dict[str, object]) -> None:
    assert not result_of("made", Replayed({**FACTS, **wrong}, {})).is_sound


@pytest.mark.parametrize("bench", [replay, model])
def test_without_the_log_it_is_skipped_visibly(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datasets, "DATA", ROOT.parent / "nowhere")
    assert bench.main(["--data", "deskdrop"]) == 0
    output = capsys.readouterr().out
    assert "skipped" in output
    assert "nowhere/deskdrop/events.parquet" in output


@pytest.mark.parametrize("name", sorted(DATASETS))
def test_every_log_has_settings(name: str, tmp_path: Path) -> None:
    settings = DATASETS[name].settings(tmp_path)
    assert settings.event_types == dict(DATASETS[name].event_types)
    assert settings.state_path == tmp_path


def test_peak_memory_of_this_process() -> None:
    found = peak_memory_mib(os.getpid())
    assert found is None or found > 5


def test_peak_memory_is_read_in_mib(tmp_path: Path) -> None:
    (tmp_path / "17").mkdir()
    (tmp_path / "17" / "status").write_text("Name:\tx\nVmPeak:\t  9000 kB\nVmHWM:\t  2048 kB\n", "utf-8")
    assert peak_memory_mib(17, tmp_path) == 2.0
    assert peak_memory_mib(18, tmp_path) is None


def test_the_newest_life_of_a_worker_is_known() -> None:
    roles = RunningRoles()
    worker = Worker("trend")
    for event in (
        RoleEvent("started", worker, 11),
        RoleEvent("died", worker, 11, "signal SIGKILL"),
        RoleEvent("started", worker, 12),
        RoleEvent("all-ready"),
    ):
        roles.take(event)
    assert roles.pids == {"trend": 12}
    assert roles.num_deaths == {"trend": 1}
