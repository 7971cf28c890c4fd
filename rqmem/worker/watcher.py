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
_GROWING_BYTES, _GROWING_SECONDS = 2 * MB, 0.005  # so that samples find the line while it still runs
_PAUSE_WITHOUT_KERNEL = 20  # a twentieth of the time at most to prove a forked pool innocent
_PAUSE_WITH_KERNEL = 100  # its limit bounds what might be missed
_UNWATCHED_SECONDS = 0.02  # a job this short costs no full reading
_CALM_SECONDS = 0.05
_CROWD = 16  # processes: more than these grow too much between two looks, so they stay stopped while the horse unwinds
_ALERT_SECONDS = 0.05  # after a breach, without a pause between readings: a block may be growing in C


@dataclass(frozen=True)
class Identity:
    """What a breach record says about whose it is."""

    job: str
    job_id: str
    queue: str
    worker: str


class _Calm(NamedTuple):
    """The last look that found nothing to do: what it read, and until when the same reading has the same answer.

    Most looks at a job that computes are like that. Each wakes up with cold caches, so it should run little code (a
    third of the worker's processor time, measured).
    """

    raw: int = -1
    ceiling: int = -1
    until: float = 0.0
    pause: float = 0.0


class Watcher:
    """Watches one horse, job after job.

    Args:
        horse_pid: the process to wait for; a child of this process.
        page: shared with it; holds the ceiling, which the job may change while it runs.
        known: processes below the worker that are not this job's; more may come while it runs.
        report: where a warm horse says that the job has ended.
        member: of a pool, which hears what the job uses and may have it go; None: nobody does.

    Attributes:
        starved: the kernel killed in the group for want of memory elsewhere: no fault of the job.
        hidden: processes of the job that could not be measured, since ``/proc`` hides them.
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
        self._held: dict[Key, int] = {}  # shared memory that outlives the jobs of the horse, by object
        self.next_job(identity, known, baseline_bytes)

    def next_job(self, identity: Identity, known: Collection[int], baseline_bytes: int) -> None:
        """From now on another job is watched; the arguments are those of the class."""
        self.breach: Breach | None = None
        self.starved = False
        self.hidden: set[int] = set()
        self._ends: list[int | Channel] = [self._exit_fd]
        if self._report is not None:
            self._ends.append(self._report)
        self._identity = identity
        self._known = known  # not a copy: the worker's heart may add a helper of its own
        self._members.leave_out(known)
        self._meter.begin(baseline_bytes, self._horse_pid)
        self._left: dict[Key, Held] = {}
        self._shared = SharedMemory(self._held)
        self._unseen = 0  # bytes of shared memory beyond what the meter sees
        self._begin(baseline_bytes)

    def _begin(self, baseline_bytes: int) -> None:
        """The readings from here on are of one job."""
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
                self.readings.take_sample()  # what was asked for last, of a job that grew and ended within a look
                self.readings.note_mark(look=self.lasted() or self._page.burst)
                return True

    def rest(self, seconds: float) -> bool:
        """As `wait`, for so long at most, without a reading. A kill by the kernel in the group ends the rest of it."""
        group = self._group
        alarms = [group.alarm_fd] if group is not None and group.alarm_fd is not None else []
        ends, _, exceptional = select.select([*self._ends, *alarms], [], alarms, seconds)
        if group is not None and (ends or exceptional or group.suspected) and group.killed():
            self._tell_kernel_kill(group)
        if self._report is not None and self._report in ends and self._report.closed():
            self._ends.remove(self._report)  # the job closed its files, or became another program: it goes on
            ends.remove(self._report)
        return any(end in ends for end in self._ends)

    def _tell_kernel_kill(self, group: HorseGroup) -> None:
        """The kernel has killed the largest process, perhaps not the one to blame: end the rest if it was our limit."""
        if not group.hit_limit():
            self.starved = True
            return
        self._end_for_group(group)

    def _end_for_group(self, group: HorseGroup) -> None:
        """What is charged to the group is above the ceiling and the reserve, as the kernel or a look at it found."""
        if self.breach is None or self.breach.layer != "kernel":
            breach = self.breach or self._record(self._meter.full(_clock), self._limits(), "kernel")
            breach = self._as_the_horse_left_it(breach, "kernel")
            self.breach = replace(breach, **_charged(group, breach))
        self._kill_tree()

    def lasted(self) -> bool:
        """Whether the job ran long enough to be read."""
        return _clock() - self.readings.started >= _UNWATCHED_SECONDS

    def segments_left(self) -> list[tuple[str, float]]:
        """Shared memory that outlives the job's processes: name and MB.

        Files and segments that they held when they were stopped, and new files of theirs in /dev/shm.
        """
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
        """Under a lease the horse may have begun another job: forget what is known of the one before."""
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
        """One reading and what follows from it; returns seconds until the next."""
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
                return self._judge(ceiling + 1, now)  # it may be above: the stopped tree will tell
            usage = self._meter.full(_clock).usage_bytes + self._unseen
        elif unhurried and self.lasted() and self._meter.wants_full(raw, now):
            usage = self._meter.full(_clock).usage_bytes + self._unseen
        if usage <= ceiling or self._meter.comparable():  # else only the full reading tells
            self.readings.note(min(usage, self._meter.likely(raw)), now)
            self._page.usage_bytes = usage
            if self._member is not None:
                self._member.note(usage)
        self.readings.note_mark()
        self._page.peak_sampled |= len(self._meter.pids) > 1
        self.readings.sample(usage)
        if usage > ceiling or self.breach is not None:  # else there is nothing to decide
            return self._judge(usage, now)
        pause = self._interval(ceiling - usage)
        if grows:
            return min(pause, _GROWING_SECONDS)
        if raw <= ceiling:  # without an offset, which expires
            self._calm = _Calm(raw, ceiling, now + _CALM_SECONDS, pause)
        return pause

    def _judge(self, usage: int, now: float) -> float:
        """Usage may be too high, or a breach unwinds: decide and act; returns seconds until the next reading."""
        limits = self._limits()
        self._act(self._decide(usage, limits, now), limits)
        if self.breach is None:
            return self._interval(limits.ceiling_bytes - self._last_usage)
        if not self._page.in_user_code:
            self._signal_children(signal.SIGKILL)  # the job is over; they must not grow while its verdict is committed
        elif usage > to_bytes(self.breach.used_mb) + _GROWING_BYTES:
            self._signal_children(signal.SIGSTOP)  # they go on growing while the horse unwinds
        alert = self._processors > 1 and now - (self._state.breached_at or 0.0) < _ALERT_SECONDS
        return 0.0 if alert else self._interval(0)  # one processor watches, another unwinds

    def _interval(self, headroom_bytes: int) -> float:
        """Seconds in which the headroom might be used up, or what is left for the whole pool."""
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
        """As `_stopped`, but a job that unwinds goes on: it has its reserve and its grace."""
        return self._stopped() if self.breach is None else nullcontext()

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        """Stop the tree meanwhile. Of a crowd that has breached only the horse goes on, which unwinds."""
        stopped = process_tree.stop(self._root, self._known, group=self._horse_pid)
        try:
            yield
        finally:
            if self.breach is not None and len(stopped) > _CROWD:
                process_tree.resume([self._horse_pid])
            else:
                process_tree.resume(stopped, group=self._horse_pid)

    def _confirm(self, limits: Limits) -> None:
        """Stop the tree and take the full reading; go on, tell the job to unwind, or kill."""
        with self._stopped():
            full = self._meter.lone()
            if full is not None and full.usage_bytes <= limits.ceiling_bytes and self._grows_in_the_kernel():
                return  # during a full reading of 1 GB it would take 40 MB more; soon the quick one tells
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
        """Bytes of shared memory that no reading of the processes tells of. A cgroup's counter would know them."""
        if self._group is None and self._shared.changed(self._meter.pids, now):
            self._unseen = max(0, self._shared.look(self._members()) - self._meter.resident_shmem_bytes())
        return self._unseen

    def _with_shared(self, full: FullReading) -> FullReading:
        if self._group is not None:
            return full
        self._unseen = max(0, self._shared.look(self._members()) - full.shmem_bytes)
        return replace(full, usage_bytes=full.usage_bytes + self._unseen)

    def _grows_in_the_kernel(self) -> bool:
        """Whether a system call goes on taking memory (MAP_POPULATE, say): SIGSTOP takes effect at its end only."""
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
        """The record as the horse may have completed it, by this layer, with the peak so far."""
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
    """What only the group knows: what it was charged, and how much of that is of no process."""
    charge = group.charged()
    peak_mb = max(breach.peak_mb, to_mb(charge.held_bytes))
    return {
        "used_mb": max(breach.used_mb, peak_mb),
        "peak_mb": peak_mb,
        "shared_mb": to_mb(charge.shmem_bytes),
        "kernel_mb": to_mb(charge.kernel_bytes),
    }
