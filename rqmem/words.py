"""Each kind of event in words: short, for a timeline, an alert or a reason, and long, for the log. Pure.

The short words do not say whose the event is. Most long ones are the name of the job and the short ones. Every line of
the log that is about memory has the word "memory" in it (or ``MemoryLimitExceeded``), so that
``tail -f worker.log | grep -i memory`` shows all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any

from rqmem import events
from rqmem.text import counted, printable, short_id
from rqmem.units import show_leak, show_mb

_LEAST_MB = 1.0  # freed by one collection; a job may collect at each of thousands of checkpoints
_EVERY_COLLECTIONS = 10


REDIS_GONE = {"away": "Redis does not answer", "refuses": "Redis refuses"}
REDIS_BACK = {"away": "Redis answers again", "refuses": "Redis no longer refuses"}
"""State of `rqmem.store.retrying` -> how it begins, and how it ends."""


def level(event: events.Event) -> int:
    """The level of `logging` of an event."""
    found = WORDS[type(event)][0]
    return found if isinstance(found, int) else found(event)


def text(event: events.Event) -> str:
    """An event as the log tells it, all of it printable; further lines, if it has any, are indented."""
    told = WORDS[type(event)][1](event)
    return "\n  ".join(map(printable, [told] if isinstance(told, str) else told))


def short(event: events.Event) -> str:
    """An event in a few words, without whose it is."""
    match event:
        case events.JobStarted():
            on = f" on {event.worker}" if event.worker else ""
            return f"started{on}, ceiling {show_mb(event.memory_limit_mb)} MB"
        case events.Checkpoint():
            return event.operation
        case events.UsageWarning():
            return f"above {show_mb(event.threshold_percentage)} % of the ceiling at {event.operation}"
        case events.Collection():
            return f"collection {event.collections} freed {event.freed_mb:.1f} MB"
        case events.ChunkDone():
            return f"chunk of {counted(event.items, 'item')} done, {event.items_done:,} in all"
        case events.RunEnded():
            chunks = f", {counted(event.items, 'item')} in {counted(event.chunks, 'chunk')}" if event.chunks else ""
            grown = event.growth_kb_per_item
            stayed = "" if grown is None else f", {grown:.2g} KB stayed of each"
            return f"ended {event.outcome} after {event.duration_seconds:.1f} s{chunks}{stayed}"
        case events.CeilingCut():
            declared, allowed = show_mb(event.declared_mb), show_mb(event.allowed_mb)
            return f"declares {declared} MB of memory; this worker allows {allowed} MB, so that is its ceiling here"
        case events.Breach():
            return event.what()
        case events.Resumed():
            return f"{goes_on(event)} after {_cause(event.cause)}"
        case events.GaveUp():
            resumes = f" and {counted(event.resumes, 'resume')}" if event.resumes else ""
            return f"gave up after {_cause(event.cause)}{resumes}{f': {event.reason}' if event.reason else ''}"
        case events.Split():
            return f"split into {counted(event.children, 'child job')}"
        case events.LeakFound():
            grew = ", ".join(f"{name} {count:+,} ({show_mb(grown)} MB)" for name, count, grown in event.grew)
            return f"leaks {show_leak(event.mb_per_run)} a run: {grew or 'no objects that the garbage collector sees'}"
        case events.HookFailed():
            return f"{event.hook} failed: {event.error}{f' ({event.where})' if event.where else ''}"
        case events.HorseRecycled():
            return f"new horse after it: {event.reason}"
        case events.RunsAgain():
            place = f" at '{event.operation}'" if event.operation else ""
            return (
                f"used {show_mb(event.used_mb)} MB of {show_mb(event.limit_mb)} MB of memory{place}, but others had "
                f"left {show_mb(event.left_mb)} MB in its horse: it runs once more, in a new horse"
            )
        case events.WorkerFull():
            return f"worker {event.worker} itself uses {show_mb(event.used_mb)} MB of {show_mb(event.limit_mb)} MB"
        case events.WorkerRestarted():
            jobs = counted(event.jobs, "job")
            return f"worker {event.worker} has begun anew in place, with fresh memory, after {jobs}"
        case events.WorkerLost():
            return f"worker {event.lost_worker} is lost; this job was running on it"
        case events.AlertRaised():
            return f"alert {event.rule}: {event.text}"
        case events.AlertResolved():
            return f"alert {event.rule} ended: {event.text}"
    raise TypeError(f"no words for {type(event).__name__}")


def redis_gone_since(when: str) -> str:
    """The notice above what was read before."""
    return f"{REDIS_GONE['away']} since {when}: what is below is of before"


def goes_on(event: events.Resumed) -> str:
    """How a job goes on: from where, with which chunk size, and what it costs."""
    cursor = f"{event.cursor[:80]}..." if len(event.cursor) > 80 else event.cursor
    place = "the beginning" if event.cursor == "null" else f"cursor {cursor}"
    when = f" in {event.delay_seconds:.0f} s" if event.delay_seconds else ""
    spent = f" (resume {event.resumes}, {event.spent} of {event.max_resumes} spent)" if event.spent else ""
    return f"goes on{when} from {place} with chunk size {event.chunk_size}{spent}"


def _job_started(event: events.JobStarted) -> str:
    return f"{_name(event)} begins: memory {event.memory_mb:.1f} MB of {show_mb(event.memory_limit_mb)}"


def _checkpoint(event: events.Checkpoint) -> str:
    share = 100 * event.current_memory_mb / event.memory_limit_mb
    return (
        f"{_name(event)} memory {event.current_memory_mb:.1f} MB of {show_mb(event.memory_limit_mb)} "
        f"({share:.0f} %, peak {event.peak_memory_mb:.1f}) at {event.operation}"
    )


def _usage_warning(event: events.UsageWarning) -> str:
    return (
        f"{_name(event)} memory {event.current_memory_mb:.1f} MB is above {event.threshold_percentage:.0f} % of "
        f"{show_mb(event.memory_limit_mb)} MB at {event.operation}"
    )


def _collection(event: events.Collection) -> str:
    place = f" at {event.operation}" if event.operation else ""
    return (
        f"{_name(event)} collected garbage{place}: {event.freed_mb:.1f} MB freed, memory {event.memory_mb:.1f} MB "
        f"(collection {event.collections} of this run)"
    )


def _level_of_checkpoint(event: events.Checkpoint) -> int:
    return INFO if event.notable else DEBUG


def _level_of_collection(event: events.Collection) -> int:
    notable = event.freed_mb >= _LEAST_MB or event.collections % _EVERY_COLLECTIONS == 0
    return INFO if notable else DEBUG


def _chunk_done(event: events.ChunkDone) -> str:
    done = f"{_name(event)} chunk of {event.items:,} done, {event.items_done:,} items so far"
    return f"{done}: memory {event.memory_mb:.1f} MB"


def _run_ended(event: events.RunEnded) -> str:
    grown = event.growth_kb_per_item
    stayed = "" if grown is None else f"; of each item {grown:.2g} KB stayed"
    return (
        f"{_name(event)} ended {event.outcome} in {event.duration_seconds:.1f} s: memory "
        f"{event.initial_memory_mb:.1f} MB at the start, {event.peak_memory_mb:.1f} peak, "
        f"{event.final_memory_mb:.1f} at the end, of {show_mb(event.memory_limit_mb)}; "
        f"{event.freed_mb:.1f} MB freed in {event.collections} collections, "
        f"{event.chunks} chunks, {event.items:,} items{stayed}"
    )


def _breach(event: events.Breach) -> list[str]:
    return [f"MemoryLimitExceeded: {event.summary()} [job {event.job_id}]", *event.explanation()]


def _level_of_resumed(event: events.Resumed) -> int:
    return {"breach": DEBUG, "planned stop": INFO}.get(event.cause, WARNING)  # the breach said it already


def _split(event: events.Split) -> str:
    return f"{_name(event)} is split, for its memory, into {counted(event.children, 'child job')}"


def _leak_found(event: events.LeakFound) -> str:
    stayed = f"this memory stayed, run after run, over {counted(event.runs, 'run')}"
    return f"{event.job} {short(event)}; {stayed}"


def _hook_failed(event: events.HookFailed) -> str:
    during = f" in job {_name(event)}" if event.job_id else ""
    where = f" ({event.where})" if event.where else ""
    kept = "; the job's outcome stands" if event.hook.startswith("after_job") else ""
    return f"worker {event.worker}: {event.hook} failed{during}: {event.error}{where}{kept}"


def _horse_recycled(event: events.HorseRecycled) -> str:
    return f"worker {event.worker}: new horse with fresh memory after {_name(event)}: {event.reason}"


def _worker_full(event: events.WorkerFull) -> str:
    doing = {
        "restart": "restarts in place, between two jobs",
        "exit": "ends with exit code 12, between two jobs",
        "none": "goes on: it is part of another program, which it must not restart",
    }[event.action]
    return f"{short(event)} of memory: it {doing}"


def _worker_lost(event: events.WorkerLost) -> str:
    return f"worker {event.lost_worker} is lost; it was running {_name(event)}"


def _alert_raised(event: events.AlertRaised) -> str:
    more = f"; {event.suppressed:,} more like it were not told" if event.suppressed else ""
    return f"memory alert {event.rule}{_about(event)}: {event.text}{more}"


def _alert_resolved(event: events.AlertResolved) -> str:
    return f"memory alert {event.rule}{_about(event)} resolved: {event.text}"


def _runs_again(event: events.RunsAgain) -> str:
    return f"{_of_job(event)}; what it did before that it does again"


def _of_job(event: events.Event) -> str:
    return f"{_name(event)} {short(event)}"


def _name(event: events.Event) -> str:
    return f"{event.job} ({short_id(event.job_id)})"


def _about(event: events.Event) -> str:
    """Whose an alert is; some are about a worker, or about none."""
    whose = event.job or (f"worker {event.worker}" if event.worker else "")
    return f" [{whose}]" if whose else ""


def _cause(cause: str) -> str:
    return "a memory breach" if cause == "breach" else cause


Level = int | Callable[[Any], int]
Long = Callable[[Any], str | list[str]]

WORDS: dict[type[events.Event], tuple[Level, Long]] = {
    events.JobStarted: (DEBUG, _job_started),
    events.Checkpoint: (_level_of_checkpoint, _checkpoint),
    events.UsageWarning: (WARNING, _usage_warning),
    events.Collection: (_level_of_collection, _collection),
    events.ChunkDone: (DEBUG, _chunk_done),
    events.RunEnded: (INFO, _run_ended),
    events.CeilingCut: (WARNING, lambda event: f"{event.job} {short(event)}"),
    events.Breach: (ERROR, _breach),
    events.Resumed: (_level_of_resumed, _of_job),
    events.GaveUp: (ERROR, _of_job),
    events.Split: (INFO, _split),
    events.LeakFound: (WARNING, _leak_found),
    events.HookFailed: (ERROR, _hook_failed),
    events.HorseRecycled: (INFO, _horse_recycled),
    events.RunsAgain: (WARNING, _runs_again),
    events.WorkerFull: (WARNING, _worker_full),
    events.WorkerRestarted: (WARNING, short),
    events.WorkerLost: (WARNING, _worker_lost),
    events.AlertRaised: (WARNING, _alert_raised),
    events.AlertResolved: (INFO, _alert_resolved),
}
"""Of every kind in the catalogue: its level, or what tells it, and its long words."""
