"""Bar charts as inline SVG: text and shapes alone, coloured by the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

ROW_PX = 26
LABEL_PX = 300
PLOT_PX = 460
VALUE_PX = 170
TOP_PX = 8
BAR_PX = 14


@dataclass(frozen=True)
class Bar:
    """One bar.

    Args:
        label: What stands before it.
        value: Its length.
        low: Lower end of its interval; None: no interval is drawn.
        high: Upper end.
        kind: Its CSS class: `own` or `other`.
    """

    label: str
    value: float
    low: float | None = None
    high: float | None = None
    kind: str = "other"


def bar_chart(bars: Sequence[Bar], title: str) -> str:
    """Horizontal bars from a common zero, with intervals as whiskers and values behind them.

    Args:
        bars: At least one, from top to bottom.
        title: What screen readers say.
    """
    ends = [end for bar in bars for end in (bar.value, bar.low, bar.high) if end is not None]
    least, most = min(0.0, *ends), max(0.0, *ends)
    scale = PLOT_PX / ((most - least) or 1.0)
    zero = LABEL_PX - least * scale
    height = len(bars) * ROW_PX + 2 * TOP_PX
    rows = [_row(bar, TOP_PX + place * ROW_PX, zero, scale) for place, bar in enumerate(bars)]
    return (
        f'<svg role="img" viewBox="0 0 {LABEL_PX + PLOT_PX + VALUE_PX} {height}" xmlns="http://www.w3.org/2000/svg">'
        f"<title>{escape(title)}</title>{''.join(rows)}"
        f'<line class="axis" x1="{zero:.1f}" x2="{zero:.1f}" y1="{TOP_PX - 4}" y2="{height - TOP_PX + 4}"/></svg>'
    )


def _row(bar: Bar, top: int, zero: float, scale: float) -> str:
    end = zero + bar.value * scale
    middle = top + ROW_PX / 2
    parts = [
        f'<text class="label" x="{LABEL_PX - 10}" y="{middle + 4:.1f}" text-anchor="end">{escape(bar.label)}</text>',
        f'<rect class="{bar.kind}" x="{min(zero, end):.1f}" y="{middle - BAR_PX / 2:.1f}" '
        f'width="{abs(end - zero):.1f}" height="{BAR_PX}" rx="2"/>',
    ]
    right = max(zero, end)
    text = f"{bar.value:.4f}"
    if bar.low is not None and bar.high is not None:
        left_end, right_end = zero + bar.low * scale, zero + bar.high * scale
        parts.append(
            f'<path class="whisker" d="M{left_end:.1f} {middle:.1f}H{right_end:.1f}'
            f'M{left_end:.1f} {middle - 4:.1f}v8M{right_end:.1f} {middle - 4:.1f}v8"/>'
        )
        right = max(right, right_end)
        text += f"  ({bar.low:.4f} to {bar.high:.4f})"
    parts.append(f'<text class="value" x="{right + 8:.1f}" y="{middle + 4:.1f}">{escape(text)}</text>')
    return "".join(parts)
