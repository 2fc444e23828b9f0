"""Fixtures that every test may use: one broker for the whole session, and names that no other test has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest

from stream_app.broker import EmbeddedBroker
from tests.examples import register_profiles

register_profiles()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of our own."""
    parser.addoption("--update-golden", action="store_true", help="write the files in tests/golden anew")


@pytest.fixture(scope="session")
def broker() -> Iterator[EmbeddedBroker]:
    """A running broker, shared by all tests of the session; its data goes with it."""
    with EmbeddedBroker(None) as running:
        yield running


@pytest.fixture
def topic_prefix(request: pytest.FixtureRequest) -> str:
    """A prefix for topics and groups that belongs to this test alone, the same in each run."""
    digest = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:10]
    return f"t-{digest}-"
