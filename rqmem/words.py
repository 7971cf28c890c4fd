"""Level and words of each kind of event. Pure.

Every line about memory has the word "memory" in it (or ``MemoryLimitExceeded``), so that
``tail -f worker.log | grep -i memory`` shows all of them and nothing is told without its place.
"""

from __future__ import annotations

from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any

from rqmem import events
from rqmem.text import counted, printable, short_id
from rqmem.units import show_mb

_WORTH_TELLING_MB = 1.0  # freed by one collection; a job may collect at each of thousands of checkpoints
_EACH_SO_MANY_COLLECTIONS = 10


def level(event: events.Event) -> int:
    """The level of `logging` that an event is told at."""
    level_of = WORDS[type(event)][0]
    return level_of if isinstance(level_of, int) else level_of(event)


def text(event: events.Event) -> str:
    """An event in words, all of which can be printed; further lines, where it has any, are indented."""
    told = WORDS[type(event)][1](event)
    return "\n  ".join(map(printable, [told] if isinstance(told, str) else told))


def _job_started(event: events.JobStarted) -> str:
    return f"{_name(event)} begins: memory {event.memory_mb:.1f} MB of {show_mb(event.memory_limit_mb)}"


def _checkpoint(event: events.Checkpoint) -> str:
    share = 100 * event.current_memory_mb / event.memory_limit_mb
    return (
        f"{_name(event)} memory {event.current_memory_mb:.1f} MB of {show_mb(event.memory_limit_mb)} "
        f"({share:.0f} %, peak {event.peak_memory_mb:.1f}) at {event.operation}"
    )


def _level_of_checkpoint(event: events.Checkpoint) -> int:
    return INFO if event.notable else DEBUG


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


def _level_of_collection(event: events.Collection) -> int:
    worth = event.freed_mb >= _WORTH_TELLING_MB or event.collections % _EACH_SO_MANY_COLLECTIONS == 0
    return INFO if worth else DEBUG


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


def _ceiling_cut(event: events.CeilingCut) -> str:
    return (
        f"{event.job} declares {show_mb(event.declared_mb)} MB of memory; this worker allows "
        f"{show_mb(event.allowed_mb)} MB, so that is its ceiling here"
    )


def _breach(event: events.Breach) -> list[str]:
    return [f"MemoryLimitExceeded: {event.summary()} [job {event.job_id}]", *event.explanation()]


def _resumed(event: events.Resumed) -> str:
    return f"{_name(event)} {event.summary()} after {_cause(event.cause)}"


def _level_of_resumed(event: events.Resumed) -> int:
    return {"breach": DEBUG, "planned stop": INFO}.get(event.cause, WARNING)  # the breach told it already


def _gave_up(event: events.GaveUp) -> str:
    resumes = f" and {counted(event.resumes, 'resume')}" if event.resumes else ""
    reason = f": {event.reason}" if event.reason else ""
    return f"{_name(event)} gave up after {_cause(event.cause)}{resumes}{reason}"


def _split(event: events.Split) -> str:
    return f"{_name(event)} is split, for its memory, into {counted(event.children, 'child job')}"


def _leak_found(event: events.LeakFound) -> str:
    return f"{event.job} {event.summary()}; this memory stayed, run after run, over {counted(event.runs, 'run')}"


def _hook_failed(event: events.HookFailed) -> str:
    during = f" in job {_name(event)}" if event.job_id else ""
    where = f" ({event.where})" if event.where else ""
    kept = "; the job's outcome stands" if event.hook.startswith("after_job") else ""
    return f"worker {event.worker}: {event.hook} failed{during}: {event.error}{where}{kept}"


def _horse_recycled(event: events.HorseRecycled) -> str:
    return f"worker {event.worker}: new horse with fresh memory after {_name(event)}: {event.reason}"


def _runs_again(event: events.RunsAgain) -> str:
    return f"{_name(event)} {event.summary()}; what it did before that it does again"


def _worker_full(event: events.WorkerFull) -> str:
    doing = {
        "restart": "restarts in place, between two jobs",
        "exit": "ends with exit code 12, between two jobs",
        "none": "goes on: it is part of another program, which it must not restart",
    }[event.action]
    used, limit = show_mb(event.used_mb), show_mb(event.limit_mb)
    return f"worker {event.worker} itself uses {used} MB of {limit} MB of memory: it {doing}"


def _worker_restarted(event: events.WorkerRestarted) -> str:
    return f"worker {event.worker} has begun anew in place, with fresh memory, after {counted(event.jobs, 'job')}"


def _worker_lost(event: events.WorkerLost) -> str:
    return f"worker {event.lost_worker} is lost; it was running {_name(event)}"


def _alert_raised(event: events.AlertRaised) -> str:
    more = f"; {event.suppressed:,} more like it were not told" if event.suppressed else ""
    return f"memory alert {event.rule}{_about(event)}: {event.text}{more}"


def _alert_resolved(event: events.AlertResolved) -> str:
    return f"memory alert {event.rule}{_about(event)} resolved: {event.text}"


def _name(event: events.Event) -> str:
    return f"{event.job} ({short_id(event.job_id)})"


def _about(event: events.Event) -> str:
    """Whose an alert is; some are about a worker, or about none."""
    whose = event.job or (f"worker {event.worker}" if event.worker else "")
    return f" [{whose}]" if whose else ""


def _cause(cause: str) -> str:
    return "a memory breach" if cause == "breach" else cause


Level = int | Callable[[Any], int]

WORDS: dict[type[events.Event], tuple[Level, Callable[[Any], str | list[str]]]] = {
    events.JobStarted: (DEBUG, _job_started),
    events.Checkpoint: (_level_of_checkpoint, _checkpoint),
    events.UsageWarning: (WARNING, _usage_warning),
    events.Collection: (_level_of_collection, _collection),
    events.ChunkDone: (DEBUG, _chunk_done),
    events.RunEnded: (INFO, _run_ended),
    events.CeilingCut: (WARNING, _ceiling_cut),
    events.Breach: (ERROR, _breach),
    events.Resumed: (_level_of_resumed, _resumed),
    events.GaveUp: (ERROR, _gave_up),
    events.Split: (INFO, _split),
    events.LeakFound: (WARNING, _leak_found),
    events.HookFailed: (ERROR, _hook_failed),
    events.HorseRecycled: (INFO, _horse_recycled),
    events.RunsAgain: (WARNING, _runs_again),
    events.WorkerFull: (WARNING, _worker_full),
    events.WorkerRestarted: (WARNING, _worker_restarted),
    events.WorkerLost: (WARNING, _worker_lost),
    events.AlertRaised: (WARNING, _alert_raised),
    events.AlertResolved: (INFO, _alert_resolved),
}
"""Of every kind in the catalogue: its level, or what tells it, and its words."""
