"""The page in a real browser: how long a click takes to move its list, part by part; and how smooth the Live view is
while events come in at a rate.

The clicks are made on a running stack with the example's model. For the Live view events and lists are published by
this process, without roles: what is measured is the server and the page, and they are to be told as much as they would
be if the roles kept up.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from aiokafka import AIOKafkaProducer
from playwright.sync_api import Browser, Page, expect, sync_playwright

from stream_app.broker import EmbeddedBroker
from stream_app.demo import ITEMS_FILE
from stream_app.replay.readers import read_items
from stream_app.settings import Settings, load_settings
from stream_app.topics import EVENTS, prefixed
from tests.bench.api import list_records
from tests.bench.common import EXAMPLE, BenchResult, Figure, finish
from tests.end_to_end.conftest import Commands
from tests.web.page.browsers import WAIT_MS, chromium
from tests.web.page.stack import Server, running_stack, stack_environment

CLICK_TARGET_MS: Final = 300.0
TASK_TARGET_MS: Final = 50.0
"""What browsers call a long task: anything shorter lets the page answer a key or a pointer at once."""

NUM_EVENTS: Final = 1000
"""Events of the example that are there before the first click."""

NUM_USERS: Final = 500
PREFIX: Final = "page-live-"
EVERY_S: Final = 0.05
"""Between two batches of events."""

SETTLE_MS: Final = 600
"""Between two clicks: what the page asks for after a change, and what learns from the click, is over by then."""

MOVED: Final = re.compile("the list moved after")

PROBE: Final = """
window.frames = [];
window.longTasks = [];
let before = performance.now();
const step = (now) => { frames.push(now - before); before = now; requestAnimationFrame(step); };
requestAnimationFrame(step);
const note = (list) => longTasks.push(...list.getEntries().map((entry) => entry.duration));
new PerformanceObserver(note).observe({ type: "longtask" });
"""
"""Notes the time between frames, and tasks of 50 ms or more, in milliseconds."""

MARKS: Final = """() => Object.fromEntries(
  performance.getEntriesByType("mark").map((mark) => [mark.name, [mark.startTime, mark.detail]]))"""

Marks = Mapping[str, tuple[float, float | None]]
"""When the steps of a click were made, in milliseconds, and what the page said of them."""


def parts_of(marks: Marks) -> dict[str, float]:
    """The way of one click, in milliseconds from its beginning; and how long the roles took, and the picture."""
    begun = marks["click"][0]
    times = {name: marks[name][0] - begun for name in ("acknowledged", "list", "shown")}
    return {**times, "roles": marks["list"][1] or 0.0, "paint": times["shown"] - times["list"]}


def click_through(page: Page, address: str, user: str, num_clicks: int) -> list[dict[str, float]]:
    """The parts of some clicks of a user, one after the other, each on the first item of the list."""
    page.goto(f"{address}/#/user/{user}")
    expect(page.locator("#connection")).to_have_text("live", timeout=WAIT_MS)
    found = []
    for number in range(num_clicks):
        first = page.locator("button.take").first
        expect(first).to_be_visible(timeout=WAIT_MS)
        first.click()  # at once the page says that it is sent, in place of what it said of the click before
        expect(page.get_by_text(MOVED)).to_be_visible(timeout=WAIT_MS)
        if number > 0:  # the first opens connections
            found.append(parts_of(page.evaluate(MARKS)))
        page.wait_for_timeout(SETTLE_MS)
    return found


def watch_live(page: Page, address: str, seconds: float) -> tuple[list[float], list[float]]:
    """Milliseconds of the frames, and of the long tasks, of the Live view."""
    page.add_init_script(PROBE)
    page.goto(f"{address}/#/live")
    expect(page.get_by_role("list", name="Lists").get_by_role("listitem")).to_have_count(10, timeout=WAIT_MS)
    page.evaluate("() => { frames.length = 0; longTasks.length = 0; }")
    page.wait_for_timeout(seconds * 1000)
    frames, tasks = page.evaluate("[frames, longTasks]")
    return frames, tasks


async def _publish(settings: Settings, rate: float, stop: threading.Event) -> float:
    """Publish events and lists at a rate until told to stop; how many of each a second they were."""
    users = [f"user-{number}" for number in range(NUM_USERS)]
    item_ids = [str(item["item_id"]) for item in read_items(EXAMPLE / ITEMS_FILE)]
    pairs = [
        (one, event_value(one[2].decode(), item_ids[place % len(item_ids)]))
        for place, one in enumerate(list_records(settings, users, item_ids, 0))
    ]
    events, num, begun_s = prefixed(settings.prefix, EVENTS), 0, time.monotonic()
    async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
        while not stop.is_set():
            due = int((time.monotonic() - begun_s) * rate) - num
            # On a machine that is too slow the rate is missed, and told; the end must come all the same.
            for _ in range(min(due, round(2 * rate * EVERY_S))):
                (topic, partition, key, value), event = pairs[num % len(pairs)]
                await producer.send(events, event, key=key, partition=partition)
                await producer.send(topic, value, key=key, partition=partition)
                num += 1
            await asyncio.sleep(EVERY_S)
        reached = num / (time.monotonic() - begun_s)
    return reached


def event_value(user_id: str, item_id: str) -> bytes:
    """A click, now."""
    event = {"user_id": user_id, "item_id": item_id, "type": "click", "ts": time.time_ns() // 1_000_000}
    return json.dumps(event).encode()


@contextmanager
def publishing(settings: Settings, rate: float) -> Iterator[list[float]]:
    """Events and lists come at a rate during the block; afterwards what is given holds the rate that was reached."""
    stop, reached = threading.Event(), list[float]()
    thread = threading.Thread(target=lambda: reached.append(asyncio.run(_publish(settings, rate, stop))))
    thread.start()
    try:
        yield reached
    finally:
        stop.set()
        thread.join()


def measure_clicks(browser: Browser, servers: str, folder: Path, num_clicks: int) -> list[dict[str, float]]:
    """Clicks on a running stack."""
    with running_stack(folder, servers, NUM_EVENTS) as stack:
        return click_through(browser.new_page(), stack.server.address, stack.user, num_clicks + 1)


def measure_live(
    browser: Browser, servers: str, folder: Path, rate: float, seconds: float
) -> tuple[list[float], list[float], float]:
    """Frames and long tasks of the Live view, in milliseconds, and the rate that was reached."""
    environ = stack_environment(servers, PREFIX)
    server = Server(Commands(folder, environ))
    try:
        server.start()
        with publishing(load_settings(environ=environ), rate) as reached:
            frames, tasks = watch_live(browser.new_page(), server.address, seconds)
    finally:
        server.commands.close()
    return frames, tasks, reached[0]


def result_of(
    clicks: Sequence[Mapping[str, float]], frames: Sequence[float], tasks: Sequence[float], reached: float
) -> BenchResult:
    """The figures."""
    figures: dict[str, Figure] = {}
    for name in ("acknowledged", "roles", "list", "paint", "shown"):
        times = [click[name] for click in clicks]
        target = CLICK_TARGET_MS if name == "shown" else None
        figures[f"click_{name}_ms"] = Figure(float(np.median(times)), target, spread=(min(times), max(times)))
    figures["live_events_per_s"] = Figure(reached)
    figures["live_frame_p99_ms"] = Figure(float(np.percentile(frames, 99)))
    figures["live_longest_frame_ms"] = Figure(max(frames))
    figures["live_longest_task_ms"] = Figure(max(tasks, default=0.0), TASK_TARGET_MS)
    return BenchResult("page", figures, {"clicks": list(clicks), "num_frames": len(frames)})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the measurement; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clicks", type=int, default=20)
    parser.add_argument("--rate", type=float, default=2000.0, help="events, and lists, a second in the Live view")
    parser.add_argument("--seconds", type=float, default=15.0, help="that the Live view is watched")
    given = parser.parse_args(arguments)
    if chromium() is None:
        print("There is no Chromium on PATH. To mend it: install it (Debian: apt-get install chromium).")
        return 1
    temporary = tempfile.TemporaryDirectory(prefix="sliceflow-bench-")
    with temporary as name, EmbeddedBroker(None) as broker, sync_playwright() as playwright:
        folder, servers = Path(name), broker.bootstrap_servers
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        live = measure_live(browser, servers, folder / "live", given.rate, given.seconds)
        clicks = measure_clicks(browser, servers, folder / "clicks", given.clicks)
        browser.close()
    return finish(result_of(clicks, *live))


if __name__ == "__main__":
    sys.exit(main())
