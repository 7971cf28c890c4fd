"""Keeping the ceiling of one job: read, decide (`rqmem.policy.ceiling`), act, until the job has ended.

Runs in the worker's main thread, which does nothing else meanwhile: a watcher in a process whose other
threads hold the interpreter is no ceiling (measured: 1,168 MB over). No Redis, no alarms, no logging
in here. Promises: the tree is never left stopped by a watcher that goes on living; after a breach
nothing of the job's tree is left alive.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Protocol

from rqmem.config import Config
from rqmem.events import Breach, Layer
from rqmem.memory import procfs, tree
from rqmem.memory.meter import FullReading, TreeMeter
from rqmem.policy.ceiling import Action, Limits, Reading, WatchState, decide, watch_interval
from rqmem.runtime.growth import Growth
from rqmem.runtime.horse import BREACH_SIGNAL, SAMPLE_SIGNAL, described
from rqmem.runtime.page import SharedPage
from rqmem.units import MB, to_bytes, to_mb

_clock = time.monotonic
_CURVE_SECONDS = 10.0
_CURVE_STEP_SECONDS = 0.01
_GROWING_BYTES, _GROWING_SECONDS = 2 * MB, 0.005  # so that samples find the line while it still runs
_UNWATCHED_SECONDS = 0.02  # a job this short costs no full reading


@dataclass(frozen=True)
class Identity:
    """What a breach record says about whose it is."""

    job: str
    job_id: str
    queue: str
    worker: str


class HasFileno(Protocol):
    """What `select` takes besides a number."""

    def fileno(self) -> int: ...


class Watcher:
    """Watches one horse.

    Args:
        horse_pid: the process to wait for; a child of this process.
        page: shared with it; holds the ceiling, which the job may change while it runs.
        identity: for the breach record.
        config: for reserve, grace, the machine's growth rate.
        known: processes below the worker that are not this job's.
        report: where a warm horse says that the job has ended.
    """

    def __init__(
        self,
        horse_pid: int,
        page: SharedPage,
        identity: Identity,
        config: Config,
        known: Collection[int] = (),
        report: HasFileno | None = None,
    ) -> None:
        self.breach: Breach | None = None
        self._horse_pid = horse_pid
        self._exit_fd = os.pidfd_open(horse_pid)
        self._ends: list[int | HasFileno] = [self._exit_fd] if report is None else [self._exit_fd, report]
        self._page = page
        self._identity = identity
        self._config = config
        self._known = frozenset(known)
        self._root = os.getpid()
        self._members = tree.Members(self._root, self._known)
        self._meter = TreeMeter(self._members, config.growth_bytes_per_second)
        self._state = WatchState()
        self._started = _clock()
        self._peak = 0
        self._growth = Growth()
        self._last_usage = 0
        self._curve: deque[tuple[float, int]] = deque([(0.0, 0)], maxlen=int(_CURVE_SECONDS / _CURVE_STEP_SECONDS))

    def wait(self, deadline: float | None) -> bool:
        """Watch until the job has ended (True) or the monotonic ``deadline`` passes (False).

        It has ended when the horse has exited (it is not reaped here) or something can be read from ``report``.
        """
        while True:
            pause = self._look()
            if deadline is not None:
                if _clock() >= deadline:
                    return False
                pause = min(pause, max(0.0, deadline - _clock()))
            if select.select(self._ends, [], [], pause)[0]:
                return True

    def close(self) -> None:
        os.close(self._exit_fd)
        self._meter.close()
        self._members.close()

    def _look(self) -> float:
        """One reading and what follows from it; returns seconds until the next."""
        now = _clock()
        raw = self._meter.raw()
        ceiling = self._page.ceiling_bytes
        young = now - self._started < _UNWATCHED_SECONDS
        if self._meter.doubtful(raw, ceiling, now) or (not young and self._meter.wants_full(raw, now)):
            usage = self._meter.full(_clock).usage_bytes
        else:
            usage = self._meter.estimate(raw)
        if not young:  # before the first full reading, pages shared with the worker count in full
            self._note(usage, now)
            self._sample(usage)
        if usage > ceiling or self.breach is not None:  # else there is nothing to decide, many times a second
            return self._judge(usage, now)
        pause = watch_interval(ceiling - usage, self._config.growth_bytes_per_second)
        grown, self._last_usage = usage - self._last_usage, usage
        return min(pause, _GROWING_SECONDS) if grown >= _GROWING_BYTES else pause

    def _judge(self, usage: int, now: float) -> float:
        """Near the end of a job's patience: decide and act; returns seconds until the next reading."""
        limits = self._limits()
        self._act(self._decide(usage, limits, now), limits)
        if self.breach is not None and not self._page.in_user_code:
            self._end_children()  # the job is over; they must not grow while its verdict is committed
        headroom = 0 if self.breach is not None else limits.ceiling_bytes - usage
        return watch_interval(headroom, self._config.growth_bytes_per_second)

    def _decide(self, usage: int, limits: Limits, now: float, *, confirmed: bool = False) -> Action:
        reading = Reading(usage, confirmed, self._page.in_user_code)
        action, self._state = decide(reading, limits, self._state, now)
        return action

    def _act(self, action: Action, limits: Limits) -> None:
        if action is Action.CONFIRM:
            self._confirm(limits)
        elif action is Action.SIGNAL:
            tree.send([self._horse_pid], BREACH_SIGNAL)
        elif action is Action.KILL:
            self._kill()

    def _confirm(self, limits: Limits) -> None:
        """Stop the tree and take the full reading; go on, tell the job to unwind, or kill."""
        stopped = tree.stop(self._root, self._known)
        try:
            full = self._meter.full(_clock)
            now = _clock()
            self._note(full.usage_bytes, now)
            action = self._decide(full.usage_bytes, limits, now, confirmed=True)
            if action is Action.BREACH:
                self._record(full, limits, "watch")
                tree.send([self._horse_pid], BREACH_SIGNAL)
            elif action is Action.KILL:
                self._kill()
        finally:
            tree.send(stopped, signal.SIGCONT)

    def _end_children(self) -> None:
        tree.send([pid for pid in self._members() if pid != self._horse_pid], signal.SIGKILL)

    def _kill(self) -> None:
        if self.breach is not None:
            self.breach = self._with_line_of_horse(self.breach, "kill")
        tree.kill(self._root, self._known)

    def _record(self, full: FullReading, limits: Limits, layer: Layer) -> None:
        since, lowest = self._growth_start()
        self.breach = Breach(
            job=self._page.job or self._identity.job,
            job_id=self._identity.job_id,
            queue=self._identity.queue,
            worker=self._identity.worker,
            used_mb=to_mb(full.usage_bytes),
            limit_mb=to_mb(limits.ceiling_bytes),
            peak_mb=to_mb(self._page.peak_bytes),
            layer=layer,
            processes=max(1, len(full.by_pid)),
            operation=self._page.operation,
            from_mb=to_mb(lowest),
            growth_seconds=_clock() - since,
            grew=[(to_mb(grown), described(line)) for grown, line in self._growth.lines()],
        )
        self._page.breach_json = self.breach.to_json()

    def _with_line_of_horse(self, breach: Breach, layer: Layer) -> Breach:
        """The record as the horse may have completed it (its line of code), by this layer, with the peak so far."""
        text = self._page.breach_json
        where = Breach.from_json(text).where if text else ""
        return replace(breach, layer=layer, where=where, peak_mb=to_mb(self._page.peak_bytes))

    def _note(self, usage: int, now: float) -> None:
        if usage > self._peak:
            self._peak = self._page.peak_bytes = usage
        if now - self._curve[-1][0] >= _CURVE_STEP_SECONDS:
            self._curve.append((now, usage))

    def _sample(self, usage: int) -> None:
        self._growth.take(self._page.samples, self._page.line)
        wanted = self._page.in_user_code and self._growth.wants_sample(usage)
        if wanted and procfs.catches(self._horse_pid, SAMPLE_SIGNAL):  # after an exec it would end the job
            tree.send([self._horse_pid], SAMPLE_SIGNAL)

    def _growth_start(self) -> tuple[float, int]:
        """When and from which usage the last growth began: the lowest reading of the last seconds."""
        recent = [point for point in self._curve if point[0] >= _clock() - _CURVE_SECONDS]
        return min(recent or [(self._started, 0)], key=lambda point: point[1])

    def _limits(self) -> Limits:
        return Limits(
            ceiling_bytes=self._page.ceiling_bytes,
            reserve_bytes=to_bytes(self._config.reserve_mb),
            grace_seconds=self._config.grace_seconds,
        )
