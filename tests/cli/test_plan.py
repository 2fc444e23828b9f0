"""`sliceflow plan`: what it prints is what it computed, and loads that are none are refused."""

from __future__ import annotations

import json

import pytest

from stream_app.roles import ROLES
from tests.cli.conftest import Cli


def test_the_command_tells_what_it_computed_and_from_what(lonely: Cli) -> None:
    arguments = ("plan", "--users", "100000", "--events-per-second", "300", "--items", "5000")
    plain = json.loads(lonely.ok(*arguments, "--json"))
    assert plain["partitions"] >= 4
    assert plain["cores"] == pytest.approx(plain["kafka_cores"] + sum(role["cores"] for role in plain["roles"]))
    assert plain["measured"]["roles"]["encode"]["cpu_ms_per_event"]["file"].startswith("bench/results/")
    text = lonely.ok(*arguments)
    assert all(role in text for role in ROLES)
    assert f"partitions {plain['partitions']}" in text


@pytest.mark.parametrize("wrong", [("--users", "0"), ("--events-per-second", "0"), ("--items", "-1")])
def test_what_is_no_load_is_refused(lonely: Cli, wrong: tuple[str, str]) -> None:
    arguments = {"--users": "1", "--events-per-second": "1", "--items": "1"} | dict([wrong])
    assert lonely("plan", *(part for pair in arguments.items() for part in pair)).exit_code == 2
