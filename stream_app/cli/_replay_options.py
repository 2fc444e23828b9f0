"""The options of `replay` as one value, and which of them make sense together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stream_app.cli._context import pairs
from stream_app.errors import UsageError


@dataclass(frozen=True)
class ReplayOptions:
    """How a log is replayed.

    `speed` is event seconds a second, None as fast as it goes; `pause_at_ms` the event time at which it stands still;
    `with_roles` tells that the roles are started for it, and stopped behind it.
    """

    type_map: dict[str, str]
    speed: float | None = None
    limit: int | None = None
    send_unknown_types: bool = False
    items: Path | None = None
    wait: bool = True
    pause_at_ms: int | None = None
    with_roles: bool = False


def options_of(given: Mapping[str, Any]) -> ReplayOptions:
    """The options as click gives them.

    Raises:
        UsageError: One cannot be read, or some make no sense together.
    """
    _check_together(given)
    pause_at_ms = None
    if given["pause_at"] is not None:
        from stream_app.replay.ranges import parse_time_ms

        pause_at_ms = parse_time_ms(given["pause_at"], "--pause-at")
    return ReplayOptions(
        type_map=pairs(given["types"], "--type-map"),
        speed=parse_speed(given["speed"]),
        limit=given["limit"],
        send_unknown_types=given["send_unknown_types"] or given["from_topic"] is not None,
        items=given["items"],
        wait=not given["no_wait"],
        pause_at_ms=pause_at_ms,
        with_roles=given["with_roles"],
    )


def parse_speed(text: str) -> float | None:
    """The factor that `--speed` names, ``real`` or ``x60`` or ``60``; None for ``max``.

    Raises:
        UsageError: It is none of these.

    >>> parse_speed("real"), parse_speed("x2.5"), parse_speed("60"), parse_speed("max")
    (1.0, 2.5, 60.0, None)
    """
    if text == "max":
        return None
    try:
        factor = 1.0 if text == "real" else float(text.removeprefix("x"))
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(
            f"--speed {text} is neither `max`, `real`, nor a number above 0.",
            mend="real keeps the log's own time, x60 sends an hour of the log in a minute",
        )
    return factor


def _check_together(given: Mapping[str, Any]) -> None:
    for is_wrong, seen, mend in (*_log_rules(given), *_offline_rules(given), *_namespace_rules(given)):
        if is_wrong:
            raise UsageError(seen, mend=mend)


Rules = list[tuple[object, str, str]]
"""What must not be, each with the words for it and what mends it."""


def _log_rules(given: Mapping[str, Any]) -> Rules:
    is_topic = given["from_topic"] is not None
    is_removal = given["remove"] and given["namespace"] and not given["resume"]
    of_files = [name for name in ("fields", "types", "ts_unit", "send_unknown_types") if given[name]]
    return [
        (given["file"] and is_topic, "FILE and --from-topic are two logs.", "leave out one of them"),
        (
            not given["file"] and not is_topic and not is_removal,
            "There is no log to replay.",
            "name a FILE, or --from-topic for what lies on Kafka",
        ),
        (
            (given["start"] or given["end"]) and not is_topic,
            "--from and --to belong to --from-topic.",
            "for a file use --limit",
        ),
        (
            is_topic and of_files,
            "--field, --type-map, --ts-unit and --send-unknown-types are for files: records of a topic are sent as "
            "they are.",
            "leave them out",
        ),
        (
            given["resume"] and (given["start"] or given["end"]),
            "--resume goes on with the range that the replay began with.",
            "leave out --from and --to",
        ),
    ]


def _offline_rules(given: Mapping[str, Any]) -> Rules:
    offline, no_wait = given["offline"], given["no_wait"]
    on_kafka = [name for name in ("resume", "namespace", "fresh", "with_roles", "remove") if given[name]]
    return [
        (
            offline and given["speed"] != "max",
            "--offline has no clock to keep a --speed by.",
            "leave out one of the two",
        ),
        (offline and given["pause_at"], "--offline has no clock to --pause-at.", "leave out one of the two"),
        (offline and no_wait, "--offline has nobody to wait for, so --no-wait makes no sense.", "leave out --no-wait"),
        (
            offline and on_kafka,
            "--resume, --namespace, --fresh, --with-roles and --remove are for a replay to Kafka.",
            "leave them out, or --offline",
        ),
        (
            no_wait and (given["record"] or given["check"]),
            "With --no-wait the lists are not made yet when --record and --check look at them.",
            "leave out --no-wait",
        ),
        (
            no_wait and (given["with_roles"] or given["remove"]),
            "With --no-wait the roles would be stopped, or the topics removed, before the lists are made.",
            "leave out --no-wait",
        ),
    ]


def _namespace_rules(given: Mapping[str, Any]) -> Rules:
    has_own = given["namespace"] or given["fresh"]
    return [
        (given["namespace"] and given["fresh"], "--fresh makes up a name, and --namespace gives one.", "leave out one"),
        (
            (given["with_roles"] or given["remove"]) and not has_own,
            "--with-roles and --remove are for a namespace of the replay's own.",
            "add --fresh, or --namespace NAME",
        ),
        (given["fresh"] and given["resume"], "--fresh begins, and --resume goes on.", "name it: --namespace NAME"),
    ]
