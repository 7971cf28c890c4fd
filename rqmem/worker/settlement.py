"""How executions end that did not end well: resumed, failed, stopped; told in one way whoever acted.

The part of `rqmem.MemoryWorker` that gives verdicts, in the horse where the job unwound and in the
worker where the horse left none. What becomes of a job is decided in `rqmem.worker.resume`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rqmem import events
from rqmem.config.settings import Config
from rqmem.errors import (
    ConfigError,
    HorseLost,
    HorseTooHeavy,
    MemoryLimitExceeded,
    PlannedStop,
    RqmemError,
    RunTakenOver,
    breach_in,
)
from rqmem.measure import machine, process_tree
from rqmem.policy import recycling
from rqmem.policy.after_breach import Cause
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.rq_names import (
    AbandonedJobError,
    Execution,
    InvalidJobOperation,
    Job,
    JobStatus,
    JobTimeoutException,
    Queue,
    now,
)
from rqmem.store import codec, executions, ledger, parent_meta
from rqmem.store.execution_records import Pending
from rqmem.store.retrying import until_redis_answers
from rqmem.type_of_job import job_type
from rqmem.units import to_bytes, to_mb
from rqmem.worker import linux
from rqmem.worker.commit import PatientWorker
from rqmem.worker.execution import Event, Phase
from rqmem.worker.exit_reason import Circumstances, how_horse_ended, killed_by_somebody
from rqmem.worker.horse.channel import Report
from rqmem.worker.horse.hook_runner import Hooking
from rqmem.worker.imports import check_importable
from rqmem.worker.resume import EndedEarly, plan, remember
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.watcher import Identity, Watcher

_log = logging.getLogger("rqmem.worker")
HOOK_BREACHED = "the hook was stopped; the job's outcome stands"
_VERDICT_SECONDS = 60  # for all but the callback of a killed job, which has a time limit of its own

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
EndedHorse = MemoryLimitExceeded | HorseLost | JobTimeoutException


@dataclasses.dataclass(frozen=True)
class End:
    """How a job's time on its horse ended. ``status`` is `os.wait4`'s; ``report`` a warm horse's last word.

    ``starved``: the kernel killed in the horse's cgroup for want of memory elsewhere.
    """

    pid: int | None
    status: int | None
    rusage: Any
    report: Report | None
    breach: events.Breach | None
    overdue: bool
    warm: bool
    starved: bool = False

    @property
    def lost(self) -> bool:
        """The horse left no verdict. (A horse for one job that exits with 0 has left one, as RQ sees it.)"""
        return self.status != os.EX_OK or (self.warm and self.report is None)

    @property
    def broken(self) -> bool:
        """Nothing of the job's tree may stay."""
        return self.lost or self.breach is not None


class SettlingWorker(PatientWorker):
    """A worker that settles breaches and lost horses."""

    kill_after_timeout_seconds = 60
    """As RQ: a job that goes on for so long after its time limit is killed."""

    config: Config
    _page: SharedPage | None = None
    _forking_pid: int = 0
    _outcome: str = ""  # of the last execution whose horse left no verdict

    @property
    def limit_mb(self) -> float:
        """The ceiling in MB of jobs that declare none."""
        return effective_limit_mb(None, self.config.memory_mb, self.config.default_limit_mb)

    # In the worker, for a horse that left no verdict

    def _settle_lost_horse(self, job: Job, queue: Queue, execution: Execution, end: End) -> None:
        """The horse ended without a verdict of its own: stopped on request, killed, or lost."""
        try:
            job.get_status()
        except InvalidJobOperation:  # ended, and its time to live was over; or deleted
            with self.connection.pipeline() as pipeline:
                self.cleanup_execution(job, pipeline, execution)
                pipeline.execute()
            return
        if self._page is not None and self._page.has_run:
            executions.note_peak(self.connection, job.id, to_mb(self._page.peak_bytes))
        if self._stopped_job_id == job.id:
            self._outcome = "stopped"
            self._handle_stopped_job(job, queue, execution)
            return
        if not self._may_fail(job, queue, execution):
            return
        job.ended_at = now()
        error = self._why(end)
        self._outcome = type(error).__name__
        if isinstance(error, HorseLost):
            self.handle_work_horse_killed(job, end.pid, end.status, end.rusage)
        if self._page is not None:
            self._page.again = job.should_retry  # where the job goes on instead, that is told otherwise
        if self._page is not None and self._page.state.phase is Phase.FAILING:
            if isinstance(error, MemoryLimitExceeded):
                what_next = "failed: it had failed before, and this was its failure callback"
                self._tell_breach(job, execution, error.breach, what_next)
        elif self._try_resume(job, queue, execution, error):
            return
        else:
            fail, seconds = super()._finalize_failure, job.failure_callback_timeout
            exc_info = (type(error), error, None)
            self._settle_in_a_fork(job, queue, "failure", seconds, lambda: fail(job, queue, execution, exc_info))
        # Where that died of a callback, the verdict stands all the same.
        self.handle_job_failure(job, queue, exc_string=_one_line(error), execution=execution)

    def settle_abandoned(self, job: Job, queue: Queue, execution: Execution) -> None:
        """As RQ's `StartedJobRegistry.cleanup`: the run of a dead worker, whose job cannot go on, has failed."""
        line = f"worker {execution.worker_name} died while it ran the job, which is not run again by itself"
        error = AbandonedJobError(line)
        status = job.get_status(refresh=False)
        if status == JobStatus.STARTED:
            fail, seconds = super()._finalize_failure, job.failure_callback_timeout
            exc_info = (AbandonedJobError, error, None)
            self._settle_in_a_fork(job, queue, "failure", seconds, lambda: fail(job, queue, execution, exc_info))
            self.handle_job_failure(job, queue, exc_string=_one_line(error), execution=execution)
            return
        if status == JobStatus.FAILED:  # by RQ's maintenance
            self._failure_line = _one_line(error)
        with self.connection.pipeline() as pipeline:  # it has ended otherwise, or waits to run once more
            self.cleanup_execution(job, pipeline, execution)
            pipeline.execute()

    def _report_lost_in_hook(self, job: Job, queue: Queue, execution: Execution, end: End) -> None:
        """The horse ended in a hook after its job, whose outcome stands."""
        assert self._page is not None
        self._stopped_job_id = None
        hook, error = self._page.operation or "a hook after the job", self._why(end)
        about = {"job": self._page.job, "job_id": job.id, "queue": queue.name, "worker": self.name}
        events.emit(events.HookFailed(hook=hook, error=_one_line(error), **about))
        if isinstance(error, MemoryLimitExceeded):
            self._tell_breach(job, execution, error.breach, HOOK_BREACHED)

    def _why(self, end: End) -> EndedHorse:
        """The error that stands for the end of a horse which left no verdict."""
        if end.breach is not None:
            if self._page is not None and self._page.recorded:
                return MemoryLimitExceeded(codec.from_json(events.Breach, self._page.breach_json))
            return MemoryLimitExceeded(end.breach)
        if end.overdue:
            return JobTimeoutException(
                f"killed: it went on for {self.kill_after_timeout_seconds} s after its time limit"
            )
        seen = self._circumstances(end)
        return HorseLost(how_horse_ended(end.status, seen), by_somebody=killed_by_somebody(end.status, seen))

    def _circumstances(self, end: End) -> Circumstances:
        page = self._page
        memory_ran_out = end.starved or (self._heart is not None and self._heart.machine_killed_lately())
        limit_bytes = machine.container_limit_bytes() if memory_ran_out else None
        return Circumstances(
            peak_mb=to_mb(page.peak_bytes) if page is not None else 0.0,
            limit_mb=to_mb(page.ceiling_bytes) if page is not None else 0.0,
            operation=page.operation if page is not None else "",
            in_job=page is not None and page.in_user_code and not page.in_hooks,
            memory_ran_out=memory_ran_out,
            container_mb=to_mb(limit_bytes) if limit_bytes is not None else None,
        )

    def _try_resume(self, job: Job, queue: Queue, execution: Execution, error: EndedHorse) -> bool:
        """Whether the job goes on (or somebody else ended it), so that there is no failure to record."""
        if isinstance(error, JobTimeoutException):
            return False
        position = self._page.operation if self._page is not None else ""
        how_it_was_lost = str(error)
        cause: Cause = "breach"
        if isinstance(error, HorseLost):
            cause = "horse killed" if error.by_somebody else "horse lost"
        ended = EndedEarly(job, queue, execution, cause, self.name, position)

        def settle() -> bool:
            next_step = plan(ended, self.config.max_resumes)
            gave_up = f"; not resumed: {next_step.gave_up.reason}" if next_step.gave_up is not None else ""
            if isinstance(error, MemoryLimitExceeded):
                error.retold(self._tell_breach(job, execution, error.breach, next_step.next), gave_up)
            else:
                error.args = (how_it_was_lost + gave_up,)
            return next_step.carry_out()

        return until_redis_answers(settle, f"look whether job {job.id} goes on")

    def _is_horses_fault(self, breach: events.Breach) -> bool:
        """Whether the job would have fitted, had others not left so much in its horse."""
        page = self._page
        if page is None or page.state.phase is Phase.FAILING:
            return False
        used = max(to_bytes(max(breach.used_mb, breach.peak_mb)), page.peak_bytes)
        return recycling.is_horses_fault(page.left_before, used, to_bytes(breach.limit_mb))

    def _tell_breach(self, job: Job, execution: Execution, breach: events.Breach, what_next: str) -> events.Breach:
        """Log and keep it, once: a horse may be killed between telling its breach and committing its verdict.

        Returns it as it was told.
        """
        page = self._page
        if page is not None and page.recorded:
            return codec.from_json(events.Breach, page.breach_json) if page.breach_json else breach
        peak_mb = max(breach.peak_mb, to_mb(page.peak_bytes)) if page is not None else breach.peak_mb
        breach = dataclasses.replace(breach, peak_mb=peak_mb, next=what_next, execution=execution.id)
        until_redis_answers(lambda: remember(job, breach), f"keep the breach of job {job.id}")
        events.emit(breach)
        if page is not None:
            page.breach_json, page.recorded = codec.to_json(breach), True
        return breach

    def _handle_stopped_job(self, job: Job, queue: Queue, execution: Execution) -> None:
        """RQ's `_handle_stopped_job`; a callback cannot end the worker or fill it, as there."""
        stop, seconds = super()._handle_stopped_job, job.stopped_callback_timeout
        if not job._stopped_callback_name:
            stop(job, queue, execution)
            return
        self._settle_in_a_fork(job, queue, "stopped", seconds, lambda: stop(job, queue, execution))
        self.handle_job_failure(
            job, queue, exc_string="Job stopped by user, work-horse terminated.", execution=execution
        )
        self._stopped_job_id = None  # the verdict may have been the fork's

    def _settle_in_a_fork(self, job: Job, queue: Queue, which: str, seconds: int, settle: Callable[[], None]) -> None:
        """RQ's way to end a job in a short-lived process, since callbacks are user code; watched as a job is."""
        worker_pid = self._forking_pid = os.getpid()
        active = self._page.integrations.split() if self._page is not None else []
        known = process_tree.descendants(worker_pid)
        page = SharedPage.new(self._page.ceiling_bytes if self._page is not None else to_bytes(self.limit_mb))
        pid = os.fork()
        if pid == 0:
            try:
                self._page = page
                self.setup_work_horse_signals()
                self._is_horse = True
                self._settle_with_integrations(job, queue, active, settle)
            except BaseException:  # noqa: BLE001  the worker gives the verdict then
                _log.exception("worker %s: the verdict on job %s was cut short", self.name, job.id)
            finally:
                os._exit(0)
        page.operation = f"the {which} callback"
        about = Identity(job_type(job), job.id, queue.name, self.name)
        watcher = Watcher(pid, page, about, self.config, known)
        try:
            with linux.urgent():
                if not watcher.wait(time.monotonic() + seconds + _VERDICT_SECONDS):
                    process_tree.kill(worker_pid, known)
        finally:
            watcher.close()
            os.waitpid(pid, 0)
        if watcher.breach is not None:
            events.emit(dataclasses.replace(watcher.breach, next="killed; the job's own end stands"))

    def _settle_with_integrations(self, job: Job, queue: Queue, active: list[str], settle: Callable[[], None]) -> None:
        """In that process: connections of its own for callbacks, and Sentry hears of the end.

        ``active``: integrations of the horse that ran the job.
        """
        assert self._page is not None
        hooking = Hooking(self.name, integrate=self.config.integrations, only_integrations=True)
        if "sentry" in active and "sentry_sdk" not in sys.modules:  # the job's modules have set it up
            with contextlib.suppress(Exception):
                check_importable(job)
        hooking.new_job(self._page, job, queue.name)
        hooking.before(self._page, job)
        try:
            settle()
        finally:
            hooking.after(self._page, job, self._outcome)
            hooking.ending(self._page)

    # In the horse

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        """RQ's `_finalize_success`; a job that has split is not finished, but waits for its children."""
        if not isinstance(return_value, Pending):
            super()._finalize_success(job, queue, execution, return_value)
            return
        job.ended_at = now()
        until_redis_answers(
            lambda: parent_meta.write(self.connection, job.id, job.serializer, return_value.total),
            f"keep how many children job {job.id} has",
        )
        answer = until_redis_answers(
            lambda: ledger.defer(job, queue, execution, return_value), f"let job {job.id} wait for its children"
        )
        if not answer:
            _log.warning("job %s does not wait for its children here: somebody else ended this run meanwhile", job.id)

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: ExcInfo) -> None:
        """RQ's `_finalize_failure`; decided before it, since a resume must not look like a failure."""
        error = exc_info[1]
        breach = breach_in(error)
        if isinstance(error, HorseTooHeavy) and self._page is not None:
            self._page.advance(Event.DECLINED)  # the worker orders the job again, from a new horse
            return
        if isinstance(error, PlannedStop | RunTakenOver) and self._page is not None:
            self._page.outcome = type(error).__name__
        if isinstance(error, PlannedStop):
            job.ended_at = now()
            ended = EndedEarly(job, queue, execution, "planned stop", self.name)
            until_redis_answers(
                lambda: plan(ended, self.config.max_resumes).carry_out(), f"put job {job.id} back into its queue"
            )
            return
        if isinstance(error, RunTakenOver):
            _log.warning("worker %s: %s", self.name, error)
            until_redis_answers(lambda: self._let_go(job, execution), f"let go of job {job.id}")
            return
        if breach is not None and self._page is not None and self._is_horses_fault(breach.breach):
            self._page.outcome = type(breach).__name__
            self._page.advance(Event.SPOILED)  # the worker orders the job again
            return
        if breach is not None:
            job.ended_at = now()
            if self._page is not None:
                self._page.outcome = type(breach).__name__
            if self._try_resume(job, queue, execution, breach):
                return
            exc_info = (type(breach), breach, breach.__traceback__)
        elif isinstance(error, ConfigError):
            job.retries_left = 0  # a retry would only fail again; a person has to mend it
        if self._page is not None:
            self._page.advance(Event.FAILING)
            self._page.outcome = type(error).__name__
        super()._finalize_failure(job, queue, execution, exc_info)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """RQ's `handle_exception`; our own errors say all in one line, and a breach was told already."""
        error, log = exc_info[1], self.log
        if isinstance(error, RqmemError):
            self.log = _OneLine(f"Worker {self.name}: job {job.id} failed: {_one_line(error)}")
        elif isinstance(error, MemoryLimitExceeded):
            self.log = _OneLine("")
        try:
            super().handle_exception(job, *exc_info)  # not only RQ's: Sentry, for one, puts its own in its place
        finally:
            self.log = log


class _OneLine(logging.Logger):
    """RQ's logger, but for an error: this line in place of the traceback; empty: nothing."""

    def __init__(self, line: str) -> None:
        super().__init__("rq.worker", logging.ERROR)
        self._line = line

    def error(self, *args: object, **kwargs: Any) -> None:
        if self._line:
            logging.getLogger(self.name).error("%s", self._line)


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
