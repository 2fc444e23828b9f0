"""A running stack for all tests of the page, and a browser for each file of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, sync_playwright

from stream_app.broker import EmbeddedBroker
from tests.web.page.browsers import WAIT_MS, chromium
from tests.web.page.stack import Stack, running_stack, send_hostile

NUM_EVENTS = 1000


@pytest.fixture(scope="session")
def stack(broker: EmbeddedBroker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Roles with the example's model, events, and a server."""
    if chromium() is None:
        pytest.skip("there is no Chromium on PATH (Debian: apt-get install chromium)")
    with running_stack(tmp_path_factory.mktemp("page"), broker.bootstrap_servers, NUM_EVENTS) as running:
        send_hostile(running.server)
        yield running


@pytest.fixture(scope="module")
def browser(stack: Stack) -> Iterator[Browser]:
    """A browser. Not for the whole session: its event loop keeps others out of this thread."""
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        yield started
        started.close()


@dataclass
class Watched:
    """A page, what its console said, and whom it asked."""

    page: Page
    address: str
    errors: list[str] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)

    def open(self, view: str) -> None:
        """Go to a view (``live``, ``user/2264``, …) as somebody does who types its address."""
        self.page.goto(f"{self.address}/#/{view}")

    def hosts(self) -> set[str]:
        """Everybody who was asked for something."""
        return {urlsplit(request.url).netloc for request in self.requests}

    def num_bytes(self) -> int:
        """What all answers so far weighed: bodies as sent (streams, which go on, left out)."""
        ended = [request for request in self.requests if not urlsplit(request.url).path.endswith(("/live", "/stream"))]
        return sum(request.sizes()["responseBodySize"] for request in ended)


def watch(page: Page, address: str) -> Watched:
    """Watch a page from its beginning."""
    watched = Watched(page, address)

    def note(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            watched.errors.append(message.text)

    page.set_default_timeout(WAIT_MS)
    page.on("console", note)
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    page.on("request", lambda request: watched.requests.append(request))
    return watched


@pytest.fixture
def watched(browser: Browser, stack: Stack) -> Iterator[Watched]:
    """A page of the width of a desk; at the end its console must have been silent, and nobody else asked."""
    context = browser.new_context(viewport={"width": 1280, "height": 860})
    made = watch(context.new_page(), stack.server.address)
    yield made
    context.close()
    assert made.errors == []
    assert made.hosts() <= {urlsplit(stack.server.address).netloc}
