"""Parity: what lies on `recommendations` is what the same log gives offline, and a difference is named."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import orjson
import pytest

from encoders.training_config import TrainConfig
from stream_app.broker import EmbeddedBroker
from stream_app.evaluation.parity import check_parity, sampled
from stream_app.offline_replay import replay_offline
from stream_app.preflight import ensure_topics
from stream_app.recording import Recorder
from stream_app.records import Event, Recommendation, encode
from stream_app.replay.readers import open_log
from stream_app.settings import KafkaSettings, Settings
from stream_app.training import train
from tests.evaluation.cases import walked_log
from tests.support import publish

NUM_ROWS = 700


class Kept(Recorder):
    """Keeps the lists themselves too."""

    def __init__(self) -> None:
        super().__init__()
        self.newest: dict[str, Recommendation] = {}

    def take_lists(self, lists: object) -> None:
        """The newest list of each user."""
        made: list[Recommendation] = list(lists)  # type: ignore[call-overload]
        self.newest |= {one.user_id: one for one in made}
        super().take_lists(made)


def row_of(one: Event) -> dict[str, object]:
    """An event as a row of a log."""
    return {"user": one.user_id, "item": one.item_id, "type": one.type, "ts": one.ts}


def test_users_are_sampled_whatever_the_order() -> None:
    users = [f"u{number}" for number in range(100)]
    chosen = sampled(users, 10)
    assert len(chosen) == 10 and chosen == sampled(users[::-1], 10)
    assert chosen != set(users[:10])
    assert chosen <= sampled(users, 20)


@pytest.mark.kafka
@pytest.mark.slow
def test_the_same_lists_agree_and_a_changed_item_is_named(
    broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path
) -> None:
    path = tmp_path / "log.ndjson"
    log = walked_log(NUM_ROWS, seed=1)
    path.write_bytes(b"\n".join(orjson.dumps(row_of(one)) for one in log))
    kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
    settings = Settings(kafka=kafka, prefix=topic_prefix, partitions=2, model=str(tmp_path / "model"))
    config = TrainConfig(dim=8, num_layers=1, num_heads=1, max_epochs=1)
    train(log, settings, tmp_path / "model", config=config, report=lambda line: None)
    ensure_topics(settings, create=True)
    kept = Kept()
    replay_offline(open_log(path), settings, recorder=kept)
    topic = f"{topic_prefix}recommendations"

    def send(made: Recommendation) -> tuple[str, int, bytes | None, bytes | None]:
        return topic, 0, made.user_id.encode(), encode(made)

    asyncio.run(publish(broker.bootstrap_servers, [send(one) for one in kept.newest.values()]))
    same = check_parity(open_log(path), settings, 5)
    assert (same.holds, same.num_users, same.text()) == (
        True,
        5,
        "the lists of 5 users are the same, item by item",
    )
    user = min(sampled(list(kept.newest), 5))
    made = kept.newest[user]
    first, second, *rest = made.items
    swapped = msgspec.structs.replace(made, items=[second, first, *rest], offset=made.offset + 1)
    asyncio.run(publish(broker.bootstrap_servers, [send(swapped)]))
    differing = check_parity(open_log(path), settings, 5)
    assert not differing.holds
    assert f'The list of user "{user}"' in differing.text()
    assert "items[0].item_id" in differing.text()
    assert "1 of 5 lists differ" in differing.text()
