"""Dead letters: records that cannot be used, as they were, with class, reason and origin in their headers."""

from __future__ import annotations

from typing import Final

from stream_app.faustkit import OutRecord, Run
from stream_app.stages.clean import Rejection

MAX_DEAD_BYTES: Final = 1024 * 1024
"""A dead letter keeps at most this much of the original's key, and of its value: an oversize record must fit the
topic. One that its producer compressed may be a thousand times larger than what the topic takes."""


def dead_letter(topic: str, run: Run, place: int, rejection: Rejection) -> OutRecord:
    """The dead letter of one record of a run.

    Args:
        topic: Full name of the topic of dead letters.
        run: Where the record stands.
        place: Its place there.
        rejection: Why it cannot be used.
    """
    key, value = run.keys[place], run.values[place]
    facts = {
        "class": "rejected",
        "reason": rejection.reason,
        "detail": rejection.detail,
        "topic": run.topic,
        "partition": str(run.partition),
        "offset": str(run.offsets[place]),
    }
    if value is None:
        facts["null-value"] = "true"
    elif len(value) > MAX_DEAD_BYTES:
        facts["truncated-from-bytes"] = str(len(value))
        value = value[:MAX_DEAD_BYTES]
    if key is not None and len(key) > MAX_DEAD_BYTES:
        facts["key-truncated-from-bytes"] = str(len(key))
        key = key[:MAX_DEAD_BYTES]
    headers = [(name, text.encode("utf-8", "backslashreplace")) for name, text in facts.items()]
    return OutRecord(topic, 0, key, value if value is not None else b"", headers)
