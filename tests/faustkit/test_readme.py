"""The app in the layer's README works as it stands there, through a kill too."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer

from stream_app import faustkit
from stream_app.broker import EmbeddedBroker
from stream_app.faustkit.ownership import INPUT_KEY, OWNER_KEY
from tests.faustkit.stage import Process
from tests.support import create_topics, delete_topics, read_all, wait_until

README = Path(faustkit.__file__).with_name("README.md")
WORDS = [b"to", b"be", b"or", b"not", b"to", b"be"]


def code_block() -> str:
    """The app, as the README shows it."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    return str(block)


def test_every_name_of_the_surface_is_told() -> None:
    told = set(re.findall(r"`(\w+)`", README.read_text("utf-8")))
    assert set(faustkit.__all__) <= told


@pytest.mark.kafka
def test_the_app_counts(broker: EmbeddedBroker, tmp_path: Path) -> None:
    script = tmp_path / "counter.py"
    script.write_text(code_block(), "utf-8")
    servers = broker.bootstrap_servers
    topics = {"words": 2, "counts": 2, "counter-changelog": 2}

    async def send() -> None:
        async with AIOKafkaProducer(bootstrap_servers=servers, acks="all") as producer:
            for place, word in enumerate(WORDS):
                await producer.send_and_wait("words", b"", key=word, partition=place % 2)

    def counts() -> list[tuple[int, bytes, bytes]]:
        records = asyncio.run(read_all(servers, "counts", 2))
        return sorted({(record.partition, record.key, record.value) for record in records})

    asyncio.run(create_topics(servers, topics))
    try:
        for num_rounds in (1, 2):
            asyncio.run(send())
            with Process([str(script), servers, str(tmp_path / "state")], tmp_path / "log", is_module=False) as app:
                app.wait_for("ready")
                num_wanted = num_rounds * len(WORDS)

                def is_counted(num: int = num_wanted) -> bool:
                    return len(counts()) == num

                wait_until(is_counted, what="all counts")
                app.kill()
        assert counts() == sorted(
            (partition, word, b"%d" % number)
            for partition, word, per_round in ((0, b"to", 2), (0, b"or", 1), (1, b"be", 2), (1, b"not", 1))
            for number in range(1, 2 * per_round + 1)
        )
        changelog = asyncio.run(read_all(servers, "counter-changelog", 2))
        assert {record.key for record in changelog} <= {OWNER_KEY, INPUT_KEY, *WORDS}
    finally:
        asyncio.run(delete_topics(servers, list(topics)))
