"""One job as JSON: what ``rqmem inspect --json`` and ``rqmem status --job --json`` print. Pure.

Keys are stable within a version; new ones may come. Sizes in MB, times in UTC (``2026-11-24T00:31:07.120Z``), spans in
seconds; what is not known is null, or empty where it is a text or a list::

    version, at              1; when it was read
    job_id, job, call        its id, job type, and call as RQ describes it
    queue, status            RQ's; status "": RQ has forgotten it
    execution, worker        who runs it, or ran it last; execution only of a memory-aware job that runs
    worker_silent            it is registered and has not been heard of
    running, well            whether it runs; whether it has neither failed nor been left by its worker
    outcome, error, next     how the last execution ended; the error in one line; what happens now
    began_at, ended_at       of the first execution, of the last one
    usage_mb, peak_mb, memory_limit_mb, usage_percentage
    operation, items_done    the place it named last, and items finished so far: as `progress()` of an ended job
    last_checkpoint          {operation, memory_mb, at}
    executions, breaches_count, resumes
    children                 of a job that has split, as `rqmem.job.progress.Progress`; else null. splits: a list of the
                             same for those of its children that have split themselves, 20 in the tree at most; more:
                             how many of them are not in it

and with ``inspect``::

    runs                     the executions that ended, as `rqmem.store.history.history_records.Run`
    events                   its story: {at, event, ...} as `rqmem.events`, oldest first
    breaches                 with their evidence, as `rqmem.events.Breach`, oldest first; summary
    grew                     {at, peak_mb, lines: [[mb, line of code]]} of executions whose peak is a record of the
                             job type, oldest first; of the running one with at null
    samples                  {at, usage_mb, memory_limit_mb} of its worker, for a job that told no story
"""

from __future__ import annotations

import dataclasses
from typing import Any

from rqmem.events import WHOSE, Breach, Event
from rqmem.observe.job import Case
from rqmem.observe.next_step import outlook
from rqmem.store import codec
from rqmem.text import timestamp_ms as utc

VERSION = 1


def brief(case: Case) -> dict[str, Any]:
    """How the job stands."""
    live, checkpoint = case.live, case.last_checkpoint
    return {
        "version": VERSION,
        "at": utc(case.now),
        "job_id": case.job_id,
        "job": case.job,
        "call": case.call,
        "queue": case.queue,
        "status": case.status,
        "execution": case.owner.execution if case.owner else "",
        "worker": case.worker,
        "worker_silent": case.silent,
        "running": case.running,
        "well": case.well,
        "outcome": case.outcome,
        "error": case.error,
        "next": outlook(case),
        "began_at": utc(case.began_at),
        "ended_at": utc(case.ended_at),
        "usage_mb": live.usage_mb if live else None,
        "peak_mb": case.peak_mb,
        "memory_limit_mb": case.ceiling_mb,
        "usage_percentage": round(100 * live.usage_mb / live.limit_mb, 1) if live and live.limit_mb else None,
        "operation": live.operation if live else "",
        "items_done": case.items_done,
        "last_checkpoint": {**vars(checkpoint), "at": utc(checkpoint.at)} if checkpoint else None,
        "executions": case.executions,
        "breaches_count": case.breached,
        "resumes": case.resumes,
        "children": dataclasses.asdict(case.children) if case.children else None,
    }


def whole(case: Case) -> dict[str, Any]:
    """The same, and its story."""
    return {
        **brief(case),
        "runs": [{**dataclasses.asdict(run), "ended_at": utc(run.ended_at)} for run in case.runs],
        "events": [{"at": utc(told.at), **_fields(told.event)} for told in case.told],
        "breaches": [{"summary": each.summary(), **dataclasses.asdict(each)} for each in case.breaches],
        "grew": _grew(case),
        "samples": [
            {"at": utc(each.at), "usage_mb": round(each.usage_mb, 1), "memory_limit_mb": round(each.limit_mb, 1)}
            for each in case.samples
        ],
    }


def _grew(case: Case) -> list[dict[str, Any]]:
    ended = [{"at": utc(each.at), "peak_mb": each.peak_mb, "lines": each.grew} for each in case.grown]
    live = case.live
    now = [{"at": None, "peak_mb": live.peak_mb, "lines": live.grew}] if live is not None and live.grew else []
    return ended + now


def _fields(event: Event) -> dict[str, Any]:
    """An event as JSON; the evidence of a breach stands with the breaches."""
    values = codec.event_to_values(event.without_evidence() if isinstance(event, Breach) else event)
    return {name: value for name, value in values.items() if name not in WHOSE}
