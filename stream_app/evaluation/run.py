"""One evaluation from a file to its figures: read, split, train, choose the baselines' dials, judge."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from encoders.item_features import ItemContent
from encoders.sasrec import SasrecConfig
from encoders.training_config import TrainConfig
from stream_app.errors import UsageError
from stream_app.evaluation.baselines import Baseline, Panel, Popularity, SmoothedStatistic
from stream_app.evaluation.families import choose_dials, families, histories_of, standard_panel
from stream_app.evaluation.frozen_sasrec import NAME as SASREC
from stream_app.evaluation.frozen_sasrec import SasrecScores, trained_on_all, trained_on_log
from stream_app.evaluation.judging import PROTOCOLS, Findings, Report
from stream_app.evaluation.leave_one_out import HeldOut, hold_out, leave_one_out, own_ranks, read_sequences
from stream_app.evaluation.neighbours import ItemNeighbours
from stream_app.evaluation.own_lists import stream_lists
from stream_app.evaluation.results import EvaluationReport, report_of
from stream_app.evaluation.segments import age_segments, segments
from stream_app.evaluation.statistics import DecayedPopularity, Transitions
from stream_app.event_log import LogEvents, read_events
from stream_app.models import as_model_error, served_model
from stream_app.records import Event
from stream_app.settings import Settings
from stream_app.training import TrainingItems, train

LEAVE_ONE_OUT_WINDOW = 192
"""Items that SASRec reads where histories are long and nothing is streamed; as in the published tables."""

FOREVER_S = 1e12
"""Half-life of a count that does not decay: 30,000 years."""


@dataclass(frozen=True)
class EvaluationOptions:
    """What is asked for.

    Args:
        protocol: Name of the protocol.
        split: Share of the events, by time, before the split.
        model: Folder of a model to judge; None: one is trained.
        only_baselines: Judge no model of our own.
        budget_s: Processor time for each training.
        seed: Of trainings and resampling.
        contents: What the catalogue says of items, by id; the model that is trained learns from it, and items that
            appear later have vectors by it.
    """

    protocol: str = "prequential"
    split: float = 0.8
    model: Path | None = None
    only_baselines: bool = False
    budget_s: float = 300.0
    seed: int = 0
    contents: Mapping[str, ItemContent] | None = None


def evaluate_log(
    path: Path,
    settings: Settings,
    options: EvaluationOptions,
    report: Report,
    fields: Mapping[str, str] | None = None,
    ts_unit: Literal["ms", "s", "us"] | None = None,
    limit: int | None = None,
) -> EvaluationReport:
    """Judge on an event log.

    Raises:
        LogFormatError: The file is no event log, or holds no event of the settings' types.
        ModelError: The model cannot be used, or there is too little to train one.
        UsageError: Nothing is left to judge.
    """
    log = read_events(path, settings, fields=fields, ts_unit=ts_unit, limit=limit)
    report(f"{len(log.events):,} events; {log.num_refused:,} rows were no events of the types in the settings")
    if options.protocol == "leave-one-out":
        return _leave_one_out(log.events, settings, options, report)
    return evaluate_events(log, settings, options, report)


def evaluate_sequences(path: Path, settings: Settings, options: EvaluationOptions, report: Report) -> EvaluationReport:
    """Leave-one-out on a text file with the items of one user on each line.

    Raises:
        LogFormatError: The file cannot be read.
        ModelError: There is too little to train on.
    """
    return _leave_one_out(read_sequences(path, next(iter(settings.event_types))), settings, options, report)


def evaluate_events(log: LogEvents, settings: Settings, options: EvaluationOptions, report: Report) -> EvaluationReport:
    """Judge by a protocol in time; see `judging`. All models learn from the events before the split alone.

    Raises:
        ModelError: The model cannot be used, or there is too little to train one.
        UsageError: Nothing is left to judge.
    """
    from_ms = log.quantile_ms(options.split)
    past = [event for event in log.events if event.ts < from_ms]
    with tempfile.TemporaryDirectory(prefix="sliceflow-evaluate-") as folder:
        lists_of, notes = None, {"split": f"{len(past):,} of {len(log.events):,} events before {from_ms} ms"}
        if not options.only_baselines:
            model = options.model or own_model(past, settings, Path(folder), options, report)
            own = msgspec.structs.replace(settings, model=str(model))
            notes["model"] = served_model(own).release
            lists_of = stream_lists(own, options.contents)
        panel, told = baseline_panel(past, options, report)
        findings = PROTOCOLS[options.protocol](log.events, from_ms, panel, lists_of, report)
    return _report(findings, past, notes | told, options)


def baseline_panel(past: Sequence[Event], options: EvaluationOptions, report: Report) -> tuple[Panel, dict[str, str]]:
    """The baselines, fitted to the time before the split, and what was chosen for them.

    Raises:
        ModelError: There is too little to train SASRec on.
    """
    started_s = time.monotonic()
    chosen = choose_dials(past)
    report(f"baselines: dials chosen in {time.monotonic() - started_s:.0f} s")
    sasrec = SasrecConfig(time_budget_s=options.budget_s, seed=options.seed)
    with as_model_error():
        frozen = SmoothedStatistic(SASREC, trained_on_log(past, sasrec, report))
    told = {family.name: chosen[family.name].told(family) for family in families() if family.name in chosen}
    return standard_panel(past, chosen, [frozen]), told


def own_model(
    past: Sequence[Event], settings: Settings, folder: Path, options: EvaluationOptions, report: Report
) -> Path:
    """Train a model of our own on the past; its folder.

    Raises:
        ModelError: There is too little to train on.
    """
    config = TrainConfig(slice_events=settings.slice_events, time_budget_s=options.budget_s, seed=options.seed)
    items = TrainingItems(options.contents) if options.contents else None
    train(past, settings, folder / "model", config=config, report=report, clock=time.process_time, items=items)
    return folder / "model"


def _leave_one_out(
    events: Sequence[Event], settings: Settings, options: EvaluationOptions, report: Report
) -> EvaluationReport:
    held = hold_out(events)
    if not held.taken:
        raise UsageError("No user has two different items.", mend="give a longer log")
    ranks = None
    if not options.only_baselines:
        config = TrainConfig(time_budget_s=options.budget_s, max_epochs=1000, seed=options.seed)
        ranks = own_ranks(held, settings, config, report)
    sasrec_config = SasrecConfig(
        window=LEAVE_ONE_OUT_WINDOW, time_budget_s=options.budget_s, max_epochs=1000, seed=options.seed
    )
    with as_model_error():
        sasrec = trained_on_all(held.past, sasrec_config, report)
    findings = leave_one_out(held, counted_panel(held, sasrec), ranks, report)
    return _report(findings, held.past, {"held out": f"{len(held.taken):,} items"}, options)


def counted_panel(held: HeldOut, sasrec: SasrecScores) -> Panel:
    """The baselines of leave-one-out: nothing decays, since the order of different users' events means nothing."""
    counts = DecayedPopularity(FOREVER_S)
    neighbours = ItemNeighbours.family(histories_of(held.past).items_by_user(), (10,))[0]
    baselines: list[Baseline] = [
        Popularity("popularity", counts),
        SmoothedStatistic("last-item transitions", Transitions(None), counts, 10.0),
        SmoothedStatistic("item-kNN", neighbours, counts, 1e-6),
        SmoothedStatistic(SASREC, sasrec),
    ]
    return Panel(baselines)


def _report(
    findings: Findings, past: Sequence[Event], notes: Mapping[str, str], options: EvaluationOptions
) -> EvaluationReport:
    if not findings.targets:
        raise UsageError(
            "Nothing is left to judge: no event after the split is on an item that is new to a known user.",
            mend="give a longer log, or an earlier --split",
        )
    found = segments(findings.targets, past)
    if findings.protocol in PROTOCOLS:
        found |= age_segments(findings.targets)
    return report_of(findings, found, notes, seed=options.seed)
