"""`sliceflow send`: one event from the command line to the `events` topic."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import click
import msgspec
from aiokafka import AIOKafkaProducer

from stream_app.cli._context import echo_json, reachable_settings
from stream_app.errors import UsageError
from stream_app.kafka import as_unreachable, connection
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules
from stream_app.stages.clean import Rejection, clean_event
from stream_app.topic_reader import TopicReader
from stream_app.topics import EVENTS, prefixed


@click.command("send")
@click.option("--user", "user_id", required=True, help="User id.")
@click.option("--item", "item_id", required=True, help="Item id.")
@click.option("--type", "type_", default="click", show_default=True, help="Event type.")
@click.option("--ts", help="Event time: integer milliseconds, or RFC 3339 with a zone. [default: now]")
@click.option("--event-id", help="Event id, by which duplicates are known.")
@click.option("--session-id", help="Session id.")
@click.option("--query", help="Search query that led to the item.")
@click.option("--price", type=float, help="Price.")
@click.option("--quantity", type=float, help="Quantity.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, /, ts: str | None, type_: str, as_json: bool, **fields: Any) -> None:
    """Send one event, wait until Kafka has it, and print where it lies."""
    settings = reachable_settings(ctx)
    now_ms = time.time_ns() // 1_000_000
    event = checked_event({**fields, "type": type_, "ts": _as_time(ts, now_ms)}, now_ms, settings)
    topic = prefixed(settings.prefix, EVENTS)
    value = _producer_value(msgspec.to_builtins(event), settings)
    partition, offset = asyncio.run(send_record(settings, topic, event.user_id, value, event.ts))
    if as_json:
        echo_json({"topic": topic, "partition": partition, "offset": offset, "event": event})
    else:
        click.echo(f"{topic}, partition {partition}, offset {offset}")


def checked_event(fields: dict[str, Any], now_ms: int, settings: Settings) -> Event:
    """The event in these fields (None: left out), judged by the very rules that the consumers use.

    Raises:
        UsageError: It would be refused.
    """
    given = {name: value for name, value in fields.items() if value is not None}
    value = _producer_value(given, settings)
    answer = clean_event(str(given["user_id"]).encode("utf-8"), value, now_ms, clean_rules(settings))
    if isinstance(answer, Rejection):
        raise UsageError(f"This event would be refused ({answer.reason}): {answer.detail}.", mend="correct the option")
    return answer


def _as_time(text: str | None, now_ms: int) -> int | str:
    if text is None:
        return now_ms
    return int(text) if text.removeprefix("-").isdecimal() and len(text) <= 20 else text


def _producer_value(fields: dict[str, Any], settings: Settings) -> bytes:
    return msgspec.json.encode({settings.fields.get(name, name): value for name, value in fields.items()})


async def send_record(settings: Settings, topic: str, user_id: str, value: bytes, ts_ms: int) -> tuple[int, int]:
    """Send one record, and wait until Kafka has it; its partition and offset.

    Raises:
        TopicMismatchError: The topic does not exist.
        KafkaUnreachableError: The broker did not acknowledge.
    """
    async with TopicReader(settings) as reader:
        await reader.num_partitions(topic)  # a missing topic is told before the producer waits for it
    with as_unreachable(settings):
        async with AIOKafkaProducer(**connection(settings), acks="all") as producer:
            # The record's own time is the event's, as in a replay: both then make the same lists.
            placed = await producer.send_and_wait(topic, value, key=user_id.encode("utf-8"), timestamp_ms=ts_ms)
    return placed.partition, placed.offset
