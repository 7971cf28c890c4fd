"""What has finished under a lease and Redis does not have yet. It is sent in groups, and replies are read later.

Until its reply has come, a finished job also stands on the shared page: from there the worker commits it if the horse
dies. After a lost connection all that has no reply is sent again: what Redis has already, it refuses.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from redis.exceptions import RedisError

from rqmem.store.lease_commands import Batch, Moved, Stepped, Taken, pack_begins, pack_finished
from rqmem.store.lease_connection import LeaseConnection
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.execution import Event
from rqmem.worker.finished_jobs import ROOM, FinishedJob

if TYPE_CHECKING:
    from rqmem.rq_names import Worker
    from rqmem.worker.horse.channel import LeaseOrder
    from rqmem.worker.horse.leased_job import LeasedType
    from rqmem.worker.shared_memory import SharedPage

_COMMIT_SECONDS = 0.002  # what has finished waits no longer for its commit
_SEEN_SECONDS = 0.005  # a job may be shown that has taken so long; Redis knows one at a time, so its commit is awaited
_WORTH_SECONDS = 0.001  # what has worked for so long is committed before the next job begins
_MOST_OWED = 32  # replies; then half of them are read
_FINISHED = Event.FINISHED  # as in `user_code`
_log = logging.getLogger("rqmem.worker")


class Commits:
    """The commits of one lease, and the connection that they and its takes go over.

    Methods raise redis-py's errors of a lost connection, but for `all` and `close`, which wait until Redis answers.

    Attributes:
        plain: jobs that RQ's own methods have to commit.
        lost: Redis did not answer, or refused: the connection cannot be used any more.
    """

    def __init__(self, worker: Worker, order: LeaseOrder, page: SharedPage) -> None:
        self._worker = worker
        self._order = order
        self._page = page
        self._opened: LeaseConnection | None = None
        self._sent: deque[tuple[list[FinishedJob], int]] = (
            deque()
        )  # steps without a reply, and how many are on the page
        self._ring = page.finished  # each time that it is asked for, it is another object
        self._batch: Batch | None = None  # that has come, and nobody has got
        self._pending: list[FinishedJob] = []
        self._on_page = 0  # of the pending ones
        self._seconds = 0.0  # that the pending ones took
        self.plain: list[FinishedJob] = []
        self.lost = False

    def open(self) -> LeaseConnection:
        """The connection, which is opened if need be."""
        if self._opened is None:
            self._opened = LeaseConnection(self._worker.connection, self._worker.name, self._order.token)
        return self._opened

    @property
    def _link(self) -> LeaseConnection:
        return self._opened or self.open()

    def ask(self, k: int, *, opens: bool = False, moved: Sequence[Moved] = ()) -> None:
        """Ask for up to ``k`` jobs, which `batch` gives.

        Args:
            opens: none of this lease has been taken before.
            moved: jobs that go back to the front of their queues first.
        """
        owner = self._order.owner if opens else None
        self._link.send_take(self._order.queues, k, owner, moved)

    def batch(self) -> Batch:
        """The jobs that were asked for."""
        while self._batch is None:
            self.read(until=self._link.owed - 1)
        batch, self._batch = self._batch, None
        return batch

    def announce(
        self, job: Taken, execution: bytes, known: LeasedType, *, sent: bool, awaited: bool, seen: bool
    ) -> bool:
        """Send what is to be committed by now, and that this job begins. Whether it may.

        Args:
            sent: also where nothing is to be committed. Redis gets it even if this process is killed right after.
            awaited: it may have been cancelled since it was taken.
            seen: RQ may show the job before it as running.
        """
        page, pending = self._page, self._pending
        due = len(pending) >= self._order.batch or (
            bool(pending) and (self._seconds > _WORTH_SECONDS or page.began_at - pending[0].ended_at > _COMMIT_SECONDS)
        )
        awaited = awaited or seen or self._seconds >= _SEEN_SECONDS
        if not (awaited or due or sent):
            return True
        opening = known.opening(job.created_at, execution)
        self.send(pack_begins(job.id, execution, page._queue, page.began_at, opening))
        if awaited:
            return self.read() == ""
        if self._link.owed > _MOST_OWED:
            self.read(until=_MOST_OWED // 2)
        return True

    def add(self, done: FinishedJob) -> None:
        """A job has finished."""
        self._pending.append(done)
        self._seconds += done.ended_at - done.began_at
        if self._ring.add(done):
            self._on_page += 1
            self._page.advance(_FINISHED)

    def keep_room(self) -> None:
        """What the page has no room for is committed at once. A page that is full gets room by half of the replies."""
        if self._on_page < len(self._pending):
            self.send()
            self.read()
            self._page.advance(Event.FINISHED)
        elif self._ring.count - self._ring.committed >= ROOM - 1:
            self.read(until=self._link.owed // 2)

    def send(self, begins: bytes = b"") -> None:
        """Send what has finished, and what begins."""
        if not self._pending and not begins:
            return
        jobs, seconds = self._pending, self._seconds
        self._sent.append((jobs, self._on_page))
        self._forget_pending()
        self._link.send_step(packed(jobs, self._order.queues), seconds, begins)

    def read(self, until: int = 0) -> str:
        """Read replies until that number is owed. Returns why the last job that was announced may not begin."""
        why = ""
        link = self._link
        while link.owed > until:
            if link.next_is_batch:
                self._batch = link.read_batch()
            else:
                why = self._take_reply(link.read_step(), *self._sent.popleft())
        return why

    def _forget_pending(self) -> None:
        self._pending, self._seconds, self._on_page = [], 0.0, 0

    def _take_reply(self, reply: Stepped, jobs: list[FinishedJob], on_page: int) -> str:
        plain = [job for job in jobs if reply.refused.get(job.job_id) == "plain"]
        if not plain and not self.plain:
            self._ring.committed += on_page
        self.plain += plain
        for job_id, why in reply.refused.items():
            if why != "plain":
                _log.debug(
                    "worker %s: job %s of a lease was not committed: %s", self._worker.name, job_id.decode(), why
                )
        return reply.next

    def all(self) -> None:
        """Commit all that has finished, once Redis answers."""
        if self.lost:
            self._resend()
        try:
            self.send()
            self.read()
        except RedisError:
            self._resend()

    def _resend(self) -> None:
        """Commit what has no reply over a new connection. What Redis has already, it refuses."""
        jobs = [job for step, _ in self._sent for job in step] + self._pending
        on_page = sum(count for _, count in self._sent) + self._on_page
        self._sent.clear()
        self._forget_pending()
        self.lost = False
        self.close(broken=True)

        def commit() -> None:
            seconds = sum(job.ended_at - job.began_at for job in jobs)
            try:
                self._link.send_step(packed(jobs, self._order.queues), seconds)
                self._take_reply(self._link.read_step(), jobs, on_page)
            except RedisError:
                self.close(broken=True)
                raise

        if jobs:
            until_redis_answers(commit, f"commit {len(jobs)} jobs of a lease", self._worker.connection)

    def close(self, *, broken: bool = False) -> None:
        """Give the connection back. ``broken``: it cannot be used any more."""
        if self._opened is not None:
            self._opened.close(broken=broken or self.lost)
        self._opened = None


def packed(jobs: Iterable[FinishedJob], queues: Sequence[str]) -> list[bytes]:
    """For `LeaseConnection.send_step`."""
    return [
        pack_finished(queues[queue].encode(), job_id, created_at, execution_id, began_at, ended_at, ttl, result, run)
        for _, began_at, ended_at, ttl, queue, job_id, created_at, execution_id, result, run in jobs
    ]
