"""Each kind of event in words: short, for a timeline, an alert or a reason, and long, for the log. Pure.

The short words do not say whose the event is. Most long ones are the name of the job and the short ones. Every line of
the log that is about memory has the word "memory" in it (or ``MemoryLimitExceeded``), so that
``tail -f worker.log | grep -i memory`` shows all of them.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any, NamedTuple

from rqmem import breach_words, events
from rqmem.child_ids import short_id
from rqmem.text import counted, printable
from rqmem.units import show_leak, show_mb

_LEAST_MB = 1.0  # freed by one collection; a job may collect at each of thousands of checkpoints
_EVERY_COLLECTIONS = 10


REDIS_GONE = {"away": "Redis does not answer", "refuses": "Redis refuses"}
REDIS_BACK = {"away": "Redis answers again", "refuses": "Redis no longer refuses"}
"""State of `rqmem.store.retrying` -> how it begins, and how it ends."""


def level(event: events.Event) -> int:
    """The level of `logging` of an event."""
    found = WORDS[type(event)].level
    return found if isinstance(found, int) else found(event)


def text(event: events.Event) -> str:
    """An event as the log tells it, all of it printable; further lines, if it has any, are indented."""
    long = WORDS[type(event)].long
    told = f"{_name(event)} {short(event)}" if long is None else long(event)
    return "\n  ".join(map(printable, [told] if isinstance(told, str) else told))


def short(event: events.Event) -> str:
    """An event in a few words, without whose it is."""
    return WORDS[type(event)].short(event)


def redis_gone_since(when: str) -> str:
    """The notice above what was read before."""
    return f"{REDIS_GONE['away']} since {when}: what is below is of before"


def cannot_listen(error: Exception, host: str, port: int, whose: str) -> str:
    """Why a server cannot answer on that address, and what to give instead. ``whose``: which of rqmem's servers."""
    code = getattr(error, "errno", None)
    if code == errno.EADDRINUSE:
        return f"port {port} on {host} is in use, perhaps by another {whose}: give another --port, or 0 for any"
    if code == errno.EACCES:
        return f"port {port} on {host} is not for us: give a --port from 1024 on"
    if isinstance(error, socket.gaierror | ValueError) or code == errno.EADDRNOTAVAIL:
        return f"--host {host!r} is no address of this machine: give 127.0.0.1, or 0.0.0.0 for all it has"
    return f"port {port} on {host} cannot be used: {getattr(error, 'strerror', None) or error}"


def where_it_grew(peak_mb: float, *, so_far: bool = False) -> str:
    """Above lines of code: they add up to no more than that peak."""
    return f"where it grew to its peak{' so far' if so_far else ''} of {peak_mb:,.1f} MB"


def goes_on(event: events.Resumed) -> str:
    """How a job goes on: from where, with which chunk size, and what it costs."""
    when = f" in {event.delay_seconds:.0f} s" if event.delay_seconds else ""
    spent = f" (resume {event.resumes}, {event.spent} of {event.max_resumes} spent)" if event.spent else ""
    return f"goes on{when} from {_from(event.cursor)} with chunk size {event.chunk_size}{spent}"


def escalates(event: events.Escalated) -> str:
    """How a job goes on under its next ceiling: which one, where, and from where."""
    queue = f" in queue {event.to_queue}" if event.to_queue else ""
    return f"goes on from {_from(event.cursor)} under {show_mb(event.to_mb)} MB{queue}"


def _from(cursor: str) -> str:
    return "the beginning" if cursor == "null" else f"cursor {cursor[:80]}{'...' if len(cursor) > 80 else ''}"


def _ended(event: events.RunEnded) -> str:
    chunks = f", {counted(event.items, 'item')} in {counted(event.chunks, 'chunk')}" if event.chunks else ""
    grown = event.growth_kb_per_item
    stayed = "" if grown is None else f", {grown:.2g} KB stayed of each"
    return f"ended {event.outcome} after {event.duration_seconds:.1f} s{chunks}{stayed}"


def _ended_with_figures(event: events.RunEnded) -> str:
    grown = event.growth_kb_per_item
    stayed = "" if grown is None else f"; of each item {grown:.2g} KB stayed"
    return (
        f"{_name(event)} ended {event.outcome} in {event.duration_seconds:.1f} s: memory "
        f"{event.initial_memory_mb:.1f} MB at the start, {event.peak_memory_mb:.1f} peak, "
        f"{event.final_memory_mb:.1f} at the end, of {show_mb(event.memory_limit_mb)}; "
        f"{event.freed_mb:.1f} MB freed in {counted(event.collections, 'collection')}, "
        f"{counted(event.chunks, 'chunk')}, {counted(event.items, 'item')}{stayed}"
    )


def _gave_up(event: events.GaveUp) -> str:
    resumes = f" and {counted(event.resumes, 'resume')}" if event.resumes else ""
    return f"gave up after {_cause(event.cause)}{resumes}{f': {event.reason}' if event.reason else ''}"


def _leaks(event: events.LeakFound) -> str:
    grew = ", ".join(f"{name} {count:+,} ({show_mb(grown)} MB)" for name, count, grown in event.grew)
    return f"leaks {show_leak(event.mb_per_run)} a run: {grew or 'no objects that the garbage collector sees'}"


def _hook_failed(event: events.HookFailed) -> str:
    during = f" in job {_name(event)}" if event.job_id else ""
    where = f" ({event.where})" if event.where else ""
    kept = "; the job's outcome does not change" if event.hook.startswith("after_job") else ""
    return f"worker {event.worker}: {event.hook} failed{during}: {event.error}{where}{kept}"


def _alert_raised(event: events.AlertRaised) -> str:
    more = f"; {event.suppressed:,} more like it were not reported" if event.suppressed else ""
    return f"memory alert {event.rule}{_about(event)}: {event.text}{more}"


def _quoted_place(event: events.RunsAgain) -> str:
    return f" at '{event.operation}'" if event.operation else ""


def _name(event: events.Event) -> str:
    return f"{event.job} ({short_id(event.job_id)})"


def _about(event: events.Event) -> str:
    """The job type or the worker that an alert is about; some are about neither."""
    whose = event.job or (f"worker {event.worker}" if event.worker else "")
    return f" [{whose}]" if whose else ""


def _cause(cause: str) -> str:
    return "a memory breach" if cause == "breach" else cause


_WHEN_FULL = {
    "restart": "restarts in place, between two jobs",
    "exit": "ends with exit code 12, between two jobs",
    "none": "goes on: it is part of another program, which it must not restart",
}


_EVICTED = {"stop": "and was told to save its work and continue later", "kill": "and was killed"}


class Words(NamedTuple):
    """The words for one kind of event. ``long`` None: the name of the job and the short words."""

    level: int | Callable[[Any], int]
    short: Callable[[Any], str]
    long: Callable[[Any], str | list[str]] | None = None


WORDS: dict[type[events.Event], Words] = {
    events.JobStarted: Words(
        DEBUG,
        lambda e: f"started{f' on {e.worker}' if e.worker else ''}, ceiling {show_mb(e.memory_limit_mb)} MB",
        lambda e: f"{_name(e)} begins: memory {e.memory_mb:.1f} MB of {show_mb(e.memory_limit_mb)}",
    ),
    events.Checkpoint: Words(
        lambda e: INFO if e.notable else DEBUG,
        lambda e: e.operation,
        lambda e: (
            f"{_name(e)} memory {e.current_memory_mb:.1f} MB of {show_mb(e.memory_limit_mb)} "
            f"({100 * e.current_memory_mb / e.memory_limit_mb:.0f} %, peak {e.peak_memory_mb:.1f}) at {e.operation}"
        ),
    ),
    events.UsageWarning: Words(
        WARNING,
        lambda e: f"above {show_mb(e.threshold_percentage)} % of the ceiling at {e.operation}",
        lambda e: (
            f"{_name(e)} memory {e.current_memory_mb:.1f} MB is above {e.threshold_percentage:.0f} % of "
            f"{show_mb(e.memory_limit_mb)} MB at {e.operation}"
        ),
    ),
    events.Collection: Words(
        lambda e: INFO if e.freed_mb >= _LEAST_MB or e.collections % _EVERY_COLLECTIONS == 0 else DEBUG,
        lambda e: f"collection {e.collections} freed {e.freed_mb:.1f} MB",
        lambda e: (
            f"{_name(e)} collected garbage{f' at {e.operation}' if e.operation else ''}: "
            f"{e.freed_mb:.1f} MB freed, memory {e.memory_mb:.1f} MB "
            f"(collection {e.collections} of this run)"
        ),
    ),
    events.ChunkDone: Words(
        DEBUG,
        lambda e: f"chunk of {counted(e.items, 'item')} done, {e.items_done:,} in all",
        lambda e: f"{_name(e)} chunk of {e.items:,} done, {e.items_done:,} items so far: memory {e.memory_mb:.1f} MB",
    ),
    events.RunEnded: Words(INFO, _ended, _ended_with_figures),
    events.CeilingCut: Words(
        WARNING,
        lambda e: (
            f"declares {show_mb(e.declared_mb)} MB of memory; this worker allows {show_mb(e.allowed_mb)} MB, "
            "so that is its ceiling here"
        ),
        lambda e: f"{e.job} {short(e)}",
    ),
    events.Breach: Words(
        ERROR,
        lambda e: e.what(),
        lambda e: [f"MemoryLimitExceeded: {e.summary()} [job {e.job_id}]", *breach_words.explanation(e)],
    ),
    events.Resumed: Words(
        lambda e: {"breach": DEBUG, "planned stop": INFO}.get(e.cause, WARNING),  # the breach has its own line
        lambda e: f"{goes_on(e)} after {_cause(e.cause)}",
    ),
    events.Escalated: Words(
        WARNING,
        lambda e: f"{escalates(e)} after a memory breach of {show_mb(e.from_mb)} MB",
    ),
    events.GaveUp: Words(ERROR, _gave_up),
    events.Split: Words(
        INFO,
        lambda e: f"split into {counted(e.children, 'child job')}",
        lambda e: f"{_name(e)} is split into {counted(e.children, 'child job')}, each with a memory ceiling of its own",
    ),
    events.LeakFound: Words(
        WARNING,
        _leaks,
        lambda e: f"{e.job} {_leaks(e)}; this memory stayed, run after run, over {counted(e.runs, 'run')}",
    ),
    events.HookFailed: Words(
        ERROR,
        lambda e: f"{e.hook} failed: {e.error}{f' ({e.where})' if e.where else ''}",
        _hook_failed,
    ),
    events.HorseRecycled: Words(
        INFO,
        lambda e: f"new horse after it: {e.reason}",
        lambda e: f"worker {e.worker}: new horse with fresh memory after {_name(e)}: {e.reason}",
    ),
    events.RunsAgain: Words(
        WARNING,
        lambda e: (
            f"used {show_mb(e.used_mb)} MB of {show_mb(e.limit_mb)} MB of memory"
            f"{_quoted_place(e)}, but others had left {show_mb(e.left_mb)} MB in its "
            "horse: it runs once more, in a new horse"
        ),
        lambda e: f"{_name(e)} {short(e)}; it repeats what it did before that",
    ),
    events.WorkerFull: Words(
        WARNING,
        lambda e: f"worker {e.worker} itself uses {show_mb(e.used_mb)} MB of {show_mb(e.limit_mb)} MB",
        lambda e: f"{short(e)} of memory: it {_WHEN_FULL[e.action]}",
    ),
    events.WorkerRestarted: Words(
        WARNING,
        lambda e: f"worker {e.worker} has restarted in place, with fresh memory, after {counted(e.jobs, 'job')}",
        lambda e: short(e),
    ),
    events.WorkerLost: Words(
        WARNING,
        lambda e: f"worker {e.lost_worker} is lost; this job was running on it",
        lambda e: f"worker {e.lost_worker} is lost; it was running {_name(e)}",
    ),
    events.IntakePaused: Words(
        WARNING,
        lambda e: f"the pool takes no jobs: {e.reason}",
        lambda e: f"worker {e.worker}: {short(e)}; memory has to be freed first",
    ),
    events.IntakeResumed: Words(
        INFO,
        lambda e: f"the pool takes jobs again after {e.seconds:.0f} s",
        lambda e: f"worker {e.worker}: {short(e)}: there is memory again",
    ),
    events.Evicted: Words(
        WARNING,
        lambda e: (
            f"evicted: {e.reason}; it used {show_mb(e.used_mb)} MB of memory ({show_mb(e.reserved_mb)} MB reserved), "
            f"{_EVICTED.get(e.how, e.how)}"
        ),
    ),
    events.AlertRaised: Words(WARNING, lambda e: f"alert {e.rule}: {e.text}", _alert_raised),
    events.AlertResolved: Words(
        INFO,
        lambda e: f"alert {e.rule} ended: {e.text}",
        lambda e: f"memory alert {e.rule}{_about(e)} resolved: {e.text}",
    ),
}
"""Each kind of event in the catalogue, with its level and its words."""
