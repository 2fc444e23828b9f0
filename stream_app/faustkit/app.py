"""The Faust app: batch delivery, own stores and recovery, and the barrier between effects and commits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import faust
from faust.serializers import codecs
from faust.types import TP
from yarl import URL

from stream_app.errors import TopicMismatchError
from stream_app.faustkit.assignment import WarmAssignor
from stream_app.faustkit.checks import (
    SeenTopics,
    check_topics,
    grown_topics,
    refuse_grown,
    refuse_other_input,
    refuse_recreated,
)
from stream_app.faustkit.failure import end_process
from stream_app.faustkit.keeping import KeepClock, PartitionState
from stream_app.faustkit.lanes import Lane
from stream_app.faustkit.meter import Meter, NoMeter
from stream_app.faustkit.outbox import Outbox
from stream_app.faustkit.ownership import claim_partition, mark_input
from stream_app.faustkit.per_message import SafeAgent, SafeStream, SafeTopic
from stream_app.faustkit.processor import Processor, RunObserver
from stream_app.faustkit.producing import Writer
from stream_app.faustkit.recovery import BatchTableManager, Breakable, recover
from stream_app.faustkit.run import MAX_RUN_RECORDS, Run
from stream_app.faustkit.standby import Standby
from stream_app.faustkit.store import PartitionStore, StoreMemory
from stream_app.faustkit.table import StateTable
from stream_app.faustkit.transport import BatchConsumer, BatchTransport
from stream_app.faustkit.watchdog import Limits, Watchdog
from stream_app.kafka_client import mend_clients

log = logging.getLogger("sliceflow.faustkit")

QUEUED_MESSAGES = 4
"""Messages waiting for an agent of a per-message topic; when full, nothing more is fetched. Lanes bound runs."""

COMMIT_INTERVAL_S = 0.25
"""A quarter of a second costs a commit request four times a second, and nothing else."""


@dataclass(frozen=True)
class AppConfig:
    """What an app needs to know.

    Args:
        app_id: The consumer group.
        connection: Keyword arguments for aiokafka clients (servers and security).
        credentials: Faust's form of the same credentials, or None.
        store_folder: Where the stores live; one process for each folder.
        instance_id: Static group membership: a restarted process with the same name takes its partitions back
            at once, without waiting for the session of the dead one to end. Empty: dynamic.
        store_memory_bytes: Budget of all stores of the process.
        session_timeout_s: How long Kafka waits for a silent process before it gives its partitions away.
        gather_ms: How long Kafka may gather records before it delivers them; 0: at once. What a role loses in time
            it gains in longer runs, which cost everybody less.
        changelog_prefix: Put before ``<table>-changelog``.
        max_run_records: Most records of one run.
        limits: What may stand still for how long before the process is ended.
        num_standbys: How many other workers keep a copy of each partition's store, so that taking it over is quick;
            with too few workers, as many as there are.
        commit_interval_s: How often done offsets are committed: the input that a restarted process reads again is
            at most this old.
        meter: Takes the app's figures.
        observer: Looks on while runs are processed; None: nobody.
    """

    app_id: str
    connection: Mapping[str, Any]
    store_folder: Path
    credentials: Any = None
    instance_id: str = ""
    store_memory_bytes: int = 128 * 1024 * 1024
    session_timeout_s: float = 10.0
    gather_ms: int = 0
    changelog_prefix: str = ""
    max_run_records: int = MAX_RUN_RECORDS
    limits: Limits = field(default_factory=Limits)
    num_standbys: int = 0
    commit_interval_s: float = COMMIT_INTERVAL_S
    meter: Meter = field(default_factory=NoMeter)
    observer: RunObserver | None = None


@dataclass
class _Binding:
    """A topic, the table its runs change, and a processor for each partition."""

    topic: str
    table: StateTable
    new_processor: Callable[[int], Processor]
    processors: dict[int, Processor] = field(default_factory=dict)
    lanes: dict[int, Lane] = field(default_factory=dict)
    states: dict[int, PartitionState] = field(default_factory=dict)
    standby: Standby | None = None


class BatchApp(faust.App):
    """A Faust app on whole runs; roles are joined to it with `attach`. Nothing is connected before it starts."""

    def __init__(self, config: AppConfig) -> None:
        _forget_pickle()
        mend_clients()
        super().__init__(config.app_id, **_faust_settings(config))
        self.config = config
        self.outbox = Outbox(dict(config.connection), client_id=config.app_id, meter=config.meter)
        self.store_memory = StoreMemory(config.store_memory_bytes)
        self.store_folder = config.store_folder
        self.watchdog = Watchdog(config.limits, config.session_timeout_s)
        self.is_opening = False
        self._seen = SeenTopics()
        self.ready = asyncio.Event()
        self._bindings: dict[str, _Binding] = {}
        self._before_open: list[Callable[[], Awaitable[None]]] = []
        self._opening = Breakable()
        self._keep_clock = KeepClock()
        self.on_partitions_revoked.connect(self._close_partitions)  # type: ignore[arg-type]

    def attach(self, topic: str, new_processor: Callable[[int], Processor], *, table: str) -> None:
        """Give the runs of `topic` to processors, one for each partition, and their changes to `table`.

        Args:
            topic: Full name of the input topic.
            new_processor: Makes the processor of a partition when it is assigned.
            table: Name of the table; its changelog must have as many partitions as `topic`.
        """
        binding = _Binding(topic, self._new_table(table), new_processor)
        self._bindings[topic] = binding

        async def agent(stream: Any) -> None:
            # Faust assigns, fetches and commits for it; its runs come by `put_run`.
            async for event in stream.events():
                raise AssertionError(f"{topic} is delivered in runs, but here is a message: {event!r}")

        self.agent(self.topic(topic, key_type=bytes, value_type=bytes), name=f"agent-{topic}", concurrency=1)(agent)

    def put_run(self, run: Run) -> None:
        """Give a run to the lane of its partition, if there is one: where none is, its next owner reads it again."""
        lane = self._bindings[run.topic].lanes.get(run.partition)
        if lane is not None:
            lane.put(run)

    def before_open(self, callback: Callable[[], Awaitable[None]]) -> None:
        """Await `callback` at each assignment, before the processors are made."""
        self._before_open.append(callback)

    def is_batch_topic(self, topic: str) -> bool:
        """Whether runs of this topic are delivered whole."""
        return topic in self._bindings

    async def check_topics(self) -> None:
        """Return when the topics that the app reads are there, are still the same, and each changelog fits its input.

        Raises:
            TopicMismatchError: They are not; says which, and what mends it.
        """
        changelogs = {one.topic: one.table.changelog_topic.get_topic_name() for one in self._bindings.values()}
        inputs = [topic for agent in self.agents.values() for topic in agent.get_topic_names()]
        seen = await check_topics(self.config.connection, inputs, changelogs)
        refuse_recreated(self._seen.ids, seen.ids)
        refuse_grown(self._seen.num_partitions, seen.num_partitions)
        self._seen = SeenTopics(seen.ids, {**seen.num_partitions, **self._seen.num_partitions})

    async def end_if_grown(self, num_partitions: Callable[[str], int]) -> None:
        """End the process if partitions were added to a topic since it was checked; may run in any event loop.

        Args:
            num_partitions: What somebody knows of the number of partitions of a topic, perhaps wrongly. Only where it
                is more than was seen, Kafka is asked.
        """
        known = self._seen.num_partitions
        if grown_topics(known, {topic: num_partitions(topic) for topic in known}):
            await self._end_unless_topics_fit()

    async def open_partitions(self) -> bool:
        """Open what is assigned, bring it up to the changelogs, make the processors; False if it was broken off."""
        begun_s = time.monotonic()
        self.is_opening = True
        await self._close_partitions(self, set())
        is_open = await self._opening.run(self._open_assigned())
        self.is_opening = False
        if is_open:
            self.config.meter.note_opened(time.monotonic() - begun_s)
            self.ready.set()
            self._open_standbys()
        return is_open

    async def _end_unless_topics_fit(self) -> None:
        try:
            await self.check_topics()
        except TopicMismatchError as error:
            end_process(str(error))

    async def _open_assigned(self) -> None:
        # A topic that was deleted meanwhile is left out of the assignment without a word.
        await self._end_unless_topics_fit()
        for callback in self._before_open:
            await callback()
        assigned = self.consumer.assignment()
        for binding in self._bindings.values():
            partitions = sorted(tp.partition for tp in assigned if tp.topic == binding.topic)
            await self._open_binding(binding, partitions)

    def _open_standbys(self) -> None:
        """Go on with the copies of partitions that other workers own."""
        assigned = self.assignor.assigned_standbys()
        for binding in self._bindings.values():
            changelog = binding.table.changelog_topic.get_topic_name()
            partitions = sorted(tp.partition for tp in assigned if tp.topic == changelog)
            stores = {partition: binding.table.stores.open(partition) for partition in partitions}
            binding.standby = Standby(self.config.connection, changelog, stores)

    async def _open_binding(self, binding: _Binding, partitions: list[int]) -> None:
        stores = {partition: binding.table.stores.open(partition) for partition in partitions}
        changelog = binding.table.changelog_topic.get_topic_name()
        claims = [claim_partition(self.outbox, self.config.app_id, changelog, partition) for partition in partitions]
        writers = dict(zip(partitions, await asyncio.gather(*claims), strict=True))
        num_records = await recover(dict(self.config.connection), changelog, stores)
        log.info("%s: %d changelog records for partitions %s", changelog, num_records, partitions)
        self.config.meter.note_recovered(num_records)
        for partition, store in stores.items():
            await self._settle_input(binding, store, writers[partition])
            processor = binding.new_processor(partition)
            processor.restore(store.items())
            if opening := processor.opening():
                await self.outbox.publish(opening, writers[partition])
            binding.states[partition] = self._new_state(binding, store, writers[partition])
            binding.processors[partition] = processor
            binding.lanes[partition] = self._new_lane(binding, TP(binding.topic, partition))

    async def _settle_input(self, binding: _Binding, store: PartitionStore, writer: Writer) -> None:
        """See that a recovered store reflects this very input; where nothing says which it reflects, write it down."""
        refuse_other_input(store.input_id, binding.topic, self._seen.ids)
        number = self._seen.ids.get(binding.topic)
        if store.input_id is None and number is not None:
            changelog = binding.table.changelog_topic.get_topic_name()
            await mark_input(self.outbox, changelog, int(store.path.name), writer, str(number))
            store.input_id = str(number)

    def _new_lane(self, binding: _Binding, tp: TP) -> Lane:
        return Lane(
            lambda run: self._handle(binding, run),
            on_full=lambda: self._batch_consumer.hold(tp),
            on_room=lambda: self._batch_consumer.release(tp),
            max_run_records=self.config.max_run_records,
        )

    async def finish_runs(self) -> None:
        """Wait for the runs in work, forget those that wait, and keep what the finished ones changed."""
        for binding in self._bindings.values():
            await asyncio.gather(*(lane.close() for lane in binding.lanes.values()))
            await asyncio.gather(*(state.close() for state in binding.states.values()))

    async def _close_partitions(self, sender: Any, revoked: set[TP], **_: Any) -> None:
        """Let go of all partitions: whoever gets them next must find the stores unlocked and up to date."""
        await self._opening.break_off()
        await self.finish_runs()
        for binding in self._bindings.values():
            if binding.standby is not None:
                await binding.standby.stop()
                binding.standby = None
            binding.lanes.clear()
            binding.processors.clear()
            binding.states.clear()
            binding.table.stores.close_all()

    async def _handle(self, binding: _Binding, run: Run) -> None:
        processor = binding.processors.get(run.partition)
        if processor is None:
            return  # Revoked while it waited: its next owner reads it again.
        try:
            left: Run | None = run
            while left is not None:
                left = await self._apply(binding, processor, left)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            place = f"{run.topic}[{run.partition}] at offset {run.offsets[0]}"
            end_process(f"{place} could not be processed: {type(error).__name__}: {error}", error)

    async def _apply(self, binding: _Binding, processor: Processor, run: Run) -> Run | None:
        """Carry out one run, and return what the processor has left of it.

        1. The processor says what the run causes.
        2. Its outputs are published and acknowledged.
        3. Its changes are taken in, visible to the next run; a moment later, with those of other runs,
        4. they are published to the changelog and acknowledged,
        5. the store takes them and the changelog offset, all or nothing,
        6. and the offsets of these runs may be committed.

        A crash after any step repeats the runs that were not committed. Before 4 nothing was kept, so the same
        effects follow; after it some values hold the runs already, and their positions tell the processor to
        leave them alone.
        """
        state, begun_s, observer = binding.states[run.partition], time.monotonic(), self.config.observer
        # 1
        processing = processor.process(run, state)
        effects = await (processing if observer is None else observer.process(run, processing))
        # 2
        self.watchdog.check_pause()
        if effects.outputs:
            await self.outbox.publish(effects.outputs, state.writer)
        if effects.on_published is not None:
            effects.on_published()
        self.config.meter.note_run(len(run), time.monotonic() - begun_s)
        # 3 to 6
        return await state.take_run(effects, run)

    def _new_state(self, binding: _Binding, store: PartitionStore, writer: Writer) -> PartitionState:
        partition = int(store.path.name)
        tp = TP(binding.topic, partition)

        def fail(error: BaseException) -> None:
            end_process(f"The changes of {tp.topic}[{partition}] could not be kept: {error}", error)

        changelog = binding.table.changelog_topic.get_topic_name()
        return PartitionState(
            store,
            TP(changelog, partition),
            self.outbox,
            writer,
            self._keep_clock,
            on_kept=lambda offset: self._batch_consumer.done_up_to(tp, offset),
            on_error=fail,
        )

    @property
    def _batch_consumer(self) -> BatchConsumer:
        return cast(BatchConsumer, self.consumer)

    def _new_table(self, name: str) -> StateTable:
        changelog = self.topic(f"{self.config.changelog_prefix}{name}-changelog", key_type=bytes, value_type=bytes)
        return cast(StateTable, self.Table(name, changelog_topic=changelog))

    def _new_transport(self) -> BatchTransport:
        return BatchTransport(self.conf.broker_consumer[0:1], self)

    async def on_start(self) -> None:
        """Connect the outbox before anything can be processed."""
        self.watchdog.watch_loop("the app", self.config.limits.loop_blocked_s)
        self.watchdog.start()
        await self.outbox.start()
        await super().on_start()

    async def on_stop(self) -> None:
        """Commit what is done, then let go of stores and connections."""
        await super().on_stop()
        await self._close_partitions(self, set())
        await self._keep_clock.stop()
        await self.outbox.stop()
        if self.config.observer is not None:
            await self.config.observer.close()
        self.watchdog.stop()


def _forget_pickle() -> None:
    """Take the codecs that unpickle what they read out of Faust's registry."""
    for name in [name for name in codecs.codecs if "pickle" in name]:
        del codecs.codecs[name]


def _faust_settings(config: AppConfig) -> dict[str, Any]:
    servers = config.connection["bootstrap_servers"]
    session_s = config.session_timeout_s
    return {
        # Faust lets its own environment variables override what is said here; none may.
        "env": {},
        "broker": [URL(f"aiokafka://{server}") for server in servers],
        "broker_credentials": config.credentials,
        "broker_client_id": config.app_id,
        "broker_session_timeout": session_s,
        "broker_heartbeat_interval": session_s / 5,
        "broker_request_timeout": max(40.0, session_s * 2),
        "broker_commit_interval": config.commit_interval_s,
        "store": "memory://",
        "datadir": str(config.store_folder),
        "Agent": SafeAgent,
        "Stream": SafeStream,
        "Topic": SafeTopic,
        "Table": StateTable,
        "TableManager": BatchTableManager,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "stream_buffer_maxsize": QUEUED_MESSAGES,
        "stream_wait_empty": True,
        "stream_recovery_delay": 0.0,
        "processing_guarantee": "at_least_once",
        "table_standby_replicas": config.num_standbys,
        "PartitionAssignor": WarmAssignor,
        "web_enabled": False,
        "autodiscover": False,
    }
