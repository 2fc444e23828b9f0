"""The command line of the sequence bench, and one small run from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench.sequence.__main__ import LOADS, cells_of, main, options_of
from tests.bench.sequence.contenders import CONTENDERS
from tests.bench.sequence.figures import Cell
from tests.bench.sequence.job import Load

SMALL, OTHER = Load(10, 3), Load(10, 4)


def test_only_the_first_load_has_both_variants_unless_asked() -> None:
    assert cells_of([SMALL, OTHER], None) == (Cell(SMALL, "each"), Cell(OTHER, "each"), Cell(SMALL, "latest"))
    assert cells_of([SMALL, OTHER], ["latest"]) == (Cell(SMALL, "latest"), Cell(OTHER, "latest"))


def test_the_usual_run_has_all_contenders_and_three_rounds() -> None:
    options = options_of([])
    assert options.contenders == CONTENDERS
    assert options.num_rounds == 3
    assert [cell.load.name for cell in options.cells] == [*LOADS, LOADS[0]]
    assert options.json.name == "sequence.json"


def test_a_quick_run_leaves_the_saved_figures_alone() -> None:
    options = options_of(["--quick"])
    assert {cell.load.num_events for cell in options.cells} == {200_000}
    assert len(options.contenders) == 3
    assert options.json.name == "sequence-quick.json"


def test_a_full_run_is_longer() -> None:
    options = options_of(["--full"])
    assert options.is_full
    assert max(cell.load.num_events for cell in options.cells) == 5_000_000


@pytest.mark.parametrize("wrong", [["--loads", "many"], ["--contenders", "nobody"], ["--variants", "none"]])
def test_nonsense_is_refused(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        options_of(wrong)
    assert ended.value.code == 2
    assert wrong[1] in capsys.readouterr().err


@pytest.mark.kafka
@pytest.mark.slow
def test_a_small_run_from_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "small.json"
    arguments = ["--loads", "5000-50-skewed", "--contenders", "faustkit", "bare-aiokafka", "--rounds", "2"]
    assert main([*arguments, "--json", str(path)]) == 0
    saved = json.loads(path.read_text("utf-8"))
    assert len(saved["rounds"]) == 8
    assert not [one for one in saved["rounds"] if one["failure"]]
    assert {one["num_outputs"] for one in saved["rounds"] if one["variant"] == "each"} == {5000}
    assert saved["targets"]["faustkit / bare aiokafka, 5000-50-skewed each"]["value"] > 0
    assert path.with_suffix(".png").is_file()
    assert "5000-50-skewed latest" in capsys.readouterr().out
