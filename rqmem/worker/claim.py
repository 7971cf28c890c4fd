"""Claims a job: writes RQ's records of a new execution and the owner of the run in one step.

If a warm horse is ready, the script that takes the job from its queue (`rqmem.worker.take`) also claims and starts it.
Otherwise one transaction claims it, and the horse starts it.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple
from uuid import uuid4

from rqmem.errors import RunTakenOver
from rqmem.measure import procfs
from rqmem.rq_names import (
    WORKER_EXECUTIONS_KEY_TEMPLATE,
    Execution,
    Job,
    JobStatus,
    StopRequested,
    Worker,
    WorkerStatus,
    now,
    utcformat,
)
from rqmem.store import codec, executions, keys
from rqmem.store.execution_records import Owner
from rqmem.store.guarded import ClaimGuard, Refused
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.commit import Committer
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.pool.member import Member
from rqmem.worker.rq_worker import own_methods

_STATE_SECONDS = 1.0
_IN_PLACE_OF = ("execute_job", "prepare_execution", "prepare_job_execution", "get_heartbeat_ttl")


class StartArguments(NamedTuple):
    """Arguments of the script `take_job`, with or without those that let it start the job."""

    keys: list[str]
    values: list[str | int | float]


@dataclass(eq=False, repr=False)
class Claimer:
    """Claims jobs for one worker. In a pool with a budget, a job that was taken may have to go back to its queue."""

    _worker: Worker
    _pool: HorsePool
    _heart: Heart
    _committer: Committer
    _member: Member

    def __post_init__(self) -> None:
        self._next_id = ""  # id of the next execution that the script starts
        self._begun: Execution | None = None  # started by the script, and not run yet
        self._in_hand = False
        self._state: str = WorkerStatus.IDLE  # the worker's state when it has no job
        self._kept = ""  # the id of the job that was taken last, if it is kept
        self._told_busy_at = float("-inf")  # (monotonic)
        self._owner: Owner | None = None

    @contextlib.contextmanager
    def starting(self) -> Iterator[StartArguments]:
        """As `taking`, for the script `take_job`. Yields the arguments for the script."""
        with self.taking():
            yield self._arguments() if self._may_start() else StartArguments(self._keys(), [""] * 8)

    @contextlib.contextmanager
    def taking(self) -> Iterator[None]:
        """Take a job within this block. Call `has_taken` if one has come, and `none_in_hand` if it goes back.

        Within it, a request to stop does not raise in the signal handler: the reply, and so the job, would be lost. A
        job that was taken runs to its end. If none was taken, the request raises at the end of the block.

        Raises:
            StopRequested: the worker was told to stop meanwhile.
        """
        worker, self._in_hand = self._worker, False
        self._state = worker._state if worker._state != WorkerStatus.BUSY else WorkerStatus.IDLE
        worker._state = WorkerStatus.BUSY
        try:
            yield
        finally:
            if not self._in_hand:
                worker._state = self._state
        if not self._in_hand:
            self.none_in_hand()

    def has_taken(self, job_id: str, *, kept: bool) -> None:
        """A job was taken. ``kept``: it is in RQ's intermediate queue until it begins, so others may put it back."""
        self._worker._state, self._in_hand = WorkerStatus.BUSY, True
        self._kept = job_id if kept else ""
        self._heart.has_taken(job_id)

    def none_in_hand(self) -> None:
        """No job has come, or it has gone back: a request to stop takes effect.

        Raises:
            StopRequested: there was one.
        """
        worker = self._worker
        worker._state = self._state
        if worker._stop_requested:
            worker._stop_requested = False  # as RQ does if no job runs
            raise StopRequested

    def _may_start(self) -> bool:
        """Whether the script may start the job: a horse is ready, and no subclass overrides what it replaces."""
        worker = self._worker
        return (
            self._heart.beating and self._pool.warm is not None and not self._member.budgeted
            and worker.job_class.redis_job_namespace_prefix == Job.redis_job_namespace_prefix
            and not own_methods(worker, _IN_PLACE_OF)
        )  # fmt: skip

    def _keys(self) -> list[str]:
        worker = self._worker
        return [keys.RUNNING, WORKER_EXECUTIONS_KEY_TEMPLATE.format(worker.name), worker.key]

    def _arguments(self) -> StartArguments:
        worker, self._started_at = self._worker, now()
        self._next_id = self._next_id or uuid4().hex  # the same id again if the last reply was lost
        tells = time.monotonic() - self._told_busy_at >= _STATE_SECONDS
        values = [
            *(self._next_id, worker.name, utcformat(self._started_at), self._started_at.timestamp()),
            *(int(self._started_at.timestamp()), worker.job_monitoring_interval, codec.to_json(self.owner())),
            WorkerStatus.BUSY.value if tells else "",
        ]
        return StartArguments(self._keys(), values)

    def started(self, job: Job, start: StartArguments) -> None:
        execution = Execution(self._next_id, job.id, self._worker.connection, self._worker.name)
        execution.created_at = self._started_at
        execution._job = job
        mark_started(job, execution)
        self._begun, self._next_id = execution, ""
        if start.values[-1]:
            self._told_busy_at = time.monotonic()

    def forget_state(self) -> None:
        """The state in Redis may change: write BUSY again with the next job."""
        self._told_busy_at = float("-inf")

    def claim(self, job: Job) -> Execution:
        """As RQ's `prepare_execution`, once Redis answers. Raises `RunTakenOver` if the job was put back or deleted."""
        worker, committer = self._worker, self._committer
        execution, self._begun = self._begun, None
        if execution is not None and execution.job_id == job.id:
            committer.begun = execution.id
        else:
            execution = self._claim(job)
        worker.executions[execution.id] = execution
        committer.began_in = self._heart.epoch
        return execution

    def _claim(self, job: Job) -> Execution:
        worker = self._worker
        kept = self._kept == job.id and self._heart.beating
        connection = ClaimGuard(worker.connection, job, worker.name) if kept else worker.connection
        tried: list[Execution] = []  # their replies were lost, so they may exist

        def claim() -> Execution:
            with connection.pipeline() as pipeline:
                for before in tried:
                    before.delete(job, pipeline)
                ttl = worker.get_heartbeat_ttl(job)
                execution = Execution.create(job, ttl, pipeline=pipeline, worker_name=worker.name)
                tried.append(execution)
                owner = replace(self.owner(), execution=execution.id, queue=job.origin or "")
                executions.claim(pipeline, job.id, owner)
                worker.set_state(WorkerStatus.BUSY, pipeline=pipeline)
                pipeline.execute()
            return execution

        try:
            return until_redis_answers(claim, f"claim job {job.id}")
        except Refused:
            pass
        exists = until_redis_answers(lambda: worker.job_class.exists(job.id, worker.connection), f"look for {job.id}")
        why = "somebody has put it back before it was claimed here" if exists else "it was deleted before it began"
        raise RunTakenOver(f"job {job.id}: {why}")

    def owner(self) -> Owner:
        """This worker's process as an `Owner`, without an execution and a queue."""
        pid, kernel = os.getpid(), self._pool.kernel
        groups = str(kernel.place.path) if kernel is not None else ""
        known = self._owner
        if known is None or known.pid != pid or known.groups != groups:
            start_time = procfs.read_start_time(pid) or 0
            known = self._owner = Owner("", self._worker.name, "", procfs.host_identity(), pid, start_time, groups)
        return known


def mark_started(job: Job, execution: Execution) -> None:
    """Set the fields that RQ's `Job.prepare_for_execution` sets, for a job that the script has started."""
    job._status, job.worker_name = JobStatus.STARTED, execution.worker_name
    job.started_at = job.last_heartbeat = execution.created_at
