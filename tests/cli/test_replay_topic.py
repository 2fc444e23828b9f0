"""`sliceflow replay` of a topic and into namespaces: what it prints and refuses, with a broker but without roles."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from stream_app.broker import EmbeddedBroker
from stream_app.cli import main
from stream_app.cli._replay_options import ReplayOptions, options_of, parse_speed
from stream_app.cli.replay import command
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.errors import UsageError
from tests.cli.conftest import Cli
from tests.replay_cases import SAMPLE, sample_rows
from tests.support import read_all

NUM_EVENTS = 60


@pytest.fixture
def log(home: Path) -> str:
    """The first events of the sample, two of them of no known type, and a line that is none."""
    rows = sample_rows(NUM_EVENTS)
    lines = [json.dumps(row) for row in [*rows, {**rows[-1], "type": "gaze"}, {**rows[3], "type": "gaze"}]]
    path = home / "events.ndjson"
    path.write_text("\n".join([*lines, '{"user_id":"a"']), encoding="utf-8")
    return str(path)


@pytest.fixture
def app(cli: Cli) -> Cli:
    """The command line with a broker, the demo's model, and all topics there."""
    cli.environ |= {
        "SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE),
        "SLICEFLOW_MODEL": str(SAMPLE / MODEL_FOLDER),
        "SLICEFLOW_SESSION_TIMEOUT_S": "6",
    }
    cli.ok("topics", "--create")
    return cli


def facts_of(stdout: str) -> dict[str, Any]:
    """The line of JSON, which must be all there is."""
    assert stdout.count("\n") == 1
    facts: dict[str, Any] = json.loads(stdout)
    return facts


def options(*args: str) -> ReplayOptions:
    """What the command makes of its arguments."""
    with command.make_context("replay", list(args), parent=main.make_context("sliceflow", ["replay"])) as ctx:
        return options_of(ctx.params)


def test_options_as_values() -> None:
    made = options("x.csv", "--speed", "x60", "--pause-at", "1970-01-01T00:00:05Z", "--type-map", "a=b", "--no-wait")
    assert made == ReplayOptions({"a": "b"}, speed=60.0, wait=False, pause_at_ms=5000)
    assert options("--from-topic", "--speed", "real") == ReplayOptions({}, speed=1.0, send_unknown_types=True)
    assert options("--from-topic", "other", "--fresh", "--with-roles").with_roles


@pytest.mark.parametrize("text", ["", "x", "fast", "0", "-1", "x-1", "inf", "nan", "x0"])
def test_a_speed_that_is_none_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="--speed"):
        parse_speed(text)


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ("", "no log to replay"),
        ("--remove", "no log to replay"),
        ("--namespace n --remove --resume", "no log to replay"),
        ("x.csv --from-topic", "two logs"),
        ("x.csv --from 5", "--from and --to belong"),
        ("--from-topic --field user_id=u", "are for files"),
        ("--from-topic --send-unknown-types", "are for files"),
        ("--from-topic --resume --to 5", "the range"),
        ("x.csv --offline --speed real", "--speed"),
        ("x.csv --offline --pause-at 5ms", "--pause-at"),
        ("x.csv --offline --fresh", "for a replay to Kafka"),
        ("x.csv --offline --resume", "for a replay to Kafka"),
        ("x.csv --no-wait --fresh --remove", "before the lists are made"),
        ("x.csv --with-roles", "of the replay's own"),
        ("x.csv --remove", "of the replay's own"),
        ("x.csv --fresh --namespace n", "leave out one"),
        ("x.csv --fresh --resume", "--namespace NAME"),
        ("x.csv --pause-at 5", "--pause-at 5 cannot"),
    ],
)
def test_what_makes_no_sense_is_told(lonely: Cli, args: str, told: str) -> None:
    result = lonely("replay", *args.split())
    assert (result.exit_code, result.stdout) == (2, "")
    assert told in result.stderr


@pytest.mark.kafka
def test_a_file_is_looked_at_before_kafka_is_written_to(app: Cli, home: Path, broker: EmbeddedBroker) -> None:
    result = app("replay", "none.csv", "--namespace", "trial")
    assert (result.exit_code, "none.csv" in result.stderr) == (2, True)
    assert not (home / "state" / "namespaces").exists()


@pytest.mark.kafka
def test_a_topic_without_broker_gives_what_its_file_gave(app: Cli, log: str) -> None:
    """Also the bad lines, and also in a namespace with the records as they were."""
    whole = facts_of(app.ok("replay", log, "--offline", "--send-unknown-types", "--record", "golden", "--json"))
    sent = facts_of(app.ok("replay", log, "--no-wait", "--send-unknown-types", "--json"))
    assert (sent["events_in"], sent["users"]) == (NUM_EVENTS + 3, whole["users"])

    found = facts_of(app.ok("replay", "--from-topic", "--offline", "--check", "golden", "--json"))
    prefix = str(app.environ["SLICEFLOW_PREFIX"])
    assert found.pop("topic") == f"{prefix}events"
    ranges = found.pop("ranges")
    assert sum(end for _, end in ranges.values()) > NUM_EVENTS + 3
    assert (found.pop("same"), found.pop("differing")) == (True, 0)
    assert without_time(found) == without_time(whole)

    args = ["replay", "--from-topic", "--namespace", "trial", "--no-wait", "--json"]
    copied = facts_of(app.ok(*args))
    assert copied["prefix"] == f"{prefix}trial-"
    assert events_in(app, copied["prefix"]) == events_in(app, prefix)
    removed = app("replay", "--namespace", "trial", "--remove")
    assert (removed.exit_code, removed.stdout) == (0, "")
    assert f"topics of {prefix}trial- removed" in removed.stderr
    assert app("replay", "--namespace", "trial", "--remove").exit_code == 2


@pytest.mark.kafka
def test_a_part_of_a_topic(app: Cli, log: str) -> None:
    app.ok("replay", log, "--no-wait", "--send-unknown-types", "--json")
    rows = sample_rows(NUM_EVENTS)
    middle = f"{rows[NUM_EVENTS // 2]['ts']}ms"
    args = ["replay", "--from-topic", "--offline", "--json"]
    first, second = (facts_of(app.ok(*args, *part)) for part in (["--to", middle], ["--from", middle]))
    assert 0 < first["applied"] < NUM_EVENTS
    assert first["applied"] + second["applied"] == NUM_EVENTS
    again = ",".join(f"{partition}:{end}" for partition, (_, end) in first["ranges"].items())
    assert facts_of(app.ok(*args, "--to", again))["applied"] == first["applied"]
    assert facts_of(app.ok(*args, "--limit", "7"))["events_in"] == 7


@pytest.mark.kafka
def test_a_topic_is_not_sent_to_itself(app: Cli, log: str) -> None:
    app.ok("replay", log, "--no-wait", "--send-unknown-types")
    result = app("replay", "--from-topic", "--no-wait")
    assert (result.exit_code, "sent to itself" in result.stderr, "--fresh" in result.stderr) == (2, True, True)


def events_in(app: Cli, prefix: str) -> list[list[Any]]:
    """Everything of the events topic of a namespace, by partition, without offsets."""
    found = asyncio.run(read_all(str(app.environ["KAFKA_BOOTSTRAP_SERVERS"]), f"{prefix}events", 2))
    return [
        [(one.timestamp, one.key, one.value, tuple(one.headers)) for one in found if one.partition == number]
        for number in range(2)
    ]


def without_time(facts: dict[str, Any]) -> dict[str, Any]:
    """All but how long it took."""
    return {name: value for name, value in facts.items() if name != "seconds"}
