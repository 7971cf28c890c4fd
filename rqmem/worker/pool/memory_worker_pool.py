"""`MemoryWorkerPool`: RQ's WorkerPool with `MemoryWorker`s.

One parent forks the workers and looks after them. It has imported what ``--preload`` names, so that all workers and
their horses share that memory. It runs no job and reads no queue.

- A worker that dies is replaced under its name (`rqmem.policy.replacement`), so its registration is free at once and
  its jobs are taken over.
- The first worker runs RQ's scheduler, if one is wanted.
- SIGTERM or SIGINT ends all workers as each does by itself: after the job, or the chunk in hand. A second one ends them
  at once. SIGHUP renews them one after another, SIGUSR2 has each write its snapshot.
- Each worker is a process group of its own, so that Ctrl-C reaches it once, by the pool. If the pool is killed, the
  workers end as at SIGTERM.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import signal
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from rqmem.config.load import load
from rqmem.config.settings import Config
from rqmem.connection.connect import name_the_driver_once
from rqmem.errors import RqmemError
from rqmem.log import borrow_handlers, say_who
from rqmem.measure import linux
from rqmem.measure.startup_checks import check_platform, fastest_growth, usage_of_idle_fork
from rqmem.policy.replacement import Slot, after_death
from rqmem.rq_names import Queue, WorkerData, WorkerPool, setup_loghandlers
from rqmem.store.retrying import connection_with_short_timeout
from rqmem.text import counted
from rqmem.units import show_mb, to_mb
from rqmem.worker.memory_worker import MemoryWorker
from rqmem.worker.pool import forking
from rqmem.worker.pool.budget import Budget, budget_mb, check_tenant_mb
from rqmem.worker.pool.scaling import Scaling
from rqmem.worker.preparing import check_ceilings, prepare, try_start
from rqmem.worker.restart import EXIT_CODE as FULL

UNUSABLE = 2
"""Exit code of a worker that cannot start as it is configured."""

_LOOK_SECONDS = 1.0
_FORCE_AFTER_SECONDS = 1.1  # RQ takes two signals within a second for one
_KILL_AFTER_SECONDS = 15.0
_READY_SECONDS = 60.0
_REDIS_SECONDS, _REDIS_PAUSE_SECONDS = 0.5, 10.0
_log = logging.getLogger("rqmem.worker")


@dataclass
class _Running:
    """A worker's process, and since when it runs by the pool's clock; ``renewing``: it was told to end for another."""

    process: BaseProcess
    since: float
    renewing: bool = False


class MemoryWorkerPool(WorkerPool):
    """RQ's WorkerPool, with a ceiling on each job of its workers.

    Args:
        queues: names, in order.
        connection: Redis. Each worker opens connections of its own, by the same pool: redis-py empties it in a fork.
        num_workers: how many workers.
        worker_class: `MemoryWorker` or a subclass.
        config: settings; by default read from the environment.
        name: the workers are ``NAME-1``, ``NAME-2``...; by default RQ's random name.
        most_workers: the pool runs at most this number, by how long jobs wait, and at least ``num_workers``; None:
            always ``num_workers``.
        worker_options: further arguments of each worker.
        work_options: further arguments of each worker's `work`.
        kwargs: RQ's.

    Raises:
        ConfigError: a setting cannot be used.
    """

    def __init__(
        self,
        queues: Iterable[str | Queue],
        connection: Redis,
        num_workers: int = 1,
        worker_class: type[MemoryWorker] = MemoryWorker,
        *args: Any,
        config: Config | None = None,
        name: str | None = None,
        most_workers: int | None = None,
        worker_options: Mapping[str, Any] | None = None,
        work_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(queues, connection, num_workers, worker_class, *args, **kwargs)
        self._memory_worker_class = worker_class
        config = load(os.environ).config if config is None else config
        # A worker that restarted itself in place would become a pool.
        self._config = replace(config, on_worker_limit="exit")
        self.name = name or self.name
        self._worker_options = dict(worker_options or {})
        self._work_options = dict(work_options or {})
        self._most_workers = max(num_workers, most_workers or num_workers)
        self._slots = [Slot(number) for number in range(1, self._most_workers + 1)]
        self._scaling = self._new_scaling() if self._most_workers > num_workers else None
        self._running: dict[int, _Running] = {}
        self._signals: list[int] = []
        self._to_renew: list[int] = []
        self._stopping_since: float | None = None
        self._force_at: float | None = None
        self._exit_code = 0
        self._budget: Budget | None = None
        self._asking = connection_with_short_timeout(connection, _REDIS_SECONDS)
        self._ask_at = float("-inf")

    @property
    def pids(self) -> dict[str, int]:
        """Name of each living worker -> its pid."""
        return {self._name(number): each.process.pid or 0 for number, each in sorted(self._running.items())}

    def start(self, burst: bool = False, logging_level: str = "INFO") -> None:
        """Replaces RQ's `start`: looks after the workers until all have ended.

        RQ's looks once a second, cannot be woken by a signal, and lets each worker run a scheduler.

        Raises:
            ConfigError: a module to preload cannot be used.
            SystemExit: a worker cannot start as it is configured (2, its log line says why), or one of a pool with
                ``burst`` failed (1).
        """
        for name in ("rq.worker", "rq.job"):
            setup_loghandlers(logging_level, name=name)
        borrow_handlers()
        check_platform()
        self._burst = burst
        self._share_with_workers()
        budget = self._make_budget()
        self.status = self.Status.STARTED
        woken, wake = os.pipe()
        os.set_blocking(wake, False)
        before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        old_wake = signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        _log.info("pool %s: starts %s, with PID %d", self.name, counted(self.num_workers, "worker"), os.getpid())
        gc.collect()
        gc.freeze()  # a collection in a worker would write to each object that it shares
        try:
            self._look_after(woken, budget)
        finally:
            signal.set_wakeup_fd(old_wake)
            gc.unfreeze()
            for number, handler in before.items():
                signal.signal(number, handler)
            os.close(woken)
            os.close(wake)
            self._kill_rest()
            budget.close()
        _log.info("pool %s: all workers have ended", self.name)
        if self._exit_code:
            raise SystemExit(self._exit_code)

    def request_stop(self, signum: int | None = None, frame: FrameType | None = None) -> None:
        """Replaces RQ's `request_stop`: the second request ends the workers at once."""
        self._hear(signal.SIGTERM, frame)

    # The loop

    def _look_after(self, woken: int, budget: Budget) -> None:
        alarms = [woken, budget.table.asked_fd]
        while True:
            now = time.monotonic()
            self._follow_signals(now)
            for number in [number for number, each in self._running.items() if not each.process.is_alive()]:
                self._bury(number, now)
            if self.status == self.Status.STOPPED:
                self._press(now)
            else:
                self._scale(now, budget)
                self._start_what_is_due(now)
                self._renew_next(now)
            wanted = self._slots[: self._wanted]
            if not self._running and (self.status == self.Status.STOPPED or all(slot.retired for slot in wanted)):
                return
            with linux.urgent():  # not while it forks: workers are like others
                budget.look()
                sentinels = [each.process.sentinel for each in self._running.values()]
                for ready in wait([*alarms, *sentinels], min(_LOOK_SECONDS, budget.pause_seconds)):
                    if ready == woken:
                        os.read(woken, 4096)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: remember it. The loop acts."""
        self._signals.append(number)

    def _follow_signals(self, now: float) -> None:
        heard, self._signals = self._signals, []
        for number in heard:
            if number == signal.SIGUSR2:
                self._tell_all(signal.SIGUSR2)
            elif number == signal.SIGHUP:
                self._reopen_log()
                if self.status != self.Status.STOPPED:
                    self._to_renew = sorted(self._running)
                    _log.info("pool %s: renews its workers, one after another", self.name)
            elif self.status != self.Status.STOPPED:
                self.status = self.Status.STOPPED
                self._stopping_since = now
                _log.info("pool %s: told to stop; its workers finish what they have in hand", self.name)
                self._tell_all(signal.SIGTERM)
            elif self._force_at is None:
                _log.warning("pool %s: was told to stop a second time; its workers end at once", self.name)
                self._force_at = max(now, (self._stopping_since or now) + _FORCE_AFTER_SECONDS)

    def _press(self, now: float) -> None:
        """Second request: the workers' second signal when they take it for a second one, SIGKILL if that is no use."""
        if self._exit_code == UNUSABLE:
            for number, each in self._running.items():
                if not each.renewing and self._has_settled_in(number, now):
                    self._renew(each)
        if self._force_at is None or now < self._force_at:
            return
        if now >= self._force_at + _KILL_AFTER_SECONDS:
            self._tell_all(signal.SIGKILL)
        elif self._stopping_since is not None:
            self._stopping_since = None  # once
            self._tell_all(signal.SIGTERM)

    def _renew(self, running: _Running) -> None:
        running.renewing = True
        self._tell(running.process, signal.SIGTERM)

    def _tell_all(self, number: int) -> None:
        for each in self._running.values():
            self._tell(each.process, number)

    @staticmethod
    def _tell(process: BaseProcess, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            if process.is_alive() and process.pid:  # alive or not reaped, so the pid is still its own
                os.kill(process.pid, number)

    def _start_what_is_due(self, now: float) -> None:
        for slot in self._slots[: self._wanted]:
            if slot.number in self._running or slot.retired or slot.due_at > now:
                continue
            try:
                self._running[slot.number] = _Running(self._start_process(slot.number), now)
            except OSError as error:  # no process, no memory or no file descriptor is left for now
                self._slots[slot.number - 1] = later = after_death(slot, 0.0, now)
                _log.error(
                    "pool %s: worker %s cannot be started: %s; the next try is in %.0f s",
                    self.name, self._name(slot.number), error, max(_LOOK_SECONDS, later.due_at - now),
                )  # fmt: skip

    def _start_process(self, number: int) -> BaseProcess:
        if self._budget is not None:
            self._budget.begins(number - 1)
        process = forking.start(self._run, (self._name(number), number, os.getpid()), self._name(number), _SIGNALS)
        self.worker_dict[process.name] = WorkerData(process.name, process.pid or 0, process)
        return process

    def _bury(self, number: int, now: float) -> None:
        ended = self._running.pop(number)
        ended.process.join()
        if self._budget is not None:
            self._budget.ended(number - 1)
        self.worker_dict.pop(ended.process.name, None)
        code = ended.process.exitcode or 0
        at, lived = number - 1, now - ended.since
        slot = self._slots[at]
        if self.status == self.Status.STOPPED or (code == 0 and self._workers_end_by_themselves and not ended.renewing):
            self._slots[at] = replace(slot, retired=True)
            return
        if code == UNUSABLE and self._nobody_lives():
            self._exit_code = UNUSABLE  # the others find the same; `_press` tells one that does not
            self.status = self.Status.STOPPED
            return
        if ended.renewing or code == FULL:
            self._slots[at] = replace(slot, early_deaths=0, due_at=now)
            return
        self._slots[at] = after_death(slot, lived, now)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        delay = self._slots[at].due_at - now
        _log.warning(
            "pool %s: worker %s %s after %.0f s; a new one starts %s",
            self.name, ended.process.name, how, lived, f"in {delay:.0f} s" if delay else "now",
        )  # fmt: skip

    @property
    def _workers_end_by_themselves(self) -> bool:
        """Whether one that ends well had nothing left to do. Else somebody has told it to stop, and it is replaced."""
        return self._burst or any(self._work_options.get(each) is not None for each in ("max_jobs", "max_idle_time"))

    def _nobody_lives(self) -> bool:
        """Whether no worker of this pool has been registered yet."""
        return not any(self._is_ready(number) for number in self._running)

    # Scaling

    def _new_scaling(self) -> Scaling:
        prefix = self._memory_worker_class.redis_worker_namespace_prefix
        return Scaling(
            self.connection, list(self._queue_names), lambda: [f"{prefix}{name}" for name in self.pids],
            self.num_workers, self._most_workers,
        )  # fmt: skip

    @property
    def _wanted(self) -> int:
        return self._scaling.workers if self._scaling is not None else self.num_workers

    def _scale(self, now: float, budget: Budget) -> None:
        """As many workers as the jobs that wait need. One too many ends after its job, the last one first."""
        if self._scaling is None:
            return
        before = self._wanted
        self._scaling.look(now, budget.idle_workers, short=budget.is_short)
        budget.tell_workers(self._wanted, self.num_workers, self._most_workers)
        if self._wanted != before:
            _log.info("pool %s: %d workers from now on, %d before: %s", self.name, self._wanted, before,
                      self._scaling.reason)  # fmt: skip
        for number, each in self._running.items():
            if number > self._wanted and not each.renewing:
                self._renew(each)

    # Renewal

    def _renew_next(self, now: float) -> None:
        """Tell the next worker to end, when the one before is there again."""
        self._to_renew = [number for number in self._to_renew if number in self._running]
        if not self._to_renew or any(
            slot.number not in self._running and not slot.retired for slot in self._slots[: self._wanted]
        ):
            return
        if not all(self._has_settled_in(number, now) for number in self._running):
            return
        if not any(each.renewing for each in self._running.values()):
            self._renew(self._running[self._to_renew.pop(0)])

    def _has_settled_in(self, number: int, now: float) -> bool:
        """Whether this worker is registered, or has had time enough for that."""
        return self._is_ready(number) or now - self._running[number].since > _READY_SECONDS

    def _is_ready(self, number: int) -> bool:
        """Whether this worker is registered in Redis."""
        key = f"{self.worker_class.redis_worker_namespace_prefix}{self._name(number)}"
        try:
            pid = self._asking.hget(key, "pid") if time.monotonic() >= self._ask_at else None
        except RedisError:  # who waits for it cannot keep the budget meanwhile
            self._ask_at = time.monotonic() + _REDIS_PAUSE_SECONDS
            return False
        return pid is not None and int(pid) == self._running[number].process.pid

    @staticmethod
    def _reopen_log() -> None:
        for handler in logging.getLogger().handlers:
            if (reopen := getattr(handler, "reopen", None)) is not None:
                reopen()

    # In the worker's process

    def _run(self, name: str, number: int, parent: int) -> None:
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # until it can write a snapshot
        signal.set_wakeup_fd(-1)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # blocked by `forking.start`
        os.setpgid(0, 0)
        linux.signal_when_parent_ends(signal.SIGTERM)
        if os.getppid() != parent:
            return
        say_who(name)
        if any(hasattr(each, "reopen") for each in logging.getLogger().handlers):
            signal.signal(signal.SIGHUP, lambda number, frame: self._reopen_log())
        options = {"with_scheduler": True, **self._work_options, "logging_level": None}  # as the pool has set it
        options["with_scheduler"] = options["with_scheduler"] and number == 1
        try:
            worker = self._memory_worker_class(
                self._queue_names,
                name=name,
                connection=self._connection_class(connection_pool=self.connection.connection_pool),
                config=self._config,
                serializer=self.serializer,
                job_class=self.job_class,
                queue_class=self.queue_class,
                exception_handlers=self.exception_handlers,
                **self._worker_options,
            )
            if self._budget is not None:
                worker.join(self._budget.table, number - 1)
            worker.work(burst=self._burst, **options)
        except RqmemError as error:
            _log.error("worker %s: %s", name, error)
            raise SystemExit(error.exit_code) from None

    # Small things

    def _name(self, number: int) -> str:
        return f"{self.name}-{number}"

    def _kill_rest(self) -> None:
        """If the loop left by an exception, no worker stays without its pool."""
        self._tell_all(signal.SIGTERM)
        for each in self._running.values():
            each.process.join(_KILL_AFTER_SECONDS)
        self._tell_all(signal.SIGKILL)

    def _share_with_workers(self) -> None:
        """Have here what each worker needs, before the first is forked. Raises `ConfigError`."""
        config = self._config
        prepare(config, f"pool {self.name}")
        try_start(config)
        name_the_driver_once(self.connection)
        if config.growth_mb_per_second is None:
            self._config = replace(config, growth_mb_per_second=to_mb(fastest_growth()))

    def _make_budget(self) -> Budget:
        """The budget of all jobs, before the first worker. Raises `ConfigError` for one that cannot be kept."""
        config = self._config
        ceiling_mb = config.memory_mb or config.default_limit_mb
        idle_bytes = usage_of_idle_fork()
        all_mb = budget_mb(config.total_memory_mb, ceiling_mb, to_mb(idle_bytes))
        check_ceilings(config, ceiling_mb, idle_bytes)  # each worker looks again: it may have more than we
        self._config = replace(config, budget_mb=all_mb)
        tenant_mb = config.tenant_memory_mb
        check_tenant_mb(tenant_mb, ceiling_mb)
        self._budget = Budget(self.name, self._most_workers, all_mb, config.reserve_mb, tenant_mb)
        _log.info(
            "pool %s: memory budget of %s MB for the jobs of all workers, %s MB at most for each%s",
            self.name, show_mb(all_mb), show_mb(ceiling_mb),
            f", {show_mb(tenant_mb)} MB for all of one tenant" if tenant_mb is not None else "",
        )  # fmt: skip
        self._budget.tell_workers(self.num_workers, self.num_workers, self._most_workers)
        return self._budget


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
