"""A click becomes an event and moves the list; by mouse, by keyboard, and after the server was away."""

from __future__ import annotations

import re
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.web.page.browsers import WAIT_MS
from tests.web.page.conftest import Watched, watch
from tests.web.page.stack import Server, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

expect.set_options(timeout=WAIT_MS)

TOKEN = "0123456789abcdef0123456789abcdef"
MOVED = re.compile(r"Kafka has the event after [\d,.]+ m?s; the list moved after [\d,.]+ m?s\.")


def titles(page: Page) -> list[str]:
    """The list as it is shown."""
    return page.locator(".ranked .name").all_inner_texts()


def open_user(watched: Watched, user: str) -> None:
    """Open the view of a user, and wait until its stream stands."""
    watched.open(f"user/{user}")
    expect(watched.page.locator("button.take")).to_have_count(10)
    expect(watched.page.locator("#connection")).to_have_text("live")


HOLD = """method => {
    const real = window.fetch;
    const held = new Promise((done) => { window.letGo = done; });
    window.fetch = async (address, options) => {
        const answer = await real(address, options);
        if ((options?.method ?? "GET") === method && !String(address).endsWith("/stream")) await held;
        return answer;
    };
}"""
"""Answers to requests of one method come only after `letGo`: later than whatever the stream tells."""


def test_a_list_from_the_stream_is_no_longer_than_the_first(watched: Watched, stack: Stack) -> None:
    open_user(watched, stack.user)
    page = watched.page
    page.evaluate(HOLD, "GET")
    page.locator("button.take").nth(1).click()
    expect(page.get_by_role("status").filter(has_text=MOVED)).to_be_visible()
    assert len(titles(page)) == 10
    page.evaluate("() => window.letGo()")


def test_an_erasure_stays_told_when_its_answer_comes_later(watched: Watched, stack: Stack) -> None:
    user = stack.server.get("/users?count=9")["users"][-2]["user_id"]
    open_user(watched, user)
    page = watched.page
    page.evaluate(HOLD, "DELETE")
    first = page.get_by_role("button", name="Erase this user…")
    first.click()
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.get_by_text("Erased. A new event begins a new history.")).to_be_visible()
    expect(first).to_be_disabled()
    page.evaluate("() => window.letGo()")
    expect(first).to_be_enabled()  # the answer has come, and changed nothing
    expect(page.get_by_text("Erased. A new event begins a new history.")).to_be_visible()


def test_a_click_moves_the_list_and_tells_its_milliseconds(watched: Watched, stack: Stack) -> None:
    open_user(watched, stack.user)
    page = watched.page
    before = titles(page)
    num_events = stack.server.get(f"/users/{stack.user}")["num_events"]
    page.get_by_label("purchase").check()
    page.locator("button.take").nth(2).click()
    expect(page.get_by_role("status").filter(has_text=MOVED)).to_be_visible()
    after = titles(page)
    assert before[2] not in after
    assert len(after) == 10
    assert page.locator(".moved").filter(has_text=re.compile("new|▲|▼")).count() > 0
    # The timeline follows: the newest event is this click.
    newest = page.locator(".slice-detail li").first
    expect(newest).to_contain_text(before[2])
    expect(newest).to_contain_text("purchase")
    assert stack.server.get(f"/users/{stack.user}")["num_events"] == num_events + 1


def test_a_user_is_erased_only_when_asked_twice(watched: Watched, stack: Stack) -> None:
    user = stack.server.get("/users?count=9")["users"][-1]["user_id"]
    open_user(watched, user)
    page = watched.page
    page.get_by_role("button", name="Erase this user…").click()
    expect(page.get_by_role("button", name="Keep")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Erase", exact=True)).to_be_hidden()
    page.get_by_role("button", name="Erase this user…").click()
    page.get_by_role("button", name="Erase", exact=True).click()
    expect(page.get_by_text("Erased. A new event begins a new history.")).to_be_visible()
    expect(page.locator("button.take")).to_have_count(0)
    with pytest.raises(urllib.error.HTTPError, match="404"):
        stack.server.get(f"/users/{user}")


def test_no_motion_for_those_who_want_none(browser: Browser, stack: Stack) -> None:
    context = browser.new_context(reduced_motion="reduce")
    watched = watch(context.new_page(), stack.server.address)
    open_user(watched, stack.user)
    page = watched.page
    page.evaluate("() => { Element.prototype.animate = () => { throw new Error('moved'); }; }")
    page.locator("button.take").first.click()
    expect(page.get_by_role("status").filter(has_text=MOVED)).to_be_visible()
    assert watched.errors == []
    context.close()


def test_all_by_keyboard(watched: Watched, stack: Stack) -> None:
    watched.open("live")
    page = watched.page
    press = page.keyboard.press
    focused = page.locator(":focus")
    expect(page.get_by_role("heading", level=1)).to_have_text("Live")
    press("Tab")
    expect(focused).to_have_text("Skip to the content")
    press("Tab")
    press("Tab")
    expect(focused).to_have_text("Live")
    press("ArrowRight")
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("User")
    expect(focused).to_have_text("User")  # the heading: what follows is a Tab away
    press("Tab")
    page.keyboard.type(stack.user)
    press("Enter")
    expect(page.locator("button.take")).to_have_count(10)
    expect(page.locator("#connection")).to_have_text("live")
    for _ in range(40):
        if focused.evaluate("node => node.matches('button.take')"):
            break
        press("Tab")
    press("ArrowDown")
    expect(focused.locator(".rank")).to_have_text("2")
    taken = focused.locator(".name").inner_text()
    press("Enter")
    expect(page.get_by_role("status").filter(has_text=MOVED)).to_be_visible()
    assert taken not in titles(page)
    # The row left; its place keeps the focus, so that the next press goes on from there.
    expect(focused.locator(".rank")).to_have_text("2")
    press("Home")
    expect(focused.locator(".rank")).to_have_text("1")


def test_slices_and_tabs_by_arrow_keys(watched: Watched, stack: Stack) -> None:
    open_user(watched, stack.user)
    page = watched.page
    slices = page.locator(".slice")
    slices.last.focus()
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    expect(slices.first).to_have_attribute("aria-pressed", "true")
    seq = slices.first.get_attribute("data-seq")
    expect(page.locator(".slice-detail")).to_contain_text(f"Slice {seq},")
    watched.open("items")
    page.get_by_role("tab", name="Most touched").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    expect(page.get_by_role("tab", name="Newest")).to_have_attribute("aria-selected", "true")


def test_the_page_finds_a_server_that_was_away(browser: Browser, stack: Stack) -> None:
    context = browser.new_context()
    watched = watch(context.new_page(), stack.server.address)
    open_user(watched, stack.user)
    page = watched.page
    stack.server.stop()
    expect(page.locator("#connection")).to_contain_text("trying again")
    expect(page.get_by_role("button", name="Try now")).to_be_visible()
    before = titles(page)
    page.locator("button.take").nth(1).click()
    expect(page.get_by_role("status").filter(has_text="The server does not answer.")).to_be_visible()
    assert titles(page) == before
    stack.server.start()
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.locator(".ranked .name")).to_have_text(before)
    page.locator("button.take", has_text=before[1]).click()
    expect(page.get_by_role("status").filter(has_text=MOVED)).to_be_visible()
    assert before[1] not in titles(page)
    context.close()


@pytest.fixture
def guarded(stack: Stack, tmp_path: Path) -> Iterator[Server]:
    """A server of the same topics that wants a token."""
    commands = stack.another_server(tmp_path, {"SLICEFLOW_SERVE_TOKEN": TOKEN})
    server = Server(commands)
    try:
        server.start()
        yield server
    finally:
        commands.close()


def test_a_token_is_asked_for_once(browser: Browser, guarded: Server) -> None:
    context = browser.new_context()
    watched = watch(context.new_page(), guarded.address)
    watched.open("live")
    page = watched.page
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Token").fill("another one, and a wrong one")
    page.keyboard.press("Enter")
    expect(dialog.get_by_label("Token")).to_have_value("")  # asked again
    dialog.get_by_label("Token").fill(TOKEN)
    dialog.get_by_role("button", name="Go on").click()
    expect(page.locator("#connection")).to_have_text("live")
    page.reload()
    expect(page.locator("#connection")).to_have_text("live")
    expect(dialog).to_be_hidden()
    assert TOKEN not in page.url
    context.close()
