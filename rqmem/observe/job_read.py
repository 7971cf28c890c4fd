"""All that is known of one job, read: from RQ, which may have forgotten it, and from the journal. Changes nothing."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import cast

from redis import Redis

from rqmem.events import JobStarted
from rqmem.job.progress import of_tree, running_children
from rqmem.observe.job import Case
from rqmem.observe.model import EndedSplitJob, JobRow, SplitJob
from rqmem.observe.rq_jobs import read_jobs
from rqmem.observe.snapshot import worker_names
from rqmem.observe.waits import read_limit_of
from rqmem.rq_names import Job, Queue
from rqmem.store import execution_reader, keys
from rqmem.store.execution_records import Owner, RunRecord
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Live, Run
from rqmem.store.history.kept_types import OTHERS
from rqmem.store.history.pool_records import PoolWait
from rqmem.store.history.samples import RINGS, Sample
from rqmem.store.ledger import splitting
from rqmem.store.unreadable import readable


def read_case(connection: Redis, job_id: str, now: float) -> Case:
    """The job with this id as it is ``now`` (epoch seconds). Raises `JournalVersionError`."""
    history_reader.check_version(connection)
    in_rq = _read_in_rq(connection, job_id)
    [owner, *_] = [*readable(partial(execution_reader.owner, connection), [job_id], keys.RUNNING), None]
    named = owner.worker if owner is not None else (in_rq.worker if in_rq is not None else "")
    [said, *_] = [*history_reader.workers(connection, [named] if named else []), None]
    live = said.job if said is not None and said.job is not None and said.job.job_id == job_id else None
    if in_rq is not None and in_rq.status != "started":
        live = None  # the worker's word is up to two heartbeats old
    breaches = execution_reader.breaches(connection, job_id)[::-1]
    [record, *_] = [*readable(partial(execution_reader.run, connection), [job_id], keys.run(job_id)), RunRecord()]
    story = history_reader.whole_story(connection, job_id)
    status = in_rq.status if in_rq is not None else ""
    pool, wait = _wait_in_pool(connection, job_id) if status == "queued" else ("", None)
    case = Case(
        job_id=job_id,
        now=now,
        in_rq=in_rq,
        owner=owner,
        live=live,
        silent=_silent(connection, job_id, in_rq, owner),
        record=record,
        children=of_tree(connection, job_id, record, now) if record.split is not None else None,
        told=story.told,
        runs=story.runs,
        cut_at=story.cut_at,
        breaches=breaches,
        limit=read_limit_of(connection, Job.key_for(job_id)) if status == "rate_limited" else None,
        pool=pool,
        wait=wait,
    )
    return _with_runs(connection, case, said)


def read_splits(connection: Redis, now: float) -> list[SplitJob]:
    """The jobs that have split and wait for their children, by id."""
    ids, running = splitting(connection), running_children(connection)
    read = readable(lambda job_id: (job_id, execution_reader.run(connection, job_id)), ids, keys.run("*"))
    return [
        SplitJob(job_id, record.job, of_tree(connection, job_id, record, now, running))
        for job_id, record in read
        if record.split is not None
    ]


def read_ended_splits(connection: Redis) -> list[EndedSplitJob]:
    """The jobs whose children have all ended, the last ones first: 200 at most; without those that wait again."""
    waiting = set(splitting(connection))
    ended = [each for each in history_reader.ended_splits(connection) if each.job_id not in waiting]
    rows = read_jobs(connection, [each.job_id for each in ended], errors=False)
    return [
        EndedSplitJob(**vars(each), status=row.status if row is not None else "")
        for each, row in zip(ended, rows, strict=True)
    ]


def _with_runs(connection: Redis, case: Case, said: Live | None) -> Case:
    """The same with its executions that ended, where they grew, and its worker's samples, where it told no story."""
    types = [case.job, OTHERS] if case.job else list(history_reader.types(connection))
    case = replace(case, runs=_joined(case.runs, _runs(connection, types, case.job_id)))
    if case.job:
        known = history_reader.grown(connection, case.job, case.now)
        ours = sorted((each for each in known if each.job_id == case.job_id), key=lambda each: each.at)
        case = replace(case, grown=ours)
    if case.of(JobStarted) or case.began_at is None or not case.worker:
        return case
    until = case.now if case.running else (case.ended_at or case.now)
    return replace(case, samples=_samples(connection, case.worker, case.began_at, until, case.now))


def _runs(connection: Redis, job_types: list[str], job_id: str) -> list[Run]:
    found = history_reader.runs_with(connection, job_types, job_id)
    return [run for run in found if run.job_id == job_id]


def _joined(drawn: list[Run], known: list[Run]) -> list[Run]:
    """Executions, oldest first: those that the story has with their curves, and those that only their type has."""
    found = {run.ended_at: run for run in [*known, *drawn]}
    return [found[at] for at in sorted(found)]


def _samples(connection: Redis, worker: str, since: float, until: float, now: float) -> list[Sample]:
    """Those of the finest ring that goes back so far; the step in which it began may be of the job before."""
    ring = next((ring for ring in RINGS if now - since < ring.seconds), RINGS[-1])
    found = history_reader.samples(connection, worker, now, ring)
    return [sample for sample in found if since <= sample.at <= until and sample.limit_mb > 0]


def _silent(connection: Redis, job_id: str, in_rq: JobRow | None, owner: Owner | None) -> bool:
    """Whether an rqmem worker should be running it and has not been heard of; RQ's own do not say."""
    started = in_rq is not None and in_rq.status == "started"
    return started and owner is not None and bool(execution_reader.silent(connection, {job_id: owner}))


def _read_in_rq(connection: Redis, job_id: str) -> JobRow | None:
    [row] = read_jobs(connection, [job_id])
    if row is None:
        return None
    queue = Queue(row.queue or "default", connection=connection)
    position = connection.lpos(queue.key, job_id) if row.status == "queued" else None
    due_at = connection.zscore(queue.scheduled_job_registry.key, job_id) if row.status == "scheduled" else None
    return replace(row, position=cast("int | None", position), due_at=due_at)


def _wait_in_pool(connection: Redis, job_id: str) -> tuple[str, PoolWait | None]:
    """The pool that has had no room for a queued job, and what it waits for there."""
    names = {live.pool for live in history_reader.workers(connection, worker_names(connection))}
    for pool in history_reader.pools(connection, names):
        wait = next((each for each in pool.waits if each.job_id == job_id), None)
        if wait is not None:
            return pool.pool, wait
    return "", None
