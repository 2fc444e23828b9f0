"""`sliceflow erase`: the wish lies on `events` once Kafka has it."""

from __future__ import annotations

import asyncio
import json

import msgspec
import pytest

from stream_app.cli.erase import checked_value
from stream_app.errors import UsageError
from stream_app.records import Erasure
from stream_app.settings import Settings
from stream_app.topics import EVENTS
from tests.cli.conftest import Cli
from tests.support import read_all


@pytest.mark.kafka
@pytest.mark.slow
def test_the_wish_is_sent_and_its_place_is_told(cli: Cli) -> None:
    cli.ok("topics", "--create")
    told = json.loads(cli.ok("erase", "ann", "--json"))
    assert cli.ok("erase", "ann").startswith(f"{told['topic']}, partition {told['partition']}, offset ")
    servers, prefix = cli.environ["KAFKA_BOOTSTRAP_SERVERS"], cli.environ["SLICEFLOW_PREFIX"]
    records = asyncio.run(read_all(str(servers), f"{prefix}{EVENTS}", 2))
    sent = [msgspec.json.decode(record.value, type=Erasure) for record in records]
    assert [(record.key, one.user_id, one.ts) for record, one in zip(records, sent, strict=True)] == [
        (b"ann", "ann", record.timestamp) for record in records
    ]
    assert msgspec.convert(told["erasure"], Erasure) == sent[0]


@pytest.mark.parametrize("user_id", ["", "a" * 257, "\0", "\ud800"])
def test_an_id_that_no_event_may_have_is_refused_before_anything_is_sent(user_id: str) -> None:
    with pytest.raises(UsageError, match="would be refused"):
        checked_value(Erasure(user_id=user_id, ts=5), Settings())
