"""When usage rose above the threshold, in which job, how far and for how long. Pure.

A crossing begins when a job's usage is above the threshold and was not before; it ends when it is below, or the job is
another one. What a job used between two looks counts by its peak, once. Jobs that come and go between two looks are
not seen here: of those their runs tell (`rqmem.observe.statistics`).
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import replace

from rqmem.store.history.history_records import LiveJob
from rqmem.values import dataclass

MOST_KEPT = 1000
"""Crossings that are remembered one by one; all are counted."""


@dataclass(frozen=True)
class Crossing:
    """Usage above the threshold: seen so from ``at`` to ``until`` (epoch seconds). Sizes in MB.

    Attributes:
        usage_mb: the highest that was seen in that time.
        over: it has ended.
    """

    worker: str
    job: str
    job_id: str
    at: float
    until: float
    usage_mb: float
    limit_mb: float
    over: bool = False

    @property
    def usage_percentage(self) -> float:
        return round(100 * self.usage_mb / self.limit_mb, 1)


class Crossings:
    """All crossings of one threshold, in percent of the ceiling."""

    def __init__(self, threshold_percentage: float) -> None:
        self._share = threshold_percentage / 100
        self._now: dict[str, Crossing] = {}
        self._ended: deque[Crossing] = deque(maxlen=MOST_KEPT)
        self._crossed_in: dict[str, tuple[str, float]] = {}
        self.by_worker: Counter[str] = Counter()
        self.by_job: Counter[str] = Counter()

    @property
    def count(self) -> int:
        return sum(self.by_worker.values())

    @property
    def kept(self) -> list[Crossing]:
        """The last ones, oldest first."""
        return sorted([*self._ended, *self._now.values()], key=lambda each: each.at)[-MOST_KEPT:]

    def add(self, worker: str, job: LiveJob | None, at: float) -> Crossing | None:
        """What a worker's job uses at that time, as far as it said; the crossing that begins with it."""
        if job is None or not self._is_above(job.usage_mb, job.limit_mb):
            self.lost(worker)
            return self._in_between(worker, job, at) if job is not None else None
        before = self._now.get(worker)
        if before is None or before.job_id != job.job_id:
            self.lost(worker)
            return self._begin(job, Crossing(worker, job.job, job.job_id, at, at, job.usage_mb, job.limit_mb))
        self._now[worker] = replace(before, until=at, usage_mb=max(before.usage_mb, job.usage_mb))
        return None

    def pass_over(self, worker: str, job: LiveJob) -> None:
        """What that job used until now was before our time."""
        self._crossed_in[worker] = _execution(job)

    def lost(self, worker: str) -> None:
        """It is no longer above, or nothing is heard of it any more."""
        before = self._now.pop(worker, None)
        if before is not None:
            self._ended.append(replace(before, over=True))

    def _in_between(self, worker: str, job: LiveJob, at: float) -> Crossing | None:
        """The crossing of a job that was above between two looks, unless it had one before."""
        if not self._is_above(job.peak_mb, job.limit_mb) or self._crossed_in.get(worker) == _execution(job):
            return None
        crossing = self._begin(job, Crossing(worker, job.job, job.job_id, at, at, job.peak_mb, job.limit_mb))
        self.lost(worker)
        return crossing

    def _is_above(self, usage_mb: float, limit_mb: float) -> bool:
        return limit_mb > 0 and usage_mb > self._share * limit_mb

    def _begin(self, job: LiveJob, crossing: Crossing) -> Crossing:
        self._now[crossing.worker] = crossing
        self._crossed_in[crossing.worker] = _execution(job)
        self.by_worker[crossing.worker] += 1
        self.by_job[crossing.job] += 1
        return crossing


def _execution(job: LiveJob) -> tuple[str, float]:
    """A job that is resumed is the same job in another execution."""
    return job.job_id, job.started_at
