"""What the worker does during a lease: its main thread looks at the page, the heart's thread talks to Redis.

The main thread looks 100 times a second which job runs. If a job lasts, RQ shows it as running. If it becomes long,
the finished jobs are committed and those that have not begun go back to their queues.
"""

from __future__ import annotations

import dataclasses
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from redis import Redis

from rqmem.measure import linux, procfs
from rqmem.policy import lease as policy
from rqmem.rq_names import Execution, NoSuchJobError, Worker, WorkerStatus
from rqmem.store import lease
from rqmem.store.held_run import HeldRecord, record_in
from rqmem.store.lease_commands import GOES_ON
from rqmem.store.lease_connection import LeaseConnection
from rqmem.worker.finished_jobs import FinishedJob
from rqmem.worker.heartbeat import Heart
from rqmem.worker.horse.channel import LeaseOrder
from rqmem.worker.horse.lease_commits import packed
from rqmem.worker.shared_memory import SharedPage
from rqmem.worker.supervisor import Supervisor
from rqmem.worker.watcher import Watcher
from rqmem.worker.worker_setup import Setup

_BETWEEN_SECONDS = 0.2  # a horse that runs writes its next job to the page within microseconds
_RECALL_SECONDS = 0.001  # after this, the horse has seen the recall or has named its job


class InHand(NamedTuple):
    """The job that the page names, read while the page did not change."""

    seq: int
    job_id: str
    created_at: str
    execution_id: str
    queue: str
    began_at: float

    @classmethod
    def on(cls, page: SharedPage) -> InHand | None:
        """None: the horse ended, or was stopped, while it wrote its next job to the page. That job has not begun."""
        deadline = time.monotonic() + _BETWEEN_SECONDS
        while time.monotonic() < deadline:
            seq, found = page.seq, cls.left_on(page)
            if page.seq == seq and not seq & 1:
                return found
            time.sleep(0)
        return None

    @classmethod
    def left_on(cls, page: SharedPage) -> InHand:
        """The same after the horse has ended or reported, when nobody writes any more."""
        return cls(page.seq, page.job_id, page.created_at, page.execution_id, page.queue, page.began_at)


@dataclasses.dataclass(eq=False, repr=False)
class LeaseWatch:
    """Watches one lease.

    Attributes:
        plain: finished jobs that RQ's own methods must commit.
    """

    _worker: Worker
    _setup: Setup
    _heart: Heart
    _supervisor: Supervisor
    _page: SharedPage
    _order: LeaseOrder

    def __post_init__(self) -> None:
        self._shown = self._told = 0  # `seq` of the job that RQ shows, and of the one sent SIGALRM
        self._cpu_seconds = 0.0  # CPU time of the horse when the current job was shown
        self.plain: list[FinishedJob] = []
        self._acting = threading.Lock()  # held by the heart's thread while it acts
        self._over = False
        self._is_shown_busy = False  # whether Redis has state busy, in a lease of an idle worker

    def look(self, watcher: Watcher) -> float | None:
        """In the main thread, between two readings. Returns the monotonic time at which to kill the current job."""
        page = self._page
        seq, started = page.seq, page.started_at
        if self._shown and (page.waiting or seq != self._shown):
            self._shown = 0
            self._none_runs()
        if page.waiting and self._is_shown_busy:
            self._is_shown_busy = False
            self._soon(lambda connection: self._show_state(connection, WorkerStatus.IDLE))
        if not started or seq & 1 or not page.in_user_code:
            return None
        ran = time.monotonic() - started
        if ran < policy.SHOWN_SECONDS:
            return None
        if self._shown != seq:
            self._shown = page.shown_seq = seq
            self._cpu_seconds = _cpu_seconds(self._worker.horse_pid)
            self._soon(lambda connection: self._show(connection, seq))
        if not page.recalled and ran >= policy.LONG_SECONDS and self._is_long(ran):
            page.recalled = True
            self._soon(self._give_back)
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
        """Whether this execution runs now. It also recalls the lease: no other job begins. In RQ's command thread."""
        page = self._page
        page.recalled = True
        time.sleep(_RECALL_SECONDS)
        in_hand = InHand.on(page)
        return in_hand is not None and in_hand.execution_id == execution_id and page.in_user_code

    def over(self) -> None:
        """The lease has ended. Wait until the heart's thread is done with it: the next lease has the same page."""
        with self._acting:
            self.leave()

    def leave(self) -> None:
        """As `over`, without a wait: the worker ends."""
        with self._supervisor.switch:
            self._over = True
            self._none_runs()

    def _none_runs(self) -> None:
        """The job that was shown has ended: stop its heartbeats, which would write its records again."""
        with self._supervisor.switch:
            self._worker.executions.clear()
            self._heart.idle()

    def _soon(self, act: Callable[[Redis], None]) -> None:
        """Call ``act`` in the heart's thread, unless the lease has ended by then."""

        def errand(connection: Redis) -> None:
            with self._acting:
                if not self._over:
                    act(connection)

        self._heart.soon(errand)

    # In the heart's thread

    def _show(self, connection: Redis, seq: int) -> None:
        """The job lasts: make RQ show it as running, and begin its heartbeats."""
        page, worker, job = self._page, self._worker, InHand.on(self._page)
        self._commit(connection)
        if job is None or job.seq != seq or show(
            connection, worker, self._order, job, record_in(page.held.read())
        ) != "shown":  # fmt: skip
            return
        execution = Execution(job.execution_id, job.job_id, connection, worker.name)
        execution.created_at = datetime.fromtimestamp(job.began_at, timezone.utc)
        try:
            read = worker.job_class.fetch(job.job_id, connection=connection, serializer=worker.serializer)
        except NoSuchJobError:
            return
        read.started_at = execution.created_at
        execution._job = read
        with self._supervisor.switch:
            if page.seq == seq and page.in_user_code:
                if self._order.wait_seconds:
                    self._show_state(connection, WorkerStatus.BUSY)
                    self._is_shown_busy = True
                worker.executions.clear()
                worker.executions[execution.id] = execution
                self._heart.running(read, execution)

    def _show_state(self, connection: Redis, state: str) -> None:
        """As RQ's `set_state`, which would also change the state in this process."""
        connection.hset(self._worker.key, "state", state)

    def _give_back(self, connection: Redis) -> None:
        """The job is long: commit the finished jobs, then put back in order those that have not begun."""
        time.sleep(_RECALL_SECONDS)
        job = InHand.on(self._page)
        if job is None:  # `LeaseSettlement` will put all back
            return
        self._commit(connection)
        lease.give_back(connection, self._worker.name, self._order.token, keep=job.job_id)

    def _commit(self, connection: Redis) -> None:
        """Commit the finished jobs. Those that only RQ's methods may commit leave the lease and go to ``plain``."""
        for done in commit_finished(connection, self._worker.name, self._order, self._page):
            job, record = in_hand(done, self._order), HeldRecord(done.run.decode())
            if show(connection, self._worker, self._order, job, record, hand_over=True) == "shown":
                self.plain.append(done)


def in_hand(done: FinishedJob, order: LeaseOrder) -> InHand:
    """A finished job as an `InHand`."""
    ids = (done.job_id.decode(), done.created_at.decode(), done.execution_id.decode())
    return InHand(done.seq, *ids, order.queues[done.queue], done.began_at)


def show(
    connection: Redis, worker: Worker, order: LeaseOrder, job: InHand, record: HeldRecord, *, hand_over: bool = False
) -> str:
    """Have RQ show a job of the lease as running, and keep the record of its run (`rqmem.store.lease.show`)."""
    owner = dataclasses.replace(order.owner, execution=job.execution_id, queue=job.queue)
    return lease.show(
        connection, worker.name, job.queue, job.job_id, job.created_at, job.began_at, owner,
        worker.job_monitoring_interval + 60, record, hand_over=hand_over,
    )  # fmt: skip


def commit_finished(connection: Redis, worker: str, order: LeaseOrder, page: SharedPage) -> list[FinishedJob]:
    """Commit the finished jobs in the page's ring. Returns those that RQ's own methods must commit.

    It does not change which job the lease has as the running one. Raises redis-py's errors.
    """
    jobs = page.finished.uncommitted()
    if not jobs:
        return []
    link = LeaseConnection(connection, worker, order.token)
    try:
        seconds = sum(job.ended_at - job.began_at for job in jobs)
        link.send_step(packed(jobs, order.queues), seconds, GOES_ON)
        refused = link.read_step().refused
    finally:
        link.close()
    return [job for job in jobs if refused.get(job.job_id) == "plain"]


def _cpu_seconds(pid: int) -> float:
    """CPU time of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
