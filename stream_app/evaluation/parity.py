"""Whether the running stream publishes the very lists that the evaluation judges: item by item, for sampled users.

The evaluation's lists come from the roles' own stages in one process. Here a log goes through them, and what comes out
is compared with what lies on `recommendations`: a user's last list, with its items, scores, sources, epoch and scorer.
Only a replay fixes the epoch of a list; a log that was sent live will differ.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass
from hashlib import blake2b

from stream_app.errors import UsageError
from stream_app.offline_replay import replay_offline
from stream_app.recorded_topics import OutputEnds, record_topics
from stream_app.recording import FORMAT, RecordedList, RecordedReplay, Recorder, Recording
from stream_app.recording_check import Comparison, compare
from stream_app.replay.readers import Log
from stream_app.settings import Settings

FROM_THE_START = OutputEnds({}, {}, {})
"""Whatever lies on the topics counts."""


@dataclass(frozen=True)
class Parity:
    """The outcome: users compared, and what differs."""

    num_users: int
    comparison: Comparison

    @property
    def holds(self) -> bool:
        """Whether all lists are the same."""
        return self.comparison.num_differing == 0

    def text(self) -> str:
        """For people; names the first difference."""
        if self.comparison.first is None:
            return f"the lists of {self.num_users:,} users are the same, item by item"
        differing = f"{self.comparison.num_differing:,} of {self.num_users:,} lists differ from the evaluation's"
        return f"{self.comparison.first.text()}\n{differing}"


def check_parity(
    log: Log,
    settings: Settings,
    num_users: int,
    *,
    limit: int | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Parity:
    """Compare the running namespace with `log`, which was replayed into it.

    Args:
        log: The log.
        settings: Of the running roles, with their model.
        num_users: How many users are sampled, by a hash of their id.
        limit: Only the first rows of the log were replayed.
        report: Takes lines of progress.

    Raises:
        UsageError: The log gives no list, or its types are not the settings'.
        KafkaUnreachableError: The broker did not deliver in time.
        TopicMismatchError: A topic does not exist.
        ModelError: The model is missing, damaged, or trained for other settings.
    """
    expected = Recorder()
    replay_offline(
        log, settings, limit=limit, recorder=expected, on_taken=lambda num: report(f"{num:,} events taken offline")
    )
    users = sampled({one.user_id for one in _lists(expected)}, num_users)
    if not users:
        raise UsageError("No user of the log has a list.", mend="give the log that was replayed")
    found = Recorder()
    asyncio.run(record_topics(settings, found, {user.encode("utf-8") for user in users}, FROM_THE_START))
    return Parity(len(users), compare(_of_users(expected, users), _of_users(found, users)))


def sampled(users: Collection[str], num_users: int) -> frozenset[str]:
    """The users whose ids have the smallest hashes: the same ones every time, in no order that a log could have."""
    return frozenset(sorted(users, key=lambda user: blake2b(user.encode("utf-8"), digest_size=8).digest())[:num_users])


def _lists(recorder: Recorder) -> list[RecordedList]:
    return [one for one in recorder.recording(_no_totals()).records() if isinstance(one, RecordedList)]


def _of_users(recorder: Recorder, users: Collection[str]) -> Recording:
    """The lists of some users alone, as a recording."""
    whole = recorder.recording(_no_totals())
    records = zip(whole.lines, whole.records(), strict=True)
    return Recording([line for line, one in records if isinstance(one, RecordedList) and one.user_id in users])


def _no_totals() -> RecordedReplay:
    """A first line that says nothing: totals are not what is compared here."""
    return RecordedReplay(format=FORMAT, events_in=0, applied=0, dead_letters={}, dropped={}, users=0, settings={})
