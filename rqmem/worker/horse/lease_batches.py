"""The batches of one lease: how many jobs are taken at once, and when. Where the queues are empty, the horse waits.

While the second half of a batch runs, Redis looks for the next one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rqmem.policy import lease as policy
from rqmem.policy.lease import History
from rqmem.store.lease_commands import Batch, Moved
from rqmem.worker.horse.lease_wait import LeaseWait

if TYPE_CHECKING:
    from rqmem.rq_names import Worker
    from rqmem.worker.horse.channel import Channel, LeaseOrder
    from rqmem.worker.horse.lease_commits import Commits
    from rqmem.worker.shared_memory import SharedPage

OTHERS_WAIT, STOPS = "a job has others that wait for it", "the worker is to stop"
_TIME_OVER, _RAN_ENOUGH = "its time was over", "it has run as many jobs as it may"
_TOO_LONG = "its jobs take longer than those before"

_AHEAD_SECONDS = 0.005  # where half a batch takes no longer, the next one is asked for then
_BATCH_SECONDS = 0.1  # what was taken so long ago goes back: jobs of better queues, and other workers, wait for it


class Batches:
    """Methods raise redis-py's errors.

    Attributes:
        k: how many jobs the next batch may have.
        count: how many jobs the lease has run, or tried to. Written by who runs them.
        taken_at: when the batch in hand was asked for (monotonic clock).
        has_asked: Redis may have given jobs to the lease.
        is_empty: the queues are, as far as is known.
        why: there are no more batches; unfit: since the next job needs more than a lease does.
    """

    def __init__(self, worker: Worker, order: LeaseOrder, page: SharedPage, channel: Channel, commits: Commits) -> None:
        self._order = order
        self._page = page
        self._commits = commits
        self._waiting = LeaseWait(worker, order, page, channel)
        self._waits = order.wait_seconds > 0
        self._batch = Batch([], "", "")
        self._half = -1
        self._is_open = False  # it has got some jobs
        self._asked_ahead = False
        self._began = self._asked_at = self._opened_at = self.taken_at = time.monotonic()
        self.k = order.k
        self.count = 0
        self.has_asked = self.unfit = False
        self.is_empty = self._waits
        self.why = ""

    def next(self) -> Batch | None:
        """The next batch, also one without jobs; None: `why` says why there are no more."""
        if not self._go_on() or (self.is_empty and not self._wait()):
            return None
        return self._take()

    def reached(self, number: int) -> None:
        """That job of the batch is next."""
        if number == self._half and time.monotonic() - self._began < _AHEAD_SECONDS:
            k = min(self.k, self._left - (len(self._batch.jobs) - number))
            if k > 0 and time.monotonic() - self._opened_at < self._order.seconds:
                self._ask(k)
                self._asked_ahead = True

    def take_too_long(self, number: int) -> str:
        """Why the jobs after that one, which has ended, go back; "": they do not."""
        if time.monotonic() - self.taken_at <= _BATCH_SECONDS or number + 1 >= len(self._batch.jobs):
            return ""
        self.k = max(1, self.k // 2)
        return _TOO_LONG

    def put_back(self) -> None:
        """Jobs that have come and were not taken, once Redis answers."""
        self._waiting.put_back()

    def close(self) -> None:
        self._waiting.close()

    @property
    def _left(self) -> int:
        """How many jobs the lease may still run."""
        return self._order.most_jobs - self.count if self._order.most_jobs else sys.maxsize

    def _end(self, why: str, *, unfit: bool = False) -> bool:
        self.why, self.unfit = why, unfit
        return False

    def _go_on(self) -> bool:
        """After a batch: whether there is to be another one."""
        batch = self._batch
        if batch.why:
            self.is_empty = batch.why == "empty" and self._waits
            if not self.is_empty:
                return self._end(f"take: {batch.needs or batch.why}", unfit=batch.why == "needs")
        elif batch.jobs:
            history = policy.after_batch(History(k=self.k), len(batch.jobs), time.monotonic() - self._began)
            self.k = min(history.k, self._order.most_k)
        return True

    def _wait(self) -> bool:
        """For a job. Whether to take some."""
        order, page, commits = self._order, self._page, self._commits
        commits.open()
        commits.send()
        commits.read()
        if commits.plain:
            return self._end(OTHERS_WAIT)
        if self._left <= 0:
            return self._end(_RAN_ENOUGH)
        seconds = order.wait_seconds
        if self._is_open:
            seconds = order.seconds - (time.monotonic() - self._opened_at)
        if seconds <= 0:
            return self._end(_TIME_OVER)
        if not self._waiting.wait(seconds):
            return self._end(STOPS if page.recalled or page.stop_asked else _TIME_OVER)
        if not self._is_open:
            self._opened_at = time.monotonic()
        return True

    def _take(self) -> Batch | None:
        moved, self.has_asked, self.is_empty = self._waiting.moved, True, False
        if not self._asked_ahead:
            if self._is_open and not moved and time.monotonic() - self._opened_at >= self._order.seconds:
                self._end(_TIME_OVER)
                return None
            if self._left <= 0:
                self._end(_RAN_ENOUGH)
                return None
            self._commits.send()
            self._ask(min(self.k, self._left), moved)
        batch = self._batch = self._commits.batch()
        self._began = time.monotonic()
        self.taken_at = self._asked_at if self._asked_ahead else self._began
        self._asked_ahead = False
        self._waiting.moved = []
        self._is_open = self._is_open or bool(batch.jobs)
        self._half = len(batch.jobs) // 2 if not batch.why else -1  # there may be more
        if self._commits.plain:
            self._end(OTHERS_WAIT)
            return None
        return batch

    def _ask(self, k: int, moved: Sequence[Moved] = ()) -> None:
        self._commits.ask(k, opens=not self._is_open, moved=moved)
        self._asked_at = time.monotonic()
