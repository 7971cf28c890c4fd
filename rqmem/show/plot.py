"""A job's memory over the time it worked, drawn with block characters. Pure.

Executions are drawn one after another. The time between them, in which the job waits, is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from rqmem.observe.curve import Point
from rqmem.units import show_mb

ROWS = 8
BLOCKS, ASCII_BLOCKS = " ▁▂▃▄▅▆▇█", "  ..::##@"
CEILING, ASCII_CEILING = "╌", "-"
BREAK, ASCII_BREAK = "╎", "|"
_GUTTER = 8
_HEADROOM = 1.1


def plot(drawn: Sequence[Sequence[Point]], limit_mb: float | None, columns: int, *, plain: bool = False) -> list[str]:
    """Lines of a plot, at most ``columns`` wide: memory upwards, the ceiling as a dashed line, time to the right.

    Args:
        drawn: the points of each execution; none: no plot.
        limit_mb: the ceiling; None: it is not known.
        plain: ASCII only.
    """
    if not drawn:
        return []
    blocks, ceiling, pause = (ASCII_BLOCKS, ASCII_CEILING, ASCII_BREAK) if plain else (BLOCKS, CEILING, BREAK)
    highest = max(point.memory_mb for points in drawn for point in points)
    top = _HEADROOM * max(highest, limit_mb or 0.0, 0.1)
    limit_row = int(limit_mb / top * ROWS) if limit_mb else None
    labels = {0: "0", int(highest / top * ROWS): show_mb(round(highest))}
    if limit_row is not None and limit_mb:
        labels[limit_row] = show_mb(limit_mb)
    gutter = max(_GUTTER, *(len(label) + 5 for label in labels.values()))
    width = columns - gutter - 1
    if width < 2 * len(drawn):
        return []
    heights = _heights(drawn, width)
    lines = []
    for row in reversed(range(ROWS)):
        empty = ceiling if row == limit_row else " "
        cells = (pause if height is None else _cell(height / top * ROWS - row, blocks, empty) for height in heights)
        label = f"{labels[row]} MB " if row in labels else ""
        lines.append(f"{label:>{gutter}}{''.join(cells)}".rstrip())
    return [*lines, " " * gutter + _axis(drawn, width)]


def _cell(filled: float, blocks: str, empty: str) -> str:
    """One character: how much of its row is filled, from below."""
    eighths = round(8 * min(1.0, filled))
    return blocks[eighths] if eighths > 0 and blocks[eighths] != " " else empty


def _heights(drawn: Sequence[Sequence[Point]], width: int) -> list[float | None]:
    """MB in each column; None between two executions."""
    room = width - (len(drawn) - 1)
    total = sum(points[-1].at - points[0].at for points in drawn)
    ends = [0, *itertools.accumulate(points[-1].at - points[0].at for points in drawn)]
    heights: list[float | None] = []
    taken = 0
    for number, points in enumerate(drawn):
        if number:
            heights.append(None)
        left = len(drawn) - number - 1
        columns = min(max(1, round(room * ends[number + 1] / total) - taken), room - taken - left)
        taken += columns
        step = (points[-1].at - points[0].at) / columns
        heights += [
            _highest(points, points[0].at + step * column, points[0].at + step * (column + 1))
            for column in range(columns)
        ]
    return heights


def _highest(points: Sequence[Point], start: float, end: float) -> float:
    """The most between two times, readings joined by straight lines."""
    within = [point.memory_mb for point in points if start <= point.at <= end]
    return max([*within, _between(points, start), _between(points, end)])


def _between(points: Sequence[Point], at: float) -> float:
    for before, after in itertools.pairwise(points):
        if before.at <= at <= after.at:
            share = (at - before.at) / (after.at - before.at) if after.at > before.at else 1.0
            return before.memory_mb + share * (after.memory_mb - before.memory_mb)
    return points[0].memory_mb if at < points[0].at else points[-1].memory_mb


def _axis(drawn: Sequence[Sequence[Point]], width: int) -> str:
    total = sum(points[-1].at - points[0].at for points in drawn)
    end = f"{total:.1f} s at work"
    if len(drawn) > 1:
        end += f", {len(drawn)} executions"
    return f"0 s{end:>{max(0, width - 3)}}" if len(end) < width - 3 else end[:width]
