"""Jobs of a lease that are no plain success: they become executions like any other, and RQ's own methods end them."""

from __future__ import annotations

import sys
from dataclasses import replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from rqmem.rq_names import Execution, Job, JobStatus, NoSuchJobError
from rqmem.store import lease
from rqmem.store.held_run import NO_RECORD, HeldRecord, record_in
from rqmem.store.history.history_records import OK
from rqmem.store.lease_commands import Taken
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.execution import Event
from rqmem.worker.rq_worker import queue_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rqmem.rq_names import Queue, Worker
    from rqmem.worker.finished_jobs import FinishedJob
    from rqmem.worker.horse.channel import LeaseOrder
    from rqmem.worker.horse.lease_commits import Commits
    from rqmem.worker.horse.leased_job import LeasedJob
    from rqmem.worker.shared_memory import SharedPage

    Handed = tuple[Job, Queue, Execution]

_TAKEN_OVER = "RunTakenOver"  # the outcome of a job that is somebody else's by now, or was deleted


class HandOver:
    """For the jobs of one lease. All of it waits until Redis answers."""

    def __init__(self, worker: Worker, order: LeaseOrder, page: SharedPage, commits: Commits) -> None:
        self._worker = worker
        self._order = order
        self._page = page
        self._commits = commits

    def show(self, job: Taken, record: HeldRecord = NO_RECORD, *, hand_over: bool = False) -> str:
        """Have RQ show the job on the page as running, and keep the record of its run: `rqmem.store.lease.show`."""
        page, worker, job_id = self._page, self._worker, job.id.decode()
        owner = replace(self._order.owner, execution=page.execution_id, queue=page.queue)
        seconds = worker.job_monitoring_interval + 60
        return until_redis_answers(
            lambda: lease.show(
                worker.connection, worker.name, page.queue, job_id, job.created_at.decode(), page.began_at, owner,
                seconds, record, hand_over=hand_over,
            ),
            f"show job {job_id} as running",
        )  # fmt: skip

    def fetch(self, job_id: str) -> Job:
        """The job as Redis has it. Raises RQ's `NoSuchJobError`."""
        worker = self._worker
        return until_redis_answers(
            lambda: worker.job_class.fetch(job_id, connection=worker.connection, serializer=worker.serializer),
            f"read job {job_id}",
        )

    def fail(self, job: Taken, known: LeasedJob | None, exc_info: Any) -> Job | None:
        """It has raised. Returns it; None: it is somebody else's, or was deleted."""
        return self._end(job, known, lambda handed: self._worker._finalize_failure(*handed, exc_info))

    def succeed(self, job: Taken, known: LeasedJob | None, result: Any) -> Job | None:
        """It has returned, and is no plain one. As `fail`."""

        def finish(handed: Handed) -> None:
            self._succeed(handed, result)
            self._page.outcome = OK

        return self._end(job, known, finish)

    def finish(self, done: FinishedJob) -> None:
        """It has finished, and others wait for it, or it was cancelled meanwhile."""
        page, worker = self._page, self._worker
        page.begin_leased(done.job_id, done.created_at, done.execution_id, self._order.queues[done.queue], page.job, -1)
        page.started_at, page.began_at = 0.0, done.began_at
        page.advance(Event.ENTERED)  # it has run: where the horse dies from here on, it does not run again
        page.advance(Event.LEFT)
        page.finished.committed = page.finished.count
        page.has_run = bool(done.run)
        job = Taken(done.queue, done.job_id, b"", b"", b"", done.created_at)
        handed = self._handed(job, None, HeldRecord(done.run.decode()))
        if handed is not None:
            handed[0].ended_at = datetime.fromtimestamp(done.ended_at, timezone.utc)
            self._succeed(handed, None if done.result is None else worker.serializer.loads(done.result))
        page.advance(Event.COMMITTED)

    def _end(self, job: Taken, known: LeasedJob | None, end: Callable[[Handed], None]) -> Job | None:
        self._commits.all()
        handed = self._handed(job, known, record_in(self._page.held.read()))
        if handed is None:
            self._page.outcome = _TAKEN_OVER
        else:
            end(handed)
        self._page.advance(Event.COMMITTED)
        return handed[0] if handed is not None else None

    def _succeed(self, handed: Handed, result: Any) -> None:
        try:
            self._worker._finalize_success(*handed, result)
        except BaseException:  # noqa: BLE001  as RQ's perform_job
            self._worker._finalize_failure(*handed, sys.exc_info())

    def _handed(self, job: Taken, known: LeasedJob | None, record: HeldRecord) -> Handed | None:
        """It leaves the lease. ``known``: it may have been read by its own code."""
        page, worker = self._page, self._worker
        if self.show(job, record, hand_over=True) != "shown":
            return None
        try:
            read = known if known is not None and known.rqmem_was_read else self.fetch(job.id.decode())
        except NoSuchJobError:
            return None
        execution = Execution(page.execution_id, read.id, worker.connection, worker.name)
        execution.created_at = datetime.fromtimestamp(page.began_at, timezone.utc)
        execution._job = read
        read.started_at, read.worker_name, read._status = execution.created_at, worker.name, JobStatus.STARTED
        read.redis_server_version = worker.get_redis_server_version()
        worker.executions = {execution.id: execution}
        return read, queue_of(worker, page.queue), execution
