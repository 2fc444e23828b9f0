"""The soak itself: its picture, and in the long form half a minute of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults import soak
from tests.faults.conftest import Scale
from tests.faults.soak import Sample
from tests.faults.soak_plot import draw, quantile


@pytest.mark.parametrize(("share", "value"), [(0.0, 1.0), (0.5, 3.0), (0.95, 4.0), (1.0, 4.0)])
def test_quantiles(share: float, value: float) -> None:
    assert quantile([1.0, 2.0, 3.0, 4.0], share) == value


def test_the_picture_is_drawn_though_samples_lack_something(tmp_path: Path) -> None:
    samples = [
        Sample(5.0, {"sequence": 80.0, "broker": 300.0}, {"sequence": 3}, [20.0, 40.0]),
        Sample(10.0, {"sequence": 81.0}, {"sequence": 0, "trend": 7}, []),
    ]
    draw(samples, [(6.0, "sequence"), (7.0, "broker")], tmp_path / "soak.png")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.kafka
@pytest.mark.slow
def test_half_a_minute_of_soak_finds_nothing(tmp_path: Path, scale: Scale, monkeypatch: pytest.MonkeyPatch) -> None:
    if not scale.is_long:
        pytest.skip("only in the long form: make faults")
    monkeypatch.setattr(soak, "OUT", tmp_path)
    assert soak.main(["--minutes", "0.5", "--audit-minutes", "0.2"]) == 0
    assert (tmp_path / "soak.png").stat().st_size > 10_000
