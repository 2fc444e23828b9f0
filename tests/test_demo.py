"""The parts of the demo that are no story: its data, whom it shows, and how a list moved."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.cli.demo import brief_sources
from stream_app.demo import (
    CONFIG_FILE,
    EVENTS_FILE,
    ITEMS_FILE,
    MOST_EVENTS,
    LogFacts,
    ShownItem,
    demo_settings,
    example_places,
    find_example,
    marked,
    read_facts,
    read_titles,
    shown_list,
)
from stream_app.errors import ModelError, UsageError
from stream_app.models import served_model
from stream_app.records import RankedItem


def shown(*item_ids: str) -> list[ShownItem]:
    """A list of items."""
    return shown_list([RankedItem(item_id=one, score=1.0, sources=["index"]) for one in item_ids], {})


def test_the_example_in_the_checkout_is_complete_and_its_model_fits(tmp_path: Path) -> None:
    example = find_example(example_places())
    settings = demo_settings(tmp_path, example.config, example.model)
    assert settings.state_path == tmp_path / "demo"
    assert served_model(settings).release
    facts = read_facts(example.events)
    assert facts.num_events == sum(len(items) for items in facts.histories.values())
    assert len(facts.histories[facts.chosen_user()]) == MOST_EVENTS
    titles = read_titles(example.items)
    assert all(titles.values())


def test_an_example_that_is_not_there_is_named_with_every_place(tmp_path: Path) -> None:
    (tmp_path / EVENTS_FILE).touch()
    (tmp_path / ITEMS_FILE).touch()
    with pytest.raises(UsageError, match=CONFIG_FILE) as caught:
        find_example([tmp_path, tmp_path / "other"])
    assert str(tmp_path / "other") in caught.value.message
    assert "make demo" in caught.value.mend


def test_a_missing_model_is_trained_with_make(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none") as caught:
        demo_settings(tmp_path, tmp_path / CONFIG_FILE, tmp_path / "none")
    assert "make demo-model" in caught.value.mend


def test_the_facts_of_a_log(tmp_path: Path) -> None:
    rows = [("ann", "a", 3), ("bob", "b", 10**12 + 9), ("ann", "c", 10**12)]
    lines = [orjson.dumps({"user_id": u, "item_id": i, "type": "click", "ts": ts}) for u, i, ts in rows]
    path = tmp_path / "log.ndjson"
    path.write_bytes(b"\n".join([*lines, b"{broken"]) + b"\n")
    facts = read_facts(path)
    assert facts == LogFacts({"ann": ["a", "c"], "bob": ["b"]}, 4, 10**12 + 9)


def test_the_user_shown_has_much_history_but_not_too_much() -> None:
    histories = {"few": ["i"] * 3, "much": ["i"] * MOST_EVENTS, "too much": ["i"] * (MOST_EVENTS + 1)}
    assert LogFacts(histories).chosen_user() == "much"
    assert LogFacts({"too much": ["i"] * 99}).chosen_user() == "too much"
    assert LogFacts({"a": ["i"], "b": ["i"]}).chosen_user() == "b"


def test_marks_say_how_a_list_moved() -> None:
    after = marked(shown("a", "b", "c"), shown("c", "b", "x"))
    assert [item.moved for item in after] == ["+2", "", "new"]
    assert [item.moved for item in marked([], shown("a"))] == ["new"]


@given(st.permutations(["a", "b", "c", "d", "e"]))
def test_rises_and_falls_cancel_out(order: list[str]) -> None:
    after = marked(shown("a", "b", "c", "d", "e"), shown(*order))
    assert sum(int(item.moved or "0") for item in after) == 0
    assert all(not item.moved.endswith("0") for item in after)


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        ([], ""),
        (["index"], "index"),
        (["index", "popular_15m", "popular_1h", "transition"], "index, popular 15m 1h, transition"),
    ],
)
def test_sources_are_shown_briefly(sources: list[str], expected: str) -> None:
    assert brief_sources(sources) == expected
