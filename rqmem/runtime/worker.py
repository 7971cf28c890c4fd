"""`MemoryWorker`: RQ's Worker with a ceiling on each job's memory.

It hands out work, watches and explains; user code runs in the horse only. RQ stays the engine: this
class overrides the narrow seams named in each method's docstring and leaves queues, registries,
results, retries, callbacks and commands to RQ. What promises it keeps at a breach is told in
`rqmem.runtime.watcher` (acting), `rqmem.runtime.verdict` and `rqmem.runtime.breach` (what becomes of the job);
what the horse does is in `rqmem.runtime.in_horse`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.queue import Queue
from rq.utils import now
from rq.worker import WorkerStatus

from rqmem import events, log
from rqmem.config import Config
from rqmem.errors import ConfigError
from rqmem.journal import writer
from rqmem.journal.records import Owner
from rqmem.memory import procfs, tree, trim
from rqmem.policy import recycling
from rqmem.policy.recycling import AfterJob
from rqmem.runtime import linux
from rqmem.runtime.heart import Heart
from rqmem.runtime.idle import usage_of_idle_fork
from rqmem.runtime.imports import preload
from rqmem.runtime.in_horse import WorkerInHorse
from rqmem.runtime.page import SharedPage
from rqmem.runtime.verdict import End
from rqmem.runtime.warm import Order, Report, WarmHorse
from rqmem.runtime.watcher import Identity, Watcher
from rqmem.units import show_mb, to_bytes, to_mb

if TYPE_CHECKING:
    from redis.client import Pipeline

_ORDERS = 3  # how often a job is ordered from horses that die before they take it
_OUR_LOG = logging.getLogger("rqmem.worker")


class MemoryWorker(WorkerInHorse):
    """An RQ worker whose jobs cannot use more memory than their ceiling.

    Args:
        config: settings; by default read from the environment, so that the class also starts as
            ``rq worker -w rqmem.MemoryWorker``. All other arguments are RQ's.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(self, *args: Any, config: Config | None = None, **kwargs: Any) -> None:
        self.config = Config.from_environ(os.environ) if config is None else config
        self._heart: Heart | None = None
        self._known: set[int] = set()
        self._warm: WarmHorse | None = None
        self._switch = threading.Lock()  # held while the running execution changes
        super().__init__(*args, **kwargs)

    # Life of the worker

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """RQ's `bootstrap`, after a look whether any job could run at all; then the heart."""
        events.subscribe(log.write_event)
        linux.become_subreaper()
        trim.warm_up()
        preload(self.config.preload)
        gc.freeze()
        idle_mb = self._check_idle_horse()
        super().bootstrap(*args, **kwargs)
        self._heart = Heart(self, self.config)
        self._heart.start()
        _OUR_LOG.info(
            "worker %s: ceiling %s MB for each job (an idle horse uses %s MB)",
            self.name, show_mb(self.limit_mb), show_mb(idle_mb),
        )  # fmt: skip

    def teardown(self) -> None:
        """RQ's `teardown`; the horse ends, the heart stops, so that others take over what was left at once."""
        if not self.is_horse and self._heart is not None:
            self._end_warm_horse()
            self._heart.stop()
            self._heart = None
        super().teardown()

    def _check_idle_horse(self) -> float:
        """MB an idle horse uses; raises `ConfigError` where that is above the ceiling."""
        idle_mb = to_mb(usage_of_idle_fork())
        if idle_mb >= self.limit_mb:
            raise ConfigError(
                f"a ceiling of {show_mb(self.limit_mb)} MB cannot hold: an idle horse already uses "
                f"{show_mb(idle_mb)} MB; give --memory (or RQMEM_MEMORY) clearly more than that"
            )
        return idle_mb

    # One job, seen from the worker

    def prepare_execution(self, job: Job) -> Execution:
        """Replaces RQ's `prepare_execution`: the same records, and who owns the run, in one transaction."""
        with self.connection.pipeline() as pipeline:
            execution = Execution.create(job, self.get_heartbeat_ttl(job), pipeline=pipeline, worker_name=self.name)
            self.executions[execution.id] = execution
            writer.claim(pipeline, job.id, self._owner(execution, job))
            self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
            pipeline.execute()
        return execution

    def cleanup_execution(self, job: Job, pipeline: Pipeline, execution: Execution | None = None) -> None:
        """RQ's `cleanup_execution`; the run has no owner any more, in the same transaction."""
        super().cleanup_execution(job, pipeline, execution)
        writer.release(pipeline, job.id)
        if self._page is not None and self._page.has_run and job.get_status(refresh=False) == JobStatus.FINISHED:
            writer.finish(pipeline, job.id, job.get_result_ttl(self.default_result_ttl))

    def execute_job(self, job: Job, queue: Queue) -> None:
        """RQ's `execute_job`, inside `work` on a warm horse; outside it, or told so, RQ's own with a horse per job."""
        if self.config.isolation == "fork" or self._heart is None:
            super().execute_job(job, queue)
            return
        execution = self.prepare_execution(job)
        for _ in range(_ORDERS):
            warm = self._order(job, queue, execution)
            end = self._watch(job, queue, execution, warm)
            if end.report is not None or warm.page.taken:
                break  # else the horse had died idle, and the job did not begin
        self._settle_end(job, queue, execution, end)
        self.set_state(WorkerStatus.IDLE)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's `fork_work_horse`, with a page shared between worker and horse, made before the fork."""
        self._page = SharedPage.new(to_bytes(self.limit_mb))
        self._forking_pid = os.getpid()
        self._known = set(tree.descendants(self._forking_pid))
        super().fork_work_horse(job, queue)
        with contextlib.suppress(OSError):  # the horse does it too; whoever comes first
            os.setpgid(self._horse_pid, self._horse_pid)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Replaces RQ's `monitor_work_horse`: waits for the horse, watching its memory, and settles its end."""
        self._settle_end(job, queue, execution, self._watch(job, queue, execution, None))

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """RQ's `kill_horse`; without a horse it does nothing (RQ's would signal our own group)."""
        if self.horse_pid:
            super().kill_horse(sig)

    def request_stop_execution(self, execution_id: str) -> None:
        """RQ's `request_stop_execution`, which comes from another thread: never between two jobs of one horse."""
        with self._switch:
            super().request_stop_execution(execution_id)

    def _order(self, job: Job, queue: Queue, execution: Execution) -> WarmHorse:
        """Have a warm horse run this execution. Whether it took the order shows when it ends."""
        warm = self._warm or self._fork_warm_horse()
        warm.page.reset(to_bytes(self.limit_mb))
        self._page = warm.page
        self._known = set(tree.descendants(os.getpid())) - {warm.pid}
        self._horse_pid = warm.pid
        self.executions[execution.id] = execution
        warm.channel.send(Order(job.id, queue.name, execution.id, execution.created_at.timestamp()))
        self.procline(f"Ordered {warm.pid} at {time.time()}")
        return warm

    def _fork_warm_horse(self) -> WarmHorse:
        self._forking_pid = os.getpid()
        self._page = SharedPage.new(to_bytes(self.limit_mb))
        self._warm = WarmHorse.fork(self._page, self._serve)
        return self._warm

    def _end_warm_horse(self) -> None:
        warm, self._warm = self._warm, None
        if warm is not None:
            warm.end()

    def _watch(self, job: Job, queue: Queue, execution: Execution, warm: WarmHorse | None) -> End:
        """Watch the job's memory until it has ended.

        As RQ's `monitor_work_horse`: the kill of a job that outlives its time limit by a minute. Other than
        it: no alarm raises in here and nothing talks to Redis; heartbeats come from the heart's thread.
        """
        job.started_at = now()
        assert self._page is not None
        watcher = Watcher(
            self.horse_pid,
            self._page,
            Identity(job.description or job.id, job.id, queue.name, self.name),
            self.config,
            self._known,
            warm.channel if warm is not None else None,
        )
        if self._heart is not None:
            self._heart.running(job, execution)
        try:
            overdue = not watcher.wait(self._kill_at(job))
            if overdue:
                self.kill_horse()
                watcher.wait(None)
        except SystemExit:  # a second SIGTERM: the horse is dead, and what it started must not outlive us
            for number in (signal.SIGTERM, signal.SIGINT):  # a third one must not cut this short
                signal.signal(number, signal.SIG_IGN)
            tree.kill(os.getpid(), self._known)
            raise
        finally:
            watcher.close()
            if self._heart is not None:
                self._heart.idle()
        report = warm.channel.report() if warm is not None else None
        with self._switch:
            pid, status, rusage = self.wait_for_horse() if report is None else (self.horse_pid, os.EX_OK, None)
            self._horse_pid = 0
            self.executions.pop(execution.id, None)
        if report is None or watcher.breach is not None or self._page.told:
            self._end_warm_horse()
        end = End(pid, status, rusage, report, watcher.breach, overdue, warm is not None)
        self._clean_up_tree(job, broken=end.broken)
        return end

    def _settle_end(self, job: Job, queue: Queue, execution: Execution, end: End) -> None:
        """What happens after each kind of end, as in RQ's `monitor_work_horse`; and what becomes of the horse."""
        page = self._page
        assert page is not None
        self._remember_cut(page)
        if end.lost:
            self._settle_lost_horse(job, queue, execution, end)
        elif end.breach is not None:
            self._tell_breach(end.breach, "nothing: the job swallowed it and went on to its end")
        if self._warm is not None and end.report is not None:
            self._consider_recycling(job, queue, self._warm, end.report)

    def _consider_recycling(self, job: Job, queue: Queue, warm: WarmHorse, report: Report) -> None:
        after = AfterJob(warm.page.job, report.held_bytes, report.threads_left)
        reason, warm.state = recycling.decide(
            warm.state, after, to_bytes(self.limit_mb), self.config.max_jobs_per_horse
        )
        if reason:
            self._end_warm_horse()
            about = {"job": warm.page.job, "job_id": job.id, "queue": queue.name, "worker": self.name}
            events.emit(events.HorseRecycled(reason=reason, **about))

    def _kill_at(self, job: Job) -> float | None:
        """When (monotonic) a job that ignores its time limit is killed; None: it has none."""
        timeout = self._capped_timeout(job)
        if timeout == -1:
            return None
        return time.monotonic() + timeout + self.kill_after_timeout_seconds

    def _clean_up_tree(self, job: Job, *, broken: bool) -> None:
        """After a breach or a lost horse nothing of the tree stays; else what a job left is let be, and named."""
        worker_pid = os.getpid()
        if broken:
            tree.kill(worker_pid, self._known)
        scheduler = self.scheduler._process if self.scheduler is not None else None
        tree.reap_zombies(worker_pid, {scheduler.pid} if scheduler is not None else set())
        horse_pid = self._warm.pid if self._warm is not None else 0
        left = [pid for pid in tree.descendants(worker_pid, self._known) if pid != horse_pid]
        if left:
            _OUR_LOG.info("worker %s: job %s left processes behind: %s", self.name, job.id, left)

    def _owner(self, execution: Execution, job: Job) -> Owner:
        pid = os.getpid()
        return Owner(
            execution=execution.id,
            worker=self.name,
            queue=job.origin or "",
            host=procfs.host_identity(),
            pid=pid,
            start_time=procfs.read_start_time(pid) or 0,
        )
