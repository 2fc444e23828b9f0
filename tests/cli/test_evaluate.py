"""`sliceflow evaluate` from the outside: exit codes, tables, JSON, the page, and what is refused."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from stream_app.evaluation.judging import OURS
from stream_app.evaluation.results import EvaluationReport
from tests.cli.conftest import Cli
from tests.evaluation.cases import walked_log


def written(folder: Path, num_events: int = 1200) -> str:
    """A log of users who walk through items, as NDJSON."""
    path = folder / "log.ndjson"
    rows = (
        {"user": one.user_id, "item": one.item_id, "type": one.type, "ts": one.ts}
        for one in walked_log(num_events, num_items=50, num_users=25, seed=6)
    )
    path.write_bytes(b"\n".join(map(msgspec.json.encode, rows)))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["prequential", "temporal", "leave-one-out"])
def test_every_protocol_stands_beside_every_baseline(lonely: Cli, home: Path, protocol: str) -> None:
    asked = ["evaluate", written(home), "--protocol", protocol, "--budget-s", "3"]
    made = lonely(*asked, "--json", "--out", "report.html")
    assert made.exit_code == 0, made.output
    report = msgspec.json.decode(made.stdout, type=EvaluationReport)
    names = [method.name for method in report.methods]
    assert report.protocol == protocol
    assert names[0] == OURS
    for kind in ("popularity", "last-item transitions", "item-kNN", "SASRec"):
        assert any(name.startswith(kind) for name in names)
    assert any(name.startswith("session-kNN") for name in names) == (protocol != "leave-one-out")
    assert all(0 < method.measures["AUC"].mean <= 1 for method in report.methods)
    page = (home / "report.html").read_text("utf-8")
    assert "<svg" in page and "SASRec" in page
    assert "SASRec, epoch 1" in made.stderr


@pytest.mark.slow
def test_baselines_alone_as_a_table(lonely: Cli, home: Path) -> None:
    out = lonely.ok("evaluate", written(home), "--only-baselines", "--budget-s", "1")
    assert out.startswith("prequential: ")
    assert "item-kNN, frozen at the split" in out and "returning users" in out
    assert f"\n{OURS} " not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "m", "--only-baselines"], "exclude each other"),
        (["--items", "items.ndjson", "--only-baselines"], "--items is for the model that is trained"),
        (["--items", "items.ndjson", "--protocol", "leave-one-out"], "--items is for the model that is trained"),
        (["--model", "m", "--protocol", "leave-one-out"], "leave --model out"),
        (["--out", "nowhere/report.html"], "no folder"),
        (["--protocol", "random"], "random"),
        (["--split", "1.5"], "1.5"),
    ],
)
def test_what_makes_no_sense_is_refused(lonely: Cli, home: Path, arguments: list[str], said: str) -> None:
    (home / "items.ndjson").write_bytes(b"")
    result = lonely("evaluate", "log.ndjson", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_a_file_without_times_has_one_protocol(lonely: Cli, home: Path) -> None:
    (home / "s.txt").write_text("1 2 3\n")
    result = lonely("evaluate", "s.txt")
    assert result.exit_code == 2
    assert "--protocol leave-one-out" in result.stderr


def test_a_log_that_is_not_there_is_refused(lonely: Cli, home: Path) -> None:
    result = lonely("evaluate", "nothing.ndjson")
    assert result.exit_code == 2
    assert "nothing.ndjson" in result.stderr


def test_parity_needs_a_broker(unreachable: Cli, home: Path) -> None:
    result = unreachable("evaluate", written(home, 50), "--parity")
    assert result.exit_code == 1
    assert "broker" in result.stderr.lower()
