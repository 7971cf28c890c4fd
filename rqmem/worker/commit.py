"""An RQ worker that commits each outcome once, if it is still its to commit, however long Redis is away or refuses.

Stock RQ loses the outcome of a job that ends meanwhile. Here it waits (`rqmem.store.retrying`). What is repeated
because its reply was lost is first looked up, and an execution that another worker has taken over commits nothing
(`RunTakenOver`). What no repetition will commit is a failure, and told.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from rqmem.errors import RedisTakesAllButThis, RunTakenOver
from rqmem.rq_names import CanceledJobRegistry, release_slot
from rqmem.store import execution_reader, executions
from rqmem.store.retrying import until_redis_answers
from rqmem.tracebacks import what_was_raised
from rqmem.worker.redis_outage import WaitingWorker, step_of_work

if TYPE_CHECKING:
    from redis.client import Pipeline

    from rqmem.rq_names import Execution, Job, Queue
    from rqmem.store.execution_records import Standing

_KEPT_OF_AN_ERROR = 100_000  # characters, where Redis does not take all of it
_LOOK_SECONDS = 1
_log = logging.getLogger("rqmem.worker")


class PatientWorker(WaitingWorker):
    """A `WaitingWorker` whose commits wait too."""

    _failure_line: str = ""
    _retrying = False  # the failure under commit is not the job's end: RQ's Retry runs it once more
    _succeeding = False  # the commit under way is a success's: with repeats left RQ's status does not say so
    _abandoned: str = ""  # an execution that RQ's maintenance failed, and that ended well all the same
    _canceled: str = ""  # an execution whose job was cancelled while it ran, and that has ended all the same
    epoch = ""  # of the data that Redis has now (`rqmem.store.keys.EPOCH`); kept by the heart
    began_in = ""  # that in which the execution began; empty: nobody knows
    _commit_error: RedisError | None = None  # of the last commit's transaction: RQ swallows some

    @step_of_work
    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
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
        ready: dict[str, list[str]] = {}

        def move_dependents_to_ready(job: Job, pipeline: Pipeline, **options: Any) -> dict[str, list[str]]:
            if (lost := self._commit_error) is not None and "occurred while watching" in str(lost):
                self._commit_error = None
                raise RedisConnectionError(
                    str(lost)
                )  # redis-py says WatchError, and RQ would repeat it without a pause
            pipeline.watch(execution.key)
            self._check_still_ours(job, queue, execution)
            ready.clear()
            ready.update(queue.move_dependents_to_ready(job, pipeline=pipeline, **options))
            return {}  # RQ would try once to enqueue them

        fenced.move_dependents_to_ready = move_dependents_to_ready  # type: ignore[assignment, method-assign]
        self._succeeding, self._commit_error = True, None
        try:
            self._commit_once(
                lambda: super(PatientWorker, self).handle_job_success(job, fenced, started_job_registry, execution), job
            )
        finally:
            self._succeeding = False
        self._enqueue_ready(queue, ready)

    def cleanup_execution(self, job: Job, pipeline: Pipeline, execution: Execution | None = None) -> None:
        """RQ's `cleanup_execution`, a part of each commit; a job that maintenance had failed leaves the failed ones."""
        self._note_error_of(pipeline)
        super().cleanup_execution(job, pipeline, execution)
        if execution is not None and execution.id == self._abandoned:
            pipeline.zrem(job.failed_job_registry.key, job.id)
        if execution is not None and execution.id == self._canceled:  # RQ leaves it among both
            pipeline.zrem(CanceledJobRegistry(job.origin, connection=self.connection).key, job.id)

    def handle_job_retry(
        self, job: Job, queue: Queue, retry: Any, started_job_registry: Any, execution: Execution
    ) -> None:
        """RQ's `handle_job_retry`, fenced, once Redis answers. Raises `RunTakenOver`."""
        number = job.number_of_retries

        def commit() -> None:
            self._check_still_ours(job, queue, execution)
            job.number_of_retries = number
            self._commit_error = None
            super(PatientWorker, self).handle_job_retry(job, queue, retry, started_job_registry, execution)
            self._raise_swallowed()

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

        RQ logs and forgets an error in this commit. And an error whose text Redis cannot take (a file's name in no
        encoding, say) ended the horse. Of a text that is too long for Redis the end is kept.
        """
        exc_string = exc_string.encode(errors="backslashreplace").decode()
        self._failure_line = what_was_raised(exc_string)
        retries_left, stopped, tries = job.retries_left, self._stopped_job_id, 0
        last, connection = not job.should_retry or stopped == job.id, self.connection

        def commit(text: str) -> None:
            nonlocal tries
            if execution is not None and not self._may_fail(job, queue, execution):
                if tries and last:  # perhaps it was our own commit, whose reply was lost
                    self._enqueue_dependents_safely(queue, job)
                    self._release_slot_safely(job)
                return
            if tries:
                self._try_to_write()
            tries += 1
            job.retries_left, self._stopped_job_id = retries_left, stopped
            self._retrying, self._commit_error = not last, None
            try:
                super(PatientWorker, self).handle_job_failure(job, queue, started_job_registry, text, execution)
            finally:
                self._retrying = False
            self._raise_swallowed()

        for text in (exc_string, exc_string[-_KEPT_OF_AN_ERROR:]):
            try:
                until_redis_answers(lambda: commit(text), f"record the failure of job {job.id}", connection)  # noqa: B023
            except (RedisError, RedisTakesAllButThis) as error:
                _log.error("worker %s: the failure of job %s could not be recorded: %s", self.name, job.id, error)
            else:
                return

    def _try_to_write(self) -> None:
        """Raise what Redis says to a write, before RQ is asked to: it would log a traceback each time."""
        super(WaitingWorker, self).heartbeat()

    def _note_error_of(self, pipeline: Pipeline) -> None:
        execute = pipeline.execute

        def noting(*args: Any, **kwargs: Any) -> Any:
            try:
                return execute(*args, **kwargs)
            except RedisError as error:
                self._commit_error = error
                raise

        pipeline.execute = noting  # type: ignore[method-assign]

    def _raise_swallowed(self) -> None:
        if self._commit_error is not None:
            raise self._commit_error

    def _enqueue_ready(self, queue: Queue, ready: dict[str, list[str]]) -> None:
        """RQ's `Queue.enqueue_ready_jobs_by_queue`, once Redis answers: RQ's maintenance would do it in ten minutes."""
        for name, job_ids in ready.items():
            target = type(queue)(
                name, connection=queue.connection, job_class=queue.job_class, serializer=queue.serializer
            )
            self._safely(lambda: target.ready_job_registry.enqueue_jobs(job_ids), f"enqueue dependents in {name}")  # noqa: B023

    def _enqueue_dependents_safely(self, queue: Queue, job: Job) -> None:
        """Replaces RQ's `_enqueue_dependents_safely`: the same, once Redis answers."""
        ready: dict[str, list[str]] = {}

        def move() -> None:
            ready.update(queue.move_dependents_to_ready(job))

        self._safely(move, f"release the dependents of job {job.id}")
        self._enqueue_ready(queue, ready)

    def _release_slot_safely(self, job: Job) -> None:
        """Replaces RQ's `_release_slot_safely`: the same, once Redis answers."""
        self._safely(lambda: release_slot(job), f"release the slot of job {job.id}")

    def _safely(self, step: Callable[[], Any], what: str) -> None:
        """What follows a commit: an error in it is logged, as RQ does, and left to RQ's maintenance."""
        try:
            until_redis_answers(step, what)
        except Exception:  # noqa: BLE001
            _log.exception("worker %s: could not %s", self.name, what)

    def _commit_once(self, commit: Callable[[], None], job: Job) -> None:
        """``commit`` once Redis answers; found taken over after a lost reply, it was our own commit.

        What RQ does after its transaction is done once more where anything failed; each of it bears that.
        """
        tries = 0

        def step() -> None:
            nonlocal tries
            tries += 1
            if tries > 1:
                self._try_to_write()
            try:
                commit()
            except RunTakenOver:
                if tries == 1:
                    raise

        until_redis_answers(step, f"commit job {job.id}", self.connection)
        if tries > 1:
            self._release_slot_safely(job)

    def _check_still_ours(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Raise `RunTakenOver` where the execution's outcome is not ours to commit."""
        standing = execution_reader.standing(self.connection, job, queue, execution)
        if standing.status == "canceled":
            self._canceled = execution.id
        if standing.abandoned:
            self._abandoned = execution.id
        if self._is_ours(standing):
            return
        why = "somebody else took this run over" if standing.status else "it was deleted while it ran"
        raise RunTakenOver(f"job {job.id}: {why}; this execution ends without a verdict")

    def _is_ours(self, standing: Standing) -> bool:
        """Whether the outcome is ours to commit: also, as for RQ, where Redis has lost all else that it knew."""
        lost_all = standing.gone and self.began_in and self.began_in != execution_reader.epoch(self.connection)
        return standing.ours or bool(lost_all)

    def _may_fail(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Whether a failure of the execution is still to be recorded; what RQ's maintenance has failed is cleared."""
        standing = execution_reader.standing(self.connection, job, queue, execution)
        if standing.abandoned:
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline, execution)
                pipeline.execute()
            return False
        ours = self._is_ours(standing)
        if not ours:
            self._let_go(job, execution)
        return ours

    def _let_go(self, job: Job, execution: Execution) -> None:
        """The job is somebody else's, or was deleted: what RQ and we have of our execution goes."""
        executions.let_go(self.connection, job, execution)
