"""An RQ worker that outlives a Redis which is away, and commits each outcome once, if it is still its to commit.

Stock RQ ends the worker on a connection error between two jobs, and loses the outcome of a job that ends
while Redis is away. Here both wait. What is repeated because its reply was lost is first looked up, and
an execution that another worker has taken over commits nothing (`RunTakenOver`).
"""

from __future__ import annotations

import copy
import logging
import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from redis.exceptions import RedisError
from rq.exceptions import StopRequested
from rq.utils import utcformat
from rq.worker import Worker

from rqmem.errors import RunTakenOver
from rqmem.journal import reader
from rqmem.journal.patience import AWAY, until_redis_answers
from rqmem.runtime.heart import Heart, connection_with_short_timeout
from rqmem.tracebacks import what_was_raised

if TYPE_CHECKING:
    from redis.client import Pipeline
    from rq.executions import Execution
    from rq.job import Job
    from rq.queue import Queue

T = TypeVar("T")

_FAILURE_TRIES = 5
_SIGN_OFF_SECONDS = 3.0
_LOOK_SECONDS = 1
_log = logging.getLogger("rqmem.worker")


class PatientWorker(Worker):
    """An RQ worker that waits for its Redis."""

    _heart: Heart | None = None
    _watching = False  # a horse works: nothing in the main thread may wait for Redis
    _asked_to_stop = False
    _failure_line: str = ""
    _retrying = False  # the failure under commit is not the job's end: RQ's Retry runs it once more
    _succeeding = False  # the commit under way is a success's: with repeats left RQ's status does not say so
    _abandoned: str = ""  # an execution that RQ's maintenance failed, and that ended well all the same

    # Between jobs

    def heartbeat(self, timeout: int | None = None, pipeline: Pipeline | None = None) -> None:
        """RQ's `heartbeat`; one that Redis did not take is skipped."""
        try:
            super().heartbeat(timeout, pipeline)
        except AWAY as error:
            _log.debug("worker %s: heartbeat skipped: %s", self.name, error)

    def set_state(self, state: str, pipeline: Pipeline | None = None) -> None:
        """RQ's `set_state`; the worker is in that state also when Redis did not take it."""
        try:
            super().set_state(state, pipeline)
        except AWAY as error:
            _log.debug("worker %s: state %s not told: %s", self.name, state, error)

    def dequeue_job_and_maintain_ttl(self, timeout: int | None, max_idle_time: int | None = None) -> Any:
        """RQ's `dequeue_job_and_maintain_ttl`; no job is no reason to end while one is due back from a dead worker."""
        burst = timeout is None
        while True:
            before = self._heart.put_back if self._heart is not None else 0
            found = super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)
            if found is not None or self._heart is None:
                return found
            if not self._heart.waits_for_lost() and self._heart.put_back == before:
                return None
            self.check_for_suspension(burst)
            timeout = max_idle_time = _LOOK_SECONDS

    def check_for_suspension(self, burst: bool) -> None:
        """RQ's `check_for_suspension`, once Redis answers."""
        until_redis_answers(lambda: super(PatientWorker, self).check_for_suspension(burst), "look for suspension")

    def run_maintenance_tasks(self) -> None:
        """RQ's `run_maintenance_tasks`; without Redis, another time."""
        try:
            super().run_maintenance_tasks()
        except AWAY as error:
            _log.warning("worker %s: maintenance put off: %s", self.name, error)

    def teardown(self) -> None:
        """RQ's `teardown`; a Redis that is away is no reason to fail on leaving."""
        try:
            super().teardown()
        except RedisError as error:
            _log.warning("worker %s: could not sign off: %s", self.name, error)

    def register_death(self) -> None:
        """RQ's `register_death`, on a connection that fails soon: RQ's own waits for jobs, for seven minutes."""
        leaving = copy.copy(self)
        leaving.connection = connection_with_short_timeout(self.connection, _SIGN_OFF_SECONDS)
        super(PatientWorker, leaving).register_death()

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """RQ's `should_run_maintenance_tasks`, asked before each wait for a job: the place to notice a stop request.

        RQ's is an exception raised by a signal handler, and `logging`, for one, swallows exceptions.
        """
        if self._asked_to_stop:
            raise StopRequested
        return super().should_run_maintenance_tasks

    def _shutdown(self) -> None:
        """RQ's `_shutdown`; the request is remembered also when its exception is lost."""
        self._asked_to_stop = True
        super()._shutdown()

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
        """RQ's `stop_scheduler`; while a horse works, without waiting for the scheduler's end."""
        if not self._watching:
            super().stop_scheduler()
            return
        process = self.scheduler._process if self.scheduler is not None else None
        if process is not None and process.pid and process.is_alive():
            os.kill(process.pid, signal.SIGTERM)

    # Committing

    def prepare_job_execution(self, job: Job, remove_from_intermediate_queue: bool = False) -> None:
        """RQ's `prepare_job_execution`, once Redis answers."""
        until_redis_answers(
            lambda: super(PatientWorker, self).prepare_job_execution(job, remove_from_intermediate_queue),
            f"begin job {job.id}",
        )

    def handle_execution_ended(self, job: Job, queue: Queue, heartbeat_ttl: int) -> None:
        """RQ's `handle_execution_ended`, once Redis answers."""
        until_redis_answers(
            lambda: super(PatientWorker, self).handle_execution_ended(job, queue, heartbeat_ttl),
            f"keep the outcome of job {job.id}",
        )

    def handle_job_success(self, job: Job, queue: Queue, started_job_registry: Any, execution: Execution) -> None:
        """RQ's `handle_job_success`, fenced, once Redis answers.

        The fence stands inside RQ's transaction: taken over between the look and the commit, the watched
        execution is gone and the transaction looks again. Raises `RunTakenOver`.
        """
        fenced = copy.copy(queue)

        def move_dependents_to_ready(job: Job, pipeline: Pipeline, **options: Any) -> Any:
            pipeline.watch(execution.key)
            self._check_still_ours(job, queue, execution)
            return queue.move_dependents_to_ready(job, pipeline=pipeline, **options)

        fenced.move_dependents_to_ready = move_dependents_to_ready  # type: ignore[assignment, method-assign]
        self._succeeding = True
        try:
            self._commit_once(
                lambda: super(PatientWorker, self).handle_job_success(job, fenced, started_job_registry, execution), job
            )
        finally:
            self._succeeding = False

    def cleanup_execution(self, job: Job, pipeline: Pipeline, execution: Execution | None = None) -> None:
        """RQ's `cleanup_execution`; a job that maintenance had failed meanwhile leaves the failed ones."""
        super().cleanup_execution(job, pipeline, execution)
        if execution is not None and execution.id == self._abandoned:
            pipeline.zrem(job.failed_job_registry.key, job.id)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """RQ's `handle_job_retry`, fenced, once Redis answers. Raises `RunTakenOver`."""
        number = job.number_of_retries

        def commit() -> None:
            self._check_still_ours(job, queue, execution)
            job.number_of_retries = number
            super(PatientWorker, self).handle_job_retry(job, queue, retry, started_job_registry, execution)

        self._commit_once(commit, job)

    def handle_job_failure(
        self,
        job: Job,
        queue: Queue,
        started_job_registry: Any = None,
        exc_string: str = "",
        execution: Execution | None = None,
    ) -> None:
        """RQ's `handle_job_failure`, once Redis answers, unless the execution is somebody else's by now.

        RQ logs and forgets an error in this commit; here it is looked up whether it is there. And an error whose text
        Redis cannot take (a file's name in no encoding, say) ended the horse.
        """
        exc_string = exc_string.encode(errors="backslashreplace").decode()
        retries_left, stopped = job.retries_left, self._stopped_job_id
        self._failure_line = what_was_raised(exc_string)

        def commit() -> None:
            if execution is not None and not self._may_fail(job, queue, execution):
                return
            job.retries_left, self._stopped_job_id = retries_left, stopped
            self._retrying = job.should_retry and stopped != job.id
            try:
                super(PatientWorker, self).handle_job_failure(job, queue, started_job_registry, exc_string, execution)
            finally:
                self._retrying = False

        for _ in range(_FAILURE_TRIES):
            until_redis_answers(commit, f"record the failure of job {job.id}")
            if execution is None or not until_redis_answers(
                lambda: self._is_open(execution, queue), f"look for the failure of job {job.id}"
            ):
                return

    def _commit_once(self, commit: Callable[[], None], job: Job) -> None:
        """``commit`` once Redis answers; found taken over after a lost reply, it was our own commit."""
        tries = 0

        def step() -> None:
            nonlocal tries
            tries += 1
            try:
                commit()
            except RunTakenOver:
                if tries == 1:
                    raise

        until_redis_answers(step, f"commit job {job.id}")

    def _check_still_ours(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Raise `RunTakenOver` where the execution's outcome is not ours to commit."""
        standing = reader.standing(self.connection, job, queue, execution)
        if not standing.ours:
            raise RunTakenOver(f"job {job.id}: somebody else took this run over; this execution ends without a verdict")
        if standing.abandoned:
            self._abandoned = execution.id

    def _may_fail(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Whether a failure of the execution is still to be recorded; what RQ's maintenance has failed is cleared."""
        standing = reader.standing(self.connection, job, queue, execution)
        if standing.abandoned:
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline, execution)
                pipeline.execute()
            return False
        if not standing.ours:
            self._let_go(job, execution)
        return standing.ours

    def _let_go(self, job: Job, execution: Execution) -> None:
        """The job is somebody else's: what RQ has of our execution goes, or its maintenance takes theirs for lost."""
        with self.connection.pipeline() as pipeline:
            execution.delete(job, pipeline)
            pipeline.execute()

    def _is_open(self, execution: Execution, queue: Queue) -> bool:
        """Whether nobody has committed an outcome of this execution: all who do remove it in the same step."""
        return self.connection.zscore(queue.started_job_registry.key, execution.composite_key) is not None
