"""A command line that sees nothing of the machine it runs on: no settings, no state, no broker."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from stream_app.broker import EmbeddedBroker
from stream_app.cli import main

HIDDEN = ("SLICEFLOW_", "KAFKA_", "XDG_STATE_HOME")


class Cli:
    """Runs `sliceflow` in this process, with an environment of its own."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self.environ: dict[str, str | None] = {name: None for name in os.environ if name.startswith(HIDDEN)}
        self.environ |= environ

    def __call__(self, *args: str) -> Result:
        """Run one command."""
        return CliRunner().invoke(main, list(args), env=self.environ, prog_name="sliceflow")

    def ok(self, *args: str) -> str:
        """What one command prints, which must succeed."""
        result = self(*args)
        assert result.exit_code == 0, result.output
        return result.stdout


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which is the working folder too; its `state` is the state folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def lonely(home: Path) -> Cli:
    """The command line without any broker."""
    return Cli({"SLICEFLOW_HOME": str(home / "state"), "COLUMNS": "200"})


@pytest.fixture
def unreachable(home: Path) -> Cli:
    """The command line with the address of a broker that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    return Cli({"SLICEFLOW_HOME": str(home / "state"), "KAFKA_BOOTSTRAP_SERVERS": address, "COLUMNS": "200"})


@pytest.fixture
def cli(home: Path, broker: EmbeddedBroker, topic_prefix: str) -> Cli:
    """The command line with the session's broker, in a namespace of this test."""
    return Cli(
        {
            "SLICEFLOW_HOME": str(home / "state"),
            "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
            "SLICEFLOW_PREFIX": topic_prefix,
            "SLICEFLOW_PARTITIONS": "2",
            "COLUMNS": "200",
        }
    )
