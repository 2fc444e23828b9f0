"""An inspection for people: a few tables, no wider than a page; everything else is in the JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stream_app.cli._context import printable
from stream_app.inspection.catalogue import Catalogue
from stream_app.inspection.choice import InspectedCandidate
from stream_app.inspection.question import shown_time
from stream_app.inspection.report import PUBLISHED, InspectedList, Inspection, Snapshot, WithoutEvent
from stream_app.inspection.trace import TracedEvent
from stream_app.inspection.vectors import InspectedSlice

MAX_WIDTH = 140
"""Columns, at most: beyond, the eye loses the line."""

MAX_EVENTS, MAX_SLICES, MAX_BELOW, MAX_REMOVED, MAX_MOVED = 20, 12, 5, 12, 10
"""Rows and items shown; the newest events and slices, the best of those below the list."""

MAX_ID_CHARS, MAX_TITLE_CHARS = 24, 28
"""Longest id and title shown whole."""

_POPULAR = "popular_"

NUM_REASONS = 2
"""Parts of a score shown: those that count most."""

MAX_DIFFERENCES = 3
"""Differences to the published list that are shown."""


def print_inspection(inspection: Inspection, catalogue: Catalogue) -> None:
    """Print an inspection to stdout."""
    console = Console()
    printer = _Printer(console, catalogue.titles, inspection.weights)
    console.width = min(console.width, MAX_WIDTH)
    at = "newest" if inspection.at_ms is None else f"as of {shown_time(inspection.at_ms)}"
    printer.say(
        f"user {_cut(inspection.user_id)}, {at}: {inspection.source}, partition {inspection.partition}; "
        f"release {inspection.release}"
    )
    for note in inspection.notes:
        printer.say(f"note: {note}")
    printer.snapshot(inspection.snapshot, inspection.half_lives_ms)
    if inspection.without is not None:
        printer.without(inspection.without)


@dataclass(frozen=True)
class _Printer:
    """Prints the parts; `titles` are by item id, `weights` by feature."""

    console: Console
    titles: Mapping[str, str]
    weights: Mapping[str, float]

    def say(self, text: str, *, gap: bool = False) -> None:
        """Print a line as it is, after an empty one where `gap` is set."""
        if gap:
            self.console.print()
        self.console.print(printable(text), markup=False, highlight=False)

    def snapshot(self, snapshot: Snapshot, half_lives_ms: Sequence[float]) -> None:
        """Print events, slices, the list and what was kept out."""
        self._events(snapshot.events)
        if snapshot.answer is None or snapshot.vector is None:
            self.say("no event was applied: there is neither a vector nor a list")
            return
        self._slices(snapshot.slices, half_lives_ms)
        vector = snapshot.vector
        as_published = {None: "not compared", True: "as published", False: "NOT as published"}[vector.is_as_published]
        norms = ", ".join(f"{norm:.3f}" for norm in vector.merged_norms)
        self.say(
            f"user vector: norm {vector.norm:.3f}, {vector.num_merged} slices merged (norms {norms}); {as_published}"
        )
        self._list(snapshot.answer, snapshot.candidates)
        self._removed(snapshot)

    def without(self, without: WithoutEvent) -> None:
        """Print what would change."""
        offsets = ", ".join(map(str, without.offsets))
        self.say(f"without offset {offsets}:", gap=True)
        if without.snapshot.answer is None:
            self.say("  there would be no list")
        changes = without.changes
        if not (changes.items_in or changes.items_out or changes.moved):
            self.say("  the list would hold the same items in the same order")
            return
        for name, items in (("in", changes.items_in), ("out", changes.items_out)):
            self.say(f"  {name}: {', '.join(map(self._named, items)) or '-'}")
        moved = [f"{self._named(item)} {before} -> {after}" for item, before, after in changes.moved[:MAX_MOVED]]
        rest = len(changes.moved) - len(moved)
        self.say(f"  moved: {', '.join(moved) or '-'}" + (f" and {rest} more" if rest > 0 else ""))

    def _events(self, events: Sequence[TracedEvent]) -> None:
        table = _table("offset", "time", "type", "item", "title", "outcome", "slice")
        for event in events[-MAX_EVENTS:]:
            table.add_row(
                str(event.offset),
                "" if event.ts is None else shown_time(event.ts),
                _safe(event.type or ""),
                _safe(event.item_id or ""),
                self._title(event.item_id or ""),
                _safe(event.outcome if event.detail is None else f"{event.outcome} ({event.detail})", MAX_WIDTH),
                "" if event.slice is None else str(event.slice),
            )
        self._print("events", table, len(events), MAX_EVENTS)

    def _slices(self, slices: Sequence[InspectedSlice], half_lives_ms: Sequence[float]) -> None:
        shares = [f"M {_duration(half_life)}" for half_life in half_lives_ms]
        table = _table("slice", "rev", "last event", "span", "events", "closed by", "weight", "norm", *shares)
        for part in slices[-MAX_SLICES:]:
            table.add_row(
                str(part.slice),
                str(part.revision),
                shown_time(part.last_ts),
                _duration(part.last_ts - part.first_ts),
                str(len(part.items)),
                (part.closed_by or "open") + ("" if part.in_history else " (forgotten)"),
                f"{part.weight:g}",
                f"{part.norm:.3f}",
                *(["local"] * len(shares) if part.shares is None else [f"{share:.1%}" for share in part.shares]),
            )
        self._print("slices", table, len(slices), MAX_SLICES)

    def _list(self, answer: InspectedList, candidates: Sequence[InspectedCandidate]) -> None:
        made = answer.recommendation
        self.say(
            f"list {made.recommendation_id} for the event at {shown_time(made.event_ts)}, offset {made.offset}; "
            f"epoch {made.epoch} ({answer.epoch_by}), index {made.index_version}",
            gap=True,
        )
        if answer.origin != PUBLISHED:
            self.say("  no list for this event was found published: it is made anew here")
        elif answer.differences:
            self.say(f"  published; made anew it DIFFERS: {'; '.join(answer.differences[:MAX_DIFFERENCES])}")
        else:
            self.say("  published; made anew it is the same, item by item")
        table = _table("rank", "item", "title", "score", "sources", "most of the score")
        num_listed = sum(one.is_listed for one in candidates)
        for one in candidates[: num_listed + MAX_BELOW]:
            rank = str(one.rank) if one.is_listed else f"({one.rank})"
            sources = _sources(one.sources)
            table.add_row(
                rank, _safe(one.item_id), self._title(one.item_id), f"{one.score:.4f}", sources, self._why(one)
            )
        self._print("candidates", table, len(candidates), num_listed + MAX_BELOW)

    def _removed(self, snapshot: Snapshot) -> None:
        by_rule = sorted(snapshot.removed, key=lambda one: one.rule)
        for rule, group in groupby(by_rule, key=lambda one: one.rule):
            removed = list(group)
            shown = ", ".join(self._named(one.item_id) for one in removed[:MAX_REMOVED])
            rest = f" and {len(removed) - MAX_REMOVED} more" if len(removed) > MAX_REMOVED else ""
            self.say(f"kept out as {rule}: {len(removed)} ({shown}{rest})")
        below = sum(not one.is_listed for one in snapshot.candidates)
        self.say(f"below the list: {below} candidates")

    def _why(self, candidate: InspectedCandidate) -> str:
        parts = {name: value * self.weights[name] for name, value in candidate.features.items()}
        parts["network"] = candidate.network
        most = sorted(parts.items(), key=lambda part: -abs(part[1]))[:NUM_REASONS]
        return ", ".join(f"{name} {value:+.2f}" for name, value in most)

    def _title(self, item_id: str) -> str:
        return _safe(self.titles.get(item_id, ""), MAX_TITLE_CHARS)

    def _named(self, item_id: str) -> str:
        title = self.titles.get(item_id)
        return _cut(item_id) if title is None else f"{_cut(item_id)} {_cut(title)}"

    def _print(self, name: str, table: Table, num_all: int, num_shown: int) -> None:
        left = num_all - num_shown
        self.say(f"{name}: {num_all}" + (f" ({num_shown} shown, all with --json)" if left > 0 else ""), gap=True)
        self.console.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _cut(text: str, max_chars: int = MAX_ID_CHARS) -> str:
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"


def _safe(text: str, max_chars: int = MAX_ID_CHARS) -> str:
    return escape(printable(_cut(text, max_chars)))


def _sources(names: Sequence[str]) -> str:
    """The sources of an item, with the half-lives of popularity together."""
    popular = [name.removeprefix(_POPULAR) for name in names if name.startswith(_POPULAR)]
    others = [name for name in names if not name.startswith(_POPULAR)]
    return ", ".join([*others, f"popular {' '.join(popular)}"] if popular else others)


def _duration(ms: float) -> str:
    units: tuple[tuple[float, str], ...] = (
        (365 * 86_400_000.0, "y"),
        (86_400_000.0, "d"),
        (3_600_000.0, "h"),
        (60_000.0, "m"),
    )
    for size, unit in units:
        if ms >= size:
            return f"{ms / size:.3g}{unit}"
    return f"{ms / 1000:.3g}s"
