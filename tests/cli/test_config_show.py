"""`sliceflow config show`: where each value came from, the last one wins, and secrets stay hidden."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from stream_app.settings import KafkaSettings, Settings, settings_sources
from tests.cli.conftest import Cli


def shown(cli: Cli, *args: str) -> dict[str, Any]:
    """What the command says of each setting."""
    made: dict[str, Any] = json.loads(cli.ok("config", "show", "--json", *args))
    return made


def test_each_value_says_where_it_came_from(lonely: Cli, home: Path) -> None:
    (home / "sliceflow.toml").write_text('partitions = 7\nprefix = "file-"\n[kafka]\nsasl_username = "ann"\n')
    lonely.environ |= {"SLICEFLOW_PREFIX": "env-", "KAFKA_BOOTSTRAP_SERVERS": "somewhere:9092"}
    found = shown(lonely)
    assert (found["partitions"]["value"], found["partitions"]["source"]) == (7, "sliceflow.toml")
    assert (found["prefix"]["value"], found["prefix"]["source"]) == ("env-", "SLICEFLOW_PREFIX")
    assert found["kafka.sasl_username"]["source"] == "sliceflow.toml"
    assert found["kafka.bootstrap_servers"]["source"] == "KAFKA_BOOTSTRAP_SERVERS"
    assert found["slice_events"]["source"] == "default"
    assert len(found) == len(Settings.__struct_fields__) - 1 + len(KafkaSettings.__struct_fields__)
    table = lonely.ok("config", "show")
    assert any("partitions" in line and "sliceflow.toml" in line for line in table.splitlines())


def test_only_what_was_changed_where_that_is_asked(lonely: Cli) -> None:
    lonely.environ["SLICEFLOW_SLICE_GAP_S"] = "60"
    assert {name: one["value"] for name, one in shown(lonely, "--changed").items()} == {"slice_gap_s": 60.0}


def test_the_variable_of_our_own_name_wins_over_kafkas() -> None:
    both = {"SLICEFLOW_KAFKA_BOOTSTRAP_SERVERS": "a:1", "KAFKA_BOOTSTRAP_SERVERS": "b:1"}
    assert settings_sources(environ=both) == {"kafka.bootstrap_servers": "SLICEFLOW_KAFKA_BOOTSTRAP_SERVERS"}


def test_no_secret_is_shown_wherever_it_came_from(lonely: Cli, home: Path) -> None:
    (home / "sliceflow.toml").write_text('[kafka]\nsasl_password = "hunter2"\n')
    lonely.environ["SLICEFLOW_SERVE_TOKEN"] = "hunter3"
    for args in (["config", "show"], ["config", "show", "--json"], ["config", "show", "--changed"], ["config"]):
        text = lonely.ok(*args)
        assert "hunter" not in text
        assert "***" in text
