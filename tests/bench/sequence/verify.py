"""What a contender published and kept, against the oracle.

Millions of outputs are compared by one number for each user: a hash that each output of the user goes into, in
order. Only users whose numbers differ are looked at output by output, to say what is wrong with them. Python's hash
differs from process to process, so both sides are made in the same one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from tests.bench.sequence.job import HISTORY_EVENTS, Load, Variant, oracle

MAX_TOLD: Final = 5
"""Problems told by name; more of them say nothing more about what went wrong."""

State = tuple[int, list[str]]
"""Number of a user's events, and the last items, oldest first."""


class Record(Protocol):
    """What is needed of an aiokafka record."""

    key: bytes
    value: bytes | None
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True)
class StateFormat:
    """How the records of a state topic are read back.

    Args:
        decode: Number of events and items, of a record's value.
        user_of: The user's id, of a record's key.
        marker_header: Records with a header of this name are no state, but the system's own notes.
    """

    decode: Callable[[bytes], State]
    user_of: Callable[[bytes], bytes] = bytes
    marker_header: str = ""


@dataclass(frozen=True)
class Expected:
    """What a load must lead to, by the oracle; made once for all contenders.

    Args:
        digests: A number for each user, of all outputs in order.
        lasts: The last output of each user.
        states: The final state of each user.
    """

    load: Load
    digests: Mapping[bytes, int]
    lasts: Mapping[bytes, bytes]
    states: FinalStates


class FinalStates:
    """The final state of each user, straight from the draws: no part of it is shared with the oracle."""

    def __init__(self, load: Load) -> None:
        users_E, items_E = load.draws()
        order_E = np.argsort(users_E, kind="stable")
        self._items_E = items_E[order_E]
        numbers, starts = np.unique(users_E[order_E], return_index=True)
        ends: npt.NDArray[np.int64] = np.append(starts[1:], len(users_E))
        bounds = zip(starts.tolist(), ends.tolist(), strict=True)
        self._bounds = dict(zip((b"u%d" % number for number in numbers.tolist()), bounds, strict=True))

    def __len__(self) -> int:
        return len(self._bounds)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._bounds)

    def get(self, user: bytes) -> State | None:
        """The state of one user; None for one that has no events."""
        if user not in self._bounds:
            return None
        start, end = self._bounds[user]
        return end - start, [f"i{item}" for item in self._items_E[max(start, end - HISTORY_EVENTS) : end].tolist()]


@dataclass(frozen=True)
class Verdict:
    """What verifying found.

    Args:
        num_outputs: Outputs on the topic.
        num_repeats: Those that are there again, byte for byte, as at-least-once allows.
        last_append_ms: When the broker took the last output, in milliseconds since 1970.
        problems: What is wrong, at most `MAX_TOLD` and a line that counts the others; none: all is right.
    """

    num_outputs: int = 0
    num_repeats: int = 0
    last_append_ms: int = 0
    problems: tuple[str, ...] = ()


@dataclass
class Published:
    """What is known of an output topic after reading it once."""

    digests: dict[bytes, int] = field(default_factory=dict)
    lasts: dict[bytes, bytes] = field(default_factory=dict)
    num_outputs: int = 0
    last_append_ms: int = 0

    def take(self, records: Sequence[Record]) -> None:
        """Take in the next records of one partition."""
        digests, lasts = self.digests, self.lasts
        for record in records:
            key, value = record.key, record.value or b""
            digests[key] = hash((digests.get(key, 0), value))
            lasts[key] = value
        self.num_outputs += len(records)
        self.last_append_ms = max(self.last_append_ms, *(record.timestamp for record in records))

    def suspects(self, expected: Expected, variant: Variant) -> set[bytes]:
        """The users whose outputs are not simply those that are expected."""
        if variant == "latest":
            return _differing(self.lasts, expected.lasts)
        return _differing(self.digests, expected.digests)


def expect(load: Load) -> Expected:
    """Work a load off with the oracle. Takes seconds for a million events."""
    made = Published()
    keys = (key for key, _ in load.records())
    for key, output in zip(keys, oracle(load.records()), strict=True):
        made.digests[key] = hash((made.digests.get(key, 0), output))
        made.lasts[key] = output
    return Expected(load, made.digests, made.lasts, FinalStates(load))


def outputs_of(load: Load, users: set[bytes]) -> dict[bytes, list[bytes]]:
    """The outputs of some users by the oracle, in order."""
    keys = [key for key, _ in load.records() if key in users]
    found: dict[bytes, list[bytes]] = defaultdict(list)
    for key, output in zip(keys, oracle(record for record in load.records() if record[0] in users), strict=True):
        found[key].append(output)
    return found


def examine(seen: Sequence[bytes], wanted: Sequence[bytes]) -> tuple[int, str]:
    """One user's outputs, one by one: the number of exact repeats, and what is wrong first (empty: nothing).

    An output may come again only after it came in its turn.
    """
    places = {output: place for place, output in enumerate(wanted)}
    num_done = num_repeats = 0
    for number, output in enumerate(seen):
        place = places.get(output)
        if place is None:
            return num_repeats, f"output {number + 1} is {output!r}, which the oracle never gives"
        if place > num_done:
            is_late = wanted[num_done] in seen[number:]
            what = "out of order" if is_late else "missing"
            return num_repeats, f"{wanted[num_done]!r} is {what}: {output!r} came before it"
        num_repeats += place < num_done
        num_done += place == num_done
    if num_done < len(wanted):
        return num_repeats, f"{len(wanted) - num_done} outputs are missing at the end, from {wanted[num_done]!r} on"
    return num_repeats, ""


def check_each(seen: Mapping[bytes, Sequence[bytes]], wanted: Mapping[bytes, Sequence[bytes]]) -> tuple[int, list[str]]:
    """All outputs of some users: the number of exact repeats, and the problems.

    Args:
        seen: Of each user the outputs as they stand on the topic.
        wanted: Of each user those that the oracle gives.
    """
    num_repeats, problems = 0, []
    for user in sorted(seen.keys() | wanted.keys()):
        if user not in wanted:
            problems.append(f"{_name(user)}: there is no such user in the input")
            continue
        num, problem = examine(seen.get(user, ()), wanted[user])
        num_repeats += num
        if problem:
            problems.append(f"{_name(user)}: {problem}")
    return num_repeats, problems


def check_latest(suspects: Iterable[bytes], seen: Mapping[bytes, bytes], wanted: Mapping[bytes, bytes]) -> list[str]:
    """What is wrong with the last outputs of `suspects`."""
    return [
        f"{_name(user)}: the last output is {seen.get(user)!r}, expected {wanted.get(user)!r}"
        for user in sorted(suspects)
        if seen.get(user) != wanted.get(user)
    ]


def fold(records: Iterable[Record], state_format: StateFormat, into: dict[bytes, bytes]) -> None:
    """Bring `into`, the newest value of each key of a state topic, up to these records."""
    marker = state_format.marker_header
    for record in records:
        if marker and any(name == marker for name, _ in record.headers):
            continue
        if record.value is None:
            into.pop(record.key, None)
        else:
            into[record.key] = record.value


def check_states(newest: Mapping[bytes, bytes], state_format: StateFormat, states: FinalStates) -> list[str]:
    """What is wrong with the newest values of a state topic."""
    problems = []
    seen = set()
    for key, value in newest.items():
        user = state_format.user_of(key)
        seen.add(user)
        wanted = states.get(user)
        if (found := state_format.decode(value)) != wanted:
            problems.append(f"{_name(user)}: the state topic holds {found}, expected {wanted}")
    missing = sorted(user for user in states if user not in seen)
    return sorted(problems) + [f"{_name(user)}: the state topic holds nothing" for user in missing]


def told(problems: Sequence[str]) -> tuple[str, ...]:
    """The first problems, and how many more there are."""
    rest = len(problems) - MAX_TOLD
    return (*problems[:MAX_TOLD], *([f"and {rest:,} more"] if rest > 0 else []))


def _differing(seen: Mapping[bytes, Any], wanted: Mapping[bytes, Any]) -> set[bytes]:
    if seen == wanted:
        return set()
    return {user for user in seen.keys() | wanted.keys() if seen.get(user) != wanted.get(user)}


def _name(user: bytes) -> str:
    return f"user {user.decode(errors='replace')}"
