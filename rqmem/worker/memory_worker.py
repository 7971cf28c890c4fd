"""`MemoryWorker`: RQ's Worker with a ceiling on each job's memory.

It hands out work, watches and explains; user code runs in the horse only. RQ stays the engine: this
class overrides the narrow seams named in each method's docstring and leaves queues, registries,
results, retries, callbacks and commands to RQ. What promises it keeps at a breach is told in
`rqmem.worker.watcher` (acting), `rqmem.worker.settlement` and `rqmem.worker.resume` (what becomes of the job);
what the horse does is in `rqmem.worker.horse.main`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rqmem import events
from rqmem.measure import process_tree, procfs
from rqmem.policy import leaks, recycling
from rqmem.policy.recycling import AfterJob
from rqmem.rq_names import Execution, Job, JobStatus, Queue, WorkerStatus, now
from rqmem.store import codec, executions, ledger
from rqmem.store.execution_records import Owner
from rqmem.store.history.history_records import OK
from rqmem.store.retrying import until_redis_answers
from rqmem.type_of_job import job_type
from rqmem.units import MB, show_leak, show_mb, to_bytes, to_mb
from rqmem.worker import linux
from rqmem.worker.execution import Ended, Event, Instruction, Overdue, Phase, State, after, ordered_again
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse.channel import Order, Report, WarmHorse
from rqmem.worker.lifecycle import LivingWorker
from rqmem.worker.settlement import HOOK_BREACHED, End
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.watcher import Identity, Watcher

if TYPE_CHECKING:
    from redis.client import Pipeline

_SWITCH_SECONDS = 1.0
_OUR_LOG = logging.getLogger("rqmem.worker")


class MemoryWorker(LivingWorker):
    """An RQ worker whose jobs cannot use more memory than their ceiling.

    Args:
        config: settings; by default read from the environment, so that the class also starts as
            ``rq worker -w rqmem.MemoryWorker``. All other arguments are RQ's.

    Raises:
        ConfigError: a setting cannot be used.
    """

    _watched = True  # of the last job: somebody kept its ceiling
    _told_unwatched = False

    def prepare_execution(self, job: Job) -> Execution:
        """Replaces RQ's `prepare_execution`: the same records, and who owns the run, in one transaction."""
        tried: list[Execution] = []  # with replies lost, so perhaps there

        def claim() -> Execution:
            with self.connection.pipeline() as pipeline:
                for before in tried:
                    before.delete(job, pipeline)
                execution = Execution.create(job, self.get_heartbeat_ttl(job), pipeline=pipeline, worker_name=self.name)
                tried.append(execution)
                executions.claim(pipeline, job.id, self._owner(execution, job))
                self.set_state(WorkerStatus.BUSY, pipeline=pipeline)
                pipeline.execute()
            return execution

        execution = until_redis_answers(claim, f"claim job {job.id}")
        self._stopped_job_id = None  # a stop that came too late for an execution before is none of this one's
        self.executions[execution.id] = execution
        self.began_in = self.epoch
        return execution

    def cleanup_execution(self, job: Job, pipeline: Pipeline, execution: Execution | None = None) -> None:
        """`cleanup_execution`; the run has no owner any more, in the same transaction."""
        super().cleanup_execution(job, pipeline, execution)
        executions.release(pipeline, job.id)
        status = JobStatus.FINISHED if self._succeeding else job.get_status(refresh=False)
        page = self._page
        if page is not None and not self._succeeding:
            page.again = self._retrying or status in (JobStatus.QUEUED, JobStatus.SCHEDULED)  # a returned Retry
        if ledger.parent_of(job.id) is not None and not self._retrying:  # first, for its run may go with its end
            self._tell_parent(job, status, pipeline)
        if page is not None and page.has_run and status == JobStatus.FINISHED:
            executions.finish(pipeline, job.id, job.get_result_ttl(self.default_result_ttl))

    def _tell_parent(self, job: Job, status: JobStatus | None, pipeline: Pipeline) -> None:
        """That one of its children has ended, in the transaction that ends it."""
        peak_mb = to_mb(self._page.peak_bytes) if self._page is not None else 0.0
        if status == JobStatus.FINISHED:
            result = b"" if job._result is None else job.serializer.dumps(job._result)
            ledger.tell_parent(pipeline, job, ledger.OK, result=result, peak_mb=peak_mb)
        elif status in (JobStatus.FAILED, JobStatus.STOPPED):
            ledger.tell_parent(pipeline, job, self._failure_line or str(status), peak_mb=peak_mb)

    def execute_job(self, job: Job, queue: Queue) -> None:
        """RQ's `execute_job`, inside `work` on a warm horse; outside it, or told so, RQ's own with a horse per job."""
        self._tend_helpers()
        if self.config.isolation == "fork" or self._heart is None:
            self._watched = False
            super().execute_job(job, queue)
            if not self._watched:
                self._tell_unwatched(job)
            self._look_at_own_memory()
            return
        execution = self.prepare_execution(job)
        state = State()
        while True:
            warm = self._order(job, queue, execution)
            end = self._watch(job, queue, execution, warm)
            state, instructions = self._after(replace(warm.page.state, orders=state.orders), job, end)
            if Instruction.ORDER_AGAIN not in instructions:
                break
            self._make_way(job, queue, warm, end, state.phase)
            state = ordered_again(state)
        self._settle_end(job, queue, execution, end, instructions)
        self.set_state(WorkerStatus.IDLE)
        self._look_at_own_memory()
        if self._warm is None and not self._stop_requested:
            self._fork_warm_horse()  # it settles in while the next job is taken

    def _tell_unwatched(self, job: Job) -> None:
        """A subclass waits for its horse in its own way, so nobody kept the ceiling."""
        self._retire_group()
        if not self._told_unwatched:
            self._told_unwatched = True
            _OUR_LOG.error(
                "worker %s: job %s ran without its ceiling: %s.monitor_work_horse does not call MemoryWorker's, "
                "which keeps it: have it call super().monitor_work_horse(job, queue, execution)",
                self.name, job.id, type(self).__qualname__,
            )  # fmt: skip

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """RQ's `fork_work_horse`, with a page shared between worker and horse, made before the fork."""
        self._page = SharedPage.new(to_bytes(self.limit_mb))
        self._page.fresh = True
        self._page.advance(Event.TAKEN)
        self._new_group()
        self._forking_pid = os.getpid()
        self._known = set(process_tree.descendants(self._forking_pid))
        self._known |= self._helpers  # one may have been begun meanwhile
        super().fork_work_horse(job, queue)
        with contextlib.suppress(OSError):  # the horse does it too; whoever comes first
            os.setpgid(self._horse_pid, self._horse_pid)

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Replaces RQ's `monitor_work_horse`: waits for the horse, watching its memory, and settles its end."""
        end = self._watch(job, queue, execution, None)
        assert self._page is not None
        _, instructions = self._after(self._page.state, job, end)
        self._settle_end(job, queue, execution, end, instructions)

    def _after(self, state: State, job: Job, end: End) -> tuple[State, tuple[Instruction, ...]]:
        """What follows from the end of the job's time on its horse."""
        horses_fault = end.breach is not None and self._is_horses_fault(end.breach)
        ended = Ended(end.lost, self._stopped_job_id == job.id, horses_fault)
        return after(replace(state, breached=end.breach is not None), ended)

    def _make_way(self, job: Job, queue: Queue, warm: WarmHorse, end: End, phase: Phase) -> None:
        """The job is to be ordered once more: this horse goes, and the log says why."""
        if phase is Phase.DECLINED:
            self._needs.of(job_type(job)).declared_bytes = warm.page.declared_bytes
            self._recycle(job, queue, self._why_declined(warm))
        elif phase is Phase.SPOILED:
            self._tell_spoiled(job, queue, warm.page, end)
        else:
            self._tell_recycled(job, queue, "it had died before it took the job")

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:
        """RQ's `kill_horse`; without a horse it does nothing (RQ's would signal our own group).

        It comes from another thread too: not while the horse is reaped, whose pid may be another's then.
        """
        held = self._switch.acquire(timeout=_SWITCH_SECONDS)
        try:
            if self.horse_pid:
                super().kill_horse(sig)
        finally:
            if held:
                self._switch.release()

    def handle_payload(self, message: Any) -> None:
        """RQ's `handle_payload`, in its thread: a job that is told to stop must not have ended meanwhile."""
        with self._switch:
            super().handle_payload(message)

    def request_stop_execution(self, execution_id: str) -> None:
        """RQ's `request_stop_execution`, which comes from another thread: never between two jobs of one horse."""
        with self._switch:
            super().request_stop_execution(execution_id)

    def _order(self, job: Job, queue: Queue, execution: Execution) -> WarmHorse:
        """Have a warm horse run this execution. Whether it took the order shows when it ends."""
        name = job_type(job)
        known = self._needs.of(name)
        if self._warm is not None and self._warm.state.jobs:
            before = recycling.fit(self._warm.state, name, known, self._idle_bytes)
            if reason := recycling.crowded(before, self._ceiling_of(known.declared_bytes)):
                self._recycle(job, queue, reason)
        warm = self._warm or self._fork_warm_horse()
        self._bury()
        if warm.worn and self._group is not None:
            self._group.hold(to_bytes(self.limit_mb))
        warm.page.reset(to_bytes(self.limit_mb))
        warm.page.fresh = warm.state.jobs == 0
        before = recycling.fit(warm.state, name, known, self._idle_bytes)
        warm.page.held_before, warm.page.left_before = before.held_bytes, before.left_bytes
        warm.page.need_bytes = -1 if before.need_bytes is None else before.need_bytes
        self._page = warm.page
        if self._asked_to_stop:  # while an earlier order of this job ran
            warm.page.stop_asked = True
        self._known = set(process_tree.descendants(os.getpid())) - {warm.pid}
        self._known |= self._helpers  # one may have been begun meanwhile
        self._horse_pid = warm.pid
        self.executions[execution.id] = execution
        warm.channel.send(
            Order(job.id, job_type(job), queue.name, execution.id, execution.created_at.timestamp(), self.began_in)
        )
        self.procline(f"Ordered {warm.pid} at {time.time()}")
        return warm

    def _watch(self, job: Job, queue: Queue, execution: Execution, warm: WarmHorse | None) -> End:
        """Watch the job's memory until it has ended.

        As RQ's `monitor_work_horse`: the kill of a job that outlives its time limit by a minute. Other than
        it: no alarm raises in here and nothing talks to Redis; heartbeats come from the heart's thread.
        """
        job.started_at = now()
        self._watched = True
        assert self._page is not None
        watcher = Watcher(
            self.horse_pid,
            self._page,
            Identity(job_type(job), job.id, queue.name, self.name),
            self.config,
            self._known,
            warm.channel if warm is not None else None,
            self._idle_bytes + (warm.state.kept_bytes if warm is not None else 0),
            self._group,
            warm.shared if warm is not None else None,
        )
        if self._recorder is None:
            self._recorder = self._new_recorder()
        heart = self._heart or Heart(self, self.config, self._recorder)  # outside `work` one for this job
        if self._heart is None:
            heart.start()
        idle_mb = to_mb(self._idle_bytes + (warm.state.kept_bytes if warm is not None else 0))
        self._recorder.began(self._page, job_type(job), job.id, queue.name, idle_mb, self.horse_pid)
        heart.running(job, execution)
        self._watching = True
        try:
            with self._captures_looked_after(execution), linux.urgent():
                overdue = not self._wait(watcher, self._kill_at(job))
                if overdue:
                    self.kill_horse()
                    watcher.wait(None)
        except SystemExit:  # a second SIGTERM: the horse is dead, and what it started must not outlive us
            for number in (signal.SIGTERM, signal.SIGINT):  # a third one must not cut this short
                signal.signal(number, signal.SIG_IGN)
            self._kill_tree(self.horse_pid)
            raise
        finally:
            self._watching = False
            watcher.close()
            heart.idle()
            if self._heart is None:
                heart.stop()
        report = warm.channel.report() if warm is not None else None
        with self._switch:
            well = linux.ended_well(self.horse_pid) if report is None else True
            if not well or watcher.breach is not None or (warm is not None and report is None):
                # Before it is reaped: its number may lead another group then.
                self._kill_tree(self.horse_pid if well is not None else 0, wait=report is None)
            pid, status, rusage = self.wait_for_horse() if report is None else (self.horse_pid, os.EX_OK, None)
            self._horse_pid = 0
            self.executions.pop(execution.id, None)
        end = End(pid, status, rusage, report, watcher.breach, overdue, warm is not None, watcher.starved)
        if warm is not None:
            warm.worn = watcher.lasted() or self._page.ceiling_bytes != to_bytes(self.limit_mb)
        if warm is None:
            self._retire_group(broken=end.broken)
        elif report is None:
            self._end_warm_horse(broken=True)
        elif end.broken or self._page.state.ends_horse:
            self._kill_warm_horse()
        if watcher.hidden:
            _OUR_LOG.warning(
                "worker %s: what %d processes of job %s used did not count: they are another user's, and /proc hides "
                "them (hidepid); mount it with gid= of the worker's group", self.name, len(watcher.hidden), job.id,
            )  # fmt: skip
        self._name_what_is_left(job, broken=end.broken)
        if end.breach is not None and (left := watcher.segments_left()):
            end = replace(end, breach=replace(end.breach, segments_left=left))
            names = ", ".join(f"{name} ({show_mb(used)} MB)" for name, used in left)
            _OUR_LOG.warning("worker %s: processes of job %s are dead and left %s", self.name, job.id, names)
        return end

    def _captures_looked_after(self, execution: Execution) -> AbstractContextManager[None]:
        if self._captures is None or self._page is None:
            return nullcontext()
        return self._captures.looked_after(self._page, self.horse_pid, execution.id)

    def _wait(self, watcher: Watcher, kill_at: float | None) -> bool:
        """Whether the job ended before it was to be killed; one that only waits for Redis to commit is let be."""
        assert self._page is not None
        while not watcher.wait(kill_at):
            overdue = Overdue(redis_away=self._heart is not None and self._heart.away)
            if Instruction.KILL in self._page.advance(overdue):
                return False
            kill_at = time.monotonic() + self.kill_after_timeout_seconds
        return True

    def _settle_end(
        self, job: Job, queue: Queue, execution: Execution, end: End, instructions: tuple[Instruction, ...]
    ) -> None:
        """What happens after each kind of end, as in RQ's `monitor_work_horse`; and what becomes of the horse."""
        page, self._outcome = self._page, ""
        assert page is not None
        self._remember_cut(page)
        if new := set(page.integrations.split()) - self._told_of_integrations:
            self._told_of_integrations |= new
            _OUR_LOG.info(
                "worker %s: integrations that are active in its horses: %s", self.name, ", ".join(sorted(new))
            )
        if Instruction.SETTLE in instructions:
            until_redis_answers(
                lambda: self._settle_lost_horse(job, queue, execution, end), f"settle the end of job {job.id}"
            )
        elif Instruction.REPORT_HOOK in instructions:
            self._report_lost_in_hook(job, queue, execution, end)
        elif Instruction.RECORD_BREACH in instructions and end.breach is not None:
            caught = "caught it (except MemoryLimitExceeded) and went on to its end"
            went_on = f"nothing: the job {caught if page.breach_known else 'had ended by then'}"
            self._tell_breach(job, execution, end.breach, HOOK_BREACHED if page.hook_breached else went_on)
        if self._recorder is not None:
            self._recorder.ended(self._outcome)
        if self._captures is not None:
            breached = end.breach is not None or page.recorded
            self._captures.settle(page.job or job_type(job), job.id, page, breached=breached)
        if self._warm is not None and end.report is not None:
            self._consider_recycling(job, queue, self._warm, end.report)
        elif end.warm:
            self._tell_recycled(job, queue, _why_it_went(end, breached=end.breach is not None or page.recorded))

    def _tell_spoiled(self, job: Job, queue: Queue, page: SharedPage, end: End) -> None:
        """The job breached because of what others had left in this horse."""
        text = page.breach_json
        breach = end.breach or (codec.from_json(events.Breach, text) if text else None)
        left_mb = to_mb(page.left_before)
        events.emit(
            events.RunsAgain(
                job=page.job or job_type(job), job_id=job.id, queue=queue.name, worker=self.name,
                used_mb=breach.used_mb if breach is not None else to_mb(page.peak_bytes),
                limit_mb=to_mb(page.ceiling_bytes), left_mb=left_mb,
                layer=breach.layer if breach is not None else "checkpoint", operation=page.operation,
            )
        )  # fmt: skip
        self._tell_recycled(job, queue, f"others had left {show_mb(left_mb)} MB in it")
        if self._captures is not None:
            self._captures.settle(page.job or job_type(job), job.id, page, breached=False)

    def _ceiling_of(self, declared_bytes: int) -> int:
        """The ceiling of a job that declares this one; 0: none."""
        return min(to_bytes(self.limit_mb), declared_bytes or sys.maxsize)

    def _why_declined(self, warm: WarmHorse) -> str:
        page = warm.page
        need = page.need_bytes if page.need_bytes >= 0 else None
        before = recycling.Fit(page.held_before, page.left_before, need)
        ceiling = self._ceiling_of(page.declared_bytes)
        return recycling.crowded(before, ceiling) or "it holds more than the job's ceiling"

    def _consider_recycling(self, job: Job, queue: Queue, warm: WarmHorse, report: Report) -> None:
        """A horse that keeps too much, or whose job type leaks, is replaced."""
        page, name = warm.page, job_type(job)
        known = self._needs.of(name)
        first = not warm.state.has_run(name)
        outside_bytes = self._group.outside_bytes() if self._group is not None else 0
        after = AfterJob(name, report.kept_bytes, report.threads, report.changed, outside_bytes)
        reason, warm.state = recycling.decide(
            warm.state, after, to_bytes(self.limit_mb), self.config.max_jobs_per_horse or 0, known.threads_allowed
        )
        if page.outcome == OK:
            self._needs.ran(name, page.peak_bytes - page.held_before, page.declared_bytes, first=first)
        threads = warm.state.threads_by.get(name, 0)
        if self._needs.left_threads(name, threads):
            named = f" ({', '.join(report.new_threads)})" if report.new_threads else ""
            _OUR_LOG.info(
                "worker %s: %s left %d threads running%s: they stay, and only more of them replace the horse",
                self.name, name, threads, named,
            )  # fmt: skip
        if (leak := self._leak(job, queue, report)) is not None:
            reason = f"{leak.job} leaks {show_leak(leak.mb_per_run)} a run"
        if reason:
            self._recycle(job, queue, reason)

    def _leak(self, job: Job, queue: Queue, report: Report) -> events.LeakFound | None:
        """That this job's type leaks, if this run has shown it; told."""
        assert self._page is not None
        name = self._page.job or job_type(job)
        found, self._leaks = leaks.observe(self._leaks, name, report.left_bytes, self._page.ceiling_bytes)
        if found is None:
            return None
        event = events.LeakFound(
            mb_per_run=found.bytes_per_run / MB, runs=found.runs, grew=report.grew,
            job=name, job_id=job.id, queue=queue.name, worker=self.name,
        )  # fmt: skip
        events.emit(event)
        return event

    def _recycle(self, job: Job, queue: Queue, reason: str) -> None:
        self._end_warm_horse()
        self._tell_recycled(job, queue, reason)

    def _tell_recycled(self, job: Job, queue: Queue, reason: str) -> None:
        about = {"job": job_type(job), "job_id": job.id, "queue": queue.name, "worker": self.name}
        events.emit(events.HorseRecycled(reason=reason, **about))

    def _kill_at(self, job: Job) -> float | None:
        """When (monotonic) a job that ignores its time limit is killed; None: it has none."""
        timeout = self._capped_timeout(job)
        if timeout == -1:
            return None
        return time.monotonic() + timeout + self.kill_after_timeout_seconds

    def _name_what_is_left(self, job: Job, *, broken: bool) -> None:
        """What a successful job left running is let be, and named; after any other what we may not end."""
        self._reap()
        horse_pid = self._warm.pid if self._warm is not None else 0
        left = [pid for pid in process_tree.descendants(os.getpid(), self._known) if pid != horse_pid]
        if left and not broken:
            _OUR_LOG.info("worker %s: job %s left processes behind: %s", self.name, job.id, left)
            if self._group is not None:
                self._end_warm_horse()  # they stay in its group, whose limit must not count them for the next job
        if broken and (beyond_reach := process_tree.beyond_reach(left)):
            _OUR_LOG.warning(
                "worker %s: processes of job %s go on, since they are another user's and this worker may not end them: "
                "%s; end them yourself, or give the worker CAP_KILL",
                self.name, job.id, ", ".join(f"{procfs.read_command(pid)} ({pid})" for pid in beyond_reach),
            )  # fmt: skip

    def _owner(self, execution: Execution, job: Job) -> Owner:
        pid = os.getpid()
        return Owner(
            execution=execution.id,
            worker=self.name,
            queue=job.origin or "",
            host=procfs.host_identity(),
            pid=pid,
            start_time=procfs.read_start_time(pid) or 0,
            groups=str(self._kernel.place.path) if self._kernel is not None else "",
        )


def _why_it_went(end: End, *, breached: bool) -> str:
    if breached:
        return "the job reached its ceiling"
    if end.report is None:
        return "it ended under the job"
    return "the job left processes running, which stay in its cgroup"
