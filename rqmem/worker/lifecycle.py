"""The life of a worker: what it looks at before it starts, what it begins and ends, and its own memory.

The worker process runs no user code but preloaded modules and RQ's hooks, and should not grow. Should it all the
same, it restarts itself in place between two jobs: the horse and RQ's scheduler are ended, the death is registered,
and `exec` begins the same program anew, under the same name and pid.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from rqmem import events, integrations, log
from rqmem.measure import kept_files, linux, procfs
from rqmem.measure.startup_checks import check_platform, fastest_growth, usage_of_idle_fork
from rqmem.policy import lease
from rqmem.rq_names import StopRequested, Worker, now, setup_loghandlers
from rqmem.store.permission import check_may_write
from rqmem.store.restarting import Way
from rqmem.units import show_mb, to_bytes, to_mb
from rqmem.worker.alerting import Alerting
from rqmem.worker.code_version import code_version
from rqmem.worker.heartbeat import Heart
from rqmem.worker.helpers import Helpers
from rqmem.worker.horse import hook_runner
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.kernel import kernel_layer
from rqmem.worker.pool.member import Member
from rqmem.worker.preparing import check_ceilings, prepare
from rqmem.worker.profiling import Capturing
from rqmem.worker.recorder import About, Recorder
from rqmem.worker.redis_outage import RedisOutage
from rqmem.worker.restart import EXIT_CODE, Restarted, can_restart, program
from rqmem.worker.rq_worker import own_methods
from rqmem.worker.snapshot_file import Snapshots
from rqmem.worker.worker_setup import Setup

_STOPS = (signal.SIGINT, signal.SIGTERM)
_NOT_CALLED_WARM = ("main_work_horse", "fork_work_horse", "monitor_work_horse", "wait_for_horse")
_log = logging.getLogger("rqmem.worker")


@dataclass(eq=False, repr=False)
class Lifecycle:
    """Begins and ends what lives as long as `work`.

    Args:
        _before: its life before it restarted in place; None: it is new.
        _why_no_leases: says why its horse takes no jobs by itself; empty: it may.

    Attributes:
        runs_warm: within `work`, jobs run on a warm horse.
        has_name: False from the start of `work` until its birth is registered: the name may be another worker's.
    """

    _worker: Worker
    _setup: Setup
    _pool: HorsePool
    _heart: Heart
    _captures: Capturing
    _helpers: Helpers
    _outage: RedisOutage
    _member: Member
    _before: Restarted | None
    _why_no_leases: Callable[[], str]

    def __post_init__(self) -> None:
        self.runs_warm = False
        self.has_name = True
        self._own_limit_bytes = 0
        self._was_subreaper = False
        self._jobs_done = 0
        self._full = self._told_to_restart = False
        self._snapshots: Snapshots | None = None
        self._stop_raises = False

    # Start

    def start(self, log_options: tuple[str | None, str, str], bootstrap: Callable[[], None]) -> None:
        """Begin everything, after a look whether any job could run at all; then RQ's ``bootstrap``, then the heart.

        It takes a while: a request to stop raises `StopRequested`. RQ installs its own handlers after it.
        """
        self.has_name = False
        before = {number: signal.signal(number, self._stop_early) for number in _STOPS}
        try:
            setup_loghandlers(*log_options)  # as RQ's does, before there is anything to tell
            self._prepare()
            with self._stops_at_once():
                bootstrap()
            self._begin_beating()
            self._outage.stop_if_told()
        except StopRequested:
            raise
        except BaseException:
            for number, handler in before.items():
                signal.signal(number, handler)
            self.leave()
            raise

    def _stop_early(self, number: int, frame: FrameType | None) -> None:
        self._worker._shutdown_requested_date = now()  # for the loop, should somebody swallow the exception
        if self._stop_raises:
            raise StopRequested

    @contextlib.contextmanager
    def _stops_at_once(self) -> Iterator[None]:
        """Within this block a request to stop raises at once. It is used only around steps that may take long."""
        self._outage.stop_if_told()
        self._stop_raises = True
        try:
            yield
        finally:
            self._stop_raises = False

    def _prepare(self) -> None:
        pool, config = self._pool, self._setup.config
        log.borrow_handlers()
        events.subscribe(log.write_event)
        check_platform()
        self.runs_warm = config.isolation == "warm" and not self._has_own_ways()
        with self._stops_at_once():
            check_may_write(self._worker.connection)
        self._captures.begin()
        self._snapshots = Snapshots(self._worker, self._heart, pool)
        self._snapshots.start()
        self._helpers.start_sender()
        kept_files.keep_a_spare_descriptor()
        pool.note_others()
        self._was_subreaper = linux.become_subreaper()
        with self._stops_at_once():
            if not self._member.budgeted:
                prepare(config, f"worker {self._setup.name}")
            hook_runner.load(config.plugins)
            if config.integrations:
                integrations.load_imported()
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # set by a module, or by who started us
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel reaps our horses
        self._helpers.start_listening()
        gc.freeze()
        idle_bytes = usage_of_idle_fork()
        self._own_limit_bytes = check_ceilings(config, self._setup.limit_mb, idle_bytes)
        pool.kernel = kernel_layer(config.cgroup, to_bytes(config.reserve_mb), idle_bytes)
        pool.calibrate(idle_bytes, fastest_growth)
        with self._stops_at_once():
            self._helpers.wait_until_ready()

    def _begin_beating(self) -> None:
        setup, kernel = self._setup, self._pool.kernel
        recorder = self.new_recorder()
        events.subscribe(recorder.take)
        self._outage.wait_for("say that it lives", lambda: self._heart.start(recorder))
        _log.info(
            "worker %s: memory ceiling %s MB for each job (an idle horse uses %s MB), kept by %s",
            setup.name, show_mb(setup.limit_mb), show_mb(to_mb(self._pool.idle_bytes)),
            recorder.about.kept_by + (f" ({kernel.words})" if kernel is not None else ""),
        )  # fmt: skip
        if self._before is not None:
            about = {"job": "", "job_id": "", "queue": "", "worker": setup.name}
            events.emit(events.WorkerRestarted(jobs=self._before.jobs, **about))

    def _has_own_ways(self) -> bool:
        """Whether a subclass has a hook of RQ's that a warm horse does not call: it gets a horse for each job."""
        own = own_methods(self._worker, _NOT_CALLED_WARM)
        if own:
            _log.warning(
                "worker %s: %s overrides %s, which a warm horse does not call: each job gets a horse of its own, "
                "as with --isolation fork", self._setup.name, type(self._worker).__qualname__, own[0],
            )  # fmt: skip
        return bool(own)

    def new_recorder(self) -> Recorder:
        """Make the recorder, which collects what the worker writes to the history."""
        setup = self._setup
        about = About(
            worker=setup.name,
            queues=self._worker.queue_names(),
            limit_mb=setup.limit_mb,
            worker_limit_mb=to_mb(self._own_limit_bytes),
            kept_by="watcher and cgroup" if self._pool.kernel is not None else "watcher",
            leases=lease.shown(self._why_no_leases() if self.runs_warm else lease.A_HORSE_EACH),
            code_version=code_version(setup.config.code_version, Path.cwd()),
        )
        return Recorder(
            about, Alerting(setup.name, setup.config), setup.config.journal_enabled, self._helpers.tell, self._member
        )

    # Between two jobs

    def tend_helpers(self) -> None:
        """Helpers that have died begin again. They are of no job's tree."""
        self._pool.known.update(self._helpers.tend())

    def look_at_own_memory(self) -> None:
        """A job has ended. Above its own ceiling the worker stops, as if asked to, and `work` does the rest."""
        self._jobs_done += 1
        own_bytes = procfs.own_held_bytes()
        if own_bytes <= self._own_limit_bytes or self._full or not self._heart.beating:
            return
        action = self._setup.config.on_worker_limit
        if action == "restart" and not can_restart(sys.argv[0]):
            action = "none"  # it is a part of somebody's program, whose life is not ours to end
            self._own_limit_bytes = sys.maxsize
        events.emit(
            events.WorkerFull(
                job="", job_id="", queue="", worker=self._setup.name, used_mb=to_mb(own_bytes),
                limit_mb=to_mb(min(own_bytes, self._own_limit_bytes)), action=action,
            )
        )  # fmt: skip
        if action != "none":
            self._full = self._worker._stop_requested = True

    # Beginning anew

    def way_to_restart(self) -> Way:
        if self._setup.config.on_worker_limit == "exit":
            return "exit"
        return "in place" if can_restart(sys.argv[0]) else "none"

    def restart(self) -> None:
        """Stop the worker as at SIGTERM; `work` then restarts it. From any thread."""
        if self.way_to_restart() == "none":
            _log.warning("worker %s: told to restart, but it is part of another program, so it goes on",
                         self._setup.name)  # fmt: skip
            return
        if self._worker._shutdown_requested_date is not None:
            return  # it ends in any case, or has been told before
        _log.info("worker %s: told to restart, after what it has in hand", self._setup.name)
        self._told_to_restart = True
        os.kill(os.getpid(), signal.SIGTERM)

    # End

    @contextlib.contextmanager
    def leaving(self) -> Iterator[None]:
        """Within this block the worker ends: a first request to stop is ignored, a second one exits at once."""
        handlers = {number: signal.getsignal(number) for number in _STOPS}
        firsts = [number for number in _STOPS if handlers[number] in (self._stop_early, self._worker.request_stop)]
        if threading.current_thread() is not threading.main_thread():
            firsts = []
        for number in firsts:
            signal.signal(number, self._stop_while_leaving)
        try:
            yield
        finally:
            for number in firsts:
                if signal.getsignal(number) == self._stop_while_leaving:
                    signal.signal(number, handlers[number])

    def _stop_while_leaving(self, number: int, frame: FrameType | None) -> None:
        self._worker._shutdown_requested_date = now()
        for each in _STOPS:
            signal.signal(each, self._worker.request_force_stop)

    def leave(self) -> None:
        """End what `start` has begun, even if it did not finish. A second call does nothing."""
        snapshots, self._snapshots = self._snapshots, None
        if snapshots is None:
            return
        pool, heart = self._pool, self._heart
        self._helpers.scheduling.tell_to_stop()  # it takes its second while we end the rest
        pool.end_warm()
        pool.bury()
        self.runs_warm = False
        if heart.beating:
            heart.stop()
            events.unsubscribe(heart.recorder.take)
        self._helpers.stop()
        if pool.kernel is not None:
            pool.kernel.close()
        snapshots.stop()
        linux.become_subreaper(self._was_subreaper)  # the process may be somebody's, and go on

    def left_to_do(self, max_jobs: int | None) -> int | None:
        """``max_jobs`` counts over all lives: how many jobs this one may run."""
        return max_jobs - self._before.jobs if max_jobs is not None and self._before is not None else max_jobs

    def after_work(self, max_jobs: int | None) -> None:
        """Where the worker had outgrown its own ceiling, or was told to restart: a new life, or exit code 12."""
        if not (self._full or self._told_to_restart) or (max_jobs is not None and self._jobs_done >= max_jobs):
            return
        if self._setup.config.on_worker_limit == "exit":
            raise SystemExit(EXIT_CODE)
        done = self._jobs_done + (self._before.jobs if self._before is not None else 0)
        for number in _STOPS:  # what stops us now stops us at once: nothing is running
            signal.signal(number, signal.SIG_DFL)
        if callable(signal.getsignal(signal.SIGHUP)):  # the log file's: not deadly until the next life has its own
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.environ.update(Restarted(self._setup.name, os.getpid(), done).to_environ())
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # likewise
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, program())
