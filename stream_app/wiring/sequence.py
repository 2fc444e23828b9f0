"""Wiring of the `sequence` role."""

from __future__ import annotations

from stream_app import tables, topics
from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.faustkit import BatchApp
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report) -> RoleApp:
    """Join the `sequence` role to its topics and table."""
    rules = clean_rules(settings)
    names = SequenceTopics(
        slices=topics.prefixed(settings.prefix, topics.SLICES),
        activity=topics.prefixed(settings.prefix, topics.ITEM_ACTIVITY),
        dead_letter=topics.prefixed(settings.prefix, topics.DEAD_LETTER),
        status=topics.prefixed(settings.prefix, topics.STATUS),
        num_partitions=settings.partitions,
    )

    def new_processor(partition: int) -> SequenceProcessor:
        return SequenceProcessor(sequence_stage(settings, partition), rules, names)

    app.attach(topics.prefixed(settings.prefix, topics.EVENTS), new_processor, table=tables.USER_HISTORIES)
    return RoleApp(app)
