"""How executions end that did not end well: resumed, failed, stopped; told in one way whoever acted.

The part of `rqmem.MemoryWorker` that gives verdicts, in the horse where the job unwound and in the
worker where the horse left none. What becomes of a job is decided in `rqmem.runtime.breach`.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
from types import TracebackType
from typing import Any

from rq.exceptions import InvalidJobOperation
from rq.executions import Execution
from rq.job import Job
from rq.job_lifecycle import call_exception_handlers
from rq.queue import Queue
from rq.timeouts import JobTimeoutException
from rq.utils import now
from rq.worker import Worker, signal_name

from rqmem import events
from rqmem.config import Config
from rqmem.errors import ConfigError, HorseLost, MemoryLimitExceeded, RqmemError, RunTakenOver
from rqmem.journal import writer
from rqmem.policy.resume import Cause
from rqmem.runtime.breach import EndedEarly, try_resume
from rqmem.runtime.page import SharedPage
from rqmem.runtime.warm import Report

_log = logging.getLogger("rqmem.worker")
_VERDICT_SECONDS = 120  # callbacks of a killed job may take RQ's 60 s each

ExcInfo = tuple[type[BaseException] | None, BaseException | None, TracebackType | None]
EndedHorse = MemoryLimitExceeded | HorseLost | JobTimeoutException


@dataclasses.dataclass(frozen=True)
class End:
    """How a job's time on its horse ended. ``status`` is `os.wait4`'s; ``report`` a warm horse's last word."""

    pid: int | None
    status: int | None
    rusage: Any
    report: Report | None
    breach: events.Breach | None
    overdue: bool
    warm: bool

    @property
    def lost(self) -> bool:
        """The horse left no verdict. (A horse for one job that exits with 0 has left one, as RQ sees it.)"""
        return self.status != os.EX_OK or (self.warm and self.report is None)

    @property
    def broken(self) -> bool:
        """Nothing of the job's tree may stay."""
        return self.lost or self.breach is not None


class SettlingWorker(Worker):
    """An RQ worker that settles breaches and lost horses."""

    kill_after_timeout_seconds = 60
    """As RQ: a job that goes on for so long after its time limit is killed."""

    config: Config
    _page: SharedPage | None = None
    _forking_pid: int = 0

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
        if self._stopped_job_id == job.id:
            self._handle_stopped_job(job, queue, execution)
            return
        if not self._is_open(execution, queue):
            return
        job.ended_at = now()
        error = self._why(end)
        if isinstance(error, HorseLost):
            self.handle_work_horse_killed(job, end.pid, end.status, end.rusage)
        if not self._try_resume(job, queue, execution, error):
            self._fail_in_a_fork(job, queue, execution, error)

    def _why(self, end: End) -> EndedHorse:
        """The error that stands for the end of a horse which left no verdict."""
        if end.breach is not None:
            if self._page is not None and self._page.told:
                return MemoryLimitExceeded(events.Breach.from_json(self._page.breach_json))
            return MemoryLimitExceeded(end.breach)
        if end.overdue:
            return JobTimeoutException(
                f"killed: it went on for {self.kill_after_timeout_seconds} s after its time limit"
            )
        return HorseLost(_how_it_ended(end.status))

    def _try_resume(self, job: Job, queue: Queue, execution: Execution, error: EndedHorse) -> bool:
        """Whether the job goes on (or somebody else ended it), so that there is no failure to record."""
        if isinstance(error, JobTimeoutException):
            return False
        position = self._page.operation if self._page is not None else ""
        cause: Cause = "horse lost" if isinstance(error, HorseLost) else "breach"
        ended = EndedEarly(job, queue, execution, cause, self.name, position)
        verdict = try_resume(ended, self.config.max_resumes)
        if isinstance(error, MemoryLimitExceeded):
            self._tell_breach(error.breach, verdict.next)
        return verdict.settled

    def _tell_breach(self, breach: events.Breach, what_next: str) -> None:
        """Log and keep it, once: a horse may be killed between telling its breach and committing its verdict."""
        page = self._page
        if page is not None and page.told:
            return
        breach = dataclasses.replace(breach, next=what_next)
        events.emit(breach)
        writer.save_breach(self.connection, breach)
        if page is not None:
            page.breach_json, page.told = breach.to_json(), True

    def _fail_in_a_fork(self, job: Job, queue: Queue, execution: Execution, error: BaseException) -> None:
        """RQ's failure path in a short-lived process, since callbacks and handlers are user code."""
        self._forking_pid = os.getpid()
        pid = os.fork()
        if pid == 0:
            try:
                self.setup_work_horse_signals()
                self._is_horse = True
                super()._finalize_failure(job, queue, execution, (type(error), error, None))
            except BaseException:  # noqa: BLE001  the worker gives the verdict then
                _log.exception("worker %s: the verdict on job %s was cut short", self.name, job.id)
            finally:
                os._exit(0)
        deadline = time.monotonic() + _VERDICT_SECONDS
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
            time.sleep(0.002)
        if self._is_open(execution, queue):  # it died of a callback; the verdict stands all the same
            self.handle_job_failure(job, queue, exc_string=_one_line(error), execution=execution)

    def _is_open(self, execution: Execution, queue: Queue) -> bool:
        """Whether nobody has committed an outcome of this execution: all who do remove it in the same step."""
        return self.connection.zscore(queue.started_job_registry.key, execution.composite_key) is not None

    # In the horse

    def _finalize_failure(self, job: Job, queue: Queue, execution: Execution, exc_info: ExcInfo) -> None:
        """RQ's `_finalize_failure`; decided before it, since a resume must not look like a failure."""
        error = exc_info[1]
        breach = _breach_behind(error)
        if isinstance(error, RunTakenOver):
            _log.warning("worker %s: %s", self.name, error)
            return
        if breach is not None:
            job.ended_at = now()
            if self._try_resume(job, queue, execution, breach):
                return
            exc_info = (type(breach), breach, breach.__traceback__)
        elif isinstance(error, ConfigError):
            job.retries_left = 0  # a retry would only fail again; a person has to mend it
        super()._finalize_failure(job, queue, execution, exc_info)

    def handle_exception(self, job: Job, *exc_info: Any) -> None:
        """RQ's `handle_exception`; our own errors say all in one line, and a breach was told already."""
        error = exc_info[1]
        if isinstance(error, RqmemError | MemoryLimitExceeded):
            if isinstance(error, RqmemError):
                self.log.error("Worker %s: job %s failed: %s", self.name, job.id, _one_line(error))
            call_exception_handlers(self._exc_handlers, job, *exc_info)
        else:
            super().handle_exception(job, *exc_info)


def _how_it_ended(status: int | None) -> str:
    """RQ's words, so that tools which look for them find them, and the signal's name."""
    text = f"Work-horse terminated unexpectedly; waitpid returned {status}"
    if status and os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        text += f" (signal {number}, {signal_name(number)}; its memory was below the ceiling)"
    return text


def _breach_behind(error: BaseException | None) -> MemoryLimitExceeded | None:
    """The breach that ``error`` is, or that it was raised in place of (by a ``finally``, a wrapper, a library)."""
    while error is not None:
        if isinstance(error, MemoryLimitExceeded):
            return error
        error = error.__cause__ or error.__context__
    return None


def _one_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
