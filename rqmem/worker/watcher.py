"""Keeping the ceiling of one job: read, decide (`rqmem.policy.ceiling`), act, until the job has ended.

Runs in the worker's main thread, which does nothing else meanwhile. If other threads hold the GIL, the
watcher comes too late (measured: 1,168 MB above the ceiling). So there is no Redis, no alarm and no logging
in here. Promises: a stopped process tree is always continued or killed; after a breach no process of the
job's tree stays alive.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any, NamedTuple

from rqmem.config.settings import Config
from rqmem.events import Breach, Layer
from rqmem.measure import linux, process_tree, procfs, shared_objects
from rqmem.measure.meter import FullReading, TreeMeter
from rqmem.measure.shared_objects import Held, Key
from rqmem.policy.ceiling import (
    MAX_INTERVAL_SECONDS,
    CeilingAction,
    Limits,
    Reading,
    WatchState,
    decide,
    watch_interval,
)
from rqmem.policy.pressure import How
from rqmem.store import codec
from rqmem.units import MB, to_bytes, to_mb
from rqmem.values import dataclass
from rqmem.worker import evidence
from rqmem.worker.execution import Event
from rqmem.worker.horse.channel import Channel
from rqmem.worker.horse.source_lines import described
from rqmem.worker.horse.user_code import BREACH_SIGNAL
from rqmem.worker.kernel import HorseGroup
from rqmem.worker.pool.member import Member
from rqmem.worker.readings import Readings
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.shared_usage import SharedMemory

_clock = time.monotonic
_GROWING_BYTES, _GROWING_SECONDS = 2 * MB, 0.005  # often enough to sample the line that grows while it runs
_PAUSE_WITHOUT_KERNEL = 20  # full readings of forked processes take at most 1/20 of the time
_PAUSE_WITH_KERNEL = 100  # 1/100 is enough: the cgroup's limit bounds what is missed
_UNWATCHED_SECONDS = 0.02  # a shorter job gets no full reading
_CALM_SECONDS = 0.05
_CROWD = 16  # above so many processes, the children stay stopped while the horse unwinds: they would grow too fast
_ALERT_SECONDS = 0.05  # so long after a breach it reads without pauses: C code may go on allocating


@dataclass(frozen=True)
class Identity:
    """The job, queue and worker that a breach record names."""

    job: str
    job_id: str
    queue: str
    worker: str


class _Calm(NamedTuple):
    """The last look that found nothing to do. Until ``until`` (monotonic), the same reading gets the same answer.

    Most looks are like that, and each starts with cold CPU caches. This shortcut saves a third of the worker's
    processor time (measured).
    """

    raw: int = -1
    ceiling: int = -1
    until: float = 0.0
    pause: float = 0.0


class Watcher:
    """Watches one horse, job after job.

    Args:
        horse_pid: the process to wait for; a child of this process.
        page: shared with the horse; holds the ceiling, which the job may change while it runs.
        known: descendants of the worker that do not belong to this job; more may come while it runs.
        report: the channel on which a warm horse reports the end of the job.
        member: the worker's part in a pool: it gets the job's usage and may evict the job; None: no pool.

    Attributes:
        starved: the kernel killed a process of the cgroup because memory ran out elsewhere, not because of the job.
        hidden: pids of the job that could not be measured, since ``/proc`` hides them (hidepid).
    """

    def __init__(
        self,
        horse_pid: int,
        page: SharedPage,
        identity: Identity,
        config: Config,
        known: Collection[int] = (),
        report: Channel | None = None,
        baseline_bytes: int = 0,
        group: HorseGroup | None = None,
        member: Member | None = None,
    ) -> None:
        self._group = group
        self._member = member
        self._horse_pid = horse_pid
        self._exit_fd = linux.open_exit(horse_pid)
        self._report = report
        self._page = page
        self._config = config
        self._processors = len(os.sched_getaffinity(0))
        self._root = os.getpid()
        self._members = process_tree.Members(self._root, known)
        pause = _PAUSE_WITHOUT_KERNEL if group is None else _PAUSE_WITH_KERNEL
        self._meter = TreeMeter(self._members, config.growth_rate, pause)
        self._held: dict[Key, int] = {}  # sizes of shared memory objects that the horse's jobs have left
        self.next_job(identity, known, baseline_bytes)

    def next_job(self, identity: Identity, known: Collection[int], baseline_bytes: int) -> None:
        """Watch another job from now on; the arguments are those of the class."""
        self.breach: Breach | None = None
        self.starved = False
        self.hidden: set[int] = set()
        self._ends: list[int | Channel] = [self._exit_fd]
        if self._report is not None:
            self._ends.append(self._report)
        self._identity = identity
        self._known = known  # not a copy: the heart's thread may add a helper process
        self._members.leave_out(known)
        self._meter.begin(baseline_bytes, self._horse_pid)
        self._left: dict[Key, Held] = {}
        self._shared = SharedMemory(self._held)
        self._unseen = 0  # bytes of shared memory beyond what the meter sees
        self._begin(baseline_bytes)

    def _begin(self, baseline_bytes: int) -> None:
        """Reset all that belongs to one job."""
        self._seq = self._page.peak_seq = self._page.seq
        self._state = WatchState()
        step_bytes = to_bytes(self._config.sample_step_mb)
        self.readings = Readings(self._page, self._horse_pid, self._meter, step_bytes, baseline_bytes)
        self._last_usage = baseline_bytes
        self._grows = False
        self._calm = _Calm()

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
            if self.rest(pause):
                self.readings.take_sample()  # the last one asked for: the job may have ended since
                self.readings.note_mark(look=self.lasted() or self._page.burst)
                return True

    def rest(self, seconds: float) -> bool:
        """Wait up to ``seconds`` without a reading. Returns whether the job has ended.

        If the kernel has killed a process in the cgroup at its limit, the other processes of the job are killed too.
        """
        group = self._group
        alarms = [group.alarm_fd] if group is not None and group.alarm_fd is not None else []
        ends, _, exceptional = select.select([*self._ends, *alarms], [], alarms, seconds)
        if group is not None and (ends or exceptional or group.suspected) and group.killed():
            self._tell_kernel_kill(group)
        if self._report is not None and self._report in ends and self._report.closed():
            self._ends.remove(self._report)  # the job closed all files, or called exec: it still runs
            ends.remove(self._report)
        return any(end in ends for end in self._ends)

    def _tell_kernel_kill(self, group: HorseGroup) -> None:
        """The kernel has killed a process, perhaps not the guilty one. If our limit was the reason, kill the rest."""
        if not group.hit_limit():
            self.starved = True
            return
        self._end_for_group(group)

    def _end_for_group(self, group: HorseGroup) -> None:
        """The cgroup's charge is above ceiling and reserve, as the kernel or a look found: record it and kill."""
        if self.breach is None or self.breach.layer != "kernel":
            breach = self.breach or self._record(self._meter.full(_clock), self._limits(), "kernel")
            breach = self._as_the_horse_left_it(breach, "kernel")
            self.breach = replace(breach, **_charged(group, breach))
        self._kill_tree()

    def lasted(self) -> bool:
        """Whether the job ran long enough for a full reading."""
        return _clock() - self.readings.started >= _UNWATCHED_SECONDS

    def segments_left(self) -> list[tuple[str, float]]:
        """Name and MB of each segment, and each new file in /dev/shm, that the job's dead processes have left."""
        held = self._left | self._shared.new_files()
        return [(name, to_mb(size)) for name, size in shared_objects.still_there(held)]

    def end_job(self) -> None:
        if self._group is None:
            self._shared.close(self._members())

    def close(self) -> None:
        os.close(self._exit_fd)
        self._meter.close()
        self._members.close()

    def _follow(self) -> None:
        """Under a lease the horse may have begun another job: then reset what belongs to the job before."""
        page = self._page
        seq, usage = page.seq, self._last_usage
        if seq == self._seq or seq & 1 or self.breach is not None:
            return
        self._begin(usage)
        page.peak_bytes = page.usage_bytes = page.chunk_peak_bytes = usage
        page.peak_sampled = False
        page.chunk_peak_of = 0
        page.grew = []
        self._seq = page.peak_seq = seq

    def _look(self) -> float:
        """Take one reading and act on it; returns seconds until the next."""
        if self._page.leased:
            self._follow()
        now = _clock()
        if self._member is not None:
            self._follow_order(self._member)
        ceiling = self._page.ceiling_bytes
        group_pause = MAX_INTERVAL_SECONDS
        if self._group is not None:
            group_pause = self._group.look(ceiling, self._fastest_growth(), now, self._stopped_before_a_breach)
            if self._group.breach:
                self._end_for_group(self._group)
        return min(group_pause, self._look_at_usage(ceiling, now))

    def _follow_order(self, member: Member) -> None:
        """End the job if its pool has no room for it any more."""
        member.note_resumable(self._page.resumable)
        order = member.order()
        if order is None or self.breach is not None:
            return
        self._page.stop_asked = True
        if order.how is How.KILL and self._page.in_user_code:
            self._kill_tree()

    def _look_at_usage(self, ceiling: int, now: float) -> float:
        raw = self._meter.raw() + self._beyond_the_meter(now)
        self.hidden |= self._members.hidden | self._meter.hidden
        calm = self._calm
        if raw == calm.raw and ceiling == calm.ceiling and now < calm.until and self.breach is None:
            return calm.pause
        usage = self._meter.estimate(raw)
        grows = usage - self._last_usage >= _GROWING_BYTES
        self._last_usage, self._grows = usage, grows
        unhurried = not grows and not self._meter.takes_long(ceiling - usage)
        if self.breach is None and self._meter.doubtful(raw, ceiling, now):
            if not unhurried:
                return self._judge(ceiling + 1, now)  # perhaps above: read again with the tree stopped
            usage = self._meter.full(_clock).usage_bytes + self._unseen
        elif unhurried and self.lasted() and self._meter.wants_full(raw, now):
            usage = self._meter.full(_clock).usage_bytes + self._unseen
        if usage <= ceiling or self._meter.comparable():  # otherwise only a full reading is right
            self.readings.note(min(usage, self._meter.likely(raw)), now)
            self._page.usage_bytes = usage
            if self._member is not None:
                self._member.note(usage)
        self.readings.note_mark()
        self._page.peak_sampled |= len(self._meter.pids) > 1
        self.readings.sample(usage)
        if usage > ceiling or self.breach is not None:  # otherwise there is nothing to decide
            return self._judge(usage, now)
        pause = self._interval(ceiling - usage)
        if grows:
            return min(pause, _GROWING_SECONDS)
        if raw <= ceiling:  # no correction was needed: a correction expires
            self._calm = _Calm(raw, ceiling, now + _CALM_SECONDS, pause)
        return pause

    def _judge(self, usage: int, now: float) -> float:
        """Decide and act on high usage, and while a breach unwinds; returns seconds until the next reading."""
        limits = self._limits()
        self._act(self._decide(usage, limits, now), limits)
        if self.breach is None:
            return self._interval(limits.ceiling_bytes - self._last_usage)
        if not self._page.in_user_code:
            self._signal_children(signal.SIGKILL)  # the job is over: they must not grow during the commit
        elif usage > to_bytes(self.breach.used_mb) + _GROWING_BYTES:
            self._signal_children(signal.SIGSTOP)  # they grow while the horse unwinds
        alert = self._processors > 1 and now - (self._state.breached_at or 0.0) < _ALERT_SECONDS
        return 0.0 if alert else self._interval(0)  # one processor watches, another unwinds

    def _interval(self, headroom_bytes: int) -> float:
        """Seconds in which the job could use up its headroom, or the pool's."""
        if self._member is not None:
            headroom_bytes = self._member.headroom(self._last_usage, headroom_bytes)
        return watch_interval(headroom_bytes, self._fastest_growth())

    def _fastest_growth(self) -> float:
        """Bytes per second, by all processes that can run at once."""
        return min(self._processors, max(1, len(self._meter.pids))) * self._config.growth_rate

    def _decide(self, usage: int, limits: Limits, now: float, *, confirmed: bool = False) -> CeilingAction:
        reading = Reading(usage, confirmed, self._page.in_user_code)
        action, self._state = decide(reading, limits, self._state, now)
        return action

    def _act(self, action: CeilingAction, limits: Limits) -> None:
        if action is CeilingAction.CONFIRM:
            self._confirm(limits)
        elif action is CeilingAction.SIGNAL:
            linux.tell_main_thread(self._horse_pid, BREACH_SIGNAL)
        elif action is CeilingAction.KILL:
            self._kill()

    def _stopped_before_a_breach(self) -> AbstractContextManager[None]:
        """As `_stopped`, but does not stop a job that unwinds, so that its grace time is not shortened."""
        return self._stopped() if self.breach is None else nullcontext()

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Stop the tree during the block. After a breach of more than `_CROWD` processes, resume only the horse."""
        stopped = process_tree.stop(self._root, self._known, group=self._horse_pid)
        try:
            yield
        finally:
            if self.breach is not None and len(stopped) > _CROWD:
                process_tree.resume([self._horse_pid])
            else:
                process_tree.resume(stopped, group=self._horse_pid)

    def _confirm(self, limits: Limits) -> None:
        """Stop the tree and take the full reading. Then let the job go on, send it the breach signal, or kill it."""
        with self._stopped():
            full = self._meter.lone()
            if full is not None and full.usage_bytes <= limits.ceiling_bytes and self._grows_in_the_kernel():
                return  # a full reading of 1 GB lets it take 40 MB more: wait for the quick one
            if full is None or full.usage_bytes <= limits.ceiling_bytes:
                full = self._with_shared(self._meter.full(_clock, stopped=True))
            now = _clock()
            self._last_usage = full.usage_bytes
            self.readings.note(full.usage_bytes, now)
            action = self._decide(full.usage_bytes, limits, now, confirmed=True)
            if action is CeilingAction.BREACH:
                self._record(full, limits, "watch")
                linux.tell_main_thread(self._horse_pid, BREACH_SIGNAL)
            elif action is CeilingAction.KILL:
                self._kill()

    def _beyond_the_meter(self, now: float) -> int:
        """Bytes of shared memory that the processes' readings miss. Only needed without a cgroup, which counts them."""
        if self._group is None and self._shared.changed(self._meter.pids, now):
            self._unseen = max(0, self._shared.look(self._members()) - self._meter.resident_shmem_bytes())
        return self._unseen

    def _with_shared(self, full: FullReading) -> FullReading:
        if self._group is not None:
            return full
        self._unseen = max(0, self._shared.look(self._members()) - full.shmem_bytes)
        return replace(full, usage_bytes=full.usage_bytes + self._unseen)

    def _grows_in_the_kernel(self) -> bool:
        """Whether a system call is allocating (MAP_POPULATE, for example). SIGSTOP takes effect only at its end."""
        return self._grows and not process_tree.stops_at_once(self._horse_pid)

    def _signal_children(self, number: int) -> None:
        process_tree.send([pid for pid in self._members() if pid != self._horse_pid], number)

    def _kill(self) -> None:
        if self.breach is not None:
            self.breach = self._as_the_horse_left_it(self.breach, "kill")
        self._kill_tree()

    def _kill_tree(self) -> None:
        self._left |= self._shared.objects(self._members())
        process_tree.kill(self._root, self._known, group=self._horse_pid)
        if self._group is not None:
            self._group.kill()

    def _record(self, full: FullReading, limits: Limits, layer: Layer) -> Breach:
        if self._page.leased:
            self._follow()  # the tree is stopped: this is the job that breached
            self._identity = Identity(self._page.job, self._page.job_id, self._page.queue, self._identity.worker)
        self.readings.note_mark()
        self._left = self._shared.objects(full.by_pid.keys())
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
            counted_whole=len(full.whole),
            hidden=len(self.hidden),
            shared_mb=to_mb(self._unseen) if self._unseen else None,
            operation=self._page.operation,
            tree=evidence.tree(full.by_pid),
            beyond_reach=[(pid, procfs.read_command(pid)) for pid in process_tree.beyond_reach(self._members())],
            **self.readings.evidence(),
        )
        self._page.breach_json = codec.to_json(self.breach)
        self._page.breach_seq = self._page.seq
        self._page.advance(Event.BREACHED)
        return self.breach

    def _as_the_horse_left_it(self, breach: Breach, layer: Layer) -> Breach:
        """The breach with what the horse may have added to it on the page, this layer, and the peak so far."""
        text = self._page.breach_json
        last = codec.from_json(Breach, text) if text else breach
        where = last.where or described(self._page.line)
        return replace(breach, layer=layer, where=where, kinds=last.kinds, peak_mb=to_mb(self._page.peak_bytes))

    def _limits(self) -> Limits:
        return Limits(
            ceiling_bytes=self._page.ceiling_bytes,
            reserve_bytes=to_bytes(self._config.reserve_mb),
            grace_seconds=self._config.grace_seconds,
        )


def _charged(group: HorseGroup, breach: Breach) -> dict[str, Any]:
    """The fields of a breach that only the cgroup knows: its charge, and the parts that belong to no process."""
    charge = group.charged()
    peak_mb = max(breach.peak_mb, to_mb(charge.held_bytes))
    return {
        "used_mb": max(breach.used_mb, peak_mb),
        "peak_mb": peak_mb,
        "shared_mb": to_mb(charge.shmem_bytes),
        "kernel_mb": to_mb(charge.kernel_bytes),
    }
