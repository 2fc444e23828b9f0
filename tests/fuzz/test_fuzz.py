"""The fuzzer's targets on their seeds, on the inputs that once broke something, and on what hypothesis makes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream_app.records import Event
from tests.examples import examples
from tests.fuzz.run import seconds_of_each
from tests.fuzz.seeds import SEEDS
from tests.fuzz.targets import NOW_MS, REASONS, TARGETS, TYPES, event_target, log_target, record_target

CRASHERS = Path(__file__).parent / "crashers"
"""A folder for each target, of inputs as the fuzzer wrote them."""


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_pass(name: str) -> None:
    assert SEEDS[name]
    for seed in SEEDS[name]:
        TARGETS[name](seed)


@pytest.mark.parametrize("name", TARGETS)
def test_what_once_broke_something_passes(name: str) -> None:
    for path in sorted((CRASHERS / name).glob("*")):
        try:
            TARGETS[name](path.read_bytes())
        except Exception as error:
            raise AssertionError(f"{path.name} breaks it again") from error


TEXTS = st.one_of(st.text(max_size=8), st.sampled_from(["u", "i", "click", "\0", "\ud800", "2024-05-31T12:00:00Z"]))
LEAVES = st.one_of(TEXTS, st.integers(-(2**70), 2**70), st.floats(), st.booleans(), st.none())
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3), max_leaves=8
)
EVENTS = st.fixed_dictionaries(
    {"user_id": st.sampled_from(["u", "v"]) | VALUES, "item_id": TEXTS, "type": st.sampled_from(["click", "gaze"])},
    optional={"ts": st.integers(0, 99) | VALUES, **{name: VALUES for name in Event.__struct_fields__[4:]}},
)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A key and a value: nearly an event, or a tick, or anything."""
    key = draw(st.sampled_from([b"u", b"v", b"-", b"\xff"]))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return key + b"\t" + draw(st.binary(max_size=60))
    if kind == 1:
        return key + b"\t#" + draw(st.sampled_from([b"%d", b"%d last", b"-%d"])) % draw(st.integers(0, 10**16))
    return key + b"\t" + _written(draw(EVENTS)).replace(b"\n", b" ")


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@pytest.mark.slow
@examples(300)
@given(lines())
def test_every_record_is_an_event_a_tick_or_refused_by_name(line: bytes) -> None:
    event_target(line)


@pytest.mark.slow
@examples(100)
@given(st.lists(lines(), max_size=12))
def test_every_log_is_accounted_for(log: list[bytes]) -> None:
    log_target(b"\n".join(log))


@examples(300)
@given(st.binary(max_size=80) | st.sampled_from([seed for seeds in SEEDS.values() for seed in seeds]), st.data())
def test_any_bytes_are_a_record_or_none(seed: bytes, data: st.DataObject) -> None:
    changed = bytearray(seed)
    for _ in range(data.draw(st.integers(0, 3)) if changed else 0):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    record_target(bytes(changed))


def test_the_targets_know_every_record_and_every_rule() -> None:
    source = (Path(__file__).parents[2] / "stream_app" / "stages" / "clean.py").read_text("utf-8")
    strict = (Path(__file__).parents[2] / "stream_app" / "stages" / "strict_json.py").read_text("utf-8")
    assert {reason for reason in REASONS if f'"{reason}"' not in source + strict} == set()
    assert len(TYPES) >= 12


def test_a_broken_promise_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fuzz.targets.REASONS", REASONS - {"not_json"})
    with pytest.raises(AssertionError, match="not_json"):
        event_target(b"u\tclick!")
    monkeypatch.setattr("tests.fuzz.targets.NOW_MS", NOW_MS - 10**9)
    with pytest.raises(AssertionError):
        event_target(SEEDS["event"][0].replace(b"%d" % NOW_MS, b"%d" % (NOW_MS - 10**9)) + b"!")


def test_the_time_is_shared_out() -> None:
    assert seconds_of_each(10.0, ["a", "b", "c"]) == 200
