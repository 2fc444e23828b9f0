"""`sliceflow serve`, as far as it can be told without serving: help and refusals."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from stream_app.cli.serve import address_file, page_address
from stream_app.role_process import Worker, worker_command
from stream_app.roles import SERVE
from stream_app.settings import Settings
from tests.cli.conftest import Cli
from tests.web.cases import EXAMPLE


def test_it_explains_itself_and_needs_a_broker(lonely: Cli) -> None:
    assert "Usage: sliceflow serve" in lonely.ok("serve", "--help")
    result = lonely("serve")
    assert result.exit_code == 1
    assert "sliceflow up" in result.stderr


def test_the_supervisor_starts_it_beside_the_roles() -> None:
    assert worker_command(Worker(SERVE))[3:] == ["serve", "--any-port", "--end-with-stdin"]
    assert worker_command(Worker("trend", 1))[3:] == ["worker", "trend", "--instance", "1", "--end-with-stdin"]


def test_the_address_of_a_running_server_is_found(tmp_path: Path) -> None:
    settings = Settings(state_dir=str(tmp_path))
    assert page_address(settings) == ""
    address_file(settings).parent.mkdir()
    address_file(settings).write_text("http://127.0.0.1:1/\n")
    assert page_address(settings) == "http://127.0.0.1:1/"


@pytest.mark.kafka
@pytest.mark.slow
def test_it_refuses_to_serve_others_without_a_token_and_a_port_that_is_taken(cli: Cli) -> None:
    cli.environ |= {"SLICEFLOW_MODEL": str(EXAMPLE / "model"), "SLICEFLOW_SERVE_HOST": "0.0.0.0"}
    result = cli("serve")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "serve_token_file" in result.stderr
    with socket.create_server(("127.0.0.1", 0)) as taken:
        cli.environ |= {"SLICEFLOW_SERVE_HOST": "127.0.0.1", "SLICEFLOW_SERVE_PORT": str(taken.getsockname()[1])}
        result = cli("serve")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "serve_port" in result.stderr


def test_the_token_is_masked(lonely: Cli, home: Path) -> None:
    (home / "sliceflow.toml").write_text('serve_token = "a-secret-of-24-characters"\n')
    assert "a-secret" not in lonely.ok("config")
    assert json.loads(lonely.ok("config", "--json"))["serve_token"]["value"] == "***"
