"""An evaluation as one HTML file: no script, nothing fetched, light and dark. Every text is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from stream_app.evaluation.results import CHIEF, EvaluationReport, MethodResult
from stream_app.evaluation.svg import Bar, bar_chart
from stream_app.evaluation.text import BEYOND_HEADER, beyond_cells, by_quality, difference_text
from stream_app.stages.metrics import ALL_METRICS

_STYLE: Final = """
:root { color-scheme: light dark; --text: #1d2330; --soft: #5b6474; --page: #ffffff; --line: #d5dae3;
  --own: #1f6fb2; --other: #a9b4c4; --row: #f4f6f9; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ef; --soft: #9aa4b5; --page: #14171d; --line: #333a46;
  --own: #5aa9e6; --other: #566173; --row: #1b2028; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page); margin: 2rem auto;
  max-width: 68rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; } p, dd { color: var(--soft); }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } tr.own td { font-weight: 600; background: var(--row); }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; } svg text { fill: var(--text); }
svg .value { fill: var(--soft); } rect.own { fill: var(--own); } rect.other { fill: var(--other); }
.whisker { stroke: var(--text); fill: none; stroke-width: 1.2; } .axis { stroke: var(--line); }
dt { font-weight: 600; } dd { margin: 0 0 .4rem 0; }
"""


def html_of(report: EvaluationReport) -> str:
    """The whole page."""
    head = (
        f"{report.targets:,} targets in {report.lists:,} lists of {report.users:,} users; {report.items:,} items. "
        "Full ranking: every item known so far competes, except those the user has seen."
    )
    parts = [
        f"<h1>Evaluation, {escape(report.protocol)}</h1><p>{escape(head)}</p>",
        _section(f"{CHIEF} with 95% intervals", "Users are resampled with all their lists.", _quality_chart(report)),
        _section(
            f"How far {report.methods[0].name} is ahead in {CHIEF}",
            "Paired: the same users are drawn for both. An interval that does not touch zero is a difference.",
            _difference_chart(report),
        ),
        _section("All measures", "", _measure_table(report)),
        _section("What the first ten items are like", _BEYOND, _beyond_table(report)),
        _section("By segment", "Shares overlap: each target is in several segments.", _segments(report)),
        _section("Notes", "", _notes(report)),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Evaluation, {escape(report.protocol)}</title><style>{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


_BEYOND: Final = (
    "Coverage: share of all items that some list shows. Novelty: mean self-information, in bits. Popularity "
    "percentile: 0.5 would be no bias. Mean users: how many had touched the items shown (average "
    "recommendation popularity)."
)


def _section(title: str, text: str, content: str) -> str:
    """A part of the page; nothing at all where there is no content."""
    if not content:
        return ""
    told = f"<p>{escape(text)}</p>" if text else ""
    return f'<h2>{escape(title)}</h2>{told}<div class="wide">{content}</div>'


def _quality_chart(report: EvaluationReport) -> str:
    bars = []
    for method in by_quality(report.methods):
        found = method.measures[CHIEF]
        bars.append(Bar(method.name, found.mean, found.low, found.high, _kind(report, method.name)))
    return bar_chart(bars, f"{CHIEF} of every method")


def _difference_chart(report: EvaluationReport) -> str:
    bars = []
    for method in by_quality(report.methods):
        if method.behind_first is not None:
            found = method.behind_first.by_measure[CHIEF]
            bars.append(Bar(f"over {method.name}", found.mean, found.low, found.high))
    return bar_chart(bars, f"Differences in {CHIEF}") if bars else ""


def _measure_table(report: EvaluationReport) -> str:
    rows = [
        (method, [f"{method.measures[name].mean:.4f}" for name in ALL_METRICS] + [difference_text(method)])
        for method in by_quality(report.methods)
    ]
    return _table(report, ["method", *ALL_METRICS, f"{CHIEF} difference (95%)"], rows)


def _beyond_table(report: EvaluationReport) -> str:
    rows = [(method, beyond_cells(method)) for method in by_quality(report.methods) if method.coverage is not None]
    return _table(report, ["method", *BEYOND_HEADER], rows) if rows else ""


def _segments(report: EvaluationReport) -> str:
    names = report.compared()
    charts = []
    for part in report.segments:
        bars = [Bar(name, part.measures[name][CHIEF], kind=_kind(report, name)) for name in names]
        title = f"{part.name}: {part.targets:,} targets ({part.share:.1%})"
        charts.append(f"<h3>{escape(title)}</h3>{bar_chart(bars, title)}")
    if not charts:
        return ""
    methods = [method.name for method in by_quality(report.methods)]
    rows = [
        [part.name, f"{part.targets:,}", *(f"{part.measures[name][CHIEF]:.4f}" for name in methods)]
        for part in report.segments
    ]
    header = _cells("th", [CHIEF, "targets", *methods])
    body = "".join(f"<tr>{_cells('td', row)}</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{body}</table>{''.join(charts)}"


def _notes(report: EvaluationReport) -> str:
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in report.notes.items())
    return f"<dl>{told}</dl>" if told else ""


def _table(report: EvaluationReport, header: Sequence[str], rows: Sequence[tuple[MethodResult, Sequence[str]]]) -> str:
    body = "".join(
        f'<tr class="{_kind(report, method.name)}">{_cells("td", [method.name, *cells])}</tr>' for method, cells in rows
    )
    return f"<table><tr>{_cells('th', header)}</tr>{body}</table>"


def _cells(tag: str, texts: Sequence[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _kind(report: EvaluationReport, name: str) -> str:
    return "own" if name == report.methods[0].name else "other"
