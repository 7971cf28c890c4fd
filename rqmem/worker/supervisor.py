"""One execution in the worker: order it from a horse, watch it, and act on its end.

`rqmem.worker.execution` decides what to do at the end. All this runs in the worker's main thread. While a horse works,
this thread does no Redis I/O, and no SIGALRM raises in it; heartbeats come from the heart's thread.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

from rqmem import events
from rqmem.measure import linux, process_tree, procfs
from rqmem.policy.memory_curve import MemoryCurve
from rqmem.rq_names import Execution, Job, Queue, Worker, now
from rqmem.store import codec
from rqmem.type_of_job import job_type
from rqmem.units import show_mb, to_mb
from rqmem.worker.commit import Committer
from rqmem.worker.execution import Ended, Instruction, Overdue, Phase, State, after, ordered_again
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse.channel import Channel, LeaseEnd, Order, packed
from rqmem.worker.horse.main import HorseMain
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.horse_recycling import Recycling
from rqmem.worker.pool.member import Member
from rqmem.worker.profiling import Capturing
from rqmem.worker.recorder import Recorder
from rqmem.worker.settlement import HOOK_BREACHED, End, Settlement
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.take import Taker
from rqmem.worker.warm_horse import WarmHorse
from rqmem.worker.watcher import Identity, Watcher
from rqmem.worker.worker_setup import Setup

_LEASE_LOOK_SECONDS, _REST_SECONDS = 0.01, 1.0
_log = logging.getLogger("rqmem.worker")


@dataclass(eq=False, repr=False)
class Supervisor:
    """Supervises the executions of one worker, one at a time.

    Args:
        _new_recorder: for a job outside of `work`, where the heart does not beat.

    Attributes:
        switch: a lock, held while the running execution changes, or while a command from Redis is carried out.
    """

    _worker: Worker
    _setup: Setup
    _pool: HorsePool
    _heart: Heart
    _captures: Capturing
    _horse: HorseMain
    _committer: Committer
    _settlement: Settlement
    _taker: Taker
    _new_recorder: Callable[[], Recorder]
    _member: Member

    def __post_init__(self) -> None:
        self._recycling = Recycling(self._setup)
        self._integrations: set[str] = set()  # names that were logged already
        self.switch = threading.RLock()
        self._watched = True  # whether the last job was watched
        self._told_unwatched = False
        self._whole_time = MemoryCurve()  # memory curve of the last job of a lease

    def run_as_rq(self, job: Job, rqs: Callable[[], None]) -> None:
        """Run the job in a horse of its own. RQ's code (``rqs``) forks it and waits for it by `monitor`."""
        self._watched = False
        rqs()
        self.release()
        if self._watched:
            return
        self._pool.retire_group()
        if not self._told_unwatched:
            self._told_unwatched = True
            _log.error(
                "worker %s: job %s ran without its ceiling: %s.monitor_work_horse does not call MemoryWorker's, "
                "which keeps it: have it call super().monitor_work_horse(job, queue, execution)",
                self._worker.name, job.id, type(self._worker).__qualname__,
            )  # fmt: skip

    def run_warm(self, job: Job, queue: Queue, execution: Execution) -> None:
        state, about = State(), self._about(job, queue)
        while True:
            warm = self._order(job, about, execution)
            end = self._watch(job, about, execution, warm)
            state, instructions = self.what_follows(replace(warm.page.state, orders=state.orders), job.id, end)
            if Instruction.ORDER_AGAIN not in instructions:
                break
            self._make_way(about, warm.page, end, state.phase)
            state = ordered_again(state)
        self._settle(job, queue, about, execution, end, instructions)

    def lease_begins(self, warm: WarmHorse, queue: str) -> None:
        assert warm.watcher is not None, "it watches since before the order"
        held_mb = to_mb(self._pool.held_bytes)
        self._heart.recorder.began(self._pool.page, "", "", queue, held_mb, warm.pid, warm.watcher.readings.whole_time)

    def watch_lease(self, warm: WarmHorse, look: Callable[[Watcher], float | None], begins: Callable[[], None]) -> End:
        """Watch the jobs of a lease until it has ended.

        ``look`` returns the monotonic time at which the current job is to be killed. ``begins`` is called when a
        waiting horse gets its first job.
        """
        page, watcher = self._pool.page, warm.watcher
        assert watcher is not None, "it watches since before the order"

        def wait() -> bool:
            while True:
                if page.waiting:
                    if self._heart.away or self._worker._stop_requested:
                        warm.channel.tell()
                    ended = watcher.rest(_REST_SECONDS)
                else:
                    ended = watcher.wait(time.monotonic() + _LEASE_LOOK_SECONDS)
                if ended and warm.channel.told():
                    begins()
                elif ended:
                    return True
                kill_at = look(watcher)
                if kill_at is not None and time.monotonic() >= kill_at:
                    return Instruction.KILL not in page.advance(Overdue(self._heart.away))

        overdue = self._watch_until_end(watcher, wait)
        self._whole_time = watcher.readings.whole_time
        end = self._take_end(None, warm, watcher, overdue=overdue)
        self._end_horse(end, warm, page, lasted=watcher.lasted())
        self._name_what_is_left(page.job_id, broken=end.broken)
        return self._with_segments(end, watcher, page.job_id)

    def settle_leased(
        self, job: Job, queue: Queue, execution: Execution, end: End, state: State,
        instructions: tuple[Instruction, ...],
    ) -> str:  # fmt: skip
        """Settle the last job of a lease that was no plain success. It is an ordinary execution by now.

        Returns how it ended; empty if the horse has reported that, or if the execution is not ours any more.
        """
        self._committer.began_in = self._heart.epoch
        if Instruction.ORDER_AGAIN in instructions:
            self._make_way(self._about(job, queue), self._pool.page, end, state.phase)
            self.run_warm(job, queue, execution)
            return ""
        return self._record_outcome(job, queue, execution, end, instructions)

    def after_lease(self, warm: WarmHorse, page: SharedPage, end: End, lease: LeaseEnd, outcome: str) -> None:
        """Record the lease, and keep or replace the horse. ``outcome``: how a job ended that the worker settled."""
        self._heart.recorder.lease_ended(page, lease.ran, outcome, self._whole_time)
        about = Identity(page.job, page.job_id, page.queue, self._worker.name)
        if self._pool.warm is warm and end.report is not None:
            if reason := self._recycling.after_lease(warm, about, end.report, lease, self._pool.outside_bytes()):
                self._recycle(about, reason)
        elif self._pool.warm is None:
            self._tell_recycled(about, _why_it_went(end, breached=end.breach is not None or page.recorded))

    def not_crowded(self, warm: WarmHorse) -> list[str] | None:
        """The job types that the horse has room for in any case; None: all."""
        return self._recycling.not_crowded(warm)

    def keep_a_horse(self) -> WarmHorse:
        """The warm horse; forks one if there is none."""
        if self._pool.warm is None:
            self._recycling.new_horse()
            self._pool.fork(self._horse.serve)
        assert self._pool.warm is not None
        return self._pool.warm

    def new_page(self, warm: WarmHorse) -> SharedPage:
        """Make the horse, its page and its cgroup ready for another order."""
        worker, pool, page = self._worker, self._pool, warm.page
        pool.bury()
        if warm.worn and pool.group is not None:
            pool.group.hold(self._setup.limit_bytes)
        page.reset(self._setup.limit_bytes)
        pool.page = page
        if worker._shutdown_requested_date is not None:  # the request may have come before the reset
            page.stop_asked = True
        pool.note_known()
        worker._horse_pid = warm.pid
        return page

    def release(self) -> None:
        """The job has ended: return its reservation to the pool's budget, except what the warm horse holds."""
        pool = self._pool
        self._member.release(pool.held_bytes if pool.warm is not None else 0, pool.page.declared_bytes)

    def monitor(self, job: Job, queue: Queue, execution: Execution) -> None:
        with self._heart.beats_meanwhile(self._new_recorder):
            about = self._about(job, queue)
            end = self._watch(job, about, execution, None)
            _, instructions = self.what_follows(self._pool.page.state, job.id, end)
            self._settle(job, queue, about, execution, end, instructions)

    def _about(self, job: Job, queue: Queue) -> Identity:
        return Identity(job_type(job), job.id, queue.name, self._worker.name)

    def _order(self, job: Job, about: Identity, execution: Execution) -> WarmHorse:
        """Order this execution from a warm horse. Whether the horse took the order is known only at the end."""
        worker, pool = self._worker, self._pool
        warm = pool.warm
        if warm and warm.state.jobs and (reason := self._recycling.crowded(warm, about.job, pool.idle_bytes)):
            self._recycle(about, reason)
        warm = self.keep_a_horse()
        page = self.new_page(warm)
        page.job_id, page.queue = job.id, about.queue
        page.fresh = warm.state.jobs == 0
        before = self._recycling.fit(warm, about.job, pool.idle_bytes)
        page.held_before, page.left_before = before.held_bytes, before.left_bytes
        page.need_bytes = -1 if before.need_bytes is None else before.need_bytes
        worker.executions[execution.id] = execution
        committer = self._committer
        fields = packed(self._taker.fields_of(job))
        self.watch_from_now(warm, about)
        warm.channel.send(
            Order(
                job.id, about.job, about.queue, execution.id, execution.created_at.timestamp(), committer.began_in,
                fields, committer.begun == execution.id,
            )
        )  # fmt: skip
        worker.procline(f"Ordered {warm.pid} at {time.time()}")
        return warm

    def _watch(self, job: Job, about: Identity, execution: Execution, warm: WarmHorse | None) -> End:
        """Watch the job's memory until it has ended, then end its horse if that is broken.

        As in RQ's `monitor_work_horse`, a job that still runs a minute after its time limit is killed.
        """
        worker, pool, heart, page = self._worker, self._pool, self._heart, self._pool.page
        job.started_at = now()
        self._watched = True
        watcher = (warm.watcher if warm is not None else None) or self._new_watcher(worker.horse_pid, about)
        held_mb = to_mb(pool.held_bytes)
        heart.recorder.began(
            page, about.job, job.id, about.queue, held_mb, worker.horse_pid, watcher.readings.whole_time
        )
        heart.running(job, execution)
        try:
            with self._captures.looked_after(page, worker.horse_pid, execution.id):
                overdue = self._watch_until_end(watcher, lambda: self._wait(watcher, page, self._kill_at(job)))
        finally:
            if warm is None:
                watcher.close()
            heart.idle()
        end = self._take_end(execution, warm, watcher, overdue=overdue)
        self._end_horse(end, warm, page, lasted=watcher.lasted())
        if watcher.hidden:
            _log.warning(
                "worker %s: what %d processes of job %s used did not count: they are another user's, and /proc hides "
                "them (hidepid); mount it with gid= of the worker's group", worker.name, len(watcher.hidden), job.id,
            )  # fmt: skip
        self._name_what_is_left(job.id, broken=end.broken)
        return self._with_segments(end, watcher, job.id)

    def _watch_until_end(self, watcher: Watcher, wait: Callable[[], bool]) -> bool:
        """Watch until ``wait`` returns. If it returns False, kill the horse and return True (overdue)."""
        worker = self._worker
        try:
            with linux.urgent():
                overdue = not wait()
                if overdue:
                    worker.kill_horse()
                    watcher.wait(None)
        except SystemExit:  # a second SIGTERM: RQ has killed the horse; its children must end too
            for number in (signal.SIGTERM, signal.SIGINT):  # a third one must not interrupt this
                signal.signal(number, signal.SIG_IGN)
            self._pool.kill_tree(worker.horse_pid)
            worker._horse_pid = 0
            raise
        finally:
            watcher.end_job()
        return overdue

    def _with_segments(self, end: End, watcher: Watcher, job_id: str) -> End:
        """``end``, with the shared memory that the job's dead processes have left added to its breach."""
        if end.breach is None or not (left := watcher.segments_left()):
            return end
        names = ", ".join(f"{name} ({show_mb(used)} MB)" for name, used in left)
        _log.warning("worker %s: processes of job %s are dead and left %s", self._worker.name, job_id, names)
        return replace(end, breach=replace(end.breach, segments_left=left))

    def watch_from_now(self, warm: WarmHorse, about: Identity) -> None:
        """Count what the watcher reads for this job. Call it before the order is sent: a job may end at once."""
        if warm.watcher is None:
            warm.watcher = self._new_watcher(warm.pid, about, warm.channel)
        else:
            warm.watcher.next_job(about, self._pool.known, self._pool.held_bytes)

    def _new_watcher(self, horse_pid: int, about: Identity, report: Channel | None = None) -> Watcher:
        pool = self._pool
        return Watcher(
            horse_pid, pool.page, about, pool.config, pool.known, report, pool.held_bytes, pool.group, self._member
        )

    def _take_end(self, execution: Execution | None, warm: WarmHorse | None, watcher: Watcher, *, overdue: bool) -> End:
        """The horse has reported or ended. Kill its tree unless all is well, and reap a horse that has ended."""
        worker = self._worker
        report = warm.channel.report() if warm is not None else None
        with self.switch:
            well = linux.ended_well(worker.horse_pid) if report is None else True
            if not well or watcher.breach is not None or (warm is not None and report is None):
                # Before it is reaped: afterwards another process group may have its pid.
                self._pool.kill_tree(worker.horse_pid if well is not None else 0, wait=report is None)
            pid, status, rusage = worker.wait_for_horse() if report is None else (worker.horse_pid, os.EX_OK, None)
            worker._horse_pid = 0
            if execution is not None:
                worker.executions.pop(execution.id, None)
        group = self._pool.group
        starved = watcher.starved or (group.has_killed() if group is not None and status != os.EX_OK else None)
        return End(pid, status, rusage, report, watcher.breach, overdue, warm is not None, starved)

    def _end_horse(self, end: End, warm: WarmHorse | None, page: SharedPage, *, lasted: bool) -> None:
        """Kill a horse that must not run another job. A warm horse that may go on is kept."""
        if warm is None:
            self._pool.retire_group(broken=end.broken)
            return
        warm.worn = lasted or page.ceiling_bytes != self._setup.limit_bytes
        if end.report is None:
            self._pool.end_warm(broken=True)
        elif end.broken or page.state.ends_horse:
            self._pool.kill_warm()

    def _wait(self, watcher: Watcher, page: SharedPage, kill_at: float | None) -> bool:
        """Wait for the end of the job. Returns False if the job is to be killed instead."""
        while not watcher.wait(kill_at):
            if Instruction.KILL in page.advance(Overdue(redis_away=self._heart.away)):
                return False
            kill_at = time.monotonic() + self._setup.kill_after_seconds
        return True

    def _kill_at(self, job: Job) -> float | None:
        """The monotonic time at which the job is killed if it ignores its time limit; None: it has no limit."""
        timeout = self._horse.capped_timeout(job)
        return None if timeout == -1 else time.monotonic() + timeout + self._setup.kill_after_seconds

    def what_follows(self, state: State, job_id: str, end: End) -> tuple[State, tuple[Instruction, ...]]:
        horses_fault = end.breach is not None and self._settlement.is_horses_fault(end.breach)
        ended = Ended(end.lost, self._worker._stopped_job_id == job_id, horses_fault)
        return after(replace(state, breached=end.breach is not None), ended)

    def _make_way(self, about: Identity, page: SharedPage, end: End, phase: Phase) -> None:
        """The job is to be ordered again: log why this horse is replaced, and end it if it still runs."""
        if phase is Phase.DECLINED:
            self._recycle(about, self._recycling.declined(page, about.job))
        elif phase is Phase.SPOILED:
            self._tell_spoiled(about, page, end)
        else:
            self._tell_recycled(about, "it had died before it took the job")

    def _tell_spoiled(self, about: Identity, page: SharedPage, end: End) -> None:
        """The job breached because of memory that earlier jobs had left in this horse."""
        text = page.breach_json
        breach = end.breach or (codec.from_json(events.Breach, text) if text else None)
        left_mb, name = to_mb(page.left_before), page.job or about.job
        events.emit(
            events.RunsAgain(
                job=name, job_id=about.job_id, queue=about.queue, worker=about.worker,
                used_mb=breach.used_mb if breach is not None else to_mb(page.peak_bytes),
                limit_mb=to_mb(page.ceiling_bytes), left_mb=left_mb,
                layer=breach.layer if breach is not None else "checkpoint", operation=page.operation,
            )
        )  # fmt: skip
        self._tell_recycled(about, f"others had left {show_mb(left_mb)} MB in it")
        self._captures.settle(name, about.job_id, page, breached=False)

    def _settle(
        self, job: Job, queue: Queue, about: Identity, execution: Execution, end: End,
        instructions: tuple[Instruction, ...],
    ) -> None:  # fmt: skip
        """Record the outcome, as RQ's `monitor_work_horse` does at its end, and keep or replace the horse."""
        page, warm = self._pool.page, self._pool.warm
        self._horse.remember_cut(page)
        if new := set(page.integrations.split()) - self._integrations:
            self._integrations |= new
            _log.info("worker %s: integrations that are active in its horses: %s", about.worker, ", ".join(sorted(new)))
        self._heart.recorder.ended(self._record_outcome(job, queue, execution, end, instructions))
        breached = end.breach is not None or page.recorded
        self._captures.settle(page.job or about.job, job.id, page, breached=breached)
        if warm is not None and end.report is not None:
            if reason := self._recycling.after_job(warm, about, end.report, self._pool.outside_bytes()):
                self._recycle(about, reason)
        elif end.warm:
            self._tell_recycled(about, _why_it_went(end, breached=breached))

    def _record_outcome(
        self, job: Job, queue: Queue, execution: Execution, end: End, instructions: tuple[Instruction, ...]
    ) -> str:
        """Record what the horse has not. Returns how the job ended; empty if that is on the page, or it is not ours."""
        if Instruction.SETTLE in instructions:
            return self._settlement.settle_lost_horse(job, queue, execution, end)
        if Instruction.REPORT_HOOK in instructions:
            self._settlement.report_lost_in_hook(job, queue, execution, end)
        elif Instruction.RECORD_BREACH in instructions and end.breach is not None:
            self._record_breach(job, execution, end.breach)
        return ""

    def _record_breach(self, job: Job, execution: Execution, breach: events.Breach) -> None:
        """Record a breach that does not change the job's outcome."""
        page = self._pool.page
        caught = "caught it (except MemoryLimitExceeded) and went on to its end"
        went_on = f"nothing: the job {caught if page.breach_known else 'had ended by then'}"
        self._settlement.record_breach(job, execution, breach, HOOK_BREACHED if page.hook_breached else went_on)

    def _recycle(self, about: Identity, reason: str) -> None:
        self._pool.end_warm()
        self._tell_recycled(about, reason)

    @staticmethod
    def _tell_recycled(about: Identity, reason: str) -> None:
        events.emit(events.HorseRecycled(reason=reason, **asdict(about)))

    def _name_what_is_left(self, job_id: str, *, broken: bool) -> None:
        """Log the processes that the job has left: after a broken end, only those that we are not allowed to kill."""
        left = self._pool.left_by_job()
        if left and not broken:
            _log.info("worker %s: job %s left processes behind: %s", self._worker.name, job_id, left)
            if self._pool.group is not None:
                self._pool.end_warm()  # they stay in its cgroup, and must not count for the next job
        if broken and (beyond_reach := process_tree.beyond_reach(left)):
            _log.warning(
                "worker %s: processes of job %s go on, since they are another user's and this worker may not end them: "
                "%s; end them yourself, or give the worker CAP_KILL",
                self._worker.name, job_id,
                ", ".join(f"{procfs.read_command(pid)} ({pid})" for pid in beyond_reach),
            )  # fmt: skip


def _why_it_went(end: End, *, breached: bool) -> str:
    if breached:
        return "the job reached its ceiling"
    if end.report is None:
        return "it ended under the job"
    return "the job left processes running, which stay in its cgroup"
