"""A job's memory over the time it worked, drawn with block characters. Pure.

Executions are drawn one after another. The time between them, in which the job waits, is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from rqmem import events
from rqmem.observe.job import Case
from rqmem.store.history.history_records import Told
from rqmem.units import show_mb

ROWS = 8
BLOCKS, ASCII_BLOCKS = " ▁▂▃▄▅▆▇█", "  ..::##@"
CEILING, ASCII_CEILING = "╌", "-"
BREAK, ASCII_BREAK = "╎", "|"
_GUTTER = 8
_HEADROOM = 1.1


@dataclass(frozen=True)
class Point:
    """Usage in MB at a time, epoch seconds."""

    at: float
    memory_mb: float


def executions(case: Case) -> list[list[Point]]:
    """What is known of its memory, by execution, oldest first; those with a single reading are left out."""
    found = [_readings(told) for told in _by_execution(case.told)]
    found[-1] += [Point(sample.at, sample.usage_mb) for sample in case.samples]
    if case.live is not None:
        found[-1].append(Point(case.now, case.live.usage_mb))
    ordered = [sorted(points, key=lambda point: point.at) for points in found if points]
    return [points for points in ordered if len(points) > 1 and points[-1].at > points[0].at]


def _by_execution(told: Sequence[Told]) -> list[list[Told]]:
    """The events of each execution; first those of one whose start is forgotten, or none."""
    found: list[list[Told]] = [[]]
    for each in told:
        if isinstance(each.event, events.JobStarted):
            found.append([])
        found[-1].append(each)
    return found


def _readings(told: Sequence[Told]) -> list[Point]:
    """What the events of one execution say of its memory."""
    found: list[Point] = []
    breached = any(isinstance(each.event, events.Breach) for each in told)
    for each in told:
        at, event = each.at, each.event
        if isinstance(event, events.Breach):
            found += _curve(at, event, found[0].at if found else 0.0)
        points = _points(at, event)
        if isinstance(event, events.Checkpoint) or (isinstance(event, events.RunEnded) and not breached):
            found += _peak(at, event.peak_memory_mb, found, points)
        found += points
    return found


def _points(at: float, event: events.Event) -> list[Point]:
    match event:
        case events.JobStarted() | events.ChunkDone() | events.Collection():
            return [Point(at, event.memory_mb)]
        case events.Checkpoint() | events.UsageWarning():
            return [Point(at, event.current_memory_mb)]
        case events.RunEnded():
            return [Point(at, event.final_memory_mb)]
        case events.Breach():
            return [Point(at, event.used_mb)]
        case _:
            return []


def _peak(at: float, peak_mb: float, before: list[Point], now: list[Point]) -> list[Point]:
    """A peak without a reading lies between the last reading and this one; it is drawn halfway."""
    if not before or peak_mb <= max(point.memory_mb for point in before + now):
        return []
    return [Point((before[-1].at + at) / 2, peak_mb)]


def _curve(at: float, breach: events.Breach, start: float) -> list[Point]:
    """The last seconds before a breach, as far as they are of its execution; nothing that runs uses 0 MB."""
    points = [Point(at - before, memory_mb) for before, memory_mb in breach.curve]
    return [point for point in points if point.at >= start and point.memory_mb > 0]


def plot(drawn: Sequence[Sequence[Point]], limit_mb: float | None, columns: int, *, plain: bool = False) -> list[str]:
    """Lines of a plot, at most ``columns`` wide: memory upwards, the ceiling as a dashed line, time to the right.

    Args:
        drawn: of `executions`; none of them: no plot.
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
