"""Finding what dead workers left: runs to take over, jobs taken from a queue and never begun.

Runs in the heart's thread of every worker, for that worker's queues. Two workers that find the same
run are told apart by one script that only one of them wins. What is not resumable is left to RQ's own
maintenance, which fails or retries it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import JobStatus

from rqmem import events
from rqmem.journal import reader, writer
from rqmem.journal.records import Owner
from rqmem.memory import cgroup, procfs, tree
from rqmem.policy.takeover import absences, may_take_over
from rqmem.runtime.breach import EndedEarly, may_go_on, plan
from rqmem.runtime.horse import MARK
from rqmem.runtime.mending import Mending
from rqmem.type_of_job import job_type

if TYPE_CHECKING:
    from redis import Redis
    from rq.queue import Queue
    from rq.worker import Worker

    from rqmem.config import Config


class Recovery:
    """Scans on behalf of one worker, over one connection."""

    def __init__(self, worker: Worker, connection: Redis, config: Config) -> None:
        self._worker = worker
        self._connection = connection
        self._config = config
        self._queues = {
            queue.name: worker.queue_class(
                queue.name,
                connection=connection,
                job_class=worker.job_class,
                serializer=worker.serializer,
            )
            for queue in worker.queues
        }
        self._mending = Mending(connection, worker.job_class, worker.serializer)
        self._absent_since: dict[str, float] = {}
        self._unbegun_since: dict[str, float] = {}

    def forget(self) -> None:
        """Redis could not be reached: what looked absent must be seen absent anew."""
        self._absent_since.clear()
        self._unbegun_since.clear()

    def scan(self, now: float) -> None:
        """Look once and take over what may be; raises redis-py's errors."""
        self._take_over_runs(now)
        self._put_back_unbegun(now)
        writer.release_due(self._connection, self._worker.job_class, self._worker.queue_class)
        self._mending.scan(now)

    def _take_over_runs(self, now: float) -> None:
        owners = {
            job_id: owner
            for job_id, owner in reader.owners(self._connection).items()
            if owner.queue in self._queues and not _is_this_process(owner)
        }
        absent = reader.absent(self._connection, {owner.worker for owner in owners.values()})
        gone = {f"{job_id}:{o.execution}" for job_id, o in owners.items() if o.worker in absent}
        self._absent_since = absences(self._absent_since, gone, now)
        for job_id, owner in owners.items():
            since = self._absent_since.get(f"{job_id}:{owner.execution}")
            if may_take_over(since, now, self._config.heartbeat_seconds, _known_dead(owner)):
                self._take_over(job_id, owner)

    def _take_over(self, job_id: str, owner: Owner) -> None:
        queue = self._queues[owner.queue]
        if owner.host == procfs.host_identity():
            tree.kill_marked(MARK, owner.execution)  # what the dead horse started by exec
            if owner.groups:
                cgroup.kill_horses(Path(owner.groups), owner.pid, owner.start_time)
        try:
            job = queue.job_class.fetch(job_id, connection=self._connection, serializer=queue.serializer)
        except NoSuchJobError:
            writer.release_if(self._connection, job_id, owner)
            return
        record = reader.run(self._connection, job_id)
        never_began = job.get_status(refresh=False) == JobStatus.QUEUED
        if not never_began and not may_go_on(job, record):
            writer.release_if(self._connection, job_id, owner)  # RQ's maintenance fails or retries it
            return
        execution = Execution(owner.execution, job_id, self._connection, owner.worker)
        events.emit(
            events.WorkerLost(
                job=record.job or job_type(job),
                job_id=job_id,
                queue=queue.name,
                worker=self._worker.name,
                lost_worker=owner.worker,
            )
        )
        if never_began:
            writer.requeue(job, queue, execution, stage=None, chunk_size=0, cost=0)
            return
        ended = EndedEarly(job, queue, execution, "worker lost", self._worker.name)
        if not plan(ended, self._config.max_resumes).carry_out():
            writer.release_if(self._connection, job_id, owner)

    def _put_back_unbegun(self, now: float) -> None:
        """Jobs that somebody took and died before beginning: seen twice, two intervals apart."""
        unbegun: dict[str, Queue] = {}
        for queue in self._queues.values():
            started = {job_id for job_id, _ in queue.started_job_registry.get_job_and_execution_ids(cleanup=False)}
            for job_id in queue.intermediate_queue.get_job_ids():
                if job_id not in started:
                    unbegun[job_id] = queue
        self._unbegun_since = absences(self._unbegun_since, unbegun, now)
        for job_id, queue in unbegun.items():
            if may_take_over(self._unbegun_since[job_id], now, self._config.heartbeat_seconds, known_dead=False):
                writer.put_back(queue, job_id)


def _is_this_process(owner: Owner) -> bool:
    return (owner.host, owner.pid) == (procfs.host_identity(), os.getpid())


def _known_dead(owner: Owner) -> bool:
    """Whether the owner's process ran on this host and does not any more."""
    return owner.host == procfs.host_identity() and tree.is_gone(owner.pid, owner.start_time)
