"""All that is known of one job, read: from RQ, which may have forgotten it, and from the journal. Changes nothing."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from rqmem.events import JobStarted
from rqmem.job.progress import of_tree
from rqmem.observe.job import Case, InRq
from rqmem.observe.model import SplitJob
from rqmem.rq_names import Job, NoSuchJobError, Queue
from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from rqmem.store.history.kept_types import OTHERS
from rqmem.store.history.samples import RINGS, Sample
from rqmem.store.ledger import splitting
from rqmem.text import shortened
from rqmem.tracebacks import what_was_raised
from rqmem.type_of_job import UNKNOWN, job_type

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.store.execution_records import Owner
    from rqmem.store.history.history_records import Live, Run

_ENDED_BADLY = ("failed", "stopped", "canceled")


def read_case(connection: Redis, job_id: str, now: float) -> Case:
    """The job with this id as it is ``now`` (epoch seconds). Raises `JournalVersionError`."""
    history_reader.check_version(connection)
    in_rq, owner = _read_in_rq(connection, job_id), execution_reader.owner(connection, job_id)
    named = owner.worker if owner is not None else (in_rq.worker if in_rq is not None else "")
    [said, *_] = [*history_reader.workers(connection, [named] if named else []), None]
    live = said.job if said is not None and said.job is not None and said.job.job_id == job_id else None
    if in_rq is not None and in_rq.status != "started":
        live = None  # the worker's word is up to two heartbeats old
    breaches = execution_reader.breaches(connection, job_id)[::-1]
    record = execution_reader.run(connection, job_id)
    case = Case(
        job_id=job_id,
        now=now,
        in_rq=in_rq,
        owner=owner,
        live=live,
        silent=_silent(connection, job_id, in_rq, owner),
        record=record,
        children=of_tree(connection, job_id, record, now) if record.split is not None else None,
        told=history_reader.story(connection, job_id),
        breaches=breaches,
    )
    return _with_runs(connection, case, said)


def read_splits(connection: Redis, now: float) -> list[SplitJob]:
    """The jobs that have split and wait for their children, by id."""
    records = {job_id: execution_reader.run(connection, job_id) for job_id in splitting(connection)}
    return [
        SplitJob(job_id, record.job, of_tree(connection, job_id, record, now))
        for job_id, record in records.items()
        if record.split is not None
    ]


def _with_runs(connection: Redis, case: Case, said: Live | None) -> Case:
    """The same with its executions that ended, where they grew, and its worker's samples, where it told no story."""
    if case.job:
        runs = _runs(connection, case.job, case.job_id) or _runs(connection, OTHERS, case.job_id)
        case = replace(case, runs=runs)
        known = history_reader.grown(connection, case.job, case.now)
        ours = sorted((each for each in known if each.job_id == case.job_id), key=lambda each: each.at)
        case = replace(case, grown=ours)
    else:
        of_types = (_runs(connection, name, case.job_id) for name in history_reader.types(connection))
        case = replace(case, runs=next((runs for runs in of_types if runs), []))
    if case.of(JobStarted) or case.began_at is None or not case.worker:
        return case
    until = case.now if case.running else (case.ended_at or case.now)
    return replace(case, samples=_samples(connection, case.worker, case.began_at, until, case.now))


def _runs(connection: Redis, job_type: str, job_id: str) -> list[Run]:
    return [run for run in history_reader.runs(connection, job_type) if run.job_id == job_id][::-1]


def _samples(connection: Redis, worker: str, since: float, until: float, now: float) -> list[Sample]:
    """Those of the finest ring that goes back so far; the step in which it began may be of the job before."""
    ring = next((ring for ring in RINGS if now - since < ring.seconds), RINGS[-1])
    found = history_reader.samples(connection, worker, now, ring)
    return [sample for sample in found if since <= sample.at <= until and sample.limit_mb > 0]


def _silent(connection: Redis, job_id: str, in_rq: InRq | None, owner: Owner | None) -> bool:
    """Whether an rqmem worker should be running it and has not been heard of; RQ's own do not say."""
    started = in_rq is not None and in_rq.status == "started"
    return started and owner is not None and bool(execution_reader.silent(connection, {job_id: owner}))


def _read_in_rq(connection: Redis, job_id: str) -> InRq | None:
    try:
        job = Job.fetch(job_id, connection=connection)
    except (NoSuchJobError, ValueError):  # ValueError: an id that RQ does not take
        return None
    status = job.get_status(refresh=False).value
    return InRq(
        status=status,
        call=shortened(job.description or ""),
        queue=job.origin,
        worker=job.worker_name or "",
        job_type="" if (known := job_type(job)) == UNKNOWN else known,
        enqueued_at=_seconds(job.enqueued_at),
        started_at=_seconds(job.started_at),
        ended_at=_seconds(job.ended_at),
        error=_error(job) if status in _ENDED_BADLY else "",
        position=job.get_position() if status == "queued" else None,
        waits_for=tuple(sorted(job.dependency_ids)) if status == "deferred" else (),
        due_at=_due_at(connection, job) if status == "scheduled" else None,
    )


def _error(job: Job) -> str:
    result = job.latest_result()
    return what_was_raised(result.exc_string or "") if result is not None else ""


def _due_at(connection: Redis, job: Job) -> float | None:
    with suppress(NoSuchJobError):
        return Queue(job.origin, connection=connection).scheduled_job_registry.get_scheduled_time(job).timestamp()
    return None


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None
