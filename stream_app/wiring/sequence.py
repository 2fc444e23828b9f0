"""Wiring of the `sequence` role."""

from __future__ import annotations

from stream_app import tables, topics
from stream_app.agents.sequence import SequenceProcessor, SequenceTopics
from stream_app.erasing import CutAtErasures, erasures_of_events
from stream_app.faustkit import BatchApp
from stream_app.monitoring.processors import CountedSequence
from stream_app.monitoring.role_metrics import RoleMetrics
from stream_app.settings import Settings
from stream_app.settings_rules import clean_rules, sequence_stage
from stream_app.wiring.role_app import Report, RoleApp


def build(settings: Settings, app: BatchApp, report: Report, metrics: RoleMetrics) -> RoleApp:
    """Join the `sequence` role to its topics and table."""
    rules = clean_rules(settings)
    names = SequenceTopics(
        slices=topics.prefixed(settings.prefix, topics.SLICES),
        activity=topics.prefixed(settings.prefix, topics.ITEM_ACTIVITY),
        dead_letter=topics.prefixed(settings.prefix, topics.DEAD_LETTER),
        status=topics.prefixed(settings.prefix, topics.STATUS),
        num_partitions=settings.partitions,
    )

    outcomes = metrics.tally("events", "Events by what became of them.", "outcome")
    drops = metrics.tally("events_dropped", "Valid events that changed nothing, by name.", "reason")
    dead_letters = metrics.tally("dead_letters", "Records that are no valid event, by reason.", "reason")

    def new_processor(partition: int) -> CutAtErasures:
        stage = sequence_stage(settings, partition)
        processor = SequenceProcessor(stage, rules, names)
        counted = CountedSequence(processor, stage, names.slices, outcomes, drops, dead_letters)
        return CutAtErasures(counted, erasures_of_events(rules))

    app.attach(topics.prefixed(settings.prefix, topics.EVENTS), new_processor, table=tables.USER_HISTORIES)
    return RoleApp(app, metrics)
