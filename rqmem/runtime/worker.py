"""`MemoryWorker`: RQ's Worker with a ceiling on each job's memory.

It hands out work, watches and explains; user code runs in the horse only. RQ stays the engine: this
class overrides the narrow seams named in each method's docstring and leaves queues, registries,
results, retries, callbacks and commands to RQ. What promises it keeps at a breach is told in
`rqmem.runtime.watcher` (acting), `rqmem.runtime.verdict` and `rqmem.runtime.breach` (what becomes of the job).
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
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
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.runtime import horse, linux
from rqmem.runtime.heart import Heart
from rqmem.runtime.horse import Horse
from rqmem.runtime.idle import usage_of_idle_fork
from rqmem.runtime.imports import check_importable
from rqmem.runtime.page import SharedPage
from rqmem.runtime.verdict import SettlingWorker
from rqmem.runtime.watcher import Identity, Settings, Watcher
from rqmem.units import show_mb, to_bytes, to_mb

if TYPE_CHECKING:
    from redis.client import Pipeline

_OUR_LOG = logging.getLogger("rqmem.worker")


class MemoryWorker(SettlingWorker):
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
        self._told_of_cut: set[str] = set()
        super().__init__(*args, **kwargs)

    @property
    def limit_mb(self) -> float:
        """The ceiling in MB of jobs that declare none."""
        return effective_limit_mb(None, self.config.memory_mb, self.config.default_limit_mb)

    # Life of the worker

    def bootstrap(self, *args: Any, **kwargs: Any) -> None:
        """RQ's `bootstrap`, after a look whether any job could run at all, and before it the heart."""
        events.subscribe(log.write_event)
        linux.become_subreaper()
        trim.warm_up()
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
        """RQ's `teardown`; the heart stops, so that others take over what was left at once."""
        if not self.is_horse and self._heart is not None:
            self._heart.stop()
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

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's `fork_work_horse`, with a page shared between worker and horse, made before the fork."""
        self._page = SharedPage(to_bytes(self.limit_mb))
        self._forking_pid = os.getpid()
        self._known = set(tree.descendants(self._forking_pid))
        super().fork_work_horse(job, queue)
        with contextlib.suppress(OSError):  # the horse does it too; whoever comes first
            os.setpgid(self._horse_pid, self._horse_pid)

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """RQ's `kill_horse`; without a horse it does nothing (RQ's would signal our own group)."""
        if self.horse_pid:
            super().kill_horse(sig)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Replaces RQ's `monitor_work_horse`: waits for the horse, watching its memory.

        Kept: the kill of a job that outlives its time limit by a minute, and what happens after each
        kind of end. Changed: no alarm raises in here and nothing talks to Redis until the horse has
        ended; heartbeats come from the heart's thread.
        """
        job.started_at = now()
        assert self._page is not None
        watcher = Watcher(
            self.horse_pid,
            self._page,
            Identity(job.description or job.id, job.id, queue.name, self.name),
            Settings(self.config.reserve_mb, self.config.grace_seconds, self.config.growth_bytes_per_second),
            self._known,
        )
        if self._heart is not None:
            self._heart.running(job, execution)
        try:
            overdue = not watcher.wait(self._kill_at(job))
            if overdue:
                self.kill_horse()
                watcher.wait(None)
        except SystemExit:  # a second SIGTERM: the horse is dead, and what it started must not outlive us
            tree.kill(os.getpid(), self._known)
            raise
        finally:
            watcher.close()
            if self._heart is not None:
                self._heart.idle()
        end = self.wait_for_horse()
        broken = watcher.breach is not None or end[1] != os.EX_OK
        self._horse_pid = 0
        self.executions.pop(execution.id, None)
        self._clean_up_tree(job, broken=broken)
        if self._page.declared_bytes > self._page.ceiling_bytes:
            self._told_of_cut.add(self._page.job)
        if end[1] != os.EX_OK:
            self._settle_lost_horse(job, queue, execution, self._why(watcher.breach, overdue, end), end)
        elif watcher.breach is not None:
            self._tell_breach(watcher.breach, "nothing: the job swallowed it and went on to its end")

    def _kill_at(self, job: Job) -> float | None:
        """When (monotonic) a job that ignores its time limit is killed; None: it has none."""
        timeout = self._capped_timeout(job)
        if timeout == -1:
            return None
        return time.monotonic() + timeout + self.kill_after_timeout_seconds

    def _capped_timeout(self, job: Job) -> int:
        """The job's time limit in seconds (-1: none), never above the worker's ``--timeout``."""
        timeout = int(job.timeout or self.queue_class.DEFAULT_TIMEOUT)
        cap = self.config.timeout_seconds
        if cap is None:
            return timeout
        return cap if timeout == -1 else min(timeout, cap)

    def _clean_up_tree(self, job: Job, *, broken: bool) -> None:
        """After a breach or a lost horse nothing of the tree stays; else what a job left is let be, and named."""
        worker_pid = os.getpid()
        if broken:
            tree.kill(worker_pid, self._known)
        scheduler = self.scheduler._process if self.scheduler is not None else None
        tree.reap_zombies(worker_pid, {scheduler.pid} if scheduler is not None else set())
        left = tree.descendants(worker_pid, self._known)
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

    # One job, seen from the horse

    def setup_work_horse_signals(self) -> None:
        """RQ's hook at the very start of a horse: also tie it to its worker and install the breach handler."""
        super().setup_work_horse_signals()
        execution_id = next(iter(self.executions), "")
        horse.settle_in(self._forking_pid, execution_id)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """RQ's `perform_job`, with the job's own code marked as such and its time limit capped."""
        page = self._page or SharedPage(to_bytes(self.limit_mb))
        here = Horse(
            page=page,
            config=self.config,
            connection=self.connection,
            serializer=self.serializer,
            job_id=job.id,
            execution_id=execution.id,
            queue=queue.name,
            worker=self.name,
            told_of_cut=frozenset(self._told_of_cut),
        )
        perform, timeout = job.perform, job.timeout

        def import_and_perform() -> Any:
            page.job = (job.func_name or "").removesuffix(".run")
            check_importable(job)
            return perform()

        def perform_as_user_code() -> Any:
            job.timeout = timeout  # RQ has read it; what is saved with the job stays the job's own
            return horse.run_user_code(here, import_and_perform)

        job.perform = perform_as_user_code  # type: ignore[method-assign]
        job.timeout = self._capped_timeout(job)
        return super().perform_job(job, queue, execution)
