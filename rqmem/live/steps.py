"""What was seen, by the interval of the report; bounded however long it lasts. Pure.

A step holds the highest that was seen within it. When there are too many, two and two become one of twice the length,
so a report of a month is as large as one of an hour.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from rqmem.live.system import System
from rqmem.observe.model import Pool, Queue
from rqmem.values import dataclass

MOST_STEPS = 3600


@dataclass(frozen=True)
class WorkerStep:
    """A worker when it used most of its ceiling within a step. Sizes in MB.

    Attributes:
        usage_mb, limit_mb: of its job and that one's ceiling; a limit of 0: none ran.
        worker_mb: of its own process.
        operation, items_done: of the job, as it last said.
    """

    worker: str
    usage_mb: float
    limit_mb: float
    worker_mb: float
    job: str = ""
    job_id: str = ""
    operation: str = ""
    items_done: int = 0

    @property
    def share(self) -> float:
        """Usage as a fraction of the ceiling; below 0 when no job ran."""
        return self.usage_mb / self.limit_mb if self.limit_mb > 0 else -1.0


@dataclass(frozen=True)
class MonitorStep:
    """What was seen from ``at`` (epoch seconds) until the next step. Workers by name.

    Attributes:
        system: when it used most.
        queues: as they were at the last look in it.
        ended: jobs that ended within it.
        pools: as they were at the last look in it.
    """

    at: float
    system: System
    workers: dict[str, WorkerStep]
    queues: Sequence[Queue] = ()
    ended: int = 0
    pools: Sequence[Pool] = ()

    def plus(self, later: MonitorStep) -> MonitorStep:
        fuller = max(self.system, later.system, key=lambda each: each.used_mb)
        workers = dict(self.workers)
        for name, step in later.workers.items():
            workers[name] = fullest(workers.get(name), step)
        return replace(
            self,
            system=fuller,
            workers=dict(sorted(workers.items())),
            queues=later.queues,
            pools=later.pools,
            ended=self.ended + later.ended,
        )


def fullest(before: WorkerStep | None, step: WorkerStep) -> WorkerStep:
    """The one of two that was nearer its ceiling, with the more that the worker itself used."""
    if before is None:
        return step
    fuller = before if before.share > step.share else step
    worker_mb = max(before.worker_mb, step.worker_mb)
    return fuller if fuller.worker_mb == worker_mb else replace(fuller, worker_mb=worker_mb)


class MonitorSteps:
    """The steps of a run that began at ``started_at``; one without a look is left out, which is a gap."""

    def __init__(self, started_at: float, step_seconds: float, most: int = MOST_STEPS) -> None:
        self._started_at = started_at
        self._most = most
        self.step_seconds = step_seconds
        self._steps: list[MonitorStep] = []

    def add(self, now: float, seen: MonitorStep) -> None:
        self._put(replace(seen, at=self._begin(now)))
        while len(self._steps) > self._most:
            self.step_seconds *= 2
            finer, self._steps = self._steps, []
            for step in finer:
                self._put(replace(step, at=self._begin(step.at)))

    @property
    def all(self) -> list[MonitorStep]:
        """Oldest first."""
        return list(self._steps)

    def _put(self, step: MonitorStep) -> None:
        if self._steps and self._steps[-1].at >= step.at:
            self._steps[-1] = self._steps[-1].plus(step)
        else:
            self._steps.append(step)

    def _begin(self, at: float) -> float:
        return self._started_at + math.floor((at - self._started_at) / self.step_seconds + 1e-9) * self.step_seconds
