"""Which peaks are records of their job type, as far as one worker has seen: so that others cost nothing. Pure."""

from __future__ import annotations

import heapq


class Peaks:
    """The highest peaks of each job type within one period. One of the ``kept`` highest is a record."""

    _MOST_TYPES = 200

    def __init__(self, kept: int, period_seconds: int) -> None:
        self._kept = kept
        self._period_seconds = period_seconds
        self._period = -1
        self._highest: dict[str, list[float]] = {}

    def is_record(self, job_type: str, peak_mb: float, now: float) -> bool:
        """Whether this peak is one of the highest so far; it counts from now on."""
        period = int(now // self._period_seconds)
        if period != self._period or len(self._highest) >= self._MOST_TYPES:
            self._period, self._highest = period, {}
        highest = self._highest.setdefault(job_type, [])  # a heap: the lowest first
        if len(highest) < self._kept:
            heapq.heappush(highest, peak_mb)
            return True
        return heapq.heappushpop(highest, peak_mb) < peak_mb
