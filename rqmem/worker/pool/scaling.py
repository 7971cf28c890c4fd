"""How many workers a pool runs: reads how long jobs wait, every few seconds, and decides by `rqmem.policy.autoscale`.

It runs in the pool's one thread. So it waits for Redis no longer than a second; while Redis does not answer, the
number stays as it is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from redis import Redis
from redis.exceptions import RedisError

from rqmem.policy import autoscale
from rqmem.policy.autoscale import Queued, Scale
from rqmem.store.queue_waits import read_job_seconds, read_waits
from rqmem.store.retrying import connection_with_short_timeout

_READ_SECONDS = 2.0
_REDIS_SECONDS = 1.0


class Scaling:
    """Of one pool.

    Attributes:
        reason: of the last change.
    """

    def __init__(
        self, connection: Redis, queues: Sequence[str], worker_keys: Callable[[], list[str]], least: int, most: int
    ) -> None:
        self._queues = queues
        self._worker_keys = worker_keys
        self._least, self._most = least, most
        self._scale = Scale(least)
        self._read_at = float("-inf")
        self._connection = connection_with_short_timeout(connection, _REDIS_SECONDS)
        self.reason = ""

    @property
    def workers(self) -> int:
        return self._scale.workers

    def look(self, now: float, idle: int, *, short: bool) -> None:
        """Look whether the number is to change. ``idle``: workers that run nothing; ``short``: jobs wait for memory."""
        if now - self._read_at < _READ_SECONDS:
            return
        self._read_at = now
        try:
            queued = self._read()
        except RedisError:
            return
        before = self._scale
        self._scale = autoscale.rescaled(before, self._least, self._most, queued, idle, short=short, now=now)
        if self._scale.workers > before.workers:
            self.reason = f"{queued.jobs:,} jobs wait, the next one for {queued.oldest_seconds:.0f} s"
        elif self._scale.workers < before.workers:
            self.reason = f"a worker had nothing to do for {autoscale.IDLE_SECONDS:.0f} s"

    def _read(self) -> Queued:
        waits = read_waits(self._connection, self._queues).values()
        ages = [time.time() - each.oldest_enqueued_at for each in waits if each.oldest_enqueued_at is not None]
        seconds = read_job_seconds(self._connection, self._worker_keys())
        return Queued(sum(each.queued for each in waits), max(0.0, max(ages, default=0.0)), seconds)
