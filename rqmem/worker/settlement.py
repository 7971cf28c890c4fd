"""Settles executions that did not end well: the job is resumed, failed or stopped.

The horse settles a job that unwound. The worker settles it if the horse left no outcome. `rqmem.worker.resume`
decides whether the job goes on.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import Any

from rqmem import events
from rqmem.errors import (
    ConfigError,
    HorseLost,
    HorseTooHeavy,
    JobEvicted,
    MemoryLimitExceeded,
    PlannedStop,
    RunTakenOver,
    breach_in,
)
from rqmem.measure import machine
from rqmem.policy import recycling
from rqmem.policy.after_breach import Cause
from rqmem.policy.pressure import How
from rqmem.rq_names import (
    AbandonedJobError,
    Execution,
    InvalidJobOperation,
    Job,
    JobStatus,
    JobTimeoutException,
    Queue,
    Worker,
    now,
)
from rqmem.store import codec, executions, ledger, parent_meta
from rqmem.store.execution_records import Pending
from rqmem.store.history.history_records import OK
from rqmem.store.retrying import until_redis_answers
from rqmem.units import to_bytes, to_mb
from rqmem.values import dataclass
from rqmem.worker.commit import Committer
from rqmem.worker.execution import Event, Phase
from rqmem.worker.exit_reason import Circumstances, how_horse_ended, killed_by_somebody
from rqmem.worker.horse.channel import Report
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.lent_connection import lend
from rqmem.worker.pool.member import Member
from rqmem.worker.resume import EndedEarly, plan, remember
from rqmem.worker.rq_worker import one_line
from rqmem.worker.watched_fork import WatchedFork
from rqmem.worker.worker_setup import Setup

_log = logging.getLogger("rqmem.worker")
HOOK_BREACHED = "the hook was stopped; the job's outcome does not change"
_STOPPED = "stopped"

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
EndError = MemoryLimitExceeded | HorseLost | JobTimeoutException


@dataclass(frozen=True)
class End:
    """How the horse ended its order. ``status`` is `os.wait4`'s; ``report``: what a warm horse sent, if it did.

    ``starved``: the kernel killed in the horse's cgroup because memory ran out elsewhere; None: no cgroup says so.
    """

    pid: int | None
    status: int | None
    rusage: Any
    report: Report | None
    breach: events.Breach | None
    overdue: bool
    warm: bool
    starved: bool | None = None

    @property
    def lost(self) -> bool:
        """The horse left no outcome. (RQ takes exit code 0 of a horse for one job as an outcome.)"""
        return self.status != os.EX_OK or (self.warm and self.report is None)

    @property
    def broken(self) -> bool:
        """The whole process tree of the job must be killed."""
        return self.lost or self.breach is not None


@dataclasses.dataclass(eq=False, repr=False)
class Settlement:
    """Settles breaches and lost horses for one worker.

    Args:
        _fork: runs callbacks for a lost horse.
        _fail: RQ's `_finalize_failure`.
        _stop: RQ's `_handle_stopped_job`.
    """

    _worker: Worker
    _setup: Setup
    _pool: HorsePool
    _committer: Committer
    _fork: WatchedFork
    _oom_kills: machine.OomKills
    _fail: Callable[[Job, Queue, Execution, ExcInfo], None]
    _stop: Callable[[Job, Queue, Execution], None]
    _member: Member

    # In the worker, for a horse that left no outcome

    def settle_lost_horse(self, job: Job, queue: Queue, execution: Execution, end: End) -> str:
        """The horse was stopped on request, killed, or lost. Waits until Redis answers.

        Returns how the execution ended; empty if the run is not ours any more.
        """
        return until_redis_answers(
            lambda: self._settle_lost_horse(job, queue, execution, end), f"settle the end of job {job.id}"
        )

    def _settle_lost_horse(self, job: Job, queue: Queue, execution: Execution, end: End) -> str:
        worker, page = self._worker, self._pool.page
        try:
            job.get_status()
        except InvalidJobOperation:  # deleted, or ended with its time to live over
            self._committer.remove_records(job, execution)
            return ""
        if page.has_run:
            executions.note_peak(worker.connection, job.id, to_mb(page.peak_bytes))
        if worker._stopped_job_id == job.id:
            worker._handle_stopped_job(job, queue, execution)
            return _STOPPED
        if not self._committer.may_fail(job, queue, execution):
            return ""
        job.ended_at = now()
        error = self._why(end)
        if isinstance(error, HorseLost):
            worker.handle_work_horse_killed(job, end.pid, end.status, end.rusage)
        page.again = job.should_retry  # for a job that is resumed, this is overwritten below
        if page.state.phase is Phase.FAILING:
            if isinstance(error, MemoryLimitExceeded):
                what_next = "failed: it had failed before, and this was its failure callback"
                self.record_breach(job, execution, error.breach, what_next)
        elif self._try_resume(job, queue, execution, error):
            return type(error).__name__
        else:
            self._fail_in_a_fork(job, queue, execution, error)
        # The fork may have died in a callback: the job has failed all the same.
        worker.handle_job_failure(job, queue, exc_string=one_line(error), execution=execution)
        return type(error).__name__

    def settle_abandoned(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Fail the job of a dead worker that cannot be resumed, as RQ's `StartedJobRegistry.cleanup` does."""
        line = f"worker {execution.worker_name} died while it ran the job, which is not run again by itself"
        error = AbandonedJobError(line)
        status = job.get_status(refresh=False)
        if status == JobStatus.STARTED:
            self._fail_in_a_fork(job, queue, execution, error)
            self._worker.handle_job_failure(job, queue, exc_string=one_line(error), execution=execution)
            return
        # It has ended otherwise, or waits to run once more.
        failure = one_line(error) if status == JobStatus.FAILED else ""  # by RQ's maintenance
        self._committer.remove_records(job, execution, failure)

    def report_lost_in_hook(self, job: Job, queue: Queue, execution: Execution, end: End) -> None:
        """The horse ended in a hook after its job. The job's outcome does not change."""
        page = self._pool.page
        self._worker._stopped_job_id = None
        hook, error = page.operation or "the horse's work after the job", self._why(end)
        about = {"job": page.job, "job_id": job.id, "queue": queue.name, "worker": self._worker.name}
        events.emit(events.HookFailed(hook=hook, error=one_line(error), **about))
        if isinstance(error, MemoryLimitExceeded):
            self.record_breach(job, execution, error.breach, HOOK_BREACHED)

    def _why(self, end: End) -> EndError:
        """The error for a job whose horse ended and left no outcome."""
        page = self._pool.page
        if end.breach is not None:
            if page.recorded:
                return MemoryLimitExceeded(codec.from_json(events.Breach, page.breach_json))
            return MemoryLimitExceeded(end.breach)
        if end.overdue:
            return JobTimeoutException(
                f"killed: it went on for {self._setup.kill_after_seconds} s after its time limit"
            )
        evicted = self._member.evicted
        if evicted is not None and evicted.how is How.KILL:
            return JobEvicted(f"evicted from its pool and killed: {evicted.reason}", by_somebody=True)
        seen = self._circumstances(end)
        return HorseLost(how_horse_ended(end.status, seen), by_somebody=killed_by_somebody(end.status, seen))

    def _circumstances(self, end: End) -> Circumstances:
        page = self._pool.page
        where = self._oom_kills.lately() if end.starved is None else "group" if end.starved else None
        limit_bytes = machine.container_limit_bytes() if where == "group" else None
        return Circumstances(
            peak_mb=to_mb(page.peak_bytes),
            limit_mb=to_mb(page.ceiling_bytes),
            operation=page.operation,
            in_job=page.in_user_code and not page.in_hooks,
            memory_ran_out=where,
            container_mb=to_mb(limit_bytes) if limit_bytes is not None else None,
        )

    def _try_resume(self, job: Job, queue: Queue, execution: Execution, error: EndError) -> bool:
        """Resume the job if it may go on. Returns whether there is no failure to record (also if it is not ours)."""
        if isinstance(error, JobTimeoutException):
            return False
        how_it_was_lost = str(error)
        cause: Cause = "breach"
        if isinstance(error, JobEvicted):
            cause = "evicted"
        elif isinstance(error, HorseLost):
            cause = "horse killed" if error.by_somebody else "horse lost"
        limit_mb = error.breach.limit_mb if isinstance(error, MemoryLimitExceeded) else 0.0
        allowed_mb = self._setup.config.memory_mb
        place = self._pool.page.operation
        ended = EndedEarly(job, queue, execution, cause, self._worker.name, place, limit_mb, allowed_mb)

        def settle() -> bool:
            next_step = plan(ended, self._setup.config.max_resumes)
            gave_up = f"; not resumed: {next_step.gave_up.reason}" if next_step.gave_up is not None else ""
            if isinstance(error, MemoryLimitExceeded):
                error.retold(self.record_breach(job, execution, error.breach, next_step.next), gave_up)
            else:
                error.args = (how_it_was_lost + gave_up,)
            return next_step.carry_out()

        return until_redis_answers(settle, f"look whether job {job.id} goes on")

    def is_horses_fault(self, breach: events.Breach) -> bool:
        """Whether the job would have stayed below its ceiling without the memory that earlier jobs had left."""
        page = self._pool.page
        if page.state.phase is Phase.FAILING:
            return False
        used = max(to_bytes(max(breach.used_mb, breach.peak_mb)), page.peak_bytes)
        return recycling.is_horses_fault(page.left_before, used, to_bytes(breach.limit_mb))

    def record_breach(self, job: Job, execution: Execution, breach: events.Breach, what_next: str) -> events.Breach:
        """Write the breach to Redis and emit it, once for each execution. Returns it as it was recorded.

        The second call comes from the worker if the horse was killed after this and before its commit.
        """
        page = self._pool.page
        if page.recorded:
            return codec.from_json(events.Breach, page.breach_json) if page.breach_json else breach
        peak_mb = max(breach.peak_mb, to_mb(page.peak_bytes))
        breach = replace(breach, peak_mb=peak_mb, next=what_next, execution=execution.id)
        until_redis_answers(lambda: remember(job, breach), f"keep the breach of job {job.id}")
        events.emit(breach)
        page.breach_json, page.recorded = codec.to_json(breach), True
        return breach

    def stop(self, job: Job, queue: Queue, execution: Execution) -> None:
        if not job._stopped_callback_name:
            self._stop(job, queue, execution)
            return

        def stop() -> None:
            lend(job)
            self._stop(job, queue, execution)

        self._fork.settle(
            job, queue, stop, callback="stopped", seconds=job.stopped_callback_timeout, outcome=_STOPPED,
        )  # fmt: skip
        self._worker.handle_job_failure(
            job, queue, exc_string="Job stopped by user, work-horse terminated.", execution=execution
        )
        self._worker._stopped_job_id = None  # the fork may have recorded the outcome, which resets only its copy

    def _fail_in_a_fork(self, job: Job, queue: Queue, execution: Execution, error: BaseException) -> None:
        exc_info = (type(error), error, None)
        self._fork.settle(
            job, queue, lambda: self._fail(job, queue, execution, exc_info),
            callback="failure", seconds=job.failure_callback_timeout, outcome=type(error).__name__,
        )  # fmt: skip

    def succeed_in_a_fork(
        self, job: Job, queue: Queue, execution: Execution, result: bytes | None, *, has_run: bool
    ) -> None:
        """Commit, by RQ's methods, a success under a lease whose horse has ended. ``result``: serialized."""
        page = self._pool.page

        def succeed() -> None:
            value = None if result is None else self._worker.serializer.loads(result)
            self._worker._finalize_success(job, queue, execution, value)

        seconds = job.success_callback_timeout
        before, page.has_run = page.has_run, has_run  # the page may be about another job
        self._fork.settle(job, queue, succeed, callback="success", seconds=seconds, outcome=OK)
        page.has_run = before

    # In the horse

    def wait_for_children(self, job: Job, queue: Queue, execution: Execution, pending: Pending) -> None:
        job.ended_at = now()
        until_redis_answers(
            lambda: parent_meta.write(self._worker.connection, job.id, job.serializer, pending.total),
            f"keep how many children job {job.id} has",
        )
        answer = until_redis_answers(
            lambda: ledger.defer(job, queue, execution, pending), f"let job {job.id} wait for its children"
        )
        if not answer:
            _log.warning("job %s does not wait for its children here: somebody else ended this run meanwhile", job.id)

    def fail(self, job: Job, queue: Queue, execution: Execution, exc_info: ExcInfo) -> None:
        error, page = exc_info[1], self._pool.page
        breach = breach_in(error)
        if isinstance(error, HorseTooHeavy):
            page.advance(Event.DECLINED)  # the worker orders the job again, from a new horse
            return
        settled_by_error = isinstance(error, PlannedStop | RunTakenOver) or breach is None
        page.outcome = type(error if settled_by_error else breach).__name__
        if isinstance(error, PlannedStop):
            job.ended_at = now()
            ended = EndedEarly(job, queue, execution, "planned stop", self._worker.name)
            most = self._setup.config.max_resumes
            until_redis_answers(lambda: plan(ended, most).carry_out(), f"put job {job.id} back into its queue")
            return
        if isinstance(error, RunTakenOver):
            _log.warning("worker %s: %s", self._worker.name, error)
            until_redis_answers(lambda: self._committer.let_go(job, execution), f"let go of job {job.id}")
            return
        if breach is not None:
            if self.is_horses_fault(breach.breach):
                page.advance(Event.SPOILED)  # the worker orders the job again
                return
            job.ended_at = now()
            if self._try_resume(job, queue, execution, breach):
                return
            exc_info = (type(breach), breach, breach.__traceback__)
        elif isinstance(error, ConfigError):
            job.retries_left = 0  # a retry would only fail again; a person has to mend it
        page.advance(Event.FAILING)
        self._fail(job, queue, execution, exc_info)
