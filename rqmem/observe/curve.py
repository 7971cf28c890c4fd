"""A job's memory over the time it worked, as points of each execution. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from rqmem import events
from rqmem.observe.job import Case
from rqmem.store.history.history_records import Told
from rqmem.values import dataclass


@dataclass(frozen=True)
class Point:
    """Usage in MB at a time, epoch seconds."""

    at: float
    memory_mb: float


def executions(case: Case) -> list[list[Point]]:
    """What is known of its memory, by execution, oldest first; those with a single reading are left out.

    A function tells nothing itself: its executions that ended have the curves that their workers kept.
    """
    kept = [] if case.of(events.JobStarted) else [run for run in case.runs if len(run.curve_mb) > 1]
    if kept:
        until = kept[-1].ended_at
        found = [[Point(run.ended_at - run.seconds + at, mb) for at, mb in run.curve] for run in kept]
        found.append([Point(sample.at, sample.usage_mb) for sample in case.samples if sample.at > until])
    else:
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
