"""Finds the next job of a worker, and waits for it, also while Redis is away or refuses.

- `rqmem.worker.take` takes a job that is in a queue;
- if there is none, the idle horse waits (`rqmem.worker.lease`), or the worker does (`rqmem.worker.queue_wait`);
- if queue or job class override how jobs are read, RQ's `Queue.dequeue_any` does both.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from redis.exceptions import RedisError, ResponseError

from rqmem.rq_names import DequeueTimeout, Job, Queue, StopRequested, Worker, WorkerStatus, blue, green
from rqmem.store import pausing
from rqmem.store.executions import give_back, put_back
from rqmem.store.job_ids import tell_dropped
from rqmem.store.retrying import Wait, unavailable, until_redis_answers
from rqmem.worker import scheduler
from rqmem.worker.claim import Claimer
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.pool.member import Member
from rqmem.worker.queue_wait import QueueWait, moves_jobs
from rqmem.worker.redis_outage import RedisOutage
from rqmem.worker.scheduler import Scheduling
from rqmem.worker.take import Suspended, Taker
from rqmem.worker.unreadable_jobs import mend_in_redis

_LOOK_SECONDS = 1
_ROOM_SECONDS = 0.1


class _HasRunJobs(Exception):
    """While the worker was idle, its horse has taken and run jobs."""


@dataclass(eq=False, repr=False)
class NextJob:
    """Finds the jobs of one worker.

    Args:
        _horse_waits: lets the horse wait for jobs, for that many seconds, and run them. Returns whether it has run
            any; None if it cannot wait.
    """

    _worker: Worker
    _outage: RedisOutage
    _heart: Heart
    _taker: Taker
    _member: Member
    _pool: HorsePool
    _scheduling: Scheduling
    _claimer: Claimer
    _horse_waits: Callable[[float], bool | None]

    def __post_init__(self) -> None:
        self._queue_wait = QueueWait(self._worker, self._claimer)

    def stop_waiting(self) -> None:
        """End a wait for jobs. Called in a signal handler."""
        self._queue_wait.stop()

    def find(self, timeout: int | None, max_idle_time: int | None) -> tuple[Job, Queue] | None:
        """As `_find`, but returns None only if no job of a dead worker will come back to the queues."""
        burst = timeout is None
        while True:
            heart = self._heart
            before = heart.put_back
            found = self._find(timeout, max_idle_time)
            if found is not None or not heart.beating:
                return found
            if not heart.waits_for_lost() and heart.put_back == before:
                return None
            self._worker.check_for_suspension(burst)
            timeout = max_idle_time = _LOOK_SECONDS

    def _find(self, timeout: int | None, max_idle_time: int | None) -> tuple[Job, Queue] | None:
        """As RQ's `dequeue_job_and_maintain_ttl`, but also waits while Redis refuses, and loses no job.

        RQ's loses a job that it has popped from one of several queues if it then cannot read the job.
        """
        worker = self._worker
        names = ",".join(worker.queue_names())
        worker.procline(f"Listening on {names}")
        self._outage.wait_for("tell its version", worker.get_redis_server_version)
        idle_until = time.monotonic() + max_idle_time if max_idle_time is not None else math.inf
        wait, result = Wait("give out jobs"), None
        while True:
            try:
                worker.heartbeat()
                if worker.should_run_maintenance_tasks:
                    worker.run_maintenance_tasks()
                seconds = timeout
                if self._scheduling.tend() and seconds is not None:
                    seconds = min(seconds, scheduler.LOOK_SECONDS)
                if seconds is not None and max_idle_time is not None:
                    seconds = min(seconds, max(1, math.ceil(idle_until - time.monotonic())))
                worker.log.debug("Worker %s: dequeueing jobs on queues %s and timeout %s", worker.name, names, seconds)
                result = self._dequeue(seconds)
                break
            except _HasRunJobs:
                if worker._stop_requested:
                    break
                idle_until = time.monotonic() + max_idle_time if max_idle_time is not None else math.inf
            except DequeueTimeout:
                wait.over()
                wait = Wait("give out jobs")
                if time.monotonic() >= idle_until:
                    break
            except RedisError as error:
                wait.again(error)
        wait.over()
        if result is not None:
            self._tell_dequeued(*result)
        worker.heartbeat()
        return result

    def _dequeue(self, timeout: int | None) -> tuple[Job, Queue] | None:
        """Take a job, or wait for one. Raises `DequeueTimeout` or `_HasRunJobs` when there is none after the wait."""
        worker, by_script = self._worker, False
        if self._taker.usable:
            taken, by_script = self._take(burst=timeout is None)
            if taken is not None:
                return taken
        if self._member.must_wait or (self._member.others_wait and timeout is not None):
            self._wait_for_room()
        worker.set_state(WorkerStatus.IDLE)
        if timeout is not None:  # the record must live as long as the worker waits
            self._heart.forget_written()
            worker.heartbeat()
        paused = pausing.paused(worker.connection)
        queues = [queue for queue in worker._ordered_queues if queue.name not in paused]
        if timeout is not None and len(queues) < len(worker._ordered_queues):
            timeout = min(timeout, _LOOK_SECONDS)  # a paused queue may be resumed soon
        elif timeout is not None and (has_run := self._horse_waits(timeout)) is not None:
            raise _HasRunJobs if has_run else DequeueTimeout(timeout, worker.queue_names())
        if not by_script and queues:
            return self._dequeue_by_rq(queues, timeout)
        if timeout is None:
            return None
        if not queues:
            time.sleep(timeout)
        elif (found := self._queue_wait.wait(queues, timeout)) is not None:
            return self._read(*found, timeout)
        raise DequeueTimeout(timeout, worker.queue_names())

    def _dequeue_by_rq(self, queues: Sequence[Queue], timeout: int | None) -> tuple[Job, Queue] | None:
        """Take a job by RQ's `Queue.dequeue_any`. If Redis goes away after the pop, wait and read the job then."""
        worker = self._worker
        kept = len(queues) == 1 and moves_jobs(worker)
        try:
            found = worker.queue_class.dequeue_any(queues, timeout, connection=worker.connection, **self._classes())
        except Exception as error:
            queue: Any = getattr(error, "queue", None)
            if queue is None:
                raise
            job_id = getattr(error, "job_id", "")
            self._claimer.has_taken(job_id, kept=kept)
            return self._read(queue, job_id, timeout)
        if found is None:
            return None
        self._claimer.has_taken(found[0].id, kept=kept)
        return self._unless_held_back(*found)

    def _read(self, queue: Queue, job_id: str, timeout: int | None) -> tuple[Job, Queue] | None:
        """Read the job that was popped from this queue. If it was deleted meanwhile, take another one."""
        worker = self._worker
        found = None
        try:
            found = until_redis_answers(
                lambda: worker.queue_class._fetch_dequeued_job(worker.connection, queue.key, job_id, **self._classes()),
                f"read job {job_id}",
            )
        except (ResponseError, ValueError):
            tell_dropped(queue.key, job_id.encode())
        if found is not None:
            return self._unless_held_back(*found)
        until_redis_answers(lambda: put_back(queue, job_id), f"forget job {job_id}")
        self._claimer.none_in_hand()
        return self._dequeue(timeout)

    def _classes(self) -> dict[str, Any]:
        worker = self._worker
        return {
            "job_class": worker.job_class,
            "serializer": worker.serializer,
            "death_penalty_class": worker.death_penalty_class,
        }

    def _wait_for_room(self) -> None:
        """Wait a moment for room in the budget of the worker's pool. Raises `DequeueTimeout`."""
        worker, member = self._worker, self._member
        if worker.get_state() != WorkerStatus.IDLE:
            worker.set_state(WorkerStatus.IDLE)
        if member.gives_way:
            self._pool.end_warm()
            member.release(0)
        member.wait(_ROOM_SECONDS)
        raise DequeueTimeout(0, worker.queue_names())

    def _take(self, *, burst: bool) -> tuple[tuple[Job, Queue] | None, bool]:
        """Take a job that is there now. Also returns whether Redis could run the script.

        While workers are suspended it waits, as RQ's loop does.
        """
        worker = self._worker
        while not worker._stop_requested:
            try:
                taken = self._taker.take()
                if taken is not None or not burst or not (self._member.must_wait or self._member.others_wait):
                    return taken, True
                self._member.wait(_ROOM_SECONDS)  # a burst does not end: jobs wait for room
                worker.heartbeat()
            except Suspended:
                Worker.check_for_suspension(worker, burst)
            except ResponseError as error:
                if unavailable(error) is not None:
                    raise
                return None, False  # RQ's `dequeue_any` will raise a clearer error
        raise StopRequested

    def _unless_held_back(self, job: Job, queue: Queue) -> tuple[Job, Queue] | None:
        """The job, unless its queue was paused meanwhile or the pool has no room for it: then it goes back to the
        front of its queue. Raises `DequeueTimeout`."""
        if mend_in_redis(queue, job.id):
            until_redis_answers(job.refresh, f"read job {job.id}")
        if queue.name in pausing.paused(self._worker.connection):
            until_redis_answers(lambda: give_back(queue, job.id), f"put job {job.id} back into its paused queue")
            self._claimer.none_in_hand()
            raise DequeueTimeout
        if not self._taker.may_start(job, queue):
            self._member.wait(_ROOM_SECONDS)
            raise DequeueTimeout
        return job, queue

    def _tell_dequeued(self, job: Job, queue: Queue) -> None:
        """Do and log what RQ's method does with a job that it has found."""
        worker = self._worker
        worker.reorder_queues(reference_queue=queue)
        worker.log.debug("Worker %s: dequeued job %s from %s", worker.name, blue(job.id), green(queue.name))
        job.redis_server_version = worker.get_redis_server_version()
        if worker.log_job_description:
            worker.log.info("Worker %s: %s: %s (%s)", worker.name, green(queue.name), blue(job.description), job.id)
        else:
            worker.log.info("Worker %s: %s: %s", worker.name, green(queue.name), job.id)
