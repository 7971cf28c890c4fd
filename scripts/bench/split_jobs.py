"""The job that `scripts.bench.splits` measures: it splits into children of one item each, and gathers their sum."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from rq import get_current_job
from rq.job import Job

from rqmem import MemoryAwareJob
from rqmem.job.gather import Gathered
from rqmem.sources import Source
from scripts.bench.measuring import forget_peak, peak_mb, resident_mb
from scripts.bench.worker_runs import QUEUE

FIRST_CHILD = "bench:first-child-at"
"""String: when the first child began, in s since 1970."""
_NOTES = "bench"


@dataclass(frozen=True)
class Phases:
    """What one job measured of itself. ``growth_mb``: by how much its peak grew while it split. ``total``: its sum."""

    total: int
    split_seconds: float
    run_seconds: float
    gather_seconds: float
    growth_mb: float


class SumUp(MemoryAwareJob):
    """Sums the numbers below ``numbers``, each by a child."""

    queue = QUEUE
    memory_limit_mb = 256
    job_timeout = 6 * 3600

    def handle(self, numbers: int, items: Source[int] | None = None) -> int | None:
        if items is None:
            self.split(numbers)
            return None
        total = 0
        for chunk in self.chunks(items):
            if chunk[0] == 0:
                this_job().connection.set(FIRST_CHILD, time.time())
            total += sum(chunk)
        return total

    def split(self, numbers: int) -> None:
        forget_peak()
        before, began = resident_mb(), time.perf_counter()
        self.split_into_child_jobs(range(numbers), items_per_child=1)
        job = this_job()
        job.meta[_NOTES] = {
            "split_seconds": time.perf_counter() - began,
            "growth_mb": peak_mb() - before,
        }
        job.save_meta()

    def gather(self, results: Gathered) -> Phases:
        job, began = this_job(), time.perf_counter()
        first_child_at: Any = job.connection.get(FIRST_CHILD)
        run_seconds = time.time() - float(first_child_at)
        total = sum(results)
        return Phases(
            total=total,
            run_seconds=run_seconds,
            gather_seconds=time.perf_counter() - began,
            **job.meta[_NOTES],
        )


def this_job() -> Job:
    job = get_current_job()
    assert job is not None
    return job
