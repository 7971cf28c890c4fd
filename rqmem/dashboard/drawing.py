"""Small pictures as SVG inside a page: bars, histograms, sparklines. Pure.

They have no style of their own and no script: classes of app.css give the colours, so they follow the theme. A picture
that says nothing beyond the text next to it is hidden from screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from rqmem.dashboard.lanes import Lane
from rqmem.policy.histogram import bucket

_SMALL_BARS = 16
_SMALL = '<svg class="sparkline" viewBox="0 0 100 26" preserveAspectRatio="none" aria-hidden="true">'
HIGH, FULL = 0.8, 0.95
"""Of the ceiling: colours begin, and it is about to be stopped."""


def mood(share: float | None) -> str:
    return "accent" if share is None or share < HIGH else "warning" if share < FULL else "bad"


def bar(share: float | None, colour: str = "") -> Markup:
    """How full something is. The tick is the ceiling, and what is above it is seen. None: an empty bar."""
    width = 0.0 if share is None or math.isnan(share) else 100 * min(1.1, max(0.0, share))
    return Markup(
        '<svg class="bar" viewBox="0 0 110 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="110" height="10" rx="1"/><rect class="{}" width="{:.1f}" height="10" rx="1"/>'
        '<line class="tick" x1="100" x2="100" y1="0" y2="10"/></svg>'
    ).format(colour or mood(share), width)


def progress(done: float, colour: str = "good") -> Markup:
    """How much is done, as a fraction: a bar without a ceiling."""
    return Markup(
        '<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="10" rx="1"/><rect class="{}" width="{:.1f}" height="10" rx="1"/></svg>'
    ).format(colour, 100 * min(1.0, max(0.0, done)))


def small_histogram(peaks: Mapping[int, float], ceiling_mb: float | None) -> Markup:
    """How many runs had which peak, in growing steps, from the smallest to the largest one or the ceiling: the line."""
    if not peaks:
        return Markup("")
    ceiling = bucket(ceiling_mb) if ceiling_mb else None
    low, end = min(peaks), max(max(peaks), ceiling or 0) + 1
    step = -(-(end - low) // _SMALL_BARS)
    sums: dict[int, float] = {}
    for number, count in peaks.items():
        sums[(number - low) // step] = sums.get((number - low) // step, 0) + count
    scale, top = 100 / (end - low), max(sums.values()) or 1
    width = step * scale
    bars = "".join(
        f"M{at * width:.0f} 26v-{max(3, 24 * count / top):.0f}h{width - 1:.1f}V26" for at, count in sums.items()
    )
    at = max(1, (ceiling - low) * scale) if ceiling is not None else 0
    line = f'<path class="ceiling" d="M{at:.0f} 0V26"/>' if at else ""
    return Markup(f'{_SMALL}<path class="accent" d="{bars}"/>{line}</svg>')


def sparkline(values: Sequence[float | None]) -> Markup:
    """A small line, the newest at the right. It begins at zero, so that a small change looks small."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return Markup("")
    top, step = max(known) or 1.0, 100 / (len(values) - 1)
    points = [f"{i * step:.0f} {24 - 22 * value / top:.1f}" for i, value in enumerate(values) if value is not None]
    line, (first, last) = "L".join(points), (points[each].partition(" ")[0] for each in (0, -1))
    return Markup(
        f'{_SMALL}<path class="sparkfill" d="M{first} 26L{line}L{last} 26"/><path class="spark" d="M{line}"/></svg>'
    )


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


_LEFT, _RIGHT, _TOP, _BOTTOM = 38.0, 474.0, 38.0, 180.0  # of the bars of a histogram, in its 480 x 204
_MOST_LABELS, _LABEL = 8, 40.0


def histogram(
    counts: Sequence[tuple[float, float, float]], marks: Sequence[tuple[str, float, str]], unit: str, label: str
) -> Markup:
    """How often which size was seen. Sizes are on a logarithmic axis, so bars whose steps are factors are equally wide.

    Args:
        counts: from, to, and how often, in rising order.
        marks: class (``ceiling`` or ``advised``), place and text of each line drawn through it.
    """
    if not counts:
        return Markup("")
    places = [place for _, place, _ in marks]
    low = max(0.1, min(counts[0][0], *places, math.inf)) / 1.06
    high = max(counts[-1][1], *places, low) * 1.06
    ticks = whole_steps(max(count for _, _, count in counts))
    top = ticks[-1]

    def x(value: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * math.log(max(value, low) / low) / math.log(high / low)

    def y(count: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * count / top

    line = Markup('<line class="{}" x1="{:.1f}" x2="{:.1f}" y1="{:.1f}" y2="{:.1f}"/>')
    text = Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    parts = []
    for tick in ticks:
        parts += [
            line.format("axis", _LEFT, _RIGHT, y(tick), y(tick)),
            text.format(_LEFT - 5, y(tick) + 4, "end", f"{tick:,}"),
        ]
    for begin, end, count in counts:
        height = max(1.5 if count else 0.0, _BOTTOM - y(count))
        parts.append(
            Markup('<rect class="accent" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}"/>').format(
                x(begin), _BOTTOM - height, max(1.0, x(end) - x(begin) - 1), height
            )
        )
    parts += [
        line.format(kind, x(place), x(place), 2 + 16 * row, _BOTTOM) for row, (kind, place, _) in enumerate(marks)
    ]
    for number, (_, place, words) in enumerate(marks):  # above the lines: they end where a name begins
        at, to_left = x(place), x(place) > (_LEFT + _RIGHT) / 2
        parts.append(text.format(at + (-5 if to_left else 5), 13 + 16 * number, "end" if to_left else "start", words))
    last = _LEFT - _LABEL
    for size in log_steps(low, high):
        if x(size) - last >= _LABEL and x(size) <= _RIGHT - _LABEL:
            last = x(size)
            parts.append(text.format(last, _BOTTOM + 17, "middle", f"{size:,g}"))
    parts.append(text.format(_RIGHT, _BOTTOM + 17, "end", unit))
    inside = Markup("").join(parts)
    return Markup('<svg class="histogram" viewBox="0 0 480 204" role="img" aria-label="{}">{}</svg>').format(
        escape(label), inside
    )


def whole_steps(most: float) -> list[int]:
    """Whole numbers for an axis of counts: 0, two or so between, and one that is not below the highest count."""
    step = next(factor * 10**power for power in range(15) for factor in (1, 2, 5) if 4 * factor * 10**power >= most)
    return list(range(0, step * max(1, math.ceil(most / step)) + 1, step))


def log_steps(low: float, high: float) -> list[float]:
    """Round numbers for a logarithmic axis from ``low`` to ``high``, at most eight; where it is short, finer ones."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8), (1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,)):
        found = [factor * 10.0**power for power in powers for factor in factors if low <= factor * 10.0**power <= high]
        if len(found) <= _MOST_LABELS:
            break
    return found[:: -(-len(found) // _MOST_LABELS) or 1]
