"""What the worker does about a lease while its horse works: its main thread looks, the heart's thread acts.

A hundred times a second the main thread looks which job the page names. A job that lasts gets its records in Redis;
one that turns long keeps its place, and what was taken besides goes back, after what has finished is committed.
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

_BETWEEN_SECONDS = 0.2  # a living horse takes some microseconds to write down its next job
_RECALL_SECONDS = 0.001  # after it, the horse has seen that the lease is recalled, or has named its job


class InHand(NamedTuple):
    """The job that the page names, as far as it was read while that did not change."""

    seq: int
    job_id: str
    created_at: str
    execution_id: str
    queue: str
    began_at: float

    @classmethod
    def on(cls, page: SharedPage) -> InHand | None:
        """None: the horse has ended, or was stopped, while it wrote down the next one, which has not begun."""
        deadline = time.monotonic() + _BETWEEN_SECONDS
        while time.monotonic() < deadline:
            seq, found = page.seq, cls.left_on(page)
            if page.seq == seq and not seq & 1:
                return found
            time.sleep(0)
        return None

    @classmethod
    def left_on(cls, page: SharedPage) -> InHand:
        """By a horse that has ended, or reported: it had a job in hand, or had finished one."""
        return cls(page.seq, page.job_id, page.created_at, page.execution_id, page.queue, page.began_at)


@dataclasses.dataclass(eq=False, repr=False)
class LeaseWatch:
    """Of one lease.

    Attributes:
        plain: jobs that have finished, and that RQ's own methods are to commit.
    """

    _worker: Worker
    _setup: Setup
    _heart: Heart
    _supervisor: Supervisor
    _page: SharedPage
    _order: LeaseOrder

    def __post_init__(self) -> None:
        self._shown = self._told = 0  # numbers of the jobs that were shown, and told that their time is over
        self._cpu_seconds = 0.0  # of the horse, when the job in hand was first seen to last
        self.plain: list[FinishedJob] = []
        self._acting = threading.Lock()  # held by the heart's thread while it acts
        self._over = False
        self._is_shown_busy = False  # where the lease began while the worker was idle

    def look(self, watcher: Watcher) -> float | None:
        """In the main thread, between two readings. Returns when (monotonic) the job in hand is to be killed."""
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
        """In RQ's thread that hears commands: whether this execution is in hand. After it, no other job begins."""
        page = self._page
        page.recalled = True
        time.sleep(_RECALL_SECONDS)
        in_hand = InHand.on(page)
        return in_hand is not None and in_hand.execution_id == execution_id and page.in_user_code

    def over(self) -> None:
        """The lease has ended. What the heart's thread does about it is waited for: the next one has the same page."""
        with self._acting:
            self.leave()

    def leave(self) -> None:
        """The worker leaves, and waits for nothing."""
        with self._supervisor.switch:
            self._over = True
            self._none_runs()

    def _none_runs(self) -> None:
        """The job that was shown has ended: its heartbeats would write its records anew."""
        with self._supervisor.switch:
            self._worker.executions.clear()
            self._heart.idle()

    def _soon(self, act: Callable[[Redis], None]) -> None:
        """Have the heart's thread do it, if the lease has not ended by then."""

        def errand(connection: Redis) -> None:
            with self._acting:
                if not self._over:
                    act(connection)

        self._heart.soon(errand)

    # In the heart's thread

    def _show(self, connection: Redis, seq: int) -> None:
        """The job lasts: RQ shows it as running, and its heartbeats are kept."""
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
        """As RQ's `set_state`, which the worker's own state would follow."""
        connection.hset(self._worker.key, "state", state)

    def _give_back(self, connection: Redis) -> None:
        """The job is long: what was taken besides goes back, in order, after what has finished is committed."""
        time.sleep(_RECALL_SECONDS)
        job = InHand.on(self._page)
        if job is None:  # whoever settles the end of the lease gives all back
            return
        self._commit(connection)
        lease.give_back(connection, self._worker.name, self._order.token, keep=job.job_id)

    def _commit(self, connection: Redis) -> None:
        """What has finished; what is not for us to commit leaves the lease, and its place is not given back."""
        for done in commit_finished(connection, self._worker.name, self._order, self._page):
            job, record = in_hand(done, self._order), HeldRecord(done.run.decode())
            if show(connection, self._worker, self._order, job, record, hand_over=True) == "shown":
                self.plain.append(done)


def in_hand(done: FinishedJob, order: LeaseOrder) -> InHand:
    """A job that has finished."""
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
    """Commit what stands on the page as finished. Returns what RQ's own methods have to commit.

    Which job is in hand stays as the horse has said it.
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
    """Of a process; 0: it is gone."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_bytes().split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0
