"""A job's story as lines of a timeline: when, how much memory, what happened. Pure."""

from __future__ import annotations

from rqmem import events, words
from rqmem.observe.job import Case
from rqmem.store.history.history_records import OK, Run, Told
from rqmem.text import Mood
from rqmem.values import dataclass

_MEMORY = ("current_memory_mb", "memory_mb", "final_memory_mb", "used_mb")  # fields of events: what was used then


@dataclass(frozen=True)
class TimelineEntry:
    """One thing that happened: when (epoch seconds), MB used then where that is known, and what."""

    at: float
    memory_mb: float | None
    text: str
    mood: Mood = "plain"


def lines(case: Case) -> list[TimelineEntry]:
    """Oldest first. A function tells nothing itself: its runs have lines here."""
    told = [_line(each) for each in case.told]
    if not case.of(events.JobStarted):
        told += [line for run in case.runs for line in _of_run(run)]
        told += [TimelineEntry(case.live.started_at, None, f"started on {case.worker}")] if case.live else []
        told.sort(key=lambda line: line.at)
    if case.live is not None:
        place = f" at {case.live.operation}" if case.live.operation else ""
        told.append(TimelineEntry(case.now, case.live.usage_mb, f"running now{place}"))
    return told


def _line(told: Told) -> TimelineEntry:
    event = told.event
    mark = "BREACH: " if isinstance(event, events.Breach) else ""
    memory_mb = next((getattr(event, name) for name in _MEMORY if hasattr(event, name)), None)
    return TimelineEntry(told.at, memory_mb, mark + words.short(event), _mood(event))


def _mood(event: events.Event) -> Mood:
    match event:
        case events.JobStarted() | events.Checkpoint() | events.Collection() | events.ChunkDone():
            return "plain"
        case events.RunEnded():
            return "good" if event.outcome == OK else "bad"
        case events.Breach() | events.GaveUp():
            return "bad"
    return "warning"


def _of_run(run: Run) -> list[TimelineEntry]:
    ended = "ended early, goes on" if run.resumed else f"ended {run.outcome}"
    text = f"{ended} after {run.seconds:.1f} s, peak {run.peak_mb:.1f} MB"
    text += " as far as samples of its processes tell" if run.peak_sampled else ""
    return [
        TimelineEntry(run.ended_at - run.seconds, run.initial_mb, f"started on {run.worker}"),
        TimelineEntry(run.ended_at, run.final_mb, text, "good" if run.outcome == OK else "bad"),
    ]
