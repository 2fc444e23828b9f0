"""How contenders are started, and what is read of what they keep."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from stream_app.faustkit.store import seal
from tests.bench.common import ROOT
from tests.bench.sequence import contenders
from tests.bench.sequence.contenders import CONTENDERS, OURS, chosen
from tests.bench.sequence.figures import TARGETS
from tests.bench.sequence.job import Task

TASK = Task(
    servers="127.0.0.1:9092",
    group="run7-x",
    input_topic="input",
    output_topic="run7-x-output",
    state_topic="run7-x-histories-changelog",
    folder="folder",
    num_events=10,
)
BY_SLUG = {contender.slug: contender for contender in CONTENDERS}


@pytest.mark.parametrize("slug", BY_SLUG)
def test_a_command_hands_over_the_task(slug: str) -> None:
    contender = BY_SLUG[slug]
    python, option, module, task, *rest = contender.command(TASK)
    assert (python, option, module) == (str(contender.python), "-m", contender.module)
    assert msgspec.json.decode(task, type=Task) == TASK
    assert tuple(rest) == contender.arguments


@pytest.mark.parametrize("slug", BY_SLUG)
def test_a_module_is_there(slug: str) -> None:
    path = ROOT / BY_SLUG[slug].module.replace(".", "/")
    assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()


@pytest.mark.parametrize("slug", BY_SLUG)
def test_a_state_topic_goes_away_with_its_round(slug: str) -> None:
    topic = BY_SLUG[slug].state_topic(TASK)
    assert not topic or TASK.group in topic


def test_each_runs_where_its_packages_are() -> None:
    for slug in ("faustkit", "bare-aiokafka", "stock-faust"):
        assert str(BY_SLUG[slug].python) == sys.executable
        assert not BY_SLUG[slug].lacks()
        assert BY_SLUG[slug].version()
    for slug in ("quix-streams", "bytewax"):
        assert BY_SLUG[slug].python == ROOT / ".venv-peers" / "bin" / "python"


def test_versions_of_jars_are_read_from_their_lock() -> None:
    name, version = BY_SLUG["kafka-streams"].version().split()
    assert name == "kafka-streams"
    assert version[0].isdigit()


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contenders, "PEERS_PYTHON", ROOT / "nowhere" / "python")
    monkeypatch.setenv("PATH", str(Path("nowhere")))
    assert "make .venv-peers" in BY_SLUG["quix-streams"].lacks()
    assert "javac" in BY_SLUG["kafka-streams"].lacks()


def test_our_state_is_read_out_of_its_envelope() -> None:
    value = seal(41, (2).to_bytes(4, "big") + b"i1\ni7\n")
    assert BY_SLUG["faustkit"].state_format.decode(value) == (2, ["i1", "i7"])


def test_quix_keeps_the_user_in_the_key() -> None:
    assert BY_SLUG["quix-streams"].state_format.user_of(b"u17|h") == b"u17"


def test_every_target_is_of_a_contender() -> None:
    names = {contender.name for contender in CONTENDERS}
    assert names >= {OURS, *TARGETS}


def test_contenders_are_chosen_by_name_in_one_order() -> None:
    assert [one.slug for one in chosen(["bytewax", "faustkit"])] == ["faustkit", "bytewax"]
    assert chosen([]) == CONTENDERS
    with pytest.raises(ValueError, match="Unknown contenders: nobody"):
        chosen(["nobody"])
