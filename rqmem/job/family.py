"""A job together with the children it has split into, and theirs: cancelled, or run once more."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import Job, JobStatus

from rqmem.errors import RqmemError, UnknownName
from rqmem.journal import ledger, reader

if TYPE_CHECKING:
    from redis import Redis

_STOP_SECONDS = 5.0
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED)


@dataclass(frozen=True)
class Cancelled:
    """How many jobs were taken back before they ran, and how many that run were told to stop."""

    taken_back: int = 0
    stopped: int = 0

    def plus(self, other: Cancelled) -> Cancelled:
        """Both together."""
        return Cancelled(self.taken_back + other.taken_back, self.stopped + other.stopped)


def cancel(connection: Redis, job_id: str) -> Cancelled:
    """Cancel what is left of a job and of all below it; what has ended stays.

    The job first, so that it makes no more children and none releases it.

    Raises:
        UnknownName: RQ knows no such job.
        RqmemError: it has ended.
    """
    job = _fetch(connection, job_id)
    status = job.get_status()
    if status in _ENDED:
        raise RqmemError(f"job {job_id} is {status.value} already: there is nothing to cancel")
    try:
        if status == JobStatus.STARTED:
            send_stop_job_command(connection, job_id)
            done = Cancelled(stopped=1)
            _wait_until_stopped(job)
        else:
            job.cancel()
            done = Cancelled(taken_back=1)
    except InvalidJobOperation:
        raise RqmemError(f"job {job_id} ended meanwhile: there is nothing to cancel") from None
    known = ledger.outcomes(connection, job_id)
    left = [ledger.child_id(job_id, number) for number, outcome in known if outcome == ledger.WAITING]
    running = {child_id for child_id in left if _status(connection, child_id) == JobStatus.STARTED}
    for child_id in sorted(left, key=running.__contains__):  # those last, else the next ones begin
        done = done.plus(_cancel_child(connection, child_id))
    return done


def _status(connection: Redis, job_id: str) -> str:
    status = cast("bytes | None", connection.hget(Job.key_for(job_id), "status"))
    return status.decode() if status is not None else ""


def _wait_until_stopped(job: Job) -> None:
    """A job that is about to split makes children until it is stopped; usually within 0.1 s."""
    until = time.monotonic() + _STOP_SECONDS
    while job.get_status() == JobStatus.STARTED and time.monotonic() < until:
        time.sleep(0.02)


def _cancel_child(connection: Redis, child_id: str) -> Cancelled:
    try:
        done = cancel(connection, child_id)
    except RqmemError:  # it ended meanwhile, or is gone
        return Cancelled()
    if done.taken_back:
        ledger.tell_parent(connection, Job(child_id, connection=connection), "cancelled")
    return done


def retry(connection: Redis, job_id: str) -> int:
    """Run a failed job once more; of one that has split, only the children that failed. Returns how many those are.

    Raises:
        UnknownName: RQ knows no such job.
        RqmemError: it has not failed.
    """
    job = _fetch(connection, job_id)
    split = reader.run(connection, job_id).split
    try:
        job.requeue()
    except InvalidJobOperation:
        raise RqmemError(
            f"job {job_id} is {job.get_status().value}: only one that has failed can run once more"
        ) from None
    return split.failed if split is not None else 0


def _fetch(connection: Redis, job_id: str) -> Job:
    try:
        return Job.fetch(job_id, connection=connection)
    except NoSuchJobError:
        raise UnknownName(f"RQ knows no job {job_id!r}: it never was here, or its time to live is over") from None
