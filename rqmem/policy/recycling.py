"""When a warm horse is replaced. Pure.

What a job type keeps after its first run in a horse is mostly what it imported, and belongs to the
baseline; what later runs add is a leak or fragmentation.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from rqmem.units import MB, to_mb

KEPT_BYTES = 64 * MB
KEPT_FRACTION = 0.2  # of the ceiling


@dataclass(frozen=True)
class HorseState:
    """A horse's past: what it holds between jobs, which job types it has run, how many jobs."""

    baseline_bytes: int = 0
    seen: frozenset[str] = frozenset()
    jobs: int = 0


@dataclass(frozen=True)
class AfterJob:
    """What the horse is like after a job: what it holds, and how many threads the job left running."""

    job: str
    held_bytes: int
    threads_left: int = 0


def decide(state: HorseState, after: AfterJob, ceiling_bytes: int, max_jobs: int) -> tuple[str, HorseState]:
    """Why the horse is to be replaced (empty: it is kept), and its state after this job.

    ``max_jobs`` is how many jobs it may run; 0: any number.
    """
    first_run = after.job not in state.seen
    baseline = max(state.baseline_bytes, after.held_bytes) if first_run else state.baseline_bytes
    new = replace(state, baseline_bytes=baseline, seen=state.seen | {after.job}, jobs=state.jobs + 1)
    kept = after.held_bytes - baseline
    if after.threads_left > 0:
        return f"{after.job} left {after.threads_left} threads running", new
    if kept >= min(KEPT_BYTES, KEPT_FRACTION * ceiling_bytes):
        return f"it holds {to_mb(kept)} MB more than after the first job of each type", new
    if max_jobs and new.jobs >= max_jobs:
        return f"it has run {new.jobs} jobs", new
    return "", new
