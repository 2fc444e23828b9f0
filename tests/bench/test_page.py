"""The measurement of the page: its figures."""

from __future__ import annotations

import pytest

from tests.bench.page import parts_of, result_of


def test_the_parts_of_a_click_count_from_its_beginning() -> None:
    marks = {"click": (1000.0, None), "acknowledged": (1020.0, None), "list": (1070.0, 35.5), "shown": (1100.0, None)}
    assert parts_of(marks) == {"acknowledged": 20.0, "list": 70.0, "shown": 100.0, "roles": 35.5, "paint": 30.0}


def test_figures_of_what_was_seen() -> None:
    click = {"acknowledged": 20.0, "list": 70.0, "shown": 100.0, "roles": 35.0, "paint": 30.0}
    late = {**click, "shown": 500.0, "paint": 430.0}
    figures = result_of([click, click, late], [16.0] * 99 + [40.0], [], 1990.0).figures
    assert figures["click_shown_ms"].value == 100.0 and figures["click_shown_ms"].reached
    assert figures["click_shown_ms"].spread == (100.0, 500.0)
    assert figures["live_events_per_s"].value == 1990.0
    assert figures["live_longest_frame_ms"].value == 40.0
    assert figures["live_frame_p99_ms"].value == pytest.approx(16.24)
    assert figures["live_longest_task_ms"].value == 0.0 and figures["live_longest_task_ms"].reached
    slow = result_of([late], [16.0], [80.0, 60.0], 1990.0).figures
    assert slow["click_shown_ms"].reached is False
    assert slow["live_longest_task_ms"].value == 80.0 and slow["live_longest_task_ms"].reached is False
