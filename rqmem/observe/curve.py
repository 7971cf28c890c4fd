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


@dataclass(frozen=True)
class Curve:
    """The memory of one execution: its points, oldest first, its ceiling in MB, and whether it reached that."""

    began_at: float
    points: Sequence[Point]
    ceiling_mb: float | None
    breached: bool


def executions(case: Case) -> list[Curve]:
    """What is known of its memory, by execution, oldest first; those with a single reading are left out.

    An execution that ended has the curve that its worker kept. Of others, events and samples tell.
    """
    found, until = [], 0.0
    for run in case.runs:
        if len(run.curve_mb) > 1:
            began_at, until = run.ended_at - run.seconds, run.ended_at
            points = [Point(began_at + seconds, mb) for seconds, mb in run.curve]
            found.append(Curve(began_at, points, run.limit_mb, bool(run.layer)))
    told = _by_execution(case.told)
    readings = [_readings(each) for each in told]
    readings[-1] += [Point(sample.at, sample.usage_mb) for sample in case.samples]
    if case.live is not None:
        readings[-1].append(Point(case.now, case.live.usage_mb))
    for each, known in zip(told, readings, strict=True):
        points = sorted((point for point in known if point.at > until), key=lambda point: point.at)
        if len(points) > 1 and points[-1].at > points[0].at:
            breached = any(isinstance(one.event, events.Breach) for one in each)
            found.append(Curve(points[0].at, points, case.ceiling_mb, breached))
    return found


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
