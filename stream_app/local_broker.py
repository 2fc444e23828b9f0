"""The embedded broker as the commands use it: on the state folder, its address written where others look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from stream_app.broker import EmbeddedBroker
from stream_app.settings import Settings


@contextmanager
def announced(broker: EmbeddedBroker, address_file: Path) -> Iterator[None]:
    """Keep the address of a running broker in `address_file` for as long as the block runs."""
    address_file.parent.mkdir(parents=True, exist_ok=True)
    fresh = address_file.with_name(address_file.name + ".new")
    fresh.write_text(broker.bootstrap_servers + "\n", "utf-8")
    fresh.replace(address_file)
    try:
        yield
    finally:
        address_file.unlink(missing_ok=True)


@contextmanager
def local_broker(
    folder: Path | None, address_file: Path, on_progress: Callable[[str], None]
) -> Iterator[EmbeddedBroker]:
    """A running broker with its data in `folder` (None: a temporary one), announced in `address_file`.

    Raises:
        BrokerError: It did not start.
    """
    with EmbeddedBroker(folder, on_progress=on_progress) as broker, announced(broker, address_file):
        yield broker


def with_broker(settings: Settings, bootstrap_servers: str) -> Settings:
    """The settings, with this Kafka address."""
    kafka = msgspec.structs.replace(settings.kafka, bootstrap_servers=bootstrap_servers)
    return msgspec.structs.replace(settings, kafka=kafka)
