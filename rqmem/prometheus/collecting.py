"""The collector: each scrape reads Redis again, so the process keeps nothing, and counters survive its restart."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from prometheus_client import Metric as Family
from prometheus_client.registry import Collector
from redis import Redis
from redis.exceptions import RedisError

from rqmem import words
from rqmem.observe.model import Snapshot
from rqmem.observe.snapshot import read_totals
from rqmem.prometheus.families import empty, families
from rqmem.prometheus.metrics import METRICS

_log = logging.getLogger("rqmem.exporter")


class JournalCollector(Collector):
    """Reads from ``connection``, which any number of scrapes may share. No error of Redis leaves it."""

    def __init__(self, connection: Redis) -> None:
        self._connection = connection
        self._away = False

    def describe(self) -> Iterable[Family]:
        """The families without samples, for a registry that looks for names taken twice; Redis is not asked."""
        return [empty(name) for name in METRICS]

    def collect(self) -> Iterable[Family]:
        """The families as they are now; nothing but ``rqmem_up`` 0 while Redis is away."""
        began = time.perf_counter()
        snapshot = self._read()
        return families(snapshot, time.perf_counter() - began)

    def _read(self) -> Snapshot | None:
        """None, and one line in the log for the first time, while Redis does not answer."""
        try:
            snapshot = read_totals(self._connection, time.time())
        except (RedisError, OSError, UnicodeDecodeError) as error:  # the last: a name that somebody wrote as bytes
            if not self._away:
                reason = " ".join(str(error).split())
                _log.warning("%s: rqmem_up is 0 until it does: %s", words.REDIS_GONE["away"], reason)
            self._away = True
            return None
        if self._away:
            _log.warning(words.REDIS_BACK["away"])
        self._away = False
        return snapshot
