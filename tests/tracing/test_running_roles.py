"""Traces through running roles: from a request or a producer's record to the list, and none where they are off."""

from __future__ import annotations

import asyncio
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.faustkit.run import Headers
from stream_app.monitoring.append_times import APPENDED_HEADER
from stream_app.topics import CHOICES, DEAD_LETTER, EVENTS, RECOMMENDATIONS, SLICES
from stream_app.tracing.headers import TRACEPARENT, context_of
from tests.end_to_end.conftest import SAMPLE, Commands
from tests.replay_cases import known_items
from tests.support import DEADLINE_S, read_all, wait_until
from tests.tracing.cases import sampled

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

READY_WITHIN_S = 150.0
BY_REQUEST, BY_PRODUCER = 0xA11CE, 0xB0B
"""Trace ids of a client of the API, and of a producer."""


def commands_with(broker: EmbeddedBroker, home: Path, prefix: str, **settings: str) -> Commands:
    """The command line with the demo's model, one partition, and further settings."""
    environ = {
        "KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers,
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": str(SAMPLE / MODEL_FOLDER),
        "SLICEFLOW_PREFIX": prefix,
        "SLICEFLOW_PARTITIONS": "1",
        "SLICEFLOW_SCORE_USERS_SHARE": "1",
        **settings,
    }
    return Commands(home, environ)


def wait_for(process: subprocess.Popen[str], word: str) -> dict[str, Any]:
    """The first line of a command that has this word, as JSON."""
    assert process.stdout is not None
    line = wait_until(process.stdout.readline, READY_WITHIN_S, word)
    while word not in line:
        line = wait_until(process.stdout.readline, READY_WITHIN_S, word)
    found: dict[str, Any] = json.loads(line)
    return found


def event_of(user: str, item_id: str, ts: int) -> dict[str, object]:
    """An event."""
    return {"user_id": user, "item_id": item_id, "type": "rating", "ts": ts}


async def send(servers: str, topic: str, user: str, value: bytes, headers: Headers) -> None:
    """Publish one event with headers."""
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
        await producer.send_and_wait(topic, value, key=user.encode(), partition=0, headers=list(headers))


def post(page: str, event: dict[str, object], headers: Headers) -> None:
    """Send one event over HTTP."""
    request = urllib.request.Request(f"{page}events", json.dumps(event).encode(), method="POST")
    request.add_header("Content-Type", "application/json")
    for name, value in headers:
        request.add_header(name, (value or b"").decode())
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        assert answer.status == 202


def records_of(servers: str, topic: str, user: str) -> list[Any]:
    """The records of a user on a topic."""
    return [record for record in asyncio.run(read_all(servers, topic, 1)) if record.key == user.encode()]


def spans_of(commands: Commands, role: str) -> Iterator[Mapping[str, Any]]:
    """The spans that a role wrote into its log."""
    for line in (commands.home / "logs" / f"{role}.log").read_text().splitlines():
        if line.startswith("{"):
            yield json.loads(line)


def only_span(commands: Commands, role: str, trace_id: int) -> tuple[str, str]:
    """The ids of the parent and of the one span of a trace in a role; hexadecimal."""
    wanted = f"0x{trace_id:032x}"
    [span] = [span for span in spans_of(commands, role) if span["context"]["trace_id"] == wanted]
    assert span["resource"]["attributes"]["service.name"] == f"sliceflow-{role}"
    return span["parent_id"], span["context"]["span_id"]


def test_one_trace_leads_from_a_request_or_a_record_to_the_list(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    servers, now_ms = broker.bootstrap_servers, int(time.time() * 1000)
    commands = commands_with(broker, tmp_path / "state", topic_prefix, SLICEFLOW_TRACE_EXPORTER="console")
    lists, expected = {}, {"ann": BY_REQUEST, "bob": BY_PRODUCER, "cid": None}
    try:
        up = commands.start("up", "--json")
        page = wait_for(up, "all-ready")["page"]
        post(page, event_of("ann", known_items()[0], now_ms), sampled(BY_REQUEST))
        for user, headers in (("bob", sampled(BY_PRODUCER)), ("cid", [(TRACEPARENT, b"\xff" * 55)])):
            value = json.dumps(event_of(user, known_items()[1], now_ms)).encode()
            asyncio.run(send(servers, topic_prefix + EVENTS, user, value, headers))
        for user, trace_id in expected.items():
            [lists[user]] = wait_until(partial(records_of, servers, topic_prefix + RECOMMENDATIONS, user))
            found = context_of(lists[user].headers)
            assert (found and found.trace_id) == trace_id
        # Taking an item that was offered is a choice.
        offered = json.loads(lists["ann"].value)["items"][0]["item_id"]
        post(page, event_of("ann", offered, now_ms + 1), sampled(BY_REQUEST + 1))
        [chosen] = wait_until(lambda: records_of(servers, topic_prefix + CHOICES, "ann"))
        last = wait_until(lambda: records_of(servers, topic_prefix + RECOMMENDATIONS, "ann")[1:])[-1]
        assert commands.stop(up) == 0
    finally:
        commands.close()
    check_chain(commands, BY_REQUEST, ("serve", "sequence", "encode", "recommend"))
    check_chain(commands, BY_PRODUCER, ("sequence", "encode", "recommend"))
    check_chain(commands, BY_REQUEST + 1, ("serve", "sequence", "encode", "choose", "score"))
    for record, role in ((chosen, "choose"), (last, "recommend")):
        found = context_of(record.headers)
        assert found is not None
        assert f"0x{found.span_id:016x}" == only_span(commands, role, BY_REQUEST + 1)[1]


def check_chain(commands: Commands, trace_id: int, roles: tuple[str, ...]) -> None:
    """Each role's span follows from that of the role before, and the first from the client's."""
    follows_from = f"0x{trace_id + 1000:016x}"
    for role in roles:
        parent_id, span_id = only_span(commands, role, trace_id)
        assert parent_id == follows_from, role
        follows_from = span_id


def through_sequence(broker: EmbeddedBroker, home: Path, prefix: str, exporter: str) -> tuple[Any, Any]:
    """The slice and the dead letter that come of an event and of what is none, both of a sampled trace."""
    servers = broker.bootstrap_servers
    commands = commands_with(broker, home, prefix, SLICEFLOW_TRACE_EXPORTER=exporter)
    value = json.dumps(event_of("ann", known_items()[0], 1_700_000_000_000)).encode()
    try:
        worker = commands.start("worker", "sequence")
        wait_for(worker, "ready")
        asyncio.run(send(servers, prefix + EVENTS, "ann", value, sampled(7)))
        asyncio.run(send(servers, prefix + EVENTS, "ann", b"no event", sampled(8)))
        [made] = wait_until(lambda: records_of(servers, prefix + SLICES, "ann"))
        [dead] = wait_until(lambda: records_of(servers, prefix + DEAD_LETTER, "ann"))
        assert commands.stop(worker) == 0
    finally:
        commands.close()
    return made, dead


def test_off_leaves_headers_as_ever_and_on_changes_nothing_else(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    made_off, dead_off = through_sequence(broker, tmp_path / "off", f"{topic_prefix}off-", "none")
    made_on, dead_on = through_sequence(broker, tmp_path / "on", f"{topic_prefix}on-", "console")
    assert [name for name, _ in made_off.headers] == [APPENDED_HEADER]
    assert [name for name, _ in made_on.headers] == [APPENDED_HEADER, TRACEPARENT]
    assert (made_on.key, made_on.value) == (made_off.key, made_off.value)
    assert (dead_on.key, dead_on.value) == (dead_off.key, dead_off.value)
    # The origin's topic is all that differs, since each has a prefix of its own.
    assert {**dict(dead_on.headers), "topic": b""} == {**dict(dead_off.headers), "topic": b""}
