"""Figures against their targets, and what a measurement prints and saves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.common import BenchResult, Figure, cpu_model, finish, machine, table

RESULT = BenchResult(
    "try",
    {
        "p50_ms": Figure(12.5, 15.0, spread=(11.0, 14.25)),
        "ratio": Figure(1.01, 1.02, "higher"),
        "balanced": Figure(True, True, "same"),
        "events": Figure(72_312),
    },
    {"rate": 200},
)


@pytest.mark.parametrize(
    ("figure", "reached"),
    [
        (Figure(15.0, 15.0), True),
        (Figure(15.1, 15.0), False),
        (Figure(1.02, 1.02, "higher"), True),
        (Figure(1.01, 1.02, "higher"), False),
        (Figure(0, 0, "same"), True),
        (Figure(-1, 0, "same"), False),
        (Figure(False, True, "same"), False),
        (Figure(3.0), None),
    ],
)
def test_a_target_has_a_good_side(figure: Figure, reached: bool | None) -> None:
    assert figure.reached is reached


def test_the_last_line_and_the_file_hold_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert finish(RESULT, tmp_path / "results") == 0
    output = capsys.readouterr().out
    told = json.loads(output.splitlines()[-1])
    assert told == json.loads((tmp_path / "results" / "try.json").read_text("utf-8"))
    assert set(told) == {"bench", "machine", "targets", "rate"}
    assert told["targets"] == {
        "p50_ms": {"value": 12.5, "target": 15.0, "reached": True, "spread": [11.0, 14.25]},
        "ratio": {"value": 1.01, "target": 1.02, "reached": False},
        "balanced": {"value": True, "target": True, "reached": True},
        "events": {"value": 72_312},
    }


def test_people_see_which_target_was_missed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    finish(RESULT, tmp_path)
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["p50_ms", "12.5", "11", "..", "14.25", "<=", "15", "reached"]
    assert lines[2].split() == ["ratio", "1.01", ">=", "1.02", "MISSED"]
    assert lines[4].split() == ["events", "72,312"]


def test_only_what_must_be_exactly_so_fails(tmp_path: Path) -> None:
    assert finish(BenchResult("slow", {"p99_ms": Figure(90.0, 60.0)}), tmp_path) == 0
    assert finish(BenchResult("wrong", {"balanced": Figure(False, True, "same")}), tmp_path) == 1


def test_values_lose_only_digits_that_mean_nothing() -> None:
    assert Figure(1.23456789e-5).plain() == {"value": 1.23457e-5}
    assert Figure(123_456_789).plain() == {"value": 123_456_789}
    assert Figure(True).plain()["value"] is True


def test_the_machine_is_described() -> None:
    told = machine()
    assert set(told) == {"cpu", "cores", "memory_gib", "python", "system", "load"}
    assert told["cores"] >= 1
    assert told["memory_gib"] > 0


def test_the_processor_is_read_off_where_the_system_tells(tmp_path: Path) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text("processor\t: 0\nmodel name\t: Made Up: 3000\n\nmodel name\t: other\n", "utf-8")
    assert cpu_model(told) == "Made Up: 3000"
    assert cpu_model(tmp_path / "none") != ""


def test_a_table_without_rows_is_its_head() -> None:
    assert table(["a", "b"], []) == "a  b"
