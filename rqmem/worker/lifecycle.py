"""The life of a `rqmem.MemoryWorker`: what it looks at before it starts, the horses it keeps, its own memory.

The worker process runs no user code but preloaded modules and RQ's hooks, and should not grow. Should it all the
same, it restarts itself in place between two jobs: the horse and RQ's scheduler are ended, the death is registered,
and `exec` begins the same program anew, under the same name and pid.
"""

from __future__ import annotations

import dataclasses
import gc
import inspect
import logging
import os
import signal
import sys
import threading
import time
from types import FrameType
from typing import TYPE_CHECKING, Any

from rqmem import events, hooks, integrations, log
from rqmem.config.load import load
from rqmem.config.settings import LEAST_WORKER_MEMORY_MB, Config
from rqmem.errors import ConfigError
from rqmem.measure import machine, process_tree, procfs, trim
from rqmem.policy.leaks import Leaks
from rqmem.policy.needs import Needs
from rqmem.rq_names import DEFAULT_LOGGING_DATE_FORMAT, DEFAULT_LOGGING_FORMAT, StopRequested, Worker, setup_loghandlers
from rqmem.store import keys
from rqmem.store.permission import check_may_write
from rqmem.units import MB, show_mb, to_bytes, to_mb
from rqmem.worker import linux, platform_check, worker_name
from rqmem.worker.alert_sender import SenderProcess
from rqmem.worker.alerting import Alerting
from rqmem.worker.event_listener import Listening
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse import hook_runner
from rqmem.worker.horse.channel import WarmHorse
from rqmem.worker.horse.main import WorkerInHorse
from rqmem.worker.kernel import HorseGroup, KernelLayer, kernel_layer
from rqmem.worker.preloading import preload
from rqmem.worker.profiling import Capturing
from rqmem.worker.recorder import About, Recorder
from rqmem.worker.restart import EXIT_CODE, Restarted, can_restart, program
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.snapshot_file import Snapshots
from rqmem.worker.startup_checks import fastest_growth, usage_of_idle_fork
from rqmem.worker.watcher import Identity, Watcher

if TYPE_CHECKING:
    from redis import Redis

_NOT_CALLED_WARM = ("main_work_horse", "fork_work_horse", "monitor_work_horse", "wait_for_horse")
_log = logging.getLogger("rqmem.worker")


class LivingWorker(WorkerInHorse):
    """The part of `rqmem.MemoryWorker` that is not about a job."""

    def __init__(self, *args: Any, config: Config | None = None, **kwargs: Any) -> None:
        self.config = load(os.environ).config if config is None else config
        self._known: set[int] = set()
        self._warm: WarmHorse | None = None
        self._dying: tuple[WarmHorse, HorseGroup | None] | None = None
        self._idle_bytes = 0
        self._own_limit_bytes = 0
        self._kernel: KernelLayer | None = None
        self._switch = threading.RLock()  # held while the running execution changes, or is told something
        self._others: dict[int, int | None] = {}  # children of this process that somebody else waits for
        self._helpers: set[int] = set()  # of those, the ones that the heart's thread has begun
        self._was_subreaper = False
        self._jobs_done = 0
        self._full = False
        self._sender: SenderProcess | None = None
        self._snapshots: Snapshots | None = None
        self._listening: Listening | None = None
        self._leaks = Leaks()
        self._needs = Needs()
        super().__init__(*args, **kwargs)
        self._before = Restarted.from_environ(os.environ)
        if self._before is not None:
            self.name = self._before.name

    def _set_ip_address(self, connection: Redis) -> None:
        """RQ's `_set_ip_address`, which gives the connection our name; not one that Redis or redis-py does not take."""
        if "=" in self.name or not all("!" <= each <= "~" for each in self.name):
            self.ip_address = "unknown"
        else:
            super()._set_ip_address(connection)

    def work(self, *args: Any, **kwargs: Any) -> bool:
        """RQ's `work`, and after it, where the worker had outgrown its own ceiling, a new life or exit code 12.

        ``max_jobs`` counts over all lives.
        """
        call = inspect.signature(Worker.work).bind(self, *args, **kwargs)
        max_jobs = call.arguments.get("max_jobs")
        if max_jobs is not None and self._before is not None:
            call.arguments["max_jobs"] = max_jobs - self._before.jobs
        try:
            worked = super().work(*call.args[1:], **call.kwargs)
        except StopRequested:  # before RQ's loop, which would leave by `teardown`
            _log.info("worker %s: told to stop while it started", self.name)
            self.teardown()
            return False
        done = self._jobs_done + (self._before.jobs if self._before is not None else 0)
        if self._full and (max_jobs is None or done < max_jobs):
            if self.config.on_worker_limit == "exit":
                raise SystemExit(EXIT_CODE)
            self._begin_anew(done)
        return worked

    def bootstrap(
        self,
        logging_level: str | None = "INFO",
        date_format: str = DEFAULT_LOGGING_DATE_FORMAT,
        log_format: str = DEFAULT_LOGGING_FORMAT,
    ) -> None:
        """RQ's `bootstrap`, after a look whether any job could run at all; then the heart.

        It takes a while: a request to stop is heard from here on. RQ installs its own handlers after it.
        """
        self._has_name = False
        before = {number: signal.signal(number, self._stop_early) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            self._start(logging_level, date_format, log_format)
        except StopRequested:
            raise
        except BaseException:
            for number, handler in before.items():
                signal.signal(number, handler)
            self._leave()
            raise

    def _stop_early(self, number: int, frame: FrameType | None) -> None:
        self._asked_to_stop = True  # for the loop, should somebody swallow the exception
        raise StopRequested

    def _start(self, logging_level: str | None, date_format: str, log_format: str) -> None:
        setup_loghandlers(logging_level, date_format, log_format)  # as RQ's does, before there is anything to tell
        log.borrow_handlers()
        events.subscribe(log.write_event)
        platform_check.check()
        self._look_for_own_ways()
        check_may_write(self.connection)
        if self.config.profile == "memray":
            self._captures = Capturing(self.config, self.name)
        self._snapshots = Snapshots(self)
        self._snapshots.start()
        if SenderProcess.wanted(self.config):
            self._sender = SenderProcess(self.config, self.connection, self.name)
            self._sender.start()
        procfs.keep_a_spare_descriptor()
        self._others = {pid: procfs.read_start_time(pid) for pid in procfs.read_children(os.getpid())}
        self._was_subreaper = linux.become_subreaper()
        trim.warm_up()
        preload(self.config.preload, self.config.preload_openmp)
        hook_runner.load(self.config.plugins)
        if self.config.integrations:
            integrations.load_imported()
        if signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN:  # set by a module, or by who started us
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # else the kernel reaps our horses
        if hooks.listeners():
            self._listening = Listening(self.name, self.limit_mb)
            self._listening.start()
        gc.freeze()
        self._idle_bytes = usage_of_idle_fork()
        self._check_limits()
        self._kernel = kernel_layer(self.config.cgroup, to_bytes(self.config.reserve_mb), self._idle_bytes)
        if self.config.growth_mb_per_second is None:
            self.config = dataclasses.replace(self.config, growth_mb_per_second=fastest_growth() / MB)
        if self._sender is not None:
            self._sender.wait_until_ready()
        super().bootstrap(logging_level, date_format, log_format)
        self._recorder = self._new_recorder()
        events.subscribe(self._recorder.take)
        self._heart = Heart(self, self.config, self._recorder)
        self._heart.start()
        _log.info(
            "worker %s: memory ceiling %s MB for each job (an idle horse uses %s MB), kept by %s",
            self.name, show_mb(self.limit_mb), show_mb(to_mb(self._idle_bytes)),
            self._recorder.about.kept_by + (f" ({self._kernel.words})" if self._kernel is not None else ""),
        )  # fmt: skip
        if self._before is not None:
            about = {"job": "", "job_id": "", "queue": "", "worker": self.name}
            events.emit(events.WorkerRestarted(jobs=self._before.jobs, **about))

    def register_birth(self) -> None:
        """Replaces RQ's `register_birth`: takes a dead worker's name over. Raises `NameTaken` (a ValueError)."""
        self.log.debug("Worker %s: registering birth", self.name)
        worker_name.register(self, self.config.heartbeat_seconds)
        self._has_name = True

    def serialize(self) -> dict[str, Any]:
        """RQ's `serialize`, with the process that has the name."""
        return {**super().serialize(), keys.PROCESS: procfs.process_identity()}

    def _look_for_own_ways(self) -> None:
        """A subclass with a hook of RQ's that a warm horse does not call gets a horse for each job."""
        for name in _NOT_CALLED_WARM:
            owner = next((each for each in type(self).__mro__ if name in vars(each)), object)
            if name not in vars(self) and owner.__module__.partition(".")[0] in ("rq", "rqmem"):
                continue
            if self.config.isolation == "warm":
                self.config = dataclasses.replace(self.config, isolation="fork")
                _log.warning(
                    "worker %s: %s overrides %s, which a warm horse does not call: each job gets a horse of its own, "
                    "as with --isolation fork", self.name, owner.__qualname__, name,
                )  # fmt: skip

    def _shutdown(self) -> None:
        """`_shutdown`; a running job hears of it too, and goes on elsewhere if it can."""
        if self._page is not None:
            self._page.stop_asked = True
        super()._shutdown()

    def teardown(self) -> None:
        """`teardown`; the horse ends, the heart stops, so that others take over what was left at once."""
        if not self.is_horse:
            self._leave()
        super().teardown()

    def _leave(self) -> None:
        """End what `bootstrap` has begun, as far as it came; once."""
        snapshots, self._snapshots = self._snapshots, None
        if snapshots is None:
            return
        self._tell_scheduler_to_stop()  # it takes its second while we end the rest
        self._end_warm_horse()
        self._bury()
        if self._heart is not None:
            self._heart.stop()
            self._heart = None
        if self._sender is not None:
            self._sender.stop()
        if self._listening is not None:
            self._listening.stop()
        if self._recorder is not None:
            events.unsubscribe(self._recorder.take)
        if self._kernel is not None:
            self._kernel.close()
        snapshots.stop()
        linux.become_subreaper(self._was_subreaper)  # the process may be somebody's, and go on

    def _new_recorder(self) -> Recorder:
        """What it remembers for others, from here on."""
        about = About(
            worker=self.name,
            queues=self.queue_names(),
            limit_mb=self.limit_mb,
            worker_limit_mb=to_mb(self._own_limit_bytes),
            kept_by="watcher and cgroup" if self._kernel is not None else "watcher",
        )
        listener = self._listening.tell if self._listening is not None else None
        return Recorder(about, Alerting(self.name, self.config), self.config.journal_enabled, listener)

    # Its limits

    def _check_limits(self) -> None:
        """`ConfigError` for ceilings that what is there already exceeds; a warning for one that cannot be had."""
        idle_mb, own_bytes = to_mb(self._idle_bytes), procfs.own_held_bytes()
        if idle_mb >= self.limit_mb:
            raise ConfigError(
                f"a ceiling of {show_mb(self.limit_mb)} MB cannot hold: an idle horse already uses "
                f"{show_mb(idle_mb)} MB; give --memory (or RQMEM_MEMORY) clearly more than that"
            )
        wanted_mb = self.config.worker_memory_mb
        generous_bytes = max(to_bytes(LEAST_WORKER_MEMORY_MB), 2 * own_bytes)
        self._own_limit_bytes = to_bytes(wanted_mb) if wanted_mb else generous_bytes
        if own_bytes >= self._own_limit_bytes:
            raise ConfigError(
                f"a ceiling of {show_mb(to_mb(self._own_limit_bytes))} MB for the worker itself cannot hold: it starts "
                f"with {show_mb(to_mb(own_bytes))} MB; give --worker-memory (or RQMEM_WORKER_MEMORY) clearly more"
            )
        wanted_bytes = to_bytes(self.limit_mb + self.config.reserve_mb)
        for what, there in (
            ("machine has", machine.total_bytes()),
            ("container may use", machine.container_limit_bytes()),
        ):
            if there is not None and wanted_bytes > there:
                _log.warning(
                    "worker %s: a ceiling of %s MB and a reserve of %s MB are more than the %s MB that this %s: "
                    "the kernel will act first, and on any process",
                    self.name, show_mb(self.limit_mb), show_mb(self.config.reserve_mb), show_mb(to_mb(there)), what,
                )  # fmt: skip

    def _look_at_own_memory(self) -> None:
        """Between two jobs: above its own ceiling the worker stops, as if asked to, and `work` does the rest."""
        self._jobs_done += 1
        own_bytes = procfs.own_held_bytes()
        if own_bytes <= self._own_limit_bytes or self._full or self._heart is None:
            return
        action = self.config.on_worker_limit
        if action == "restart" and not can_restart(sys.argv[0]):
            action = "none"  # it is a part of somebody's program, whose life is not ours to end
            self._own_limit_bytes = sys.maxsize
        events.emit(
            events.WorkerFull(
                job="", job_id="", queue="", worker=self.name, used_mb=to_mb(own_bytes),
                limit_mb=to_mb(min(own_bytes, self._own_limit_bytes)), action=action,
            )
        )  # fmt: skip
        if action != "none":
            self._full = self._stop_requested = True

    def _begin_anew(self, jobs_done: int) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):  # what stops us now stops us at once: nothing is running
            signal.signal(number, signal.SIG_DFL)
        if callable(signal.getsignal(signal.SIGHUP)):  # the log file's: not deadly until the next life has its own
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os.environ.update(Restarted(self.name, os.getpid(), jobs_done).to_environ())
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # likewise
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execv(sys.executable, program())

    # Its horses

    @property
    def idle_horse_pid(self) -> int:
        """Of the warm horse, between two jobs too; 0: there is none."""
        warm = self._warm
        return warm.pid if warm is not None else 0

    def _fork_warm_horse(self) -> WarmHorse:
        self._forking_pid = os.getpid()
        self._page = SharedPage.new(to_bytes(self.limit_mb))
        self._new_group()
        self._leaks = self._leaks.in_new_horse()
        self._warm = WarmHorse.fork(self._page, self._serve)
        return self._warm

    def _end_warm_horse(self, *, broken: bool = False) -> None:
        warm, self._warm = self._warm, None
        if warm is not None:
            if warm.page.ends_with_hooks:
                self._watch_ending_hooks(warm)
            warm.end()
            self._retire_group(broken=broken)

    def _watch_ending_hooks(self, warm: WarmHorse) -> None:
        """Wait for the hooks that a horse calls before it ends, within its last job's ceiling."""
        warm.channel.close()
        page, about = warm.page, {"job": warm.page.job, "job_id": "", "queue": "", "worker": self.name}
        known = set(process_tree.descendants(os.getpid())) - {warm.pid}
        try:
            watcher = Watcher(warm.pid, page, Identity("hooks of horse_ending", "", "", self.name), self.config, known)
        except ProcessLookupError:
            return
        try:
            with linux.urgent():
                ended = watcher.wait(time.monotonic() + hook_runner.ENDING_SECONDS + 1)
        finally:
            watcher.close()
        if not ended:
            process_tree.kill(os.getpid(), known, group=warm.pid)
        if page.in_user_code or watcher.breach is not None:
            error = watcher.breach.summary() if watcher.breach is not None else "the horse ended in it"
            error = error if ended else f"killed: it had not ended after {hook_runner.ENDING_SECONDS} s"
            events.emit(events.HookFailed(hook=page.operation or "horse_ending hook", error=error, **about))

    def _kill_warm_horse(self) -> None:
        """The same for one that has reported and may not live; `_bury` waits for its end, before the next job."""
        self._bury()
        warm, self._warm = self._warm, None
        if warm is not None:
            process_tree.send([warm.pid], signal.SIGKILL)
            self._dying = (warm, self._group)
            self._group = None

    def _bury(self) -> None:
        """Wait until the last killed horse and what it started have ended, and remove what is left of them."""
        if self._dying is None:
            return
        (warm, group), self._dying = self._dying, None
        process_tree.kill(os.getpid(), self._known | ({self._warm.pid} if self._warm is not None else set()))
        warm.end()
        self._reap()
        if group is not None and self._kernel is not None:
            self._kernel.retire(group, keep_limit=True)

    def _reap(self) -> None:
        """Ended orphans of jobs are our children, as the subreaper's; nobody else waits for them.

        A horse is reaped by whoever ends it: until then its pid must not be another's.
        """
        process = self.scheduler._process if self.scheduler is not None else None
        if process is not None and process.pid:
            self._others[process.pid] = procfs.read_start_time(process.pid)
        if self._sender is not None and self._sender.pid:
            self._others[self._sender.pid] = procfs.read_start_time(self._sender.pid)
        if self._listening is not None and self._listening.pid:
            self._others[self._listening.pid] = procfs.read_start_time(self._listening.pid)
        horses = [each.pid for each in (self._warm, self._dying[0] if self._dying else None) if each is not None]
        horses_of_today = {pid: procfs.read_start_time(pid) for pid in horses}
        process_tree.reap_zombies(os.getpid(), self._others | horses_of_today)

    def leave_alone(self, pid: int) -> None:
        """A child that the heart's thread has begun, maybe while a job runs: it is of no job's tree."""
        self._others[pid] = procfs.read_start_time(pid)
        self._helpers.add(pid)
        self._known.add(pid)

    def forget_helper(self, pid: int) -> None:
        """That child has ended."""
        self._helpers.discard(pid)

    def begin_settling(self) -> None:
        """In a child of this process that settles what a dead worker left: nothing of our job and horse is its own."""
        os.setpgrp()
        linux.become_subreaper()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):  # the worker decides when it ends
            signal.signal(number, signal.SIG_IGN)
        if self._recorder is not None:
            events.unsubscribe(self._recorder.take)
        self._page = self._group = self._heart = self._stopped_job_id = None

    def _tend_helpers(self) -> None:
        """Between two jobs: the sender of alerts and the process of hooks begin again where they died.

        They are of no job's tree.
        """
        if self._listening is not None and self._listening.tend():
            self._known.add(self._listening.pid)
        if self._sender is not None and self._sender.tend():
            self._known.add(self._sender.pid)

    @property
    def should_run_maintenance_tasks(self) -> bool:
        """`should_run_maintenance_tasks`, asked before each wait for a job: by now the dead can be buried."""
        self._bury()
        self._tend_helpers()
        return super().should_run_maintenance_tasks

    def _new_group(self) -> None:
        if self._kernel is not None:
            self._group = self._kernel.new_group(to_bytes(self.limit_mb))

    def _retire_group(self, *, broken: bool = False) -> None:
        group, self._group = self._group, None
        if group is not None and self._kernel is not None:
            self._kernel.retire(group, keep_limit=broken)

    def _kill_tree(self, horse_pid: int, *, wait: bool = True) -> None:
        """After a breach or a lost horse nothing of the job's tree stays."""
        process_tree.kill(os.getpid(), self._known, group=horse_pid, wait=wait)
        if self._group is not None:
            self._group.kill(wait=wait)
