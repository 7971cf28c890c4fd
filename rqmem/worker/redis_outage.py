"""An RQ worker that outlives a Redis which is away or refuses, between its jobs and beside them.

Stock RQ ends the worker on an error of Redis between two jobs, with exit code 0. Here it waits
(`rqmem.store.retrying`): for a job, for commands, in the scheduler. Any other error that nobody handles ends the
worker with `WorkerBroken`. How outcomes are committed is in `rqmem.worker.commit`.
"""

from __future__ import annotations

import copy
import functools
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from rqmem.errors import WorkerBroken
from rqmem.rq_names import (
    DEFAULT_LOGGING_DATE_FORMAT,
    DEFAULT_LOGGING_FORMAT,
    WORKERS_BY_QUEUE_KEY,
    DequeueTimeout,
    StopRequested,
    Worker,
    WorkerStatus,
    blue,
    green,
    register_worker,
    utcformat,
)
from rqmem.store.retrying import (
    Wait,
    connection_with_short_timeout,
    described,
    note,
    reopen_at_failover,
    unavailable,
    until_redis_answers,
)
from rqmem.worker.heartbeat import Heart
from rqmem.worker.scheduler import PatientScheduler

if TYPE_CHECKING:
    from multiprocessing.process import BaseProcess

    from redis import Redis
    from redis.client import Pipeline, PubSub, PubSubWorkerThread

    from rqmem.rq_names import Job, Queue

_SIGN_OFF_SECONDS = 3.0
_COMMAND_PAUSE_SECONDS, _ONE_SPELL_SECONDS = 2.0, 10.0
_log = logging.getLogger("rqmem.worker")
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., Any])


def step_of_work(method: F) -> F:
    """A method that RQ's loop in `work` calls: an error that leaves the last one of them has ended the worker."""

    @functools.wraps(method)
    def noted(self: WaitingWorker, *args: Any, **kwargs: Any) -> Any:
        try:
            result = method(self, *args, **kwargs)
        except (StopRequested, SystemExit):
            raise
        except BaseException as error:
            self.broken_by = error
            raise
        self.broken_by = None
        return result

    return noted  # type: ignore[return-value]


class WaitingWorker(Worker):
    """An RQ worker that waits for its Redis.

    Attributes:
        broken_by: the error that has ended `work`; None: there was none.
    """

    broken_by: BaseException | None = None
    _heart: Heart | None = None
    _watching = False  # a horse works: nothing in the main thread may wait for Redis
    _asked_to_stop = False
    _has_name = True  # False from the start of `work` until its birth is registered: the name may be another worker's
    _deaf_at = float("-inf")  # when the command thread last failed

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """RQ's `work`, which logs an error that nobody handled and returns as if all were well.

        Raises `WorkerBroken` then: who runs the worker has to see that it did not end as it should.
        """
        worked = super().work(*args, **kwargs)
        error = self.broken_by
        if error is not None and not isinstance(error, StopIteration):  # a mock that has run out, in RQ's tests
            what = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            raise WorkerBroken(f"worker {self.name} was ended by an error that nobody handled: {what}") from None
        return worked

    def _set_connection(self, connection: Redis) -> Redis:
        """RQ's `_set_connection`; after a failover, new connections are opened on it."""
        connection = super()._set_connection(connection)
        reopen_at_failover(connection)
        return connection

    # Between jobs

    @step_of_work
    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """RQ's `heartbeat`; one that Redis did not take is skipped."""
        try:
            super().heartbeat(timeout, pipeline)
        except RedisError as error:
            self._skip("heartbeat", error)

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """RQ's `set_state`; the worker is in that state also when Redis did not take it."""
        try:
            super().set_state(state, pipeline)
        except RedisError as error:
            self._skip(f"state {state}", error)

    def _skip(self, what: str, error: RedisError) -> None:
        """Redis did not take what is told again soon. Whatever comes next waits for it, and says so."""
        if unavailable(error) is None:
            raise error
        note(error)
        _log.debug("worker %s: %s skipped: %s", self.name, what, described(error))

    def register_again(self, connection: Redis) -> bool:
        """As `register_birth`, for a worker that lives and that Redis has forgotten. Whether it had to be.

        Its counts of jobs begin anew.
        """
        names = [self.redis_workers_keys, *(WORKERS_BY_QUEUE_KEY % name for name in self.queue_names())]
        with connection.pipeline() as pipeline:
            for name in names:
                pipeline.sismember(name, self.key)
            pipeline.hexists(self.key, "birth")
            if all(pipeline.execute()) or self.birth_date is None:
                return False
            pipeline.hset(self.key, mapping={**self.serialize(), "state": self.get_state()})
            register_worker(self, pipeline)
            pipeline.expire(self.key, self.worker_ttl + 60)
            pipeline.execute()
        return True

    @step_of_work
    def check_for_suspension(self, burst: bool) -> None:
        """RQ's `check_for_suspension`, once Redis answers."""
        look = super().check_for_suspension
        until_redis_answers(lambda: self._unless_stopped(lambda: look(burst)), "look for suspension")

    def _unless_stopped(self, step: Callable[[], T]) -> T:
        """RQ's way to be told to stop is an exception of a signal handler, and `logging`, for one, swallows those."""
        if self._asked_to_stop:
            raise StopRequested
        return step()

    @step_of_work
    def run_maintenance_tasks(self) -> None:
        """RQ's `run_maintenance_tasks`; another time (it is asked again before each wait for a job) without Redis.

        And soon after that, when the heartbeats of jobs that run are over but not given up.
        """
        if self._heart is not None and not self._heart.steady:
            return
        try:
            super().run_maintenance_tasks()
        except RedisError as error:
            self._skip("maintenance", error)

    @property
    @step_of_work
    def should_run_maintenance_tasks(self) -> bool:
        """RQ's `should_run_maintenance_tasks`, asked before each wait for a job: the place to notice a stop request."""
        self._unless_stopped(lambda: None)
        return bool(super().should_run_maintenance_tasks)

    @step_of_work
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """Replaces RQ's `dequeue_job_and_maintain_ttl`: the same, and Redis is waited for also while it refuses.

        RQ's loses a job that it has popped from one of several queues where the next question is not answered.
        """
        names = ",".join(self.queue_names())
        self.set_state(WorkerStatus.IDLE)
        self.procline(f"Listening on {names}")
        until_redis_answers(lambda: self._unless_stopped(self.get_redis_server_version), "tell its version")
        idle_until = time.monotonic() + max_idle_time if max_idle_time is not None else math.inf
        wait, result = Wait("give out jobs"), None
        while True:
            try:
                self.heartbeat()
                if self.should_run_maintenance_tasks:
                    self.run_maintenance_tasks()
                if timeout is not None and max_idle_time is not None:
                    timeout = min(timeout, max(1, math.ceil(idle_until - time.monotonic())))
                self.log.debug("Worker %s: dequeueing jobs on queues %s and timeout %s", self.name, names, timeout)
                result = self._dequeue(timeout)
                break
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
        self.heartbeat()
        return result

    def _dequeue(self, timeout: int | None) -> tuple[Job, Queue] | None:
        """RQ's `Queue.dequeue_any`; a job that it has popped is read, however long that takes."""
        options: dict[str, Any] = {
            "job_class": self.job_class,
            "serializer": self.serializer,
            "death_penalty_class": self.death_penalty_class,
        }
        connection = self.connection
        try:
            return self.queue_class.dequeue_any(self._ordered_queues, timeout, connection=connection, **options)
        except RedisError as error:
            queue, job_id = getattr(error, "queue", None), getattr(error, "job_id", "")
            if queue is None or unavailable(error) is None:
                raise
        found = until_redis_answers(
            lambda: self.queue_class._fetch_dequeued_job(connection, queue.key, job_id, **options), f"read job {job_id}"
        )
        return found if found is not None else self._dequeue(timeout)  # None: deleted meanwhile

    def _tell_dequeued(self, job: Job, queue: Queue) -> None:
        """What RQ's loop does and logs then."""
        self.reorder_queues(reference_queue=queue)
        self.log.debug("Worker %s: dequeued job %s from %s", self.name, blue(job.id), green(queue.name))
        job.redis_server_version = self.get_redis_server_version()
        if self.log_job_description:
            self.log.info("Worker %s: %s: %s (%s)", self.name, green(queue.name), blue(job.description), job.id)
        else:
            self.log.info("Worker %s: %s: %s", self.name, green(queue.name), job.id)

    def _shutdown(self) -> None:
        """RQ's `_shutdown`; the request is remembered also when its exception is lost."""
        self._asked_to_stop = True
        super()._shutdown()

    def teardown(self) -> None:
        """RQ's `teardown`; a Redis that is away is no reason to fail on leaving."""
        try:
            super().teardown()
        except RedisError as error:
            _log.warning("worker %s: could not sign off: %s", self.name, described(error))

    def register_death(self) -> None:
        """RQ's `register_death`, on a connection that fails soon: RQ's own waits for jobs, for seven minutes."""
        if not self._has_name:
            return
        leaving = copy.copy(self)
        leaving.connection = connection_with_short_timeout(self.connection, _SIGN_OFF_SECONDS)
        super(WaitingWorker, leaving).register_death()

    # Beside the jobs

    def _pubsub_exception_handler(self, exc: Exception, pubsub: PubSub, pubsub_thread: PubSubWorkerThread) -> None:
        """RQ's handler of errors in the thread that hears commands; RQ's ends it on all but a lost connection."""
        if unavailable(exc) is None:
            super()._pubsub_exception_handler(exc, pubsub, pubsub_thread)
            return
        now = time.monotonic()
        if now - self._deaf_at > _ONE_SPELL_SECONDS:
            _log.warning("worker %s: no commands are heard until Redis takes a subscription again (%s)",
                         self.name, described(exc))  # fmt: skip
        self._deaf_at = now
        if not isinstance(exc, RedisConnectionError) and pubsub.connection is not None:
            pubsub.connection.disconnect()  # it subscribes when it connects anew
        time.sleep(_COMMAND_PAUSE_SECONDS)

    def handle_payload(self, message: Any) -> None:
        """RQ's `handle_payload`; a command that cannot be carried out is logged, and the next one is heard."""
        try:
            super().handle_payload(message)
        except Exception:  # noqa: BLE001
            _log.exception("worker %s: a command could not be carried out", self.name)

    def _start_scheduler(
        self,
        burst: bool = False,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """Replaces RQ's `_start_scheduler`: the same with a `PatientScheduler`."""
        self.scheduler = scheduler = PatientScheduler(
            self.queues,
            connection=self.connection,
            logging_level=logging_level if logging_level is not None else self.log.level,
            date_format=date_format,
            log_format=log_format,
            serializer=self.serializer,
        )
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

    # While a horse works

    def set_shutdown_requested_date(self) -> None:
        """Replaces RQ's `set_shutdown_requested_date`: no signal handler may wait for Redis; the heart writes it."""
        if self._heart is None:
            super().set_shutdown_requested_date()
            return
        assert self._shutdown_requested_date is not None
        key, text = self.key, utcformat(self._shutdown_requested_date)
        self._heart.soon(lambda connection: connection.hset(key, "shutdown_requested_date", text))

    def stop_scheduler(self) -> None:
        """Replaces RQ's `stop_scheduler`: the same, not to a pid of old; while a horse works without waiting for it."""
        process = self._tell_scheduler_to_stop()
        if process is not None and not self._watching:
            process.join()

    def _tell_scheduler_to_stop(self) -> BaseProcess | None:
        process = self.scheduler._process if self.scheduler is not None else None
        if process is not None and process.is_alive() and process.pid:
            os.kill(process.pid, signal.SIGTERM)
        return process
