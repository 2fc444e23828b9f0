"""Tasks are timed in turn, and the first round does not count."""

from __future__ import annotations

import time

from tests.bench.timing import Took, cpu_ratios, in_turn, median_cpu_s, median_wall_s, took


def test_tasks_take_turns_and_the_first_round_does_not_count() -> None:
    done: list[str] = []
    times = in_turn({name: lambda name=name: done.append(name) for name in "ab"}, 3)  # type: ignore[misc]
    assert "".join(done) == "ab" * 4
    assert {name: len(runs) for name, runs in times.items()} == {"a": 3, "b": 3}


def test_processor_time_is_that_of_the_task() -> None:
    def work() -> None:
        until_s = time.process_time() + 0.02
        while time.process_time() < until_s:
            pass

    assert took(work).cpu_s >= 0.02


def test_medians_and_ratios() -> None:
    runs, others = [Took(3.0, 30.0), Took(1.0, 10.0), Took(2.0, 50.0)], [Took(1.0, 1.0)] * 3
    assert (median_cpu_s(runs), median_wall_s(runs)) == (2.0, 30.0)
    assert cpu_ratios(runs, others) == [3.0, 1.0, 2.0]
