"""How far a job is, by its own record and its children's. It is right even if RQ has forgotten the children."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from redis import Redis

from rqmem import child_ids
from rqmem.errors import UnknownName
from rqmem.rq_names import Job, JobStatus, StartedJobRegistry, parse_composite_key
from rqmem.store import execution_reader, ledger
from rqmem.store.execution_records import RunRecord
from rqmem.store.queue_waits import queues_of
from rqmem.store.scripts import of_each
from rqmem.values import dataclass

MOST_SPLITS = 20
"""How many jobs below the top of a tree are shown."""


@dataclass(frozen=True)
class Progress:
    """The progress of a job, and of its children if it has split.

    Attributes:
        total: number of children; 1 for a job that has not split; None while they are still being made.
        done, failed, running: how many of those have succeeded, have failed, and run now.
        items: items finished in all executions, by the job itself and by all below it that have ended.
        rate: children that end in a second, since the job split (or failed ones were run again) until all have ended;
            None: nothing has ended.
        eta_seconds: until all have ended, at that rate.
        peak_mb: the highest usage, in MB, of the job and of those below it that have ended.
        splits: those of its children that have split themselves, in order.
        more: how many more have split but are not in ``splits``: a tree has 20 at most, and some may be forgotten.
    """

    job_id: str
    total: int | None
    done: int
    failed: int
    running: int
    items: int
    rate: float | None
    eta_seconds: float | None
    peak_mb: float
    splits: tuple[Progress, ...] = ()
    more: int = 0


def progress(connection: Redis, job_id: str) -> Progress:
    """Raises `UnknownName` for a job that neither RQ nor rqmem knows."""
    run = execution_reader.run(connection, job_id)
    if run.split is not None:
        return of_tree(connection, job_id, run, time.time())
    raw = cast("bytes | None", connection.hget(Job.key_for(job_id), "status"))
    if raw is None and run == RunRecord():
        raise UnknownName(f"no job {job_id!r} here: look with 'rqmem status'")
    return _of_one(job_id, raw.decode() if raw is not None else "", run)


def of_split(job_id: str, run: RunRecord, running: int, now: float) -> Progress:
    """Pure: the figures of a job that has split."""
    split = run.split
    assert split is not None
    passed = max(0.0, (split.ended_at if split.complete and split.ended_at else now) - split.started_at)
    ended = split.ended - split.ended_before
    rate = ended / passed if ended > 0 and passed else None
    total = split.total if split.sealed else None
    left = total - split.ended if total is not None else None
    return Progress(
        job_id=job_id,
        total=total,
        done=split.ended - split.failed,
        failed=split.failed,
        running=running,
        items=split.items + run.all_items,
        rate=rate,
        eta_seconds=0.0 if left == 0 else left / rate if rate and left is not None else None,
        peak_mb=max(split.peak_mb, run.peak_mb),
    )


def _of_one(job_id: str, status: str, run: RunRecord) -> Progress:
    return Progress(
        job_id=job_id,
        total=1,
        done=int(run.finished or status == JobStatus.FINISHED),
        failed=int(status == JobStatus.FAILED),
        running=int(status == JobStatus.STARTED),
        items=run.all_items,
        rate=None,
        eta_seconds=None,
        peak_mb=run.peak_mb,
    )


def of_tree(
    connection: Redis, job_id: str, run: RunRecord, now: float, running: Counter[str] | None = None
) -> Progress:
    """Of a job that has split, with those below it that have: at most `MOST_SPLITS`, those nearer to the top first.

    ``running``: of `running_children`, where it has been read for several jobs.
    """
    running = running_children(connection) if running is None else running
    found = {job_id: of_split(job_id, run, running[job_id], now)}
    below: dict[str, list[str]] = {}
    waiting = [job_id]
    while waiting:
        parent_id = waiting.pop(0)
        numbers, count = ledger.split_children(connection, parent_id, MOST_SPLITS + 1 - len(found))
        below[parent_id] = []
        for child_id in (child_ids.child_id(parent_id, number) for number in numbers):
            child = execution_reader.run(connection, child_id)
            if child.split is not None:
                found[child_id] = of_split(child_id, child, running[child_id], now)
                below[parent_id].append(child_id)
        found[parent_id] = replace(found[parent_id], more=count - len(below[parent_id]))
        waiting += below[parent_id]
    return _joined(job_id, found, below)


def _joined(job_id: str, found: Mapping[str, Progress], below: Mapping[str, list[str]]) -> Progress:
    return replace(found[job_id], splits=tuple(_joined(each, found, below) for each in below[job_id]))


def running_children(connection: Redis) -> Counter[str]:
    """Job id -> how many of its children workers have in hand, of whatever queue."""
    counts: Counter[str] = Counter()
    registries = [StartedJobRegistry(queue.name, connection=connection).key for queue in queues_of(connection)]
    for members in of_each(connection, Redis.zrange, registries, 0, -1):
        for member in members:
            child = child_ids.parent_of(parse_composite_key(member.decode(errors="replace"))[0])
            if child is not None:
                counts[child[0]] += 1
    return counts
