"""Segments, figures, tables and the page: right numbers, paired, escaped, and nothing fetched."""

from __future__ import annotations

import math
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest

from stream_app.evaluation.html import html_of
from stream_app.evaluation.judging import OURS, Answers, Findings, Target
from stream_app.evaluation.results import EvaluationReport, report_of
from stream_app.evaluation.segments import age_segments, head_items, segments
from stream_app.evaluation.svg import Bar, bar_chart
from stream_app.evaluation.text import text_of
from tests.evaluation.cases import event

EVIL = '<script>alert("x")</script>&'

PAST = [event("a", item, 0) for item in "pppqqrs"]
TARGETS = [
    Target("a", "p", "click", 1),
    Target("a", "new", "buy", None),
    Target("b", "r", "click", 86_400_000),
    Target("c", "q", "click", 86_399_999),
]


def answered(ranks: list[float]) -> Answers:
    made = Answers(ranks=ranks, num_ranked=[50] * len(ranks), shown={1, 2})
    made.novelty, made.mean_users, made.mean_percentile = [2.0], [7.0], [0.75]
    return made


def made_report(name: str = "popularity") -> EvaluationReport:
    findings = Findings(
        "prequential",
        targets=TARGETS,
        lists=[0, 1, 2, 3],
        users=["a", "a", "b", "c"],
        num_candidates=[50] * 4,
        known=[True, False, True, True],
        answers={OURS: answered([1.0, math.nan, 3.0, 1.0]), name: answered([3.0, math.nan, 3.0, 1.0])},
        num_items=8,
    )
    return report_of(findings, segments(TARGETS, PAST), {"dials": name})


def test_the_head_is_the_smallest_set_with_half_of_the_events() -> None:
    # 3 of 7 for p are not half; with q 5 of 7 are.
    assert head_items(PAST) == {"p", "q"}
    assert head_items([]) == frozenset()
    assert head_items([event("a", item, 0) for item in "ppqr"]) == {"p"}


def test_segments_by_item_user_and_type() -> None:
    found = {name: chosen.astype(int).tolist() for name, chosen in segments(TARGETS, PAST).items()}
    assert found == {
        "new items": [0, 1, 0, 0],
        "old items": [1, 0, 1, 1],
        "head items": [1, 0, 0, 1],
        "tail items": [0, 0, 1, 0],
        "new users": [0, 0, 1, 1],
        "returning users": [1, 1, 0, 0],
        "type buy": [0, 1, 0, 0],
        "type click": [1, 0, 1, 1],
    }


def test_segments_by_the_age_of_the_item() -> None:
    found = {name: chosen.astype(int).tolist() for name, chosen in age_segments(TARGETS).items()}
    assert found == {"items of the day": [1, 0, 0, 1], "older items": [0, 0, 1, 0], "items unheard of": [0, 1, 0, 0]}


def test_a_segment_that_holds_nothing_is_left_out() -> None:
    assert "new items" not in segments(TARGETS[:1], PAST)
    assert list(age_segments(TARGETS[:1])) == ["items of the day"]


def test_figures_of_two_methods() -> None:
    report = made_report()
    own, other = report.methods
    assert own.measures["NDCG@10"].mean == pytest.approx((1 + 0 + 0.5 + 1) / 4)
    assert other.measures["NDCG@10"].mean == pytest.approx((0.5 + 0 + 0.5 + 1) / 4)
    assert own.behind_first is None and other.behind_first is not None
    assert other.behind_first.by_measure["NDCG@10"].mean == pytest.approx(0.5 / 4)
    assert other.behind_first.ratio == pytest.approx(2.5 / 2)
    # Only user a makes a difference: where a is not drawn there is none.
    assert other.behind_first.by_measure["NDCG@10"].low == 0.0
    assert (own.coverage, own.novelty_bits, own.mean_users) == (2 / 8, 2.0, 7.0)
    part = {one.name: one for one in report.segments}["head items"]
    assert (part.targets, part.share) == (2, 0.5)
    assert part.measures["popularity"]["NDCG@10"] == pytest.approx(0.75)


def test_the_json_can_be_read_back() -> None:
    report = made_report()
    assert msgspec.json.decode(msgspec.json.encode(report), type=EvaluationReport) == report


def test_the_text_puts_the_best_first() -> None:
    lines = text_of(made_report("zz")).splitlines()
    assert lines[0] == "prequential: 4 targets in 4 lists of 3 users, 8 items"
    assert [line.split()[0] for line in lines[2:5]] == ["method", OURS, "zz"]
    assert "+0.1250" in lines[4]


class _Page(HTMLParser):
    """All tags, and whatever a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.fetched: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.fetched += [pair for pair in attrs if pair[0] in ("src", "href") or pair[0].startswith("on")]


def test_the_page_runs_and_fetches_nothing_and_escapes_all_text() -> None:
    text = html_of(made_report(EVIL))
    page = _Page()
    page.feed(text)
    assert "script" not in page.tags and page.fetched == []
    assert EVIL not in text and "&lt;script&gt;" in text
    assert "prefers-color-scheme: dark" in text
    for chart in text.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + chart.split("</svg>")[0] + "</svg>")


def test_bars_are_as_long_as_their_values() -> None:
    chart = ElementTree.fromstring(bar_chart([Bar("a", 0.5, 0.4, 0.6, "own"), Bar(EVIL, 0.25)], "two"))
    rects = [one for one in chart.iter() if one.tag.endswith("rect")]
    widths = [float(one.get("width", "0")) for one in rects]
    assert widths[0] == pytest.approx(2 * widths[1], rel=1e-3)
    assert [one.get("class") for one in rects] == ["own", "other"]


def test_negative_bars_grow_to_the_left() -> None:
    chart = ElementTree.fromstring(bar_chart([Bar("a", -0.1), Bar("b", 0.1)], "two"))
    first, second = (one for one in chart.iter() if one.tag.endswith("rect"))
    end = float(first.get("x", "0")) + float(first.get("width", "0"))
    assert end == pytest.approx(float(second.get("x", "0")), abs=0.2)


def test_bars_of_nothing_can_be_drawn() -> None:
    assert "0.0000" in bar_chart([Bar("a", 0.0)], "nothing")
    assert np.isfinite(float(bar_chart([Bar("a", 0.0)], "x").split('width="')[1].split('"')[0]))
