"""The commands against a broker: topics, send, recommend, tail, doctor."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable

import pytest
from aiokafka import AIOKafkaProducer

from stream_app.cli.recommend import provenance
from stream_app.cli.tail import line_of
from stream_app.records import Event, Item, RankedItem, Recommendation, encode
from stream_app.settings import KafkaSettings, Settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import EVENTS, ITEMS, RECOMMENDATIONS
from tests.cli.conftest import Cli


def list_of(user: str, number: int, items: Iterable[str]) -> Recommendation:
    """A list whose scores fall from 1 by tenths."""
    ranked = [
        RankedItem(item_id=item, score=1 - rank / 10, sources=["index", "popular"]) for rank, item in enumerate(items)
    ]
    return Recommendation(
        recommendation_id=f"r{number}",
        user_id=user,
        event_ts=1_717_171_717_000 + number,
        partition=1,
        offset=number,
        release="m1",
        index_version="x1",
        epoch=3,
        has_vector=number % 2 == 0,
        items=ranked,
    )


def stored(value: bytes) -> StoredRecord:
    """A record with this value."""
    return StoredRecord("recommendations", 0, 7, 0, b"ann", value, ())


def settings_of(cli: Cli) -> Settings:
    """The settings of the command line, as far as these tests need them."""
    kafka = KafkaSettings(bootstrap_servers=str(cli.environ["KAFKA_BOOTSTRAP_SERVERS"]))
    return Settings(kafka=kafka, prefix=str(cli.environ["SLICEFLOW_PREFIX"]))


def produce(cli: Cli, topic: str, records: Iterable[tuple[str, bytes | None]]) -> None:
    """Write records by key, as any producer would."""
    settings = settings_of(cli)

    async def run() -> None:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka.bootstrap_servers) as producer:
            for key, value in records:
                await producer.send(settings.prefix + topic, value, key=key.encode())
            await producer.flush()

    asyncio.run(run())


def events_in(cli: Cli) -> list[StoredRecord]:
    """All records on `events`."""
    settings = settings_of(cli)

    async def run() -> list[StoredRecord]:
        async with TopicReader(settings) as reader:
            return [record async for record in reader.read_all(settings.prefix + EVENTS)]

    return asyncio.run(run())


# ---------------------------------------------------------------- lines


def test_provenance_names_everything_a_list_was_made_from() -> None:
    line = provenance(list_of("ann", 5, ["a"]))
    for part in (
        "r5",
        "2024-05-31T16:08:37.005+00:00",
        "partition 1",
        "offset 5",
        "m1",
        "x1",
        "epoch 3",
        "without",
    ):
        assert part in line


def test_a_line_of_tail_is_short_and_cannot_steer_the_terminal() -> None:
    line = line_of(stored(encode(list_of("a\x1bnn", 0, [f"i{n}" for n in range(10)]))))
    assert line == r"2024-05-31T16:08:37.000+00:00  a\x1bnn  i0 i1 i2 i3 i4 i5 i6 i7 +2"
    assert "(empty)" in line_of(stored(encode(list_of("ann", 0, []))))


def test_what_is_no_list_is_named_with_its_place() -> None:
    assert line_of(stored(b"hello")).startswith("(no list at partition 0, offset 7")


# ---------------------------------------------------------------- commands


@pytest.mark.kafka
def test_topics_are_listed_and_created(cli: Cli) -> None:
    before = cli("topics")
    assert (before.exit_code, "--create" in before.stdout) == (1, True)
    created = [json.loads(line) for line in cli.ok("topics", "--create", "--json").splitlines()]
    assert {one["state"] for one in created} == {"created"}
    assert {one["partitions"] for one in created if one["cut_by"] in ("user", "item")} == {2}
    assert {one["partitions"] for one in created if one["cut_by"] not in ("user", "item")} == {1}
    after = cli.ok("topics")
    assert "missing" not in after
    cli.environ["SLICEFLOW_PARTITIONS"] = "3"
    wrong = cli("topics")
    assert (wrong.exit_code, "has 2 partitions, expected 3" in wrong.stdout) == (1, True)


@pytest.mark.kafka
def test_send_tells_where_the_event_lies(cli: Cli) -> None:
    nowhere = cli("send", "--user", "ann", "--item", "book")
    assert (nowhere.exit_code, "sliceflow topics --create" in nowhere.stderr) == (1, True)

    cli.ok("topics", "--create")
    args = [
        "--user",
        "ann",
        "--item",
        "book",
        "--type",
        "purchase",
        "--ts",
        "2024-05-31T12:00:00Z",
        "--price",
        "9.5",
    ]
    answer = json.loads(cli.ok("send", *args, "--event-id", "e1", "--quantity", "2", "--query", "read", "--json"))
    cli.ok("send", "--user", "ann", "--item", "pen", "--session-id", "s1")
    first, second = events_in(cli)
    assert (answer["topic"], answer["partition"], answer["offset"]) == (
        first.topic,
        first.partition,
        first.offset,
    )
    event = Event(
        user_id="ann",
        item_id="book",
        type="purchase",
        ts=1_717_156_800_000,
        event_id="e1",
        query="read",
        price=9.5,
        quantity=2.0,
    )
    assert json.loads(first.value or b"") == json.loads(encode(event)) == answer["event"]
    assert (first.key, first.timestamp_ms) == (b"ann", event.ts)
    assert json.loads(second.value or b"")["session_id"] == "s1"


@pytest.mark.kafka
def test_send_writes_the_producers_field_names(cli: Cli) -> None:
    cli.ok("topics", "--create")
    cli.environ["SLICEFLOW_FIELDS"] = '{"user_id": "visitor"}'
    cli.ok("send", "--user", "ann", "--item", "book", "--ts", "5")
    (record,) = events_in(cli)
    assert json.loads(record.value or b"") == {"visitor": "ann", "item_id": "book", "type": "click", "ts": 5}


@pytest.mark.kafka
@pytest.mark.parametrize("wrong", [["--type", "stare"], ["--ts", "noon"], ["--ts", "-1"], ["--event-id", ""]])
def test_send_refuses_what_the_roles_would_refuse(cli: Cli, wrong: list[str]) -> None:
    result = cli("send", "--user", "ann", "--item", "book", *wrong)
    assert (result.exit_code, "would be refused" in result.stderr) == (2, True)


@pytest.mark.kafka
def test_recommend_shows_the_newest_list_of_that_user(cli: Cli) -> None:
    cli.ok("topics", "--create")
    produce(cli, RECOMMENDATIONS, [("ann", encode(list_of("ann", 1, ["old"])))])
    produce(cli, RECOMMENDATIONS, [("ann", encode(list_of("ann", 2, ["book", "pen", "ink"])))])
    # More than one window of others' lists lies between hers and the end.
    produce(cli, RECOMMENDATIONS, [(f"u{n}", encode(list_of(f"u{n}", n, ["x"]))) for n in range(600)])
    titles = [("book", "First title"), ("book", "A [b]book[/b]"), ("pen", "A pen")]
    produce(cli, ITEMS, [(key, encode(Item(item_id=key, title=title))) for key, title in titles])
    produce(cli, ITEMS, [("pen", None)])

    shown = json.loads(cli.ok("recommend", "ann", "--json"))
    assert shown["recommendation_id"] == "r2"
    found = [(line["item_id"], line["title"]) for line in shown["items"]]
    assert found == [("book", "A [b]book[/b]"), ("pen", None), ("ink", None)]
    table = cli.ok("recommend", "ann", "--count", "1")
    assert "A [b]book[/b]" in table
    assert "with a user vector" in table
    assert "pen" not in table


@pytest.mark.kafka
def test_recommend_without_a_list_is_1(cli: Cli) -> None:
    missing = cli("recommend", "ann")
    assert (missing.exit_code, "topics --create" in missing.stderr) == (1, True)
    cli.ok("topics", "--create")
    produce(cli, RECOMMENDATIONS, [("bob", encode(list_of("bob", 1, ["x"])))])
    none = cli("recommend", "ann")
    assert (none.exit_code, "no list for the user 'ann'" in none.stderr) == (1, True)


@pytest.mark.kafka
def test_a_damaged_list_is_told_with_its_place(cli: Cli) -> None:
    cli.ok("topics", "--create")
    produce(cli, RECOMMENDATIONS, [("ann", b"{}")])
    result = cli("recommend", "ann")
    assert (result.exit_code, "offset 0" in result.stderr) == (1, True)


@pytest.mark.kafka
def test_tail_prints_lists_as_published(cli: Cli) -> None:
    cli.ok("topics", "--create")
    lists = [list_of(user, number, ["a", "b"]) for number, user in enumerate(["ann", "bob", "ann", "eve", "ann"])]
    produce(cli, RECOMMENDATIONS, [(one.user_id, encode(one)) for one in lists])
    lines = cli.ok("tail", "--from-start", "--user", "ann", "--limit", "3", "--json").splitlines()
    assert lines == [encode(one).decode() for one in lists if one.user_id == "ann"]
    assert len(cli.ok("tail", "--from-start", "--limit", "5").splitlines()) == 5


@pytest.mark.kafka
def test_doctor_sees_topics_and_lag(cli: Cli) -> None:
    bare = cli.ok("doctor")
    assert "WARN  topics" in bare
    cli.ok("topics", "--create")
    cli.ok("send", "--user", "ann", "--item", "book")
    checks = [json.loads(line) for line in cli.ok("doctor", "--json").splitlines()]
    by_name = {(one["name"], one["status"]): one["detail"] for one in checks}
    assert ("topics", "OK") in by_name
    assert ("broker", "OK") in by_name
    assert "sequence has read nothing yet of 1 records" in by_name["lag", "WARN"]
    cli.environ["SLICEFLOW_PARTITIONS"] = "3"
    wrong = cli("doctor")
    assert (wrong.exit_code, "FAIL  topics" in wrong.stdout) == (1, True)
