"""Commits each outcome once, and only if the execution still owns the job.

Plain RQ loses an outcome while Redis is away. Here the commit is repeated until Redis answers
(`rqmem.store.retrying`). Before a repetition it looks whether the first try had succeeded. If another worker has taken
the job over, nothing is committed (`RunTakenOver`). An error that repetition cannot cure fails the job.

RQ writes each outcome in one transaction, which calls `cleanup_execution`. rqmem adds its own writes there.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, cast

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from rqmem import child_ids
from rqmem.errors import RedisTakesAllButThis, RunTakenOver
from rqmem.policy.dead_workers import FRESH_SECONDS
from rqmem.rq_names import CanceledJobRegistry, Execution, Job, JobStatus, Queue, Worker, release_slot
from rqmem.store import execution_reader, executions, ledger
from rqmem.store.execution_records import Standing
from rqmem.store.guarded import Guarded, Refused
from rqmem.store.lease import was_committed
from rqmem.store.retrying import unavailable, until_redis_answers
from rqmem.tracebacks import what_was_raised
from rqmem.units import to_mb
from rqmem.values import dataclass
from rqmem.worker import successes
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.ready_jobs import enqueue_ready
from rqmem.worker.rq_worker import own_methods, queue_of
from rqmem.worker.unreadable_jobs import remove_unreadable

_OF_A_SUCCESS = ("cleanup_execution", "increment_successful_job_count", "increment_total_working_time")
_KEPT_OF_AN_ERROR = 100_000  # characters, where Redis does not take all of it
_log = logging.getLogger("rqmem.worker")


@dataclass(frozen=True)
class Commit:
    """The commit under way.

    Attributes:
        succeeds: the job has finished. RQ's status does not show it if the job has repeats left.
        retries: the failure is not the job's end: RQ's Retry runs it once more.
        failure: the error in one line.
    """

    succeeds: bool = False
    retries: bool = False
    failure: str = ""


class Committer:
    """Commits for one worker, in whichever of its processes settles an execution.

    Args:
        write: RQ's `heartbeat`, used as a test whether Redis takes writes: it raises Redis' error.

    Attributes:
        began_in: the epoch (`rqmem.store.keys.EPOCH`) in which the execution began; empty: unknown.
        begun: id of the execution that was started by the script that took its job.
    """

    def __init__(self, worker: Worker, pool: HorsePool, write: Callable[[], None]) -> None:
        self._worker = worker
        self._pool = pool
        self.began_in = self.begun = ""
        self._write = write  # RQ would log a traceback each time
        self._commit = Commit()
        self._error: RedisError | None = None  # error of the last transaction, which RQ may swallow
        self._abandoned = ""  # id of an execution that ended well after RQ's maintenance had failed it
        self._canceled = ""  # id of an execution that ended after its job was cancelled

    def has_begun(self, job: Job) -> bool:
        """Whether the job was started when it was taken. Raises `RunTakenOver` if it is not ours any more."""
        execution = self._execution_of(job)
        if execution is None or execution.id != self.begun:
            return False
        if time.time() - execution.created_at.timestamp() > FRESH_SECONDS:
            queue = queue_of(self._worker, job.origin)
            until_redis_answers(lambda: self._check_still_ours(job, queue, execution), f"begin job {job.id}")
        return True

    def _execution_of(self, job: Job) -> Execution | None:
        return next((each for each in self._worker.executions.values() if each.job_id == job.id), None)

    def begin(self, job: Job, rqs: Callable[[Redis | Guarded], None]) -> None:
        """RQ's `prepare_job_execution`, once Redis answers.

        Raises `RunTakenOver` if the job was deleted or cancelled meanwhile (RQ would run it), or if another worker has
        taken it over.
        """
        worker = self._worker
        execution = self._execution_of(job)

        def begin() -> None:
            if execution is not None:
                with contextlib.suppress(Refused):
                    return rqs(Guarded(worker.connection, job, execution, "begin"))
                if not worker.job_class.exists(job.id, worker.connection):
                    raise RunTakenOver(f"job {job.id}: it was deleted before it began")
                owner = execution_reader.owner(worker.connection, job.id)
                if owner is None or owner.execution != execution.id:
                    raise RunTakenOver(f"job {job.id}: another worker took it over before it began")
                if job.get_status() == JobStatus.CANCELED:
                    raise RunTakenOver(f"job {job.id}: it was cancelled before it began")
            return rqs(worker.connection)

        until_redis_answers(begin, f"begin job {job.id}")

    def success(
        self, job: Job, queue: Queue, execution: Execution, rqs: Callable[[Redis | Guarded, Queue], None]
    ) -> None:
        """RQ's `handle_job_success`, in one round trip unless the job is a special case. Raises `RunTakenOver`."""
        if job.repeats_left:
            return self._fenced_success(job, queue, execution, rqs)
        worker, what = self._worker, f"keep the outcome of job {job.id}"
        connection, ttl = worker.connection, job.get_result_ttl(worker.default_result_ttl)
        if successes.is_plain(job, ttl) and not self._pool.page.has_run and not own_methods(worker, _OF_A_SUCCESS):
            step = lambda: self._commit_plainly(job, execution, ttl)  # noqa: E731
        else:
            absent = [job.dependents_key] if job._dependency_ids else [job.dependents_key, job.dependencies_key]
            guarded, ordinary = Guarded(connection, job, execution, "end", absent), copy.copy(queue)
            ordinary.move_dependents_to_ready = lambda *_, **__: {}  # type: ignore[method-assign]
            step = lambda: rqs(guarded, ordinary)  # noqa: E731
        self._commit = Commit(succeeds=True)
        try:
            return until_redis_answers(step, what, connection)
        except Refused:  # perhaps our first try was committed and its reply was lost
            if until_redis_answers(lambda: was_committed(connection, job.id, execution.id), what):
                return self.release_slot(job)
        finally:
            self._commit = Commit()
        return self._fenced_success(job, queue, execution, rqs)

    def _commit_plainly(self, job: Job, execution: Execution, result_ttl: int) -> None:
        worker = self._worker
        successes.commit(worker, job, execution, result_ttl)
        worker.executions.pop(execution.id, None)
        release_slot(job)
        assert job.started_at is not None and job.ended_at is not None
        name = f"{job.description} job" if worker.log_job_description else f"job {job.id}"
        took = job.ended_at - job.started_at
        worker.log.info("Successfully completed %s in %ss on worker %s", name, took, worker.name)

    def _fenced_success(
        self, job: Job, queue: Queue, execution: Execution, rqs: Callable[[Redis | Guarded, Queue], None]
    ) -> None:
        """RQ's `handle_job_success` with a fence in its transaction.

        It watches the execution's key. If the job is taken over before the commit, the transaction checks again.
        """
        fenced = copy.copy(queue)
        ready: set[str] = set()

        def move_dependents_to_ready(job: Job, pipeline: Pipeline, **options: Any) -> dict[str, list[str]]:
            if (lost := self._error) is not None and unavailable(lost) == "away":
                self._error = None
                raise RedisConnectionError(str(lost))  # RQ repeats at once after a WatchError
            pipeline.watch(execution.key)
            self._check_still_ours(job, queue, execution)
            moved = queue.move_dependents_to_ready(job, pipeline=pipeline, **options)
            ready.update(job_id for job_ids in moved.values() for job_id in job_ids)
            return {}  # empty, or RQ would enqueue them, trying only once

        fenced.move_dependents_to_ready = move_dependents_to_ready  # type: ignore[assignment, method-assign]
        self._commit, self._error = Commit(succeeds=True), None
        try:
            self._once(lambda: rqs(self._worker.connection, fenced), job)
        finally:
            self._commit = Commit()
        self._enqueue_ready(queue, ready, job)

    def retry(self, job: Job, queue: Queue, execution: Execution, rqs: Callable[[], None]) -> None:
        """RQ's `handle_job_retry` behind a fence. Raises `RunTakenOver`."""
        number = job.number_of_retries

        def commit() -> None:
            self._check_still_ours(job, queue, execution)
            job.number_of_retries = number
            self._error = None
            with self._rqs_log_without_outages():
                rqs()
            self._raise_swallowed()

        self._once(commit, job)

    def failure(
        self, job: Job, queue: Queue, execution: Execution | None, exc_string: str, rqs: Callable[[str], None]
    ) -> None:
        """RQ's `handle_job_failure`, unless the execution does not own the job any more. Errors are logged.

        RQ swallows an error of this commit; here it is repeated. A text that Redis cannot encode is escaped. Of a text
        that is too long for Redis, the end is kept.
        """
        worker = self._worker
        exc_string = exc_string.encode(errors="backslashreplace").decode()
        failure = Commit(failure=what_was_raised(exc_string))
        retries_left, stopped, tries = job.retries_left, worker._stopped_job_id, 0
        last, connection = not job.should_retry or stopped == job.id, worker.connection

        def commit(text: str) -> None:
            nonlocal tries
            self._commit = failure
            if execution is not None and not self.may_fail(job, queue, execution):
                if tries and last:  # perhaps our first try was committed and its reply was lost
                    self.enqueue_dependents(queue, job)
                    self.release_slot(job)
                return
            if tries:
                self._write()
            tries += 1
            job.retries_left, worker._stopped_job_id = retries_left, stopped
            self._commit, self._error = Commit(retries=not last, failure=failure.failure), None
            with self._rqs_log_without_outages():
                rqs(text)
            self._raise_swallowed()

        try:
            for text in (exc_string, exc_string[-_KEPT_OF_AN_ERROR:]):
                try:
                    until_redis_answers(lambda: commit(text), f"record the failure of job {job.id}", connection)  # noqa: B023
                except (RedisError, RedisTakesAllButThis) as error:
                    _log.error("worker %s: the failure of job %s could not be recorded: %s", worker.name, job.id, error)
                else:
                    return
        finally:
            self._commit = Commit()

    def note_errors_of(self, pipeline: Pipeline) -> None:
        """Remember the error of this transaction, since RQ may swallow it."""
        execute = pipeline.execute

        def noting(*args: Any, **kwargs: Any) -> Any:
            try:
                return execute(*args, **kwargs)
            except RedisError as error:
                self._error = error
                raise

        pipeline.execute = noting  # type: ignore[method-assign]

    def clean_up(self, job: Job, pipeline: Pipeline, execution: Execution | None) -> None:
        """Add rqmem's writes to a commit: remove the owner of the run, and tell the parent of a child its end."""
        if execution is not None and execution.id == self._abandoned:
            pipeline.zrem(job.failed_job_registry.key, job.id)
        if execution is not None and execution.id == self._canceled:  # RQ would leave it in both registries
            pipeline.zrem(CanceledJobRegistry(job.origin, connection=self._worker.connection).key, job.id)
        executions.release(pipeline, job.id)
        remove_unreadable(job, pipeline)
        commit, page = self._commit, self._pool.page
        status = JobStatus.FINISHED if commit.succeeds else job.get_status(refresh=False)
        if not commit.succeeds:
            page.again = commit.retries or status in (JobStatus.QUEUED, JobStatus.SCHEDULED)  # a returned Retry
        if child_ids.parent_of(job.id) is not None and not commit.retries:  # before its run is removed
            self._tell_parent(job, status, pipeline)
        if page.has_run and status == JobStatus.FINISHED:
            executions.finish(pipeline, job.id, job.get_result_ttl(self._worker.default_result_ttl))

    def _tell_parent(self, job: Job, status: JobStatus | None, pipeline: Pipeline) -> None:
        peak_mb = to_mb(self._pool.page.peak_bytes)
        if status == JobStatus.FINISHED:
            result = b"" if job._result is None else job.serializer.dumps(job._result)
            ledger.tell_parent(pipeline, job, ledger.OK, result=result, peak_mb=peak_mb)
        elif status in (JobStatus.FAILED, JobStatus.STOPPED):
            ledger.tell_parent(pipeline, job, self._commit.failure or str(status), peak_mb=peak_mb)

    def remove_records(self, job: Job, execution: Execution, failure: str = "") -> None:
        """Clean up an execution without an outcome. ``failure``: the error that RQ's maintenance gave its job."""
        before, self._commit = self._commit, Commit(failure=failure) if failure else self._commit
        try:
            with self._worker.connection.pipeline() as pipeline:
                self._worker.cleanup_execution(job, pipeline, execution)
                pipeline.execute()
        finally:
            self._commit = before

    def forget(self, queue: Queue, execution: Execution) -> None:
        """Remove the records of an execution whose job is gone."""
        job = self._worker.job_class(execution.job_id, connection=self._worker.connection)
        job.origin = queue.name
        self.remove_records(job, execution)

    def may_fail(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Whether a failure of the execution may still be recorded. If not, its records are removed."""
        standing = execution_reader.standing(self._worker.connection, job, queue, execution)
        if standing.abandoned:
            self.remove_records(job, execution)
            return False
        ours = self._is_ours(standing)
        if not ours:
            self.let_go(job, execution)
        return ours

    def let_go(self, job: Job, execution: Execution) -> None:
        """The job is not ours any more: remove the records of this execution, RQ's and ours."""
        executions.let_go(self._worker.connection, job, execution)

    def enqueue_dependents(self, queue: Queue, job: Job) -> None:
        """As RQ's `_enqueue_dependents_safely`, once Redis answers."""
        dependents: set[str] = set()  # kept here, since the reply to a move may be lost

        def move() -> None:
            members = cast("set[bytes]", queue.connection.smembers(job.dependents_key))
            dependents.update(each.decode() for each in members)
            queue.move_dependents_to_ready(job)

        self._safely(move, f"release the dependents of job {job.id}")
        self._enqueue_ready(queue, dependents, job)

    def release_slot(self, job: Job) -> None:
        """As RQ's `_release_slot_safely`, once Redis answers."""
        self._safely(lambda: release_slot(job), f"release the slot of job {job.id}")

    def _enqueue_ready(self, queue: Queue, job_ids: Collection[str], after: Job) -> None:
        """RQ's `Queue.enqueue_ready_jobs_by_queue`, once Redis answers. RQ's maintenance may take ten minutes."""
        if job_ids:
            self._safely(lambda: enqueue_ready(queue, job_ids), f"enqueue the dependents of job {after.id}")

    def _safely(self, step: Callable[[], Any], what: str) -> None:
        """Run a step that follows a commit. As in RQ, an error is logged, and RQ's maintenance repeats the step."""
        try:
            until_redis_answers(step, what)
        except Exception:  # noqa: BLE001
            _log.exception("worker %s: could not %s", self._worker.name, what)

    def _once(self, commit: Callable[[], None], job: Job) -> None:
        """Run ``commit`` until Redis answers. `RunTakenOver` in a repetition means that the first try was committed.

        After a repetition the job's slot is released: the first try may not have come so far. Twice does no harm.
        """
        tries = 0

        def step() -> None:
            nonlocal tries
            tries += 1
            if tries > 1:
                self._write()
            try:
                commit()
            except RunTakenOver:
                if tries == 1:
                    raise

        until_redis_answers(step, f"keep the outcome of job {job.id}", self._worker.connection)
        if tries > 1:
            self.release_slot(job)

    @contextlib.contextmanager
    def _rqs_log_without_outages(self) -> Iterator[None]:
        """Hide RQ's log of an error, with its traceback, for which the commit is repeated: we log it in one line."""
        log = self._worker.log

        def shows(record: logging.LogRecord) -> bool:
            error = self._error
            return error is None or unavailable(error) is None or not record.exc_info or record.exc_info[1] is not error

        log.addFilter(shows)
        try:
            yield
        finally:
            log.removeFilter(shows)

    def _raise_swallowed(self) -> None:
        if self._error is not None:
            raise self._error

    def _check_still_ours(self, job: Job, queue: Queue, execution: Execution) -> None:
        standing = execution_reader.standing(self._worker.connection, job, queue, execution)
        if standing.status == "canceled":
            self._canceled = execution.id
        if standing.abandoned:
            self._abandoned = execution.id
        if self._is_ours(standing):
            return
        why = "somebody else took this run over" if standing.status else "it was deleted while it ran"
        raise RunTakenOver(f"job {job.id}: {why}; the outcome of this execution is not recorded")

    def _is_ours(self, standing: Standing) -> bool:
        """Whether this execution may commit. As in RQ, it also may after Redis has lost all its data."""
        began_in = self.began_in
        lost_all = standing.gone and began_in and began_in != execution_reader.epoch(self._worker.connection)
        return standing.ours or bool(lost_all)
