"""Claiming a job: RQ's records of a new execution, and who owns the run, in one transaction."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from rqmem.measure import procfs
from rqmem.rq_names import Execution, WorkerStatus
from rqmem.store import executions
from rqmem.store.execution_records import Owner
from rqmem.store.retrying import until_redis_answers

if TYPE_CHECKING:
    from rqmem.rq_names import Job, Worker
    from rqmem.worker.commit import Committer
    from rqmem.worker.heartbeat import Heart
    from rqmem.worker.horse_pool import HorsePool


class Claimer:
    """Claims for one worker."""

    def __init__(self, worker: Worker, pool: HorsePool, heart: Heart, committer: Committer) -> None:
        self._worker = worker
        self._pool = pool
        self._heart = heart
        self._committer = committer

    def claim(self, job: Job) -> Execution:
        """As RQ's `prepare_execution`, once Redis answers, with the owner."""
        worker = self._worker
        tried: list[Execution] = []  # with replies lost, so perhaps there

        def claim() -> Execution:
            with worker.connection.pipeline() as pipeline:
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

        execution = until_redis_answers(claim, f"claim job {job.id}")
        worker.executions[execution.id] = execution
        self._committer.began_in = self._heart.epoch
        return execution

    def owner(self) -> Owner:
        """This worker's process, as the owner of no execution yet."""
        pid, kernel = os.getpid(), self._pool.kernel
        return Owner(
            execution="",
            worker=self._worker.name,
            queue="",
            host=procfs.host_identity(),
            pid=pid,
            start_time=procfs.read_start_time(pid) or 0,
            groups=str(kernel.place.path) if kernel is not None else "",
        )
