"""Each view shows what it is for, light and dark, wide and narrow, and weighs little."""

from __future__ import annotations

import pytest
from playwright.sync_api import Browser, expect

from tests.web.page.browsers import WAIT_MS
from tests.web.page.conftest import Watched, watch
from tests.web.page.stack import HOSTILE_ITEM, HOSTILE_TITLE, HOSTILE_USER, Stack

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

expect.set_options(timeout=WAIT_MS)

MOST_BYTES = 300_000
"""What the first view may weigh, in all."""

PHONE_PX = 360


def test_live_shows_figures_roles_and_what_flows(watched: Watched, stack: Stack) -> None:
    watched.open("live")
    page = watched.page
    expect(page.locator("#connection")).to_have_text("live")
    expect(page.get_by_role("row", name="recommend")).to_contain_text("ready")
    expect(page.locator(".tile", has_text="Items").locator(".number")).not_to_have_text("–")
    newest_ts = stack.server.get("/users?count=1")["users"][0]["last_seen_ts"]
    item = stack.server.get("/items?order=popular&count=1")["items"][0]
    stack.server.send([{"user_id": "someone", "item_id": item["item_id"], "type": "purchase", "ts": newest_ts}])
    event = page.get_by_role("list", name="Events").get_by_role("listitem").first
    expect(event).to_contain_text("purchase")
    expect(event).to_contain_text(item["title"])
    expect(page.get_by_role("list", name="Lists").get_by_role("listitem").first).to_contain_text("someone")


def test_held_flow_stands_still(watched: Watched, stack: Stack) -> None:
    watched.open("live")
    page = watched.page
    expect(page.locator("#connection")).to_have_text("live")
    page.get_by_role("button", name="Hold the flow").click()
    newest_ts = stack.server.get("/users?count=1")["users"][0]["last_seen_ts"]
    stack.server.send([{"user_id": "held", "item_id": HOSTILE_ITEM, "type": "click", "ts": newest_ts + 1}])
    page.get_by_role("button", name="Let it flow").click()
    stack.server.send([{"user_id": "let-go", "item_id": HOSTILE_ITEM, "type": "click", "ts": newest_ts + 2}])
    events = page.get_by_role("list", name="Events")
    expect(events).to_contain_text("let-go")


def test_user_shows_slices_list_and_reasons(watched: Watched, stack: Stack) -> None:
    watched.open(f"user/{stack.user}")
    page = watched.page
    rows = page.get_by_role("list", name="Current list").get_by_role("listitem")
    expect(rows).to_have_count(10)
    expect(rows.first.locator(".why")).to_contain_text("slice")
    known = stack.server.get(f"/users/{stack.user}")
    expect(page.locator(".slice")).to_have_count(len(known["slices"]))
    expect(page.locator(".slice.open")).to_have_count(sum(not one["closed"] for one in known["slices"]))
    expect(page.locator(".slice-detail")).to_contain_text(f"{known['slices'][-1]['num_events']} events")
    expect(page.locator(".facts").first).to_contain_text("Last seen")


def test_a_user_is_chosen_or_typed(watched: Watched, stack: Stack) -> None:
    watched.open("user")
    page = watched.page
    page.get_by_role("group", name="Seen last").get_by_role("link", name=stack.user, exact=True).click()
    expect(page.locator("h1 + code")).to_have_text(stack.user)
    page.get_by_label("User", exact=True).fill("nobody knows")
    with page.expect_response(lambda answer: answer.status == 404):
        page.get_by_role("button", name="Show").click()
    expect(page.locator("h1 + code")).to_have_text("nobody knows")
    expect(page.locator(".list-panel")).to_contain_text("what is popular")
    # The browser itself tells its console of every 404.
    watched.errors[:] = [error for error in watched.errors if "404" not in error]


def test_items_are_searched_and_have_neighbours(watched: Watched, stack: Stack) -> None:
    watched.open("items")
    page = watched.page
    listed = page.get_by_role("list", name="Items").get_by_role("button")
    popular = stack.server.get("/items?order=popular&count=1")["items"][0]
    expect(listed.first).to_contain_text(popular["title"])
    page.get_by_label("Search").fill("Gravity")
    page.get_by_role("button", name="Search").click()
    expect(listed.first).to_contain_text("Gravity")
    expect(page.locator("#item-list")).to_contain_text("Found by")
    listed.first.click()
    expect(page.get_by_role("heading", name="Neighbours in the model")).to_be_visible()
    neighbours = page.locator(".panel", has_text="Neighbours in the model").get_by_role("button")
    expect(neighbours).to_have_count(10)
    for name in ("Newest", "Cold"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        expect(listed.first).to_be_visible()


def test_model_shows_release_curve_and_drift(watched: Watched, stack: Stack) -> None:
    watched.open("model")
    page = watched.page
    release = stack.server.get("/model")["release"]
    expect(page.locator("h1 + code")).to_have_text(release)
    expect(page.get_by_role("img", name="Loss in training")).to_be_visible()
    # The demo's model was judged beside baselines when it was trained.
    expect(page.get_by_text("session-kNN", exact=True).first).to_be_visible()
    for heading in ("Evaluation beside baselines", "Drift", "Scorer, learned while events flow"):
        expect(page.get_by_role("heading", name=heading)).to_be_visible()


def test_health_puts_numbers_on_the_flow(watched: Watched, stack: Stack) -> None:
    watched.open("health")
    page = watched.page
    expect(page.get_by_role("img", name="Role sequence: lag")).to_contain_text("lag")
    end = next(one["end_offset"] for one in stack.server.get("/flow")["topics"] if one["name"] == "slices")
    assert end > 0
    expect(page.get_by_role("img", name="slices: ")).to_contain_text("/s")


def test_nothing_hostile_comes_alive(watched: Watched, stack: Stack) -> None:
    page = watched.page
    watched.open("user")
    page.get_by_label("User", exact=True).fill(HOSTILE_USER)
    page.get_by_role("button", name="Show").click()
    expect(page.locator("h1 + code")).to_have_text(HOSTILE_USER)
    expect(page.locator(".slice-detail")).to_contain_text(HOSTILE_TITLE)
    expect(page.locator(".list-panel").get_by_role("listitem")).to_have_count(10)
    watched.open(f"items/{HOSTILE_ITEM}")
    expect(page.get_by_role("heading", name=HOSTILE_TITLE)).to_be_visible()
    expect(page.locator(".item-detail")).to_contain_text("<b>bold</b>")
    watched.open("live")
    expect(page.locator("#connection")).to_have_text("live")
    newest_ts = stack.server.get("/users?count=1")["users"][0]["last_seen_ts"]
    stack.server.send([{"user_id": HOSTILE_USER, "item_id": HOSTILE_ITEM, "type": "click", "ts": newest_ts + 3}])
    event = page.get_by_role("list", name="Events").get_by_role("listitem").first
    expect(event).to_contain_text(HOSTILE_TITLE)
    expect(event).to_contain_text(HOSTILE_USER)
    assert page.evaluate("window.taken") is None
    assert page.locator("main img, main script").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_scrolls_down_only(browser: Browser, stack: Stack, scheme: str) -> None:
    context = browser.new_context(
        viewport={"width": PHONE_PX, "height": 740}, color_scheme="dark" if scheme == "dark" else "light"
    )
    watched = watch(context.new_page(), stack.server.address)
    for view in ("live", f"user/{stack.user}", f"items/{HOSTILE_ITEM}", "model", "health"):
        watched.open(view)
        expect(watched.page.get_by_role("heading", level=1)).to_be_visible()
        expect(watched.page.locator(".panel").last).to_be_visible()
        assert watched.page.evaluate("document.documentElement.scrollWidth") <= PHONE_PX, view
    assert watched.errors == []
    context.close()


def test_a_chosen_theme_stays(watched: Watched) -> None:
    watched.open("live")
    page = watched.page
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.get_by_role("button", name="Dark theme").click()
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert dark != light
    page.reload()
    expect(page.get_by_role("button", name="Dark theme")).to_have_attribute("aria-pressed", "true")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_the_first_view_is_light(watched: Watched) -> None:
    watched.open("live")
    expect(watched.page.get_by_role("row", name="recommend")).to_be_visible()
    watched.page.wait_for_load_state("load")
    assert 10_000 < watched.num_bytes() <= MOST_BYTES
