"""The log of a process: one line a record, ours told apart from the libraries'."""

from __future__ import annotations

import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from stream_app.logs import MAX_TOLD, OWN_LOGGER, QUIET_S, RepeatFilter, set_up_logging


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    """Leave logging as it was."""
    root, own = logging.getLogger(), logging.getLogger(OWN_LOGGER)
    before = root.handlers[:], root.level, own.level
    yield
    root.handlers[:], root.level, own.level = before[0], before[1], before[2]


def logged(*, debug: bool, as_json: bool = False) -> str:
    """What some records become."""
    stream = io.StringIO()
    set_up_logging(debug=debug, stream=io.StringIO())
    set_up_logging(debug=debug, as_json=as_json, stream=stream)
    own, other = logging.getLogger("sliceflow.test"), logging.getLogger("faust.test")
    own.debug("own debug")
    own.info("own info\nsecond line")
    other.debug("other debug")
    other.info("other info")
    other.warning("other warning")
    try:
        raise LookupError("the cause")
    except LookupError:
        own.exception("it failed")
    return stream.getvalue()


def test_each_record_is_one_line_and_libraries_are_quiet() -> None:
    lines = logged(debug=False).splitlines()
    assert [line.split(" ", 3)[3] for line in lines[:3]] == [
        r"sliceflow.test own info\nsecond line",
        "faust.test other warning",
        "sliceflow.test it failed",
    ]
    assert lines[3:] == ["  LookupError: the cause"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO sliceflow.test .*", lines[0])


def test_debug_tells_more_but_not_what_libraries_see_of_records() -> None:
    text = logged(debug=True)
    assert "own debug" in text and "other info" in text
    assert "other debug" not in text
    assert "Traceback" in text


@pytest.mark.parametrize("debug", [False, True])
def test_json_is_one_object_a_line_with_the_same_facts(debug: bool) -> None:
    lines = [json.loads(line) for line in logged(debug=debug, as_json=True).splitlines()]
    (own,) = [line for line in lines if line["message"].startswith("own info")]
    assert own["message"] == "own info\nsecond line"
    assert (own["level"], own["logger"]) == ("INFO", "sliceflow.test")
    assert own["ts_ms"] > 1_600_000_000_000
    failure = lines[-1]
    assert failure["message"] == "it failed"
    assert failure["error"].endswith("LookupError: the cause")
    assert ("Traceback" in failure["error"]) == debug


def told(*records: tuple[float, int, str]) -> list[str]:
    """What passes of these (time, level, message)."""
    repeats = RepeatFilter()
    made = [logging.makeLogRecord({"created": at_s, "levelno": level, "msg": text}) for at_s, level, text in records]
    return [record.getMessage() for record in made if repeats.filter(record)]


def test_what_is_said_again_at_once_is_counted_and_told_later() -> None:
    refused = [(at_s / 10, logging.ERROR, "refused") for at_s in range(95)]
    assert told(*refused, (5.0, logging.WARNING, "another"), (QUIET_S, logging.ERROR, "refused")) == [
        "refused",
        "another",
        "refused (and 94 times since it was last told)",
    ]


def test_after_a_pause_it_is_told_as_at_first() -> None:
    assert told((0.0, logging.ERROR, "refused"), (QUIET_S, logging.ERROR, "refused")) == ["refused", "refused"]


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL])
def test_progress_and_the_end_of_a_process_are_always_told(level: int) -> None:
    assert len(told(*[(0.0, level, "the same")] * 5)) == 5


def test_only_so_many_messages_are_remembered() -> None:
    others = [(0.0, logging.ERROR, f"{number}") for number in range(MAX_TOLD)]
    assert told((0.0, logging.ERROR, "first"), *others, (0.0, logging.ERROR, "first"))[-1] == "first"


def test_debugging_holds_nothing_back() -> None:
    lines = {}
    for debug in (False, True):
        stream = io.StringIO()
        set_up_logging(debug=debug, stream=stream)
        for _ in range(3):
            logging.getLogger("aiokafka").error("refused")
        lines[debug] = len(stream.getvalue().splitlines())
    assert lines == {False: 1, True: 3}
