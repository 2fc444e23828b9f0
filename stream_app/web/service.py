"""The server's working parts, started and stopped together."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import Any, Final, NoReturn, Self, TypeVar

from index import build_index
from stream_app import topics
from stream_app.faustkit import Follower
from stream_app.item_search import tell_items
from stream_app.item_view import ItemView
from stream_app.kafka import connection
from stream_app.settings import Settings
from stream_app.settings_rules import trend_rule
from stream_app.web.encoder import LazyEncoder
from stream_app.web.live import LiveFeed
from stream_app.web.metrics import ServerMetrics
from stream_app.web.problems import Problem
from stream_app.web.sending import Sender
from stream_app.web.sessions import Sessions
from stream_app.web.state.dead_letters import MAX_KEPT
from stream_app.web.state.flow import Flow, OffsetsReader
from stream_app.web.state.held import Held
from stream_app.web.state.lists import NewestLists
from stream_app.web.state.lookups import Lookups
from stream_app.web.state.model_facts import model_facts
from stream_app.web.state.running import Running
from stream_app.web.state.tail import Followed, Tail
from stream_app.web.state.trends import HeldTrends
from stream_app.web.state.users import NewestUsers
from stream_app.web.streams import Streams

log = logging.getLogger("sliceflow.web")

EVERY_S: Final = 1.0
"""How often figures are told, and trends brought forward."""

NEWEST_EVENTS: Final = 1000
"""Newest events of each partition that are read at the start: for the newest event time alone."""

NEWEST_TOTALS: Final = 2000
"""Newest records of the small topics that are read at the start: several of each key."""

Result = TypeVar("Result")


class Service:
    """Follows the topics, and answers from what it holds. An asynchronous context manager.

    Args:
        settings: With a Kafka address.

    Raises:
        ModelError: The model's folder is missing or damaged.
        KafkaUnreachableError: On entering, the broker does not answer.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.streams = Streams()
        self.sender = Sender(settings)
        self.lookups = Lookups(settings)
        self._offsets = OffsetsReader(settings)
        self.held = _held(settings, Flow(settings, self._offsets))
        self.metrics = ServerMetrics(self.held, lambda: len(self.streams))
        self.encoder = LazyEncoder(settings)
        self.sessions = Sessions(settings, self.held, self.encoder, self.compute)
        self.live = LiveFeed(self.held, self.streams, self.metrics.note_freshness)
        self.tail = Tail(settings, self._followed())
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="index")
        self._stack = AsyncExitStack()
        self._tasks: list[asyncio.Task[Any]] = []

    async def __aenter__(self) -> Self:
        """Connect, and begin to read."""
        async with AsyncExitStack() as stack:
            stack.callback(self._executor.shutdown, wait=False, cancel_futures=True)
            stack.callback(self.encoder.close)
            await stack.enter_async_context(self._offsets)
            await stack.enter_async_context(self.tail)
            stack.push_async_callback(self.sender.stop)
            await self.sender.start()
            stack.push_async_callback(self._end_tasks)
            for follower in self._followers():
                stack.push_async_callback(follower.stop)
                await follower.start()
            stack.push_async_callback(self.held.trends.stop)
            self._start(self.tail.follow(), self.held.flow.run(), self._catch_up())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Let listeners go, and disconnect."""
        self.streams.close()
        await self._stack.aclose()

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until `stop` is set.

        Raises:
            SliceflowError: A topic could not be followed any further.
        """
        stopped = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        for task in done:
            task.result()

    def require_caught_up(self) -> None:
        """Return where everything is read that was there at the start.

        Raises:
            Problem: 503 until then.
        """
        if not self.held.is_caught_up:
            raise Problem(
                503, "The topics are still being read.", mend="wait, or read the log", headers={"Retry-After": "1"}
            )

    async def compute(self, work: Callable[[], Result]) -> Result:
        """What `work` gives, on the index's thread: it would hold up everybody else on the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)

    def _start(self, *works: Coroutine[Any, Any, Any]) -> None:
        self._tasks = [asyncio.create_task(work) for work in works]

    async def _end_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _catch_up(self) -> NoReturn:
        """Read what was there, then look after what is done once a second."""
        await self.held.trends.start()
        await self.tail.wait_caught_up()
        for follower in self._whole:
            await follower.wait_caught_up()
        self.held.is_caught_up = True
        # What was read until now stays; to look through it for cycles would hold up all requests, a tenth of a second.
        gc.freeze()
        log.info("caught up: %d users, %d items", len(self.held.users), len(self.held.catalogue))
        while True:
            await asyncio.sleep(EVERY_S)
            await self.held.trends.advance()
            self.live.tell_figures()

    def _name(self, topic: str) -> str:
        return topics.prefixed(self.settings.prefix, topic)

    def _followers(self) -> list[Follower]:
        item_vectors, items = self._name(topics.ITEM_VECTORS), self._name(topics.ITEMS)
        made = connection(self.settings)
        self._whole = self.held.item_view.followers(made, item_vectors, items, self.held.catalogue.take)
        return self._whole

    def _followed(self) -> dict[str, Followed]:
        held, live = self.held, self.live
        # Of each partition as many as users are kept: were all of them in one, it would still be enough.
        newest = self.settings.serve_users
        followed = {
            topics.EVENTS: Followed(live.take_events, NEWEST_EVENTS),
            topics.SLICES: Followed(live.take_slices, newest),
            topics.SLICE_VECTORS: Followed(held.users.take_vectors, newest),
            topics.RECOMMENDATIONS: Followed(live.take_lists, newest),
            topics.DEAD_LETTER: Followed(live.take_dead_letters, MAX_KEPT),
            topics.STATUS: Followed(held.running.take_status, NEWEST_TOTALS),
            topics.DRIFT: Followed(held.running.take_drift, NEWEST_TOTALS),
            topics.SCORER_WEIGHTS: Followed(held.running.take_scorers, NEWEST_TOTALS),
        }
        return {self._name(topic): what for topic, what in followed.items()}


def _held(settings: Settings, flow: Flow) -> Held:
    model = model_facts(settings)
    trends = topics.prefixed(settings.prefix, topics.ITEM_TRENDS)
    index = build_index(settings.index_kind, model.dim, model.release)
    return Held(
        settings=settings,
        model=model,
        item_view=ItemView(index, settings.partitions, tell=tell_items),
        trends=HeldTrends(connection(settings), trends, settings.partitions, trend_rule(settings)),
        flow=flow,
        lists=NewestLists(settings.serve_users),
        users=NewestUsers(settings.serve_users),
        running=Running(model.release),
    )
