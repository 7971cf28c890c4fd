"""A job's story as lines of a timeline: when, how much memory, what happened. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rqmem import events
from rqmem.observe.job import Case
from rqmem.store.history.history_records import OK, Run, Told
from rqmem.text import counted
from rqmem.units import show_mb

Mood = Literal["plain", "good", "warning", "bad"]


@dataclass(frozen=True)
class Line:
    """One thing that happened: when (epoch seconds), MB used then where that is known, and what."""

    at: float
    memory_mb: float | None
    text: str
    mood: Mood = "plain"


def lines(case: Case) -> list[Line]:
    """Oldest first. A function tells nothing itself: its runs have lines here."""
    told = [_line(each) for each in case.told]
    if not case.of(events.JobStarted):
        told += [line for run in case.runs for line in _of_run(run)]
        told += [Line(case.live.started_at, None, f"started on {case.worker}")] if case.live else []
        told.sort(key=lambda line: line.at)
    if case.live is not None:
        place = f" at {case.live.operation}" if case.live.operation else ""
        told.append(Line(case.now, case.live.usage_mb, f"running now{place}"))
    return told


def _line(told: Told) -> Line:
    event = told.event
    match event:
        case events.JobStarted():
            on = f" on {event.worker}" if event.worker else ""
            return Line(told.at, event.memory_mb, f"started{on}, ceiling {show_mb(event.memory_limit_mb)} MB")
        case events.Checkpoint():
            return Line(told.at, event.current_memory_mb, event.operation)
        case events.UsageWarning():
            text = f"above {show_mb(event.threshold_percentage)} % of the ceiling at {event.operation}"
            return Line(told.at, event.current_memory_mb, text, "warning")
        case events.Collection():
            return Line(told.at, event.memory_mb, f"collection {event.collections} freed {event.freed_mb:.1f} MB")
        case events.ChunkDone():
            return Line(
                told.at, event.memory_mb, f"chunk of {counted(event.items, 'item')} done, {event.items_done:,} in all"
            )
        case events.RunEnded():
            chunks = f", {counted(event.items, 'item')} in {counted(event.chunks, 'chunk')}" if event.chunks else ""
            grown = event.growth_kb_per_item
            stayed = "" if grown is None else f", {grown:.2g} KB stayed of each"
            text = f"ended {event.outcome} after {event.duration_seconds:.1f} s{chunks}{stayed}"
            return Line(told.at, event.final_memory_mb, text, "good" if event.outcome == OK else "bad")
        case events.Breach():
            place = f" at {event.operation}" if event.operation else ""
            text = f"BREACH, {show_mb(event.used_mb)} of {show_mb(event.limit_mb)} MB{place}, by {event.layer}"
            return Line(told.at, event.used_mb, text, "bad")
        case events.GaveUp():
            return Line(told.at, None, f"gave up: {event.reason}", "bad")
        case events.Resumed():
            return Line(told.at, None, f"resumed after {event.cause}: {event.summary()}", "warning")
        case events.RunsAgain():
            return Line(told.at, event.used_mb, event.summary(), "warning")
        case _:
            return Line(told.at, None, _words(event), "warning")


def _words(event: events.Event) -> str:
    """Of events that say nothing of memory."""
    match event:
        case events.CeilingCut():
            return f"declares {show_mb(event.declared_mb)} MB; its worker allows {show_mb(event.allowed_mb)}"
        case events.Split():
            return f"split into {event.children:,} children"
        case events.LeakFound():
            return event.summary()
        case events.HookFailed():
            return f"{event.hook} failed: {event.error}{f' ({event.where})' if event.where else ''}"
        case events.HorseRecycled():
            return f"new horse after it: {event.reason}"
        case events.WorkerLost():
            return f"worker {event.lost_worker} is lost"
        case events.AlertRaised():
            return f"alert {event.rule}: {event.text}"
        case events.AlertResolved():
            return f"alert {event.rule} ended: {event.text}"
        case _:
            return type(event).__name__


def _of_run(run: Run) -> list[Line]:
    ended = "ended early, goes on" if run.resumed else f"ended {run.outcome}"
    text = f"{ended} after {run.seconds:.1f} s, peak {run.peak_mb:.1f} MB"
    text += " as far as samples of its processes tell" if run.peak_sampled else ""
    return [
        Line(run.ended_at - run.seconds, run.initial_mb, f"started on {run.worker}"),
        Line(run.ended_at, run.final_mb, text, "good" if run.outcome == OK else "bad"),
    ]
