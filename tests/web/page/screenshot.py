"""Pictures of the page for the README, taken of a real stack: `python -m tests.web.page.screenshot`."""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path
from typing import Final

from playwright.sync_api import Browser, expect, sync_playwright

from stream_app.broker import EmbeddedBroker
from tests.web.page.browsers import WAIT_MS, chromium
from tests.web.page.stack import Stack, running_stack

FOLDER: Final = Path(__file__).parents[3] / "docs" / "images"
NUM_EVENTS: Final = 6000
NUM_USERS: Final = 30
SIZE: Final = {"width": 1280, "height": 800}


def main() -> int:
    """Start everything, take the pictures, and stop everything; 1 where there is no Chromium."""
    if chromium() is None:
        print(
            "There is no Chromium on PATH. To mend it: install it (Debian: apt-get install chromium).", file=sys.stderr
        )
        return 1
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        EmbeddedBroker(None) as broker,
        running_stack(Path(folder), broker.bootstrap_servers, NUM_EVENTS) as stack,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        user = user_with_history(stack)
        for scheme in ("light", "dark"):
            print(take_user(browser, stack.server.address, user, scheme))
        browser.close()
    return 0


def user_with_history(stack: Stack) -> str:
    """Of the users who were active last, the one with most slices: a timeline worth a picture."""
    users = [one["user_id"] for one in stack.server.get(f"/users?count={NUM_USERS}")["users"]]
    named: list[str] = [user for user in users if user.isalnum()]
    return max(named, key=lambda user: (len(stack.server.get(f"/users/{user}")["slices"]), user))


def take_user(browser: Browser, address: str, user: str, scheme: str) -> Path:
    """The view of a user after a click, in a colour scheme; the file that was written."""
    context = browser.new_context(
        viewport={"width": SIZE["width"], "height": SIZE["height"]},
        color_scheme="dark" if scheme == "dark" else "light",
        reduced_motion="reduce",  # so that no picture is taken in the middle of a move
    )
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    page.goto(f"{address}/#/user/{user}")
    expect(page.locator("#connection")).to_have_text("live", timeout=WAIT_MS)
    page.locator("button.take").nth(2).click()
    expect(page.get_by_text(re.compile("the list moved after"))).to_be_visible(timeout=WAIT_MS)
    page.mouse.move(0, 0)
    file = FOLDER / f"page-{scheme}.png"
    page.screenshot(path=file)
    context.close()
    return file


if __name__ == "__main__":
    sys.exit(main())
