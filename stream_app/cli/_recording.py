"""What `replay` does with the outcome: write it to a file, compare it with one, and sum it up for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from stream_app.errors import UsageError
from stream_app.recording import (
    FORMAT,
    RecordedReplay,
    Recorder,
    Recording,
    read_recording,
    recorded_settings,
    write_recording,
)
from stream_app.recording_check import NOTHING, Comparison, compare
from stream_app.settings import Settings


@dataclass(frozen=True)
class Wish:
    """What is to be done with lists and slices; without any wish there is no `recorder` and nothing is kept."""

    recorder: Recorder | None = None
    out: Path | None = None
    golden_path: Path | None = None
    golden: Recording | None = None
    score_tolerance: float = 0.0

    def fulfil(self, outcome: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
        """Write and compare what the recorder took; the result of the comparison, in plain values.

        Args:
            outcome: The replay's facts, as its line of JSON has them.
            settings: The settings of the replay.

        Raises:
            UsageError: The file cannot be written.
        """
        if self.recorder is None:
            return {}
        found = self.recorder.recording(_first_line(outcome, settings))
        if self.out is not None:
            write_recording(found, self.out)
        if self.golden is None:
            return {}
        compared = compare(self.golden, found, score_tolerance=self.score_tolerance)
        if compared.first is not None:
            num_differing = f"{compared.num_differing} of {compared.num_records} records"
            click.echo(f"{compared.first.text()}\n{num_differing} differ from {self.golden_path}.", err=True)
        return _plain(compared)


def prepare(out: Path | None, golden: Path | None, score_tolerance: float) -> Wish:
    """Read the golden file, and see that there is a place for the new one, before anything is replayed.

    Raises:
        UsageError: The golden file cannot be read or is no recording, the folder of `out` is not there, or there is a
            tolerance and nothing to compare with.
    """
    if score_tolerance and golden is None:
        raise UsageError("--score-tolerance belongs to --check, which is not there.", mend="add --check GOLDEN")
    if out is None and golden is None:
        return Wish()
    if out is not None and not out.absolute().parent.is_dir():
        raise UsageError(
            f"The recording cannot be written to {out}: there is no such folder.", mend="make the folder first"
        )
    return Wish(Recorder(), out, golden, None if golden is None else read_recording(golden), score_tolerance)


def summary(outcome: Mapping[str, Any]) -> str:
    """A few lines for people."""
    lines = _outcome_lines(outcome)
    if "prefix" in outcome:
        lines.append(f"topics and groups begin with {outcome['prefix']}; state in {outcome['state_dir']}")
    if outcome.get("broken_off"):
        lines.append(f"broken off: the same call with --resume goes on (its place is in {outcome['place']})")
    return "\n".join(lines)


def _outcome_lines(outcome: Mapping[str, Any]) -> list[str]:
    if "applied" not in outcome:
        return [f"{outcome['events_in']:,} events of {outcome['users']:,} users sent in {outcome['seconds']:g} s"]
    refused = [f"{num:,} {reason}" for reason, num in outcome["dead_letter_reasons"].items()]
    dropped = [f"{num:,} {name}" for name, num in outcome["dropped"].items()]
    return [
        f"{outcome['events_in']:,} events in {outcome['seconds']:g} s: {outcome['applied']:,} applied, "
        f"{outcome['dead_lettered']:,} dead letters{_listed(refused)}, "
        f"{sum(outcome['dropped'].values()):,} dropped{_listed(dropped)}",
        f"{outcome['recommendations']:,} of {outcome['users']:,} users have a list",
    ]


def _listed(parts: list[str]) -> str:
    return f" ({', '.join(parts)})" if parts else ""


def _first_line(outcome: Mapping[str, Any], settings: Settings) -> RecordedReplay:
    return RecordedReplay(
        format=FORMAT,
        events_in=outcome["events_in"],
        applied=outcome["applied"],
        dead_letters=dict(sorted(outcome["dead_letter_reasons"].items())),
        dropped=dict(sorted(outcome["dropped"].items())),
        users=outcome["users"],
        settings=recorded_settings(settings),
    )


def _plain(compared: Comparison) -> dict[str, Any]:
    facts: dict[str, Any] = {"same": compared.first is None, "differing": compared.num_differing}
    if compared.first is not None:
        fields = [
            {"field": field.path}
            | ({} if field.expected is NOTHING else {"expected": field.expected})
            | ({} if field.found is NOTHING else {"found": field.found})
            for field in compared.first.fields
        ]
        facts["first_difference"] = {"record": compared.first.name, "line": compared.first.line, "fields": fields}
    return facts
