"""Takes over what dead workers left: runs, leases, and jobs that were taken from a queue and never begun.

Each worker does this for its own queues: in the heart's thread, and in its main thread at the start and when it finds
no job. If two workers find the same run, a script lets only one of them have it. A job that cannot be resumed fails,
as RQ's abandoned jobs do (`rqmem.worker.abandoned_jobs`).
"""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import cast

from redis import Redis

from rqmem import events
from rqmem.config.settings import Config
from rqmem.measure import cgroup, process_tree, procfs
from rqmem.policy.dead_workers import absences, may_take_over
from rqmem.rq_names import Execution, JobStatus, NoSuchJobError, Queue, Worker
from rqmem.store import execution_reader, executions, keys, lease
from rqmem.store.execution_records import Owner
from rqmem.store.job_ids import is_job_id
from rqmem.type_of_job import job_type
from rqmem.worker.abandoned_jobs import Abandoned, Settler
from rqmem.worker.horse.user_code import MARK
from rqmem.worker.orphaned_children import Mending
from rqmem.worker.resume import EndedEarly, may_go_on, plan
from rqmem.worker.rq_worker import queue_of

_LOOKED_AT_DELAYED = 1000


class Recovery:
    """Scans for one worker, over one connection.

    Attributes:
        due_back: number of jobs of the worker's queues that will be queued again or settled: runs of dead workers,
            jobs that were taken and may never begin, and resumed jobs that wait for their delay.
        put_back: number of jobs that were queued again or settled here, so far.
        taken_here: id of the job that the worker itself took last; `due_back` does not count it.
    """

    def __init__(self, worker: Worker, connection: Redis, config: Config, settler: Settler) -> None:
        self.due_back = self.put_back = 0
        self.taken_here = ""
        self._worker = worker
        self._connection = connection
        self._config = config
        self._queues = {name: queue_of(worker, name, connection) for name in worker.queue_names()}
        self._mending = Mending(connection, worker.job_class, worker.serializer)
        self._absent_since: dict[str, float] = {}
        self._lease_absent_since: dict[str, float] = {}
        self._unbegun_since: dict[str, float] = {}
        self._settler = settler
        self._process = procfs.process_identity()
        self._turn = threading.Lock()

    def forget(self) -> None:
        """Forget since when owners are silent. Called when Redis could not be reached: they could not beat either."""
        self._absent_since.clear()
        self._lease_absent_since.clear()
        self._unbegun_since.clear()

    def scan(self, now: float) -> None:
        """Look once, and take over what is due. ``now`` is monotonic. Raises redis-py's errors."""
        with self._turn:
            self.due_back = 0
            leased = self._take_over_leases(now)
            waited_for, to_settle = self._take_over_runs(now)
            self.put_back += self._settler.begin(to_settle, self._connection)
            unbegun = self._put_back_unbegun(now)
            released = executions.release_due(self._connection, self._worker.job_class, self._worker.queue_class)
            self.put_back += released
            self._mending.scan(now)
            self.due_back = leased + waited_for + len(to_settle) + unbegun + self._delayed()

    def close(self, seconds: float) -> None:
        """Wait up to ``seconds`` for jobs that are being settled. Another worker settles what is cut short."""
        with self._turn:
            self._settler.close(seconds)

    def _take_over_leases(self, now: float) -> int:
        """Put back jobs that dead workers leased and did not begin. Returns how many leases must still wait.

        The job that such a worker was running becomes a run of its own, which `_take_over_runs` finds.
        """
        found = {
            name: held
            for name, held in lease.leases(self._connection).items()
            if held.owner.process != self._process and not self._queues.keys().isdisjoint(held.queues)
        }
        owners = {name: held.owner for name, held in found.items()}
        silent = execution_reader.silent(self._connection, owners)
        self._lease_absent_since = absences(
            self._lease_absent_since, {f"{name}:{found[name].token}" for name in silent}, now
        )
        waited_for = 0
        for name, held in found.items():
            since = self._lease_absent_since.get(f"{name}:{held.token}")
            if may_take_over(since, now, self._config.heartbeat_seconds, _known_dead(held.owner)):
                taken = lease.take_over(self._connection, name, held.token)
                self.put_back += taken.put_back if taken is not None else 0
            else:
                waited_for += name in silent
        return waited_for

    def _take_over_runs(self, now: float) -> tuple[int, list[Abandoned]]:
        """Returns how many silent runs may not be taken over yet, and the runs that this worker must settle."""
        owned = {
            job_id: owner
            for job_id, owner in execution_reader.owners(self._connection).items()
            if owner.queue in self._queues
        }
        ours = {job_id: owner for job_id, owner in owned.items() if owner.process == self._process}
        owners = {job_id: owner for job_id, owner in owned.items() if job_id not in ours}
        silent = execution_reader.silent(self._connection, owners)
        gone = {f"{job_id}:{owners[job_id].execution}" for job_id in silent}
        self._absent_since = absences(self._absent_since, gone, now)
        waited_for = 0
        left = [_abandoned(job_id, owner) for job_id, owner in ours.items() if owner.settles]
        for job_id, owner in owners.items():
            since = self._absent_since.get(f"{job_id}:{owner.execution}")
            if may_take_over(since, now, self._config.heartbeat_seconds, _known_dead(owner)):
                left += self._take_over(job_id, owner)
            else:
                waited_for += job_id in silent
        return waited_for, left

    def _take_over(self, job_id: str, owner: Owner) -> list[Abandoned]:
        """Resume the job of a dead worker. Returns the run if this worker must settle it instead."""
        queue = self._queues[owner.queue]
        if owner.host == procfs.host_identity():
            process_tree.kill_marked(MARK, owner.execution)  # programs that the dead horse's job started
            if owner.groups:
                cgroup.kill_horses(Path(owner.groups), owner.pid, owner.start_time)
        try:
            job = queue.job_class.fetch(job_id, connection=self._connection, serializer=queue.serializer)
        except NoSuchJobError:
            executions.release_if(self._connection, job_id, owner)
            return []
        record = execution_reader.run(self._connection, job_id)
        never_began = job.get_status(refresh=False) == JobStatus.QUEUED
        goes_on = never_began or (may_go_on(job, record) and not owner.settles)
        if not goes_on and not executions.adopt(self._connection, job_id, owner, self._settling(owner)):
            return []
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
        if not goes_on:
            return [_abandoned(job_id, self._settling(owner))]
        self.put_back += 1
        if never_began:
            executions.requeue(job, queue, execution, stage=None, chunk_size=0, cost=0)
            return []
        ended = EndedEarly(job, queue, execution, "worker lost", self._worker.name)
        if plan(ended, self._config.max_resumes).carry_out():
            return []
        adopted = executions.adopt(self._connection, job_id, owner, self._settling(owner))
        return [_abandoned(job_id, self._settling(owner))] if adopted else []

    def _settling(self, dead: Owner) -> Owner:
        """This process as the owner of a run that it settles."""
        return replace(
            dead, worker=self._worker.name, host=procfs.host_identity(), pid=os.getpid(),
            start_time=procfs.read_start_time(os.getpid()) or 0, groups="", settles=dead.settles or dead.worker,
        )  # fmt: skip

    def _delayed(self) -> int:
        """Number of resumed jobs of our queues that wait for their delay."""
        job_ids = cast("list[bytes]", self._connection.zrange(keys.DELAYED, 0, _LOOKED_AT_DELAYED - 1))
        if not job_ids:
            return 0
        with self._connection.pipeline(transaction=False) as pipeline:
            for job_id in job_ids:
                pipeline.hget(self._worker.job_class.key_for(job_id.decode()), "origin")
            return sum(origin is not None and origin.decode() in self._queues for origin in pipeline.execute())

    def _put_back_unbegun(self, now: float) -> int:
        """Put back jobs that were taken by a worker that died before it began them.

        Such a job is seen twice, two heartbeats apart, and is in no lease. Returns how many must still wait.
        """
        unbegun: dict[str, Queue] = {}
        for queue in self._queues.values():
            started = {job_id for job_id, _ in queue.started_job_registry.get_job_and_execution_ids(cleanup=False)}
            entries = cast("list[bytes]", self._connection.lrange(queue.intermediate_queue_key, 0, -1))
            for job_id in (entry.decode() for entry in entries if is_job_id(entry)):
                if job_id not in started:
                    unbegun[job_id] = queue
        for job_id in lease.taken(self._connection) if unbegun else ():
            unbegun.pop(job_id, None)
        self._unbegun_since = absences(self._unbegun_since, unbegun, now)
        waited_for = 0
        for job_id, queue in unbegun.items():
            if may_take_over(self._unbegun_since[job_id], now, self._config.heartbeat_seconds, known_dead=False):
                self.put_back += executions.put_back(queue, job_id)
            elif job_id != self.taken_here:
                waited_for += 1
        return waited_for


def _abandoned(job_id: str, settler: Owner) -> Abandoned:
    return Abandoned(job_id, settler.queue, settler.execution, settler.settles)


def _known_dead(owner: Owner) -> bool:
    """Whether the owner's process was on this host and has ended."""
    return owner.host == procfs.host_identity() and process_tree.is_gone(owner.pid, owner.start_time)
