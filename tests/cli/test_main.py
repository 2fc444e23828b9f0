"""The command line without Kafka: help, errors, exit codes, settings."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import click
import pytest

from stream_app.cli import COMMANDS, LazyGroup, main
from stream_app.cli.config import described
from stream_app.errors import SettingsError
from stream_app.settings import KafkaSettings, Settings
from tests.cli.conftest import Cli

MINE = ("topics", "doctor", "send", "recommend", "tail", "config")
NEEDS_KAFKA = (["topics"], ["send", "--user", "ann", "--item", "book"], ["recommend", "ann"], ["tail"])


def group_with(command: click.Command) -> click.Group:
    """The real group's error handling around one command."""

    class OneCommand(LazyGroup):
        def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
            return command

    return OneCommand("sliceflow", callback=main.callback, params=main.params)


def failing(error: BaseException) -> click.Command:
    """A command that raises."""

    @click.command("fail")
    def command() -> None:
        raise error

    return command


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(lonely: Cli, flag: str) -> None:
    text = lonely.ok(flag)
    for name, line in COMMANDS.items():
        assert f"{name} " in text
        assert line in text


def test_help_imports_no_command_and_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from stream_app.cli import main\n"
        "main(['--help'], standalone_mode=False)\n"
        "heavy = {'aiokafka', 'faust', 'numpy', 'torch', 'rich', 'stream_app.settings'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("LOADED []\n"), done.stdout[-300:]


@pytest.mark.parametrize("name", MINE)
def test_each_command_explains_itself(lonely: Cli, name: str) -> None:
    assert isinstance(importlib.import_module(f"stream_app.cli.{name}").command, click.Command)
    text = lonely.ok(name, "-h")
    assert f"Usage: sliceflow {name}" in text


def test_version(lonely: Cli) -> None:
    assert lonely.ok("--version").startswith("sliceflow ")


@pytest.mark.parametrize(
    "args",
    [
        ["nope"],
        ["--nope"],
        ["send"],
        ["recommend"],
        ["recommend", "ann", "--count", "0"],
        ["tail", "--limit", "x"],
    ],
)
def test_usage_errors_are_2(lonely: Cli, args: list[str]) -> None:
    result = lonely(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Usage: sliceflow" in result.stderr


@pytest.mark.parametrize("args", NEEDS_KAFKA)
def test_no_broker_named_says_what_to_run(lonely: Cli, args: list[str]) -> None:
    result = lonely(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "sliceflow up" in result.stderr
    assert "KAFKA_BOOTSTRAP_SERVERS" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("args", NEEDS_KAFKA)
def test_an_absent_broker_is_named(unreachable: Cli, args: list[str]) -> None:
    result = unreachable(*args)
    assert (result.exit_code, result.stdout) == (1, "")
    assert str(unreachable.environ["KAFKA_BOOTSTRAP_SERVERS"]) in result.stderr
    assert result.stderr.count("\n") == 1


def test_the_embedded_brokers_address_is_found(lonely: Cli, unreachable: Cli, home: Path) -> None:
    address = str(unreachable.environ["KAFKA_BOOTSTRAP_SERVERS"])
    (home / "state" / "broker").mkdir(parents=True)
    (home / "state" / "broker" / "address").write_text(address + "\n")
    assert f"does not answer at {address}" in lonely("topics").stderr


def test_wrong_settings_are_2(lonely: Cli, home: Path) -> None:
    missing = lonely("--config", "none.toml", "config")
    assert (missing.exit_code, "none.toml" in missing.stderr) == (2, True)
    (home / "wrong.toml").write_text("partitons = 3\n")
    wrong = lonely("--config", "wrong.toml", "config")
    assert (wrong.exit_code, "partitons" in wrong.stderr) == (2, True)


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [(SettingsError("Seen.", mend="do this"), 2), (ValueError("odd"), 1), (OSError("disk"), 1)],
)
@pytest.mark.parametrize("debug", [False, True])
def test_errors_are_one_paragraph_and_tracebacks_need_debug(
    error: Exception, exit_code: int, debug: bool, lonely: Cli
) -> None:
    result = click.testing.CliRunner().invoke(group_with(failing(error)), ["--debug"] * debug + ["fail"])
    assert result.exit_code == exit_code
    assert result.stdout == ""
    assert str(error).split(" To mend")[0] in result.stderr
    assert ("Traceback" in result.stderr) == debug


# ---------------------------------------------------------------- config


def test_config_shows_every_setting_with_its_meaning(lonely: Cli) -> None:
    shown = json.loads(lonely.ok("config", "--json"))
    names = [*(f"kafka.{name}" for name in KafkaSettings.__struct_fields__), *Settings.__struct_fields__[1:]]
    assert list(shown) == names
    assert all(one["meaning"] for one in shown.values()), [n for n, one in shown.items() if not one["meaning"]]
    table = lonely.ok("config")
    assert all(name in table for name in names)


def test_config_shows_what_is_set_and_masks_secrets(lonely: Cli, home: Path) -> None:
    (home / "sliceflow.toml").write_text('partitions = 7\n[kafka]\nsasl_password = "hunter2"\n')
    for args in (["config"], ["config", "--json"]):
        text = lonely.ok(*args)
        assert "hunter2" not in text
        assert "***" in text
    assert json.loads(lonely.ok("config", "--json"))["partitions"]["value"] == 7


def test_an_empty_secret_is_shown_as_empty() -> None:
    assert {name: value for name, value, _ in described(Settings())}["kafka.sasl_password"] == ""
