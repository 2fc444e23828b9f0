"""How much happens in the fault suite, and the topics that each test has for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stream_app.broker import EmbeddedBroker
from tests.faults.rig import Rig, example_settings

LONG_TIMEOUT_S = 3600
"""For one test of the long form: a hundred kills, each with a restart, on a busy machine."""


@dataclass(frozen=True)
class Scale:
    """How much happens.

    Args:
        num_events: Good events of a log.
        events_per_s: How quickly it is fed.
        num_kills: How often each victim is killed.
        num_changes: How often a worker joins or leaves.
        is_long: Whether what takes minutes is tried at all.
    """

    num_events: int
    events_per_s: float
    num_kills: int
    num_changes: int
    is_long: bool


SHORT = Scale(num_events=5_000, events_per_s=600.0, num_kills=2, num_changes=4, is_long=False)
LONG = Scale(num_events=100_000, events_per_s=800.0, num_kills=20, num_changes=40, is_long=True)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The long form of the suite, as `make faults` runs it."""
    parser.addoption("--long-faults", action="store_true", help="let much more happen in tests/faults (an hour)")


def _is_long(config: pytest.Config) -> bool:
    # Where pytest is not started on this folder, it reads this file too late to know the option.
    return bool(config.getoption("--long-faults", default=False))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give the tests of the long form more time."""
    for item in items:
        if _is_long(config) and Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(LONG_TIMEOUT_S))


@pytest.fixture(scope="session")
def scale(request: pytest.FixtureRequest) -> Scale:
    """How much happens in this session."""
    return LONG if _is_long(request.config) else SHORT


MakeRig = Callable[..., Rig]


@pytest.fixture
def make_rig(broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> MakeRig:
    """Makes the topics of this test; takes settings by name, and `servers` for another broker than the session's."""

    def make(servers: str = "", **values: Any) -> Rig:
        return Rig(example_settings(servers or broker.bootstrap_servers, topic_prefix, tmp_path, **values), tmp_path)

    return make


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """The topics of this test."""
    return make_rig()
