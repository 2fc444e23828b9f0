"""What a replay to Kafka came to, read from the topics once the roles have caught up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass

import msgspec

from stream_app.recording import Recorder
from stream_app.records import Recommendation, SliceRecord, decode_erased, is_erased
from stream_app.replay.caught_up import READ_WITHIN_S, Ends
from stream_app.settings import Settings
from stream_app.topic_reader import StoredRecord, TopicReader
from stream_app.topics import DEAD_LETTER, RECOMMENDATIONS, SLICES, prefixed

_LIST = msgspec.json.Decoder(Recommendation)
_SLICE = msgspec.json.Decoder(SliceRecord)


@dataclass(frozen=True)
class OutputEnds:
    """Where the topics that a replay is read from ended before it, by partition."""

    lists: Ends
    slices: Ends
    dead_letters: Ends


async def output_ends(settings: Settings) -> OutputEnds:
    """Where these topics end now.

    Raises:
        KafkaUnreachableError: The broker does not answer.
        TopicMismatchError: A topic does not exist.
    """
    ends: list[Mapping[int, int]] = []
    async with TopicReader(settings) as reader:
        for name in (RECOMMENDATIONS, SLICES, DEAD_LETTER):
            bounds = await reader.bounds(prefixed(settings.prefix, name))
            ends.append({number: end for number, (_, end) in bounds.items()})
    return OutputEnds(*ends)


async def record_topics(settings: Settings, recorder: Recorder, users: Collection[bytes], since: OutputEnds) -> None:
    """Let `recorder` take the lists and slices of `users` that were published after `since`.

    Raises:
        KafkaUnreachableError: The broker did not deliver in time.
        TopicMismatchError: A topic does not exist.
    """
    async for record in _records_since(settings, RECOMMENDATIONS, since.lists):
        if record.value is not None and record.key in users:
            recorder.take_lists([_LIST.decode(record.value)])
    async for record in _records_since(settings, SLICES, since.slices):
        if record.value is not None and record.key in users:  # marks have no user
            if is_erased(record.value):
                recorder.take_erased([decode_erased(record.value)])
            else:
                recorder.take_slices([_SLICE.decode(record.value)])


async def dead_letter_reasons(settings: Settings, since: OutputEnds) -> dict[str, int]:
    """How many records became dead letters after `since`, by reason.

    A role that died may have published a letter twice; each names its record, which counts once.

    Raises:
        KafkaUnreachableError: The broker did not deliver in time.
        TopicMismatchError: There is no topic of dead letters.
    """
    reason_of: dict[tuple[bytes, bytes], str] = {}
    async for record in _records_since(settings, DEAD_LETTER, since.dead_letters):
        facts = {name: text or b"" for name, text in record.headers}
        # What somebody else has put there names no origin; it counts once in all.
        origin = facts.get("partition", b""), facts.get("offset", b"")
        reason_of[origin] = facts.get("reason", b"").decode("utf-8", "backslashreplace")
    reasons: dict[str, int] = {}
    for reason in reason_of.values():
        reasons[reason] = reasons.get(reason, 0) + 1
    return dict(sorted(reasons.items()))


async def _records_since(settings: Settings, name: str, since: Ends) -> AsyncIterator[StoredRecord]:
    topic = prefixed(settings.prefix, name)
    async with TopicReader(settings, timeout_s=READ_WITHIN_S) as reader:
        bounds = await reader.bounds(topic)
        ranges = {number: (max(start, since.get(number, 0)), end) for number, (start, end) in bounds.items()}
        async for record in reader.read_range(topic, ranges):
            yield record
