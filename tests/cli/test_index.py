"""`sliceflow index` over topics that a test has filled, and in its own words where something is missing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import numpy as np
import pytest

from index import build_index
from stream_app import topics
from stream_app.broker import EmbeddedBroker
from stream_app.demo import CONFIG_FILE, MODEL_FOLDER
from stream_app.errors import ModelError
from stream_app.index_check import check_index
from stream_app.item_reading import text_tower
from stream_app.kafka import partition_of
from stream_app.models import served_model
from stream_app.records import VECTORS_KEY, Item, ItemVectorRecord, VectorsCompleteRecord, encode, pack_vector
from tests.cli.conftest import Cli
from tests.replay_cases import SAMPLE, demo_encoder, demo_settings
from tests.support import publish

NUM_ITEMS = 300


def test_an_exact_index_finds_all_of_what_exact_search_finds() -> None:
    ids, vectors_ND = demo_encoder().item_vectors()
    index = build_index("faiss", vectors_ND.shape[1], "r1")
    index.upsert(ids[:NUM_ITEMS], vectors_ND[:NUM_ITEMS])
    found = check_index(index)
    assert (found.items, found.recall, found.recall_at) == (NUM_ITEMS, 1.0, 50)
    assert 0 < found.p50_ms <= found.p99_ms and 0 < found.exact_p50_ms <= found.exact_p99_ms


def test_a_model_of_ids_alone_cannot_be_asked_by_text() -> None:
    with pytest.raises(ModelError, match=r"ids alone, so no text means anything.*--items FILE"):
        text_tower(demo_settings())


def records_of(prefix: str, ids: list[str]) -> list[tuple[str, int, bytes, bytes]]:
    """Vectors and titles of items, in two partitions; the markers behind them."""
    _, vectors_ND = demo_encoder().item_vectors()
    release = served_model(demo_settings()).release
    names = {name: topics.prefixed(prefix, name) for name in (topics.ITEM_VECTORS, topics.ITEMS)}
    records = []
    for item_id, vector_D in zip(ids, vectors_ND, strict=False):
        place = partition_of(item_id.encode(), 2)
        vector = ItemVectorRecord(item_id=item_id, release=release, vector=pack_vector(vector_D))
        records.append((names[topics.ITEM_VECTORS], place, item_id.encode(), encode(vector)))
        item = Item(item_id=item_id, title=f"title of {item_id}")
        records.append((names[topics.ITEMS], place, item_id.encode(), encode(item)))
    marker = encode(VectorsCompleteRecord(release=release, num_items=0, items_offset=0))
    return records + [(names[topics.ITEM_VECTORS], place, VECTORS_KEY, marker) for place in range(2)]


@pytest.mark.kafka
def test_status_build_check_and_similar(cli: Cli, broker: EmbeddedBroker, topic_prefix: str, tmp_path: Path) -> None:
    cli.environ |= {"SLICEFLOW_CONFIG": str(SAMPLE / CONFIG_FILE), "SLICEFLOW_MODEL": str(SAMPLE / MODEL_FOLDER)}
    missing = cli("index", "status")
    assert (missing.exit_code, "sliceflow topics --create" in missing.stderr) == (1, True)
    cli.ok("topics", "--create")
    empty = cli("index", "status", "--json")
    facts = json.loads(empty.stdout)
    assert (empty.exit_code, facts["items"], facts["complete"]) == (1, 0, False)
    for name in ("check", "build"):
        refused = cli("index", name)
        assert (refused.exit_code, "sliceflow worker encode" in refused.stderr) == (1, True)

    ids = demo_encoder().item_vectors()[0][:NUM_ITEMS]
    asyncio.run(publish(broker.bootstrap_servers, records_of(topic_prefix, ids)))
    facts = json.loads(cli.ok("index", "status", "--json"))
    assert (facts["items"], facts["complete"], facts["refused"]) == (NUM_ITEMS, True, {})
    assert facts["catalogue_records_behind"] == NUM_ITEMS
    assert f"items: {NUM_ITEMS}" in cli.ok("index", "status")

    assert json.loads(cli.ok("index", "check", "--json"))["recall"] == 1.0
    assert "recall@50 1.0000" in cli.ok("index", "check")

    near = json.loads(cli.ok("index", "similar", ids[0], "--count", "5", "--json"))
    vectors_ND = demo_encoder().item_vectors()[1][:NUM_ITEMS].astype(np.float64)
    cosines_N = (vectors_ND @ vectors_ND[0]) / np.linalg.norm(vectors_ND, axis=1)
    assert [one["item_id"] for one in near["items"]] == [ids[place] for place in np.argsort(-cosines_N)[1:6]]
    assert near["items"][0]["title"] == f"title of {near['items'][0]['item_id']}"
    assert f"title of {near['items'][4]['item_id']}" in cli.ok("index", "similar", ids[0])
    unknown = cli("index", "similar", "unheard-of")
    assert (unknown.exit_code, "'unheard-of' has no vector" in unknown.stderr) == (1, True)

    built = json.loads(cli.ok("index", "build", "--out", str(tmp_path / "out"), "--json"))
    assert (built["items"], built["kind"], built["recall"]) == (NUM_ITEMS, "exact", 1.0)
    assert len(list((tmp_path / "out").glob("snapshot-*/manifest.json"))) == 1
    assert f"{NUM_ITEMS} items" in cli.ok("index", "build")
    searched = cli("index", "search", "war")
    assert (searched.exit_code, "--item-text" in searched.stderr) == (1, True)
