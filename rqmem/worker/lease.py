"""Leases in the worker: when its horse may take jobs by itself, and what the worker does meanwhile.

It watches, as for a single job, and looks a hundred times a second which job the page names. A job that lasts gets its
records in Redis (`show`); one that turns long keeps its place, and what was taken besides goes back. Both are errands
of the heart, so the main thread goes on watching. When the lease has ended, the worker settles what the horse has not:
a horse that was killed leaves what has finished on the page, and perhaps a job in hand, which ends as any other.

The horse's side is `rqmem.worker.horse.lease`; when to lease is decided by `rqmem.policy.lease`.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from redis.exceptions import RedisError

from rqmem.measure import linux, procfs
from rqmem.policy import lease as policy
from rqmem.policy.lease import History, Way
from rqmem.rq_names import Execution, Job, NoSuchJobError, Queue, UnixSignalDeathPenalty, Worker, WorkerStatus
from rqmem.store import lease
from rqmem.store.history.history_records import OK
from rqmem.store.lease_connection import LeaseConnection
from rqmem.store.retrying import connection_with_short_timeout, until_redis_answers
from rqmem.worker.execution import Ended, Instruction, after
from rqmem.worker.finished_jobs import FinishedJob
from rqmem.worker.horse.channel import LeaseEnd, LeaseOrder, WarmHorse
from rqmem.worker.horse.lease import packed
from rqmem.worker.watcher import Identity, Watcher

if TYPE_CHECKING:
    from redis import Redis

    from rqmem.store.execution_records import Owner
    from rqmem.worker.commit import Committer
    from rqmem.worker.heartbeat import Heart
    from rqmem.worker.horse_pool import HorsePool
    from rqmem.worker.settlement import End, Settlement
    from rqmem.worker.shared_memory import SharedPage
    from rqmem.worker.supervisor import Supervisor
    from rqmem.worker.worker_setup import Setup

_AT_ONCE_SECONDS = 10.0  # leases follow one another for so long; then RQ's loop has its turn
_COMMITTED_AT_ONCE = 8
_LEAVE_SECONDS = 1.0
_RECALL_SECONDS = 0.001  # after it, the horse has seen that the lease is recalled, or has named its job
_EACH_JOB = (
    *("execute_job", "prepare_execution", "perform_job", "prepare_job_execution", "handle_job_success"),
    *("handle_execution_ended", "_finalize_success", "_finalize_failure", "cleanup_execution"),
    "dequeue_job_and_maintain_ttl",
)  # fmt: skip
_log = logging.getLogger("rqmem.worker")


class InHand(NamedTuple):
    """The job that the page names, as far as it was read while that did not change."""

    seq: int
    job_id: str
    created_at: str
    execution_id: str
    queue: str
    began_at: float

    @classmethod
    def on(cls, page: SharedPage) -> InHand:
        while True:
            seq = page.seq
            found = cls(seq, page.job_id, page.created_at, page.execution_id, page.queue, page.began_at)
            if page.seq == seq and not seq & 1:
                return found


class Leasing:
    """The leases of one worker.

    Args:
        worker: RQ's.
        setup: of the worker.
        pool: its horses.
        heart: talks to Redis meanwhile.
        supervisor: of its executions.
        settlement: records outcomes in the place of horses.
        committer: removes the records of an execution whose job is gone.
        owner: the worker's process, of no execution yet.
    """

    def __init__(
        self,
        worker: Worker,
        setup: Setup,
        pool: HorsePool,
        heart: Heart,
        supervisor: Supervisor,
        settlement: Settlement,
        committer: Committer,
        owner: Callable[[], Owner],
    ) -> None:
        self._worker = worker
        self._setup = setup
        self._pool = pool
        self._heart = heart
        self._supervisor = supervisor
        self._settlement = settlement
        self._committer = committer
        self._owner = owner
        self._history = History()
        self._unfit = 0  # leases in a row that ended before their first job
        self._wait = 0  # so many more jobs run by themselves first
        self._watch: _Watch | None = None
        self.max_jobs: int | None = None

    # When

    def why_never(self) -> str:
        """Why this worker never leases; empty: it does where that is worth it."""
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
                own_parts=tuple(own), own_hooks=tuple(self._own_hooks()),
            )
        )  # fmt: skip
        return reason or ("--max-jobs counts jobs one by one" if self.max_jobs is not None else "")

    def _own_hooks(self) -> list[str]:
        """Methods that RQ calls for each job and a lease does not, where they are neither RQ's nor ours."""
        worker = self._worker
        found = []
        for name in _EACH_JOB:
            owner = next((each for each in type(worker).__mro__ if name in vars(each)), object)
            if name in vars(worker) or owner.__module__.partition(".")[0] not in ("rq", "rqmem"):
                found.append(name)
        return found

    def after_job(self) -> None:
        """A job has run by itself."""
        page = self._pool.page
        succeeded = page.outcome == OK and not page.has_run and not page.state.ends_horse
        self._history = policy.after_plain(self._history, page.worked_seconds, succeeded=succeeded)
        self._wait = max(0, self._wait - 1)

    def work_off(self, queue: Queue) -> None:
        """Lease as long as that is worth it, and RQ's loop need not have its turn. The last job came from ``queue``."""
        until = time.monotonic() + _AT_ONCE_SECONDS
        while time.monotonic() < until and self._may_lease(queue):
            self._run()

    def _may_lease(self, queue: Queue) -> bool:
        if self._wait or self._heart.away or not self._heart.beating or self._stops():
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
        """In RQ's thread that hears commands: whether this execution runs, as far as leases have a say in it."""
        watch = self._watch
        return watch is None or watch.runs(execution_id)

    # One lease

    def _run(self) -> None:
        worker, pool, limit_bytes = self._worker, self._pool, self._setup.limit_bytes
        warm = self._supervisor.keep_a_horse()
        order = self._order(warm)
        pool.bury()
        if warm.worn and pool.group is not None:
            pool.group.hold(limit_bytes)
            warm.worn = False
        page = warm.page
        page.reset(limit_bytes)
        page.leased = True
        page.held_before = pool.idle_bytes + warm.state.kept_bytes
        pool.page = page
        if self._stops():
            page.stop_asked = True
        pool.note_known()
        worker._horse_pid = warm.pid
        worker.set_state(WorkerStatus.BUSY)
        began = time.monotonic()
        self._watch = watch = _Watch(worker, self._setup, self._heart, self._supervisor, page, order)
        self._supervisor.watch_from_now(warm, Identity("", "", order.queues[0], worker.name))
        warm.channel.send(order)
        try:
            end = self._supervisor.watch_lease(warm, watch.look, order.queues[0])
        except SystemExit:
            self._watch = None
            watch.over()
            self._leave_at_once(order, page)
            raise
        self._watch = None
        watch.over()
        outcome = self._settle(order, page, end, watch)
        ended = end.report.lease if end.report is not None else None
        if ended is None:
            ran = {page.job: [page.lease_done, time.monotonic() - began]} if page.lease_done else {}
            ended = LeaseEnd("its horse ended", ran, handed_over=True)
        self._note_end(page, ended, began)
        self._supervisor.after_lease(warm, page, end, ended, outcome)

    def _order(self, warm: WarmHorse) -> LeaseOrder:
        config = self._setup.config
        left = config.max_jobs_per_horse - warm.state.jobs if config.max_jobs_per_horse else None
        return LeaseOrder(
            token=uuid4().hex[:24],
            queues=[queue.name for queue in self._worker._ordered_queues],
            owner=self._owner(),
            clean=self._supervisor.not_crowded(warm),
            k=policy.next_k(self._history, config.lease_max, left),
            most_k=config.lease_max,
            most_jobs=left or 0,
            batch=_COMMITTED_AT_ONCE,
            seconds=policy.LEASE_SECONDS,
            began_in=self._heart.epoch,
        )

    def _note_end(self, page: SharedPage, end: LeaseEnd, began: float) -> None:
        """For the log, and for the next lease."""
        if end.jobs:
            _log.info(
                "worker %s: lease of %d jobs in %.2f s (%s); it ended: %s", self._worker.name, end.jobs,
                time.monotonic() - began, ", ".join(end.ran), end.why,
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
        elif not end.jobs:
            self._history = History()

    # Its end

    def _settle(self, order: LeaseOrder, page: SharedPage, end: End, watch: _Watch) -> str:
        """What the horse has left to settle. Returns how the job in hand has ended; empty: there was none."""
        worker, settlement, outcome = self._worker, self._settlement, ""
        horses_fault = end.breach is not None and settlement.is_horses_fault(end.breach)
        stopped = bool(page.job_id) and worker._stopped_job_id == page.job_id
        seen = dataclasses.replace(page.state, breached=end.breach is not None)
        state, instructions = after(seen, Ended(end.lost, stopped, horses_fault))
        is_in_hand = Instruction.SETTLE in instructions or Instruction.ORDER_AGAIN in instructions
        if Instruction.GIVE_BACK in instructions:
            self._take_back(order, page, job_in_hand=is_in_hand)
        for done in watch.plain:
            self._finish_plain(order, done)
        concerned = is_in_hand or {Instruction.RECORD_BREACH, Instruction.REPORT_HOOK}.intersection(instructions)
        if concerned and (found := self._fetch(InHand.on(page))) is not None:
            outcome = self._supervisor.settle_leased(*found, end, state, instructions)
        if not is_in_hand:
            worker._stopped_job_id = None
        return outcome

    def _take_back(self, order: LeaseOrder, page: SharedPage, *, job_in_hand: bool) -> None:
        """In the place of a horse that has ended: commit what has finished, give back what has not begun."""
        worker = self._worker
        for done in until_redis_answers(
            lambda: commit_finished(worker.connection, worker.name, order, page), "commit what has finished"
        ):
            job = in_hand(done, order)
            if (
                until_redis_answers(
                    lambda: show(worker.connection, worker, order, job, hand_over=True),  # noqa: B023
                    "show a finished job",
                )
                == "shown"
            ):
                self._finish_plain(order, done)
        if job_in_hand:
            until_redis_answers(
                lambda: show(worker.connection, worker, order, InHand.on(page), hand_over=True), "show the job in hand"
            )
        until_redis_answers(lambda: lease.give_back(worker.connection, worker.name, order.token), "give jobs back")

    def _finish_plain(self, order: LeaseOrder, done: FinishedJob) -> None:
        """Others wait for the job: RQ's own methods commit it, in a process of their own, since they run user code."""
        job = in_hand(done, order)
        if (found := self._fetch(job)) is not None:
            found[0].ended_at = datetime.fromtimestamp(done.ended_at, timezone.utc)
            self._settlement.succeed_in_a_fork(*found, done.result)

    def _fetch(self, in_hand: InHand) -> tuple[Job, Queue, Execution] | None:
        """It, as an execution. None: the job was deleted."""
        worker, job_id = self._worker, in_hand.job_id
        queue = worker.queue_class(
            in_hand.queue, connection=worker.connection, job_class=worker.job_class, serializer=worker.serializer,
            death_penalty_class=worker.death_penalty_class,
        )  # fmt: skip
        execution = Execution(in_hand.execution_id, job_id, worker.connection, worker.name)
        execution.created_at = datetime.fromtimestamp(in_hand.began_at, timezone.utc)
        try:
            job = until_redis_answers(
                lambda: worker.job_class.fetch(job_id, connection=worker.connection, serializer=worker.serializer),
                f"read job {job_id}",
            )
        except NoSuchJobError:
            job = worker.job_class(job_id, connection=worker.connection)
            job.origin = queue.name
            until_redis_answers(lambda: self._committer.remove_records(job, execution), f"forget job {job_id}")
            return None
        execution._job = job
        job.started_at = execution.created_at
        return job, queue, execution

    def _leave_at_once(self, order: LeaseOrder, page: SharedPage) -> None:
        """A second SIGTERM: the horse is dead. What can be done in a moment is done; the rest others take over."""
        worker = self._worker
        try:
            with connection_with_short_timeout(worker.connection, _LEAVE_SECONDS) as connection:
                commit_finished(connection, worker.name, order, page)
                if page.in_user_code:
                    show(connection, worker, order, InHand.on(page), hand_over=True)
                lease.give_back(connection, worker.name, order.token)
        except RedisError as error:
            _log.warning("worker %s: jobs of its lease stay for others to take over: %s", worker.name, error)


class _Watch:
    """What the worker does about one lease while it watches: its main thread looks, the heart's thread acts."""

    def __init__(
        self,
        worker: Worker,
        setup: Setup,
        heart: Heart,
        supervisor: Supervisor,
        page: SharedPage,
        order: LeaseOrder,
    ) -> None:
        self._worker = worker
        self._setup = setup
        self._heart = heart
        self._page = page
        self._order = order
        self._shown = self._told = 0  # numbers of the jobs that were shown, and told that their time is over
        self._cpu_seconds = 0.0  # of the horse, when the job in hand was first seen to last
        self.plain: list[FinishedJob] = []  # have finished, and RQ's own methods are to commit them
        self._lock = supervisor.switch
        self._over = False

    def look(self, watcher: Watcher) -> float | None:
        """In the main thread, between two readings. Returns when (monotonic) the job in hand is to be killed."""
        page = self._page
        seq, started = page.seq, page.started_at
        if not started or seq & 1 or not page.in_user_code:
            return None
        ran = time.monotonic() - started
        if ran < policy.SHOWN_SECONDS:
            return None
        if self._shown != seq:
            self._shown = seq
            self._cpu_seconds = _cpu_seconds(self._worker.horse_pid)
            self._heart.soon(lambda connection: self._show(connection, seq))
        if not page.recalled and ran >= policy.LONG_SECONDS and self._is_long(ran):
            page.recalled = True
            self._heart.soon(self._give_back)
        limit = page.limit_seconds
        if limit > 0 and ran >= limit and self._told != seq and watcher.breach is None:
            self._told = seq
            linux.tell_main_thread(self._worker.horse_pid, signal.SIGALRM)
        return None if limit < 0 else started + limit + self._setup.kill_after_seconds

    def _is_long(self, ran: float) -> bool:
        pid = self._worker.horse_pid
        used = _cpu_seconds(pid) - self._cpu_seconds
        return policy.turned_long(ran, used, runnable=procfs.read_state(pid) == "R")

    def runs(self, execution_id: str) -> bool:
        """In RQ's thread that hears commands: whether this execution is in hand. After it, no other job begins."""
        page = self._page
        page.recalled = True
        time.sleep(_RECALL_SECONDS)
        return InHand.on(page).execution_id == execution_id and page.in_user_code

    def over(self) -> None:
        """The lease has ended."""
        with self._lock:
            self._over = True
            self._worker.executions.clear()
            self._heart.idle()

    # In the heart's thread

    def _show(self, connection: Redis, seq: int) -> None:
        """The job lasts: RQ shows it as running, and its heartbeats are kept."""
        page, worker, job = self._page, self._worker, InHand.on(self._page)
        self._commit(connection)
        if job.seq != seq or show(connection, worker, self._order, job) != "shown":
            return
        execution = Execution(job.execution_id, job.job_id, connection, worker.name)
        execution.created_at = datetime.fromtimestamp(job.began_at, timezone.utc)
        try:
            read = worker.job_class.fetch(job.job_id, connection=connection, serializer=worker.serializer)
        except NoSuchJobError:
            return
        read.started_at = execution.created_at
        execution._job = read
        with self._lock:
            if page.seq == seq and page.in_user_code and not self._over:
                worker.executions.clear()
                worker.executions[execution.id] = execution
                self._heart.running(read, execution)

    def _give_back(self, connection: Redis) -> None:
        """The job is long: what was taken besides goes back, in order, after what has finished is committed."""
        time.sleep(_RECALL_SECONDS)
        keep = InHand.on(self._page).job_id
        self._commit(connection)
        if not self._over:
            lease.give_back(connection, self._worker.name, self._order.token, keep=keep)

    def _commit(self, connection: Redis) -> None:
        """What has finished; what is not for us to commit leaves the lease, and its place is not given back."""
        for done in commit_finished(connection, self._worker.name, self._order, self._page):
            if show(connection, self._worker, self._order, in_hand(done, self._order), hand_over=True) == "shown":
                self.plain.append(done)


def in_hand(done: FinishedJob, order: LeaseOrder) -> InHand:
    """A job that has finished."""
    ids = (done.job_id.decode(), done.created_at.decode(), done.execution_id.decode())
    return InHand(done.seq, *ids, order.queues[done.queue], done.began_at)


def show(connection: Redis, worker: Worker, order: LeaseOrder, job: InHand, *, hand_over: bool = False) -> str:
    """Have RQ show a job of the lease as running (`rqmem.store.lease.show`)."""
    owner = dataclasses.replace(order.owner, execution=job.execution_id, queue=job.queue)
    return lease.show(
        connection, worker.name, job.queue, job.job_id, job.created_at, job.began_at, owner,
        worker.job_monitoring_interval + 60, hand_over=hand_over,
    )  # fmt: skip


def commit_finished(connection: Redis, worker: str, order: LeaseOrder, page: SharedPage) -> list[FinishedJob]:
    """Commit what stands on the page as finished. Returns what RQ's own methods have to commit."""
    jobs = page.finished.uncommitted()
    if not jobs:
        return []
    link = LeaseConnection(connection, worker, order.token)
    try:
        link.send_step([packed(job, order.queues) for job in jobs], sum(job.ended_at - job.began_at for job in jobs))
        refused = link.read_step().refused
    finally:
        link.close()
    return [job for job in jobs if refused.get(job.job_id) == "plain"]


def _cpu_seconds(pid: int) -> float:
    """Of a process; 0: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
