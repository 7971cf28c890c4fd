"""Leases in the worker: decides when the horse takes jobs by itself, and runs one lease from its order to its end.

- `rqmem.policy.lease` decides when to lease, and how many jobs at once;
- `rqmem.worker.horse.lease` runs the lease in the horse;
- `rqmem.worker.lease_watch` watches it in the worker meanwhile;
- `rqmem.worker.lease_end` settles what the horse could not.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from redis.exceptions import RedisError

from rqmem.child_ids import parent_of
from rqmem.policy import lease as policy
from rqmem.policy.lease import History, Way
from rqmem.rq_names import Job, Queue, StopRequested, UnixSignalDeathPenalty, Worker, WorkerStatus
from rqmem.store.execution_records import Owner
from rqmem.store.history.history_records import OK
from rqmem.store.queue_fronts import MOST_QUEUES
from rqmem.worker.commit import Committer
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse.channel import LeaseEnd, LeaseOrder, Ran
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.lease_end import LeaseSettlement
from rqmem.worker.lease_watch import LeaseWatch
from rqmem.worker.pool.member import Member
from rqmem.worker.queue_wait import moves_jobs
from rqmem.worker.rq_worker import own_methods
from rqmem.worker.settlement import Settlement
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.supervisor import Supervisor
from rqmem.worker.warm_horse import WarmHorse
from rqmem.worker.watcher import Identity
from rqmem.worker.worker_setup import Setup

_AT_ONCE_SECONDS = 10.0  # leases follow one another for this long, before RQ's loop runs again
_COMMITTED_AT_ONCE = 8
_MORE_SECONDS = 0.2  # so long the horse waits for more jobs after the first ones
_TOO_SHORT_SECONDS = 1.0  # a wait that ends sooner without a job has failed: no new one for this long
_EACH_JOB = (
    *("execute_job", "prepare_execution", "perform_job", "prepare_job_execution", "handle_job_success"),
    *("handle_execution_ended", "_finalize_success", "_finalize_failure", "cleanup_execution"),
    "dequeue_job_and_maintain_ttl",
)  # fmt: skip
_log = logging.getLogger("rqmem.worker")


@dataclass(eq=False, repr=False)
class Leasing:
    """The leases of one worker.

    Args:
        _owner: returns the worker's process as an `Owner`, without an execution.
        _member: the worker's part in a pool. A lease uses the reservation of the job before it.
    """

    _worker: Worker
    _setup: Setup
    _pool: HorsePool
    _heart: Heart
    _supervisor: Supervisor
    _settlement: Settlement
    _committer: Committer
    _owner: Callable[[], Owner]
    _member: Member

    def __post_init__(self) -> None:
        self._end = LeaseSettlement(self._worker, self._supervisor, self._settlement, self._committer)
        self._history = History()
        self._unfit = 0  # number of leases in a row that ended before their first job
        self._wait = 0  # number of jobs that run without a lease before the next lease
        self._is_waiting = False
        self._waits_at = float("-inf")  # the horse waits for no job before this (monotonic)
        self._watch: LeaseWatch | None = None
        self.max_jobs: int | None = None

    # When

    def why_never(self) -> str:
        """The reason why this worker never leases; empty if it may."""
        worker, config = self._worker, self._setup.config
        own = [
            name
            for name, used, rqs in (
                ("job_class", worker.job_class, Job),
                ("queue_class", worker.queue_class, Queue),
                ("death_penalty_class", worker.death_penalty_class, UnixSignalDeathPenalty),
            )
            if used is not rqs
        ]
        reason = policy.why_never(
            Way(
                lease_max=config.lease_max, forks=config.isolation == "fork", profiles=config.profile != "off",
                strategy=str(getattr(worker._dequeue_strategy, "value", worker._dequeue_strategy)),
                own_parts=tuple(own), own_hooks=tuple(own_methods(worker, _EACH_JOB)),
            )
        )  # fmt: skip
        return reason or ("--max-jobs counts jobs one by one" if self.max_jobs is not None else "")

    def after_job(self) -> None:
        """A job has run without a lease: note how long it took."""
        page = self._pool.page
        succeeded = page.outcome == OK and not page.state.ends_horse
        self._history = policy.after_plain(self._history, page.worked_seconds, succeeded=succeeded)
        self._wait = max(0, self._wait - 1)

    def work_off(self, queue: Queue) -> None:
        """Run leases while they pay, for ten seconds at most. ``queue``: where the last job came from."""
        until = time.monotonic() + _AT_ONCE_SECONDS
        while time.monotonic() < until and self._may_lease(queue):
            self._run()

    def _may_lease(self, queue: Queue) -> bool:
        if self._wait or self._heart.away or not self._heart.beating or self._stops() or self._member.wants_room:
            return False
        if not policy.may_lease(self._history, sys.maxsize):
            return False
        if self.why_never():
            return False
        try:
            return policy.may_lease(self._history, queue.count)
        except RedisError:
            return False

    def _stops(self) -> bool:
        return bool(self._worker._stop_requested) or self._worker._shutdown_requested_date is not None

    def may_stop(self, execution_id: str) -> bool:
        """Whether a command may stop this execution: under a lease only the current job. In RQ's command thread."""
        watch = self._watch
        return watch is None or watch.runs(execution_id)

    def wait_for_jobs(self, seconds: float) -> bool | None:
        """Let the warm horse of an idle worker wait for jobs, ``seconds`` at most, and run them.

        Returns whether it has run any; None if it cannot wait.

        Raises:
            StopRequested: the worker was told to stop meanwhile.
        """
        if not self._may_wait():
            return None
        worker, began = self._worker, time.monotonic()
        worker._state = WorkerStatus.BUSY  # so RQ's signal handler does not raise; our `_shutdown` tells the horse
        try:
            end = self._run(seconds)
            has_run = bool(end.jobs) or end.handed_over
            until, last = time.monotonic() + _AT_ONCE_SECONDS, end
            while last.jobs and not (last.handed_over or last.unfit) and time.monotonic() < until and self._may_wait():
                last = self._run(min(seconds, _MORE_SECONDS))  # without a turn of RQ's loop
        finally:
            worker._state = WorkerStatus.IDLE
        if not end.jobs and not end.unfit and time.monotonic() - began < min(seconds, _TOO_SHORT_SECONDS):
            self._waits_at = time.monotonic() + _TOO_SHORT_SECONDS
        if self._stops():
            raise StopRequested
        return has_run

    def _may_wait(self) -> bool:
        warm, worker = self._pool.warm, self._worker
        if warm is None or not warm.state.jobs or self._member.budgeted or time.monotonic() < self._waits_at:
            return False
        if self._wait or self._heart.away or not self._heart.beating or self._stops():
            return False
        if not policy.may_wait(self._history) or len(worker._ordered_queues) > MOST_QUEUES or self.why_never():
            return False
        return moves_jobs(worker)

    def stop_waiting(self) -> None:
        """Tell a horse that waits for jobs to stop waiting. Called in a signal handler."""
        warm = self._pool.warm
        if self._is_waiting and warm is not None:
            warm.channel.tell()

    # One lease

    def _run(self, wait_seconds: float = 0.0) -> LeaseEnd:
        """Run one lease. ``wait_seconds``: how long the horse may wait for the first job; 0: a job is there."""
        worker = self._worker
        warm = self._supervisor.keep_a_horse()
        order = self._order(warm, wait_seconds)
        page = self._supervisor.new_page(warm)
        page.leased = True
        page.held_before = self._pool.held_bytes
        began = time.monotonic()

        def begins() -> None:
            nonlocal began
            began = time.monotonic()
            if not self._heart.recorder.runs:
                self._supervisor.lease_begins(warm, order.queues[0])

        self._is_waiting = wait_seconds > 0
        self._watch = watch = LeaseWatch(worker, self._setup, self._heart, self._supervisor, page, order)
        self._supervisor.watch_from_now(warm, Identity("", "", order.queues[0], worker.name))
        if not wait_seconds:
            worker.set_state(WorkerStatus.BUSY)
            begins()
        warm.channel.send(order)
        try:
            end = self._supervisor.watch_lease(warm, watch.look, begins)
        except SystemExit:
            self._watch = None
            watch.leave()
            self._end.leave_at_once(order, page)
            raise
        finally:
            self._is_waiting = False
        self._watch = None
        watch.over()
        outcome = self._end.settle(order, page, end, watch)
        ended = end.report.lease if end.report is not None else None
        if ended is None:
            counted, seconds = parent_of(page.job_id) is None, time.monotonic() - began
            ran = Ran(page.job, page.lease_done, seconds, counted=counted)
            ended = LeaseEnd("its horse ended", (ran,) if ran.times else (), handed_over=True)
        self._heart.note_ran(page.job_id)
        self._note_end(page, ended, began, waited=wait_seconds > 0)
        self._supervisor.after_lease(warm, page, end, ended, outcome)
        return ended

    def _order(self, warm: WarmHorse, wait_seconds: float) -> LeaseOrder:
        config = self._setup.config
        left = config.max_jobs_per_horse - warm.state.jobs if config.max_jobs_per_horse else None
        return LeaseOrder(
            token=uuid4().hex[:24],
            queues=[queue.name for queue in self._worker._ordered_queues],
            owner=self._owner(),
            clean=_both(self._supervisor.not_crowded(warm), self._member.fitting()),
            k=policy.next_k(self._history, config.lease_max, left),
            most_k=config.lease_max,
            most_jobs=left or 0,
            batch=_COMMITTED_AT_ONCE,
            seconds=policy.LEASE_SECONDS,
            wait_seconds=wait_seconds,
            began_in=self._heart.epoch,
        )

    def _note_end(self, page: SharedPage, end: LeaseEnd, began: float, *, waited: bool) -> None:
        """Log the lease, and note how it went, for the decision about the next one."""
        if end.jobs:
            _log.info(
                "worker %s: lease of %d jobs in %.2f s (%s); it ended: %s", self._worker.name, end.jobs,
                time.monotonic() - began, ", ".join(sorted({each.job for each in end.ran})), end.why,
            )  # fmt: skip
        if page.recalled or end.handed_over:
            self._history = policy.after_recall()
            return
        self._history = self._history._replace(k=end.k)
        if end.jobs:
            self._unfit = 0
        if end.unfit:
            self._unfit = 0 if end.jobs else self._unfit + 1
            self._wait = min(2**self._unfit, 16)
        elif not end.jobs and not waited:
            self._history = History()


def _both(some: list[str] | None, others: list[str] | None) -> list[str] | None:
    """The names in both lists. None stands for all names."""
    if some is None or others is None:
        return others if some is None else some
    return [each for each in some if each in others]
