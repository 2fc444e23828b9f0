"""An evaluation as plain text: for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from stream_app.evaluation.results import CHIEF, EvaluationReport, MethodResult

SHOWN = ("HR@10", "NDCG@10", "MRR@10", "HR@20", "Recall@10", "Precision@10", "F1@10", "MAP@10", "Accuracy@1", "AUC")
"""Measures of the text table."""

BEYOND_HEADER = ("coverage", "novelty (bits)", "popularity percentile", "mean users")
"""What is told of the first ten items of lists."""


def text_of(report: EvaluationReport) -> str:
    """All tables, one below the other."""
    head = (
        f"{report.protocol}: {report.targets:,} targets in {report.lists:,} lists of {report.users:,} users, "
        f"{report.items:,} items"
    )
    parts = [head, quality_table(report), beyond_table(report)]
    if report.segments:
        parts.append(segment_table(report))
    if report.notes:
        parts.append("\n".join(f"{name}: {value}" for name, value in report.notes.items()))
    return "\n\n".join(parts)


def quality_table(report: EvaluationReport) -> str:
    """Every method, the best NDCG@10 first, with the 95% interval and how far it is behind the first method."""
    rows = []
    for method in by_quality(report.methods):
        chief = method.measures[CHIEF]
        cells = [f"{method.measures[name].mean:.4f}" for name in SHOWN]
        rows.append([method.name, *cells, f"{chief.low:.4f} to {chief.high:.4f}", difference_text(method)])
    return aligned(["method", *SHOWN, f"{CHIEF} 95%", f"{report.methods[0].name} is ahead by"], rows)


def difference_text(method: MethodResult) -> str:
    """The paired difference in NDCG@10 with its interval; empty for the first method."""
    if method.behind_first is None:
        return ""
    found = method.behind_first.by_measure[CHIEF]
    return f"{found.mean:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def beyond_table(report: EvaluationReport) -> str:
    """What the first ten items of the lists are like."""
    rows = [
        [method.name, *beyond_cells(method)] for method in by_quality(report.methods) if method.coverage is not None
    ]
    return aligned(["first ten items", *BEYOND_HEADER], rows)


def beyond_cells(method: MethodResult) -> list[str]:
    """What the first ten items of a method's lists are like, in the columns of `BEYOND_HEADER`."""
    return [
        number(method.coverage, 3),
        number(method.novelty_bits, 2),
        number(method.popularity_percentile, 3),
        number(method.mean_users, 1),
    ]


def segment_table(report: EvaluationReport) -> str:
    """NDCG@10 of the first method and of the best other one, by segment."""
    names = report.compared()
    rows = [
        [part.name, f"{part.targets:,}", f"{part.share:.1%}", *(f"{part.measures[name][CHIEF]:.4f}" for name in names)]
        for part in report.segments
    ]
    return aligned(["segment", "targets", "share", *(f"{CHIEF} {name}" for name in names)], rows)


def by_quality(methods: Sequence[MethodResult]) -> list[MethodResult]:
    """The methods, the best NDCG@10 first."""
    return sorted(methods, key=lambda method: -method.measures[CHIEF].mean)


def number(value: float | None, num_digits: int) -> str:
    """A number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{num_digits}f}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, all others to the right.

    >>> print(aligned(["name", "n"], [["a", "10"], ["bcdef", "7"]]))
    name    n
    a      10
    bcdef   7
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)
