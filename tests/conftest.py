"""Fixtures that every test may use: one broker for the whole session, and names that no other test has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import pytest
from hypothesis import settings

from stream_app.broker import EmbeddedBroker

settings.register_profile("quick", max_examples=10)
"""For `make check`: `make test` tries ten times as many."""


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
