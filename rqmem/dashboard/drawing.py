"""Small pictures as SVG inside a page: bars, histograms, sparklines. Pure.

They have no style of their own and no script: classes of app.css give the colours, so they follow the theme. A picture
that says nothing beyond the text next to it is hidden from screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from markupsafe import Markup, escape

if TYPE_CHECKING:
    from rqmem.dashboard.lanes import Lane

HIGH, FULL = 0.8, 0.95
"""Of the ceiling: colours begin, and it is about to be stopped."""


def mood(share: float | None) -> str:
    """The colour of a share of the ceiling."""
    return "accent" if share is None or share < HIGH else "warning" if share < FULL else "bad"


def bar(share: float | None, colour: str = "") -> Markup:
    """How full something is. The tick is the ceiling, and what is above it is seen. None: an empty bar."""
    width = 0.0 if share is None or math.isnan(share) else 100 * min(1.1, max(0.0, share))
    return Markup(
        '<svg class="bar" viewBox="0 0 110 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="110" height="10" rx="1"/><rect class="{}" width="{:.1f}" height="10" rx="1"/>'
        '<rect class="tick" x="99.5" width="1" height="10"/></svg>'
    ).format(colour or mood(share), width)


def progress(done: float, colour: str = "good") -> Markup:
    """How much is done, as a fraction: a bar without a ceiling."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10" rx="1"/><rect class="{}" width="{:.1f}" height="10" rx="1"/></svg>'
    ).format(colour, 100 * min(1.0, max(0.0, done)))


def sparkline(values: Sequence[float | None], label: str = "") -> Markup:
    """A small line, the newest at the right. It begins at zero, so that a small change looks small."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    top, step = max(known) or 1.0, 100 / (len(values) - 1)
    points = [(i * step, 24 - 22 * value / top) for i, value in enumerate(values) if value is not None]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    area = f"{points[0][0]:.1f},26 {line} {points[-1][0]:.1f},26"
    hidden = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    return Markup(
        '<svg class="sparkline" viewBox="0 0 100 26" preserveAspectRatio="none" {}>'
        '<polygon class="sparkfill" points="{}"/><polyline class="spark" points="{}"/></svg>'
    ).format(hidden, area, line)


def lane(shown: Lane, first: float, last: float) -> Markup:
    """When something ran, between the first and the last time of all lanes, and what happened in it."""
    span = (last - first) or 1.0

    def x(at: float) -> float:
        return round(1000 * (at - first) / span, 1)

    parts = [
        Markup('<rect class="{}" x="{}" y="7" width="{}" height="10" rx="2"/>').format(
            shown.colour, x(shown.begin), max(3.0, x(shown.end) - x(shown.begin))
        )
    ]
    tops = {"chunk": (7, 17), "collection": (12, 22), "breach": (0, 24)}
    for at, kind in shown.marks:
        top, bottom = tops[kind]
        parts.append(
            Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, x(at), x(at), top, bottom)
        )
    inside = Markup("").join(parts)
    return Markup(
        '<svg class="lane" viewBox="0 0 1000 24" preserveAspectRatio="none" aria-hidden="true">{}</svg>'
    ).format(inside)


def histogram(
    counts: Sequence[tuple[float, float, float]], marks: Sequence[tuple[str, float, str]], unit: str, label: str
) -> Markup:
    """How often which size was seen.

    Args:
        counts: from, to, and how often, in rising order.
        marks: class (``ceiling`` or ``advised``), place and text of each line drawn through it.
    """
    if not counts:
        return Markup("")
    places = [place for _, place, _ in marks]
    low, high = min(counts[0][0], *places, math.inf), max(counts[-1][1], *places, -math.inf)
    span, top = (high - low) * 1.06 or 1.0, max(count for _, _, count in counts)
    left = low - (high - low) * 0.03

    def x(value: float) -> float:
        return 10 + 580 * (value - left) / span

    parts = [Markup('<line class="axis" x1="0" x2="600" y1="140" y2="140"/>')]
    for begin, end, count in counts:
        height = max(1.5 if count else 0.0, 108 * count / top)
        parts.append(
            Markup('<rect class="accent" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                x(begin), 140 - height, max(1.0, x(end) - x(begin) - 1), height
            )
        )
    for number, (kind, place, text) in enumerate(marks):
        at, to_left = x(place), x(place) > 400
        parts.append(
            Markup(
                '<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{}" y2="140"/>'
                '<text x="{:.1f}" y="{}" text-anchor="{}">{}</text>'
            ).format(
                kind, at, at, 4 + 14 * number, at + (-5 if to_left else 5), 13 + 14 * number,
                "end" if to_left else "start", text,
            )
        )  # fmt: skip
    for value, anchor in ((low, "start"), (high, "end")):
        label_of_end = Markup('<text x="{:.1f}" y="155" text-anchor="{}">{:,.0f} {}</text>')
        parts.append(label_of_end.format(x(value), anchor, value, unit))
    inside = Markup("").join(parts)
    return Markup('<svg class="histogram" viewBox="0 0 600 160" role="img" aria-label="{}">{}</svg>').format(
        escape(label), inside
    )
