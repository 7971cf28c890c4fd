"""A worker outlives a Redis which is away or refuses, between its jobs and around them.

Stock RQ ends the worker on an error of Redis between two jobs, with exit code 0. Here it waits
(`rqmem.store.retrying`): for a job, for commands, in the scheduler. Any other error that nobody handles ends the
worker with `WorkerBroken`. How outcomes are committed is in `rqmem.worker.commit`.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError, ResponseError

from rqmem.errors import WorkerBroken
from rqmem.rq_names import DequeueTimeout, StopRequested, Worker, WorkerStatus, blue, green
from rqmem.store import pausing
from rqmem.store.executions import give_back, put_back
from rqmem.store.retrying import Wait, described, note, unavailable, until_redis_answers
from rqmem.worker.heartbeat import Heart
from rqmem.worker.queue_wait import QueueWait
from rqmem.worker.scheduler import PatientScheduler, new_name
from rqmem.worker.take import Suspended, Taker

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from redis.client import PubSub

    from rqmem.rq_names import Job, Queue
    from rqmem.worker.horse_pool import HorsePool
    from rqmem.worker.pool.member import Member

_LOOK_SECONDS = 1
_ROOM_SECONDS = 0.1
_SCHEDULER_SECONDS = 5
_COMMAND_PAUSE_SECONDS, _ONE_SPELL_SECONDS = 2.0, 10.0
_log = logging.getLogger("rqmem.worker")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


class _HasRunJobs(Exception):
    """While the worker was idle, its horse has taken jobs by itself."""


def step_of_work(method: F) -> F:
    """A method that RQ's loop in `work` calls: an error that leaves the last one of them has ended the worker.

    The heart's thread calls some of them too. What it meets does not end the worker.
    """

    @functools.wraps(method)
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        outage: RedisOutage = self._outage
        if threading.current_thread() is not threading.main_thread():
            return method(self, *args, **kwargs)
        try:
            result = method(self, *args, **kwargs)
        except (StopRequested, SystemExit):
            raise
        except BaseException as error:
            outage.broken_by = error
            raise
        outage.broken_by = None
        return result

    return noted  # type: ignore[return-value]


class RedisOutage:
    """What one worker does about its Redis.

    Args:
        worker: RQ's.
        heart: of the worker.
        taker: takes its jobs.
        member: says whether jobs are to be taken now.
        pool: has the idle horse.
        horse_waits: has the horse wait for jobs, for that many seconds, and run what comes. Whether it has run any;
            None: it does not wait.

    Attributes:
        broken_by: the error that has ended `work`; None: there was none.
    """

    def __init__(
        self,
        worker: Worker,
        heart: Heart,
        taker: Taker,
        member: Member,
        pool: HorsePool,
        horse_waits: Callable[[float], bool | None],
    ) -> None:
        self._worker = worker
        self._heart = heart
        self._taker = taker
        self._member = member
        self._pool = pool
        self._horse_waits = horse_waits
        self._queue_wait = QueueWait(worker)
        self._deaf_at = float("-inf")  # when the command thread last failed
        self._scheduler_at: float | None = None  # when its locks were last asked for; None: no scheduler is wanted
        self.broken_by: BaseException | None = None

    def stop_waiting(self) -> None:
        """In a signal handler: a wait for jobs is to end."""
        self._queue_wait.stop()

    def check(self) -> None:
        """Raise `WorkerBroken` for an error that has ended RQ's loop, which logs it and returns as if all were well."""
        error = self.broken_by
        if error is not None and not isinstance(error, StopIteration):  # a mock that has run out, in RQ's tests
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            name = self._worker.name
            raise WorkerBroken(f"worker {name} was ended by an error that nobody handled: {what}") from None

    def skipping(self, what: str, step: Callable[[], None]) -> None:
        """Skip a write that Redis does not take now and that is repeated soon. Whatever comes next waits for Redis."""
        try:
            step()
        except RedisError as error:
            if unavailable(error) is None:
                raise
            note(error)
            _log.debug("worker %s: %s skipped: %s", self._worker.name, what, described(error))

    def unless_stopped(self, step: Callable[[], T]) -> T:
        """RQ's way to be told to stop is an exception of a signal handler, and `logging`, for one, swallows those."""
        if self._worker._shutdown_requested_date is not None:
            raise StopRequested
        return step()

    def wait_for(self, what: str, step: Callable[[], object]) -> None:
        """Do this once Redis answers, unless the worker is asked to stop."""
        until_redis_answers(lambda: self.unless_stopped(step), what)

    def next_job(self, timeout: int | None, max_idle_time: int | None) -> tuple[Job, Queue] | None:
        """As `_next_job`. No job is no reason to end while one is due back from a dead worker."""
        burst = timeout is None
        while True:
            heart = self._heart
            before = heart.put_back
            found = self._next_job(timeout, max_idle_time)
            if found is not None or not heart.beating:
                return found
            if not heart.waits_for_lost() and heart.put_back == before:
                return None
            self._worker.check_for_suspension(burst)
            timeout = max_idle_time = _LOOK_SECONDS

    def _next_job(self, timeout: int | None, max_idle_time: int | None) -> tuple[Job, Queue] | None:
        """As RQ's `dequeue_job_and_maintain_ttl`, and Redis is waited for also while it refuses.

        RQ's loses a job that it has popped from one of several queues where the next question is not answered.
        """
        worker = self._worker
        names = ",".join(worker.queue_names())
        worker.procline(f"Listening on {names}")
        self.wait_for("tell its version", worker.get_redis_server_version)
        idle_until = time.monotonic() + max_idle_time if max_idle_time is not None else math.inf
        wait, result = Wait("give out jobs"), None
        while True:
            try:
                worker.heartbeat()
                if worker.should_run_maintenance_tasks:
                    worker.run_maintenance_tasks()
                seconds = timeout
                if self._tend_scheduler() and seconds is not None:
                    seconds = min(seconds, _SCHEDULER_SECONDS)
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
            self._heart.has_taken(result[0].id)
            self._tell_dequeued(*result)
        worker.heartbeat()
        return result

    def _dequeue(self, timeout: int | None) -> tuple[Job, Queue] | None:
        """Take a job; where there is none, wait for one. Of classes of somebody's own, by RQ's `Queue.dequeue_any`.

        A job that RQ's has popped is read, however long that takes.
        """
        worker, by_script = self._worker, False
        if self._taker.usable:
            taken, by_script = self._take(burst=timeout is None)
            if taken is not None:
                return taken
        if self._member.must_wait or (self._member.others_wait and timeout is not None):
            if worker.get_state() != WorkerStatus.IDLE:
                worker.set_state(WorkerStatus.IDLE)
            if self._member.gives_way:
                self._pool.end_warm()
                self._member.release(0)
            self._member.wait(_ROOM_SECONDS)
            raise DequeueTimeout(0, worker.queue_names())
        worker.set_state(WorkerStatus.IDLE)
        if timeout is not None:  # the record must live as long as the worker waits
            self._heart.forget_written()
            worker.heartbeat()
        queue_class, connection = worker.queue_class, worker.connection
        paused = pausing.paused(connection)
        queues = [queue for queue in worker._ordered_queues if queue.name not in paused]
        if len(queues) < len(worker._ordered_queues) and timeout is not None:
            timeout = min(timeout, _LOOK_SECONDS)  # one may be resumed soon
        if not queues:
            self._wait_while_paused(timeout)
            return None
        if timeout is not None and len(queues) == len(worker._ordered_queues):
            has_run = self._horse_waits(timeout)
            if has_run is not None:
                raise _HasRunJobs if has_run else DequeueTimeout(timeout, worker.queue_names())
        options: dict[str, Any] = {
            "job_class": worker.job_class,
            "serializer": worker.serializer,
            "death_penalty_class": worker.death_penalty_class,
        }
        queue: Any
        if by_script:
            came = self._queue_wait.wait(queues, timeout) if timeout is not None else None
            if came is None:
                if timeout is None:
                    return None
                raise DequeueTimeout(timeout, worker.queue_names())
            queue, job_id = came
        else:
            try:
                found = queue_class.dequeue_any(queues, timeout, connection=connection, **options)
            except RedisError as error:
                queue, job_id = getattr(error, "queue", None), getattr(error, "job_id", "")
                if queue is None or unavailable(error) is None:
                    raise
            else:
                return found if found is None else self._unless_held_back(*found)
        found = until_redis_answers(
            lambda: queue_class._fetch_dequeued_job(connection, queue.key, job_id, **options), f"read job {job_id}"
        )
        if found is not None:
            return self._unless_held_back(*found)
        until_redis_answers(lambda: put_back(queue, job_id), f"forget job {job_id}")  # it was deleted meanwhile
        return self._dequeue(timeout)

    def _take(self, *, burst: bool) -> tuple[tuple[Job, Queue] | None, bool]:
        """A job, if there is one now; and whether Redis ran the script that says so.

        While workers are suspended it waits, as RQ's loop does.
        """
        worker = self._worker
        while not worker._stop_requested:
            try:
                taken = self._taker.take()
                if taken is not None or not burst or not (self._member.must_wait or self._member.others_wait):
                    return taken, True
                self._member.wait(_ROOM_SECONDS)  # not the end: jobs wait for room
                worker.heartbeat()
            except Suspended:
                Worker.check_for_suspension(worker, burst)
            except ResponseError as error:
                if unavailable(error) is not None:
                    raise
                return None, False  # RQ's way meets it too, and says it without the script
        raise StopRequested

    def _wait_while_paused(self, timeout: int | None) -> None:
        """All queues are paused: as if they were empty."""
        if timeout is not None:
            time.sleep(timeout)
            raise DequeueTimeout(timeout, self._worker.queue_names())

    def _unless_held_back(self, job: Job, queue: Queue) -> tuple[Job, Queue] | None:
        """The job; where its queue was paused while we waited for it, or where there is no room for it in the pool, it
        goes back to the front and another comes."""
        if queue.name in pausing.paused(self._worker.connection):
            until_redis_answers(lambda: give_back(queue, job.id), f"put job {job.id} back into its paused queue")
            raise DequeueTimeout
        if not self._taker.may_start(job, queue):
            self._member.wait(_ROOM_SECONDS)
            raise DequeueTimeout
        return job, queue

    def _tell_dequeued(self, job: Job, queue: Queue) -> None:
        """What RQ's loop does and logs then."""
        worker = self._worker
        worker.reorder_queues(reference_queue=queue)
        worker.log.debug("Worker %s: dequeued job %s from %s", worker.name, blue(job.id), green(queue.name))
        job.redis_server_version = worker.get_redis_server_version()
        if worker.log_job_description:
            worker.log.info("Worker %s: %s: %s (%s)", worker.name, green(queue.name), blue(job.description), job.id)
        else:
            worker.log.info("Worker %s: %s: %s", worker.name, green(queue.name), job.id)

    def hears_again(self, error: Exception, pubsub: PubSub) -> bool:
        """Whether the thread that hears commands goes on, after a pause: it does where Redis was away or refused."""
        if unavailable(error) is None:
            return False
        now = time.monotonic()
        if now - self._deaf_at > _ONE_SPELL_SECONDS:
            _log.warning("worker %s: no commands are heard until Redis takes a subscription again (%s)",
                         self._worker.name, described(error))  # fmt: skip
        self._deaf_at = now
        if pubsub.connection is not None:
            pubsub.connection.disconnect()  # it subscribes when it connects anew
        time.sleep(_COMMAND_PAUSE_SECONDS)
        return True

    def start_scheduler(self, burst: bool, logging_level: str | None, date_format: str, log_format: str) -> None:
        """As RQ's `_start_scheduler`, with a `PatientScheduler`."""
        worker = self._worker
        worker.scheduler = scheduler = PatientScheduler(
            worker.queues,
            connection=worker.connection,
            logging_level=logging_level if logging_level is not None else worker.log.level,
            date_format=date_format,
            log_format=log_format,
            serializer=worker.serializer,
            name=new_name(),
            told_to_stop=lambda: worker._shutdown_requested_date is not None,
        )
        scheduler.worker_pid = os.getpid()
        self._scheduler_at = None if burst else time.monotonic()
        if not scheduler.acquire_locks():
            return
        if not burst:
            scheduler.start()
            return
        try:
            scheduler.register_birth()
            scheduler.enqueue_scheduled_jobs()
        finally:
            scheduler.release_locks()
            scheduler.register_death()

    def _tend_scheduler(self) -> bool:
        """Start the scheduler if it does not run and another one holds its locks no more; whether it still does not.

        RQ looks after ten minutes. Until then nobody moves what is due, if the holder was killed a moment ago.
        """
        scheduler, now = self._worker.scheduler, time.monotonic()
        if scheduler is None or self._scheduler_at is None:
            return False
        if scheduler._process is not None and scheduler._process.is_alive():
            return False
        if now - self._scheduler_at >= _SCHEDULER_SECONDS:
            self._scheduler_at = now
            scheduler.acquire_locks(auto_start=True)
        return True

    def stop_scheduler(self) -> None:
        """As RQ's `stop_scheduler`, but never signals a pid that is another process's by now, and does not wait for the
        scheduler's end while a horse works."""
        process = self.tell_scheduler_to_stop()
        if process is not None and not self._worker.horse_pid:
            process.join()

    def tell_scheduler_to_stop(self) -> BaseProcess | None:
        process = self._worker.scheduler._process if self._worker.scheduler is not None else None
        if process is not None and process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGTERM)
        return process
