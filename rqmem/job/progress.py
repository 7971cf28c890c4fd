"""How far a job is, by what its run and its children have told; right also when RQ has forgotten the children."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from rq.job import Job, JobStatus
from rq.registry import StartedJobRegistry

from rqmem.errors import UnknownName
from rqmem.journal import ledger, reader
from rqmem.journal.records import RunRecord

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True)
class Progress:
    """Of a job, and of its children where it has split.

    Attributes:
        total: children; 1 for a job that has not split; None while they are still being made.
        done, failed, running: of those, by now. ``done`` ended well.
        items: finished, by children that ended well, or by the job itself.
        rate: of those ``total`` that end in a second, since it split; None: nothing has ended.
        eta_seconds: until all have ended, at that rate.
        peak_mb: the highest that was used, in MB.
    """

    total: int | None
    done: int
    failed: int
    running: int
    items: int
    rate: float | None
    eta_seconds: float | None
    peak_mb: float


def progress(connection: Redis, job_id: str) -> Progress:
    """Raises `UnknownName` for a job that neither RQ nor rqmem knows."""
    run = reader.run(connection, job_id)
    raw = cast("list[bytes | None]", connection.hmget(Job.key_for(job_id), "status", "origin"))
    status, queue = (each.decode() if each is not None else "" for each in raw)
    if not status and run == RunRecord():
        raise UnknownName(f"no job {job_id!r} here: look with 'rqmem status'")
    if run.split is None:
        return _of_one(status, run)
    running = running_children(connection, job_id, queue) if queue else 0
    return of_split(run, running, time.time())


def of_split(run: RunRecord, running: int, now: float) -> Progress:
    """Pure: the figures of a job that has split."""
    split = run.split
    assert split is not None
    passed = max(0.0, now - split.started_at)
    rate = split.ended / passed if split.ended and passed else None
    total = split.total if split.sealed else None
    left = total - split.ended if total is not None else None
    return Progress(
        total=total,
        done=split.ended - split.failed,
        failed=split.failed,
        running=running,
        items=split.items,
        rate=rate,
        eta_seconds=left / rate if rate and left is not None else None,
        peak_mb=max(split.peak_mb, run.peak_mb),
    )


def _of_one(status: str, run: RunRecord) -> Progress:
    return Progress(
        total=1,
        done=int(run.finished or status == JobStatus.FINISHED),
        failed=int(status == JobStatus.FAILED),
        running=int(status == JobStatus.STARTED),
        items=sum(run.items.values()),
        rate=None,
        eta_seconds=None,
        peak_mb=run.peak_mb,
    )


def running_children(connection: Redis, job_id: str, queue: str) -> int:
    """Children of the job that its queue's workers have in hand."""
    registry = StartedJobRegistry(queue, connection=connection)
    started = registry.get_job_and_execution_ids(cleanup=False)
    parents = [ledger.parent_of(child_id) for child_id, _ in started]
    return sum(found is not None and found[0] == job_id for found in parents)
