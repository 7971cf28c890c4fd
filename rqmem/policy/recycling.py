"""When a warm horse is replaced. Pure.

What a job type keeps after its first run in a horse is mostly what it imported, and belongs to the
baseline; what later runs add is a leak or fragmentation. What other job types imported must not leave a job
less than half of its ceiling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from rqmem.units import MB, to_mb

KEPT_BYTES = 64 * MB
KEPT_FRACTION = 0.2  # of the ceiling
CROWDED_FRACTION = 0.5  # of the ceiling


@dataclass(frozen=True)
class HorseState:
    """A horse's past.

    Attributes:
        kept_bytes: what it holds beyond what it held when it was forked.
        baseline_bytes: the part of that which first runs of job types left.
        kept_by: the same by job type.
        jobs: how many it has run.
    """

    kept_bytes: int = 0
    baseline_bytes: int = 0
    kept_by: Mapping[str, int] = field(default_factory=dict)
    jobs: int = 0


@dataclass(frozen=True)
class AfterJob:
    """What the horse is like after a job: what it keeps, how many threads the job left running, what it changed.

    ``outside_bytes``: what its cgroup is charged for and no process holds, such as files in tmpfs.
    """

    job: str
    kept_bytes: int
    threads_left: int = 0
    changed: str = ""
    outside_bytes: int = 0


def crowded(state: HorseState, job: str, ceiling_bytes: int) -> str:
    """Why a job of this type had better run in a new horse; empty: it may run in this one."""
    others = state.kept_bytes - state.kept_by.get(job, 0)
    if others <= CROWDED_FRACTION * ceiling_bytes:
        return ""
    return (
        f"other jobs left {to_mb(others)} MB in it, more than half of the ceiling "
        f"(imports, most likely: --preload shares them)"
    )


def decide(state: HorseState, after: AfterJob, ceiling_bytes: int, max_jobs: int) -> tuple[str, HorseState]:
    """Why the horse is to be replaced (empty: it is kept), and its state after this job.

    ``max_jobs`` is how many jobs it may run; 0: any number.
    """
    baseline, kept_by = state.baseline_bytes, dict(state.kept_by)
    if after.job not in kept_by:
        kept_by[after.job] = max(0, after.kept_bytes - state.kept_bytes)
        baseline = max(baseline, after.kept_bytes)
    new = replace(state, kept_bytes=after.kept_bytes, baseline_bytes=baseline, kept_by=kept_by, jobs=state.jobs + 1)
    leaked = after.kept_bytes - baseline
    if after.threads_left > 0:
        return f"{after.job} left {after.threads_left} threads running", new
    if after.changed:
        return f"{after.job} left its process changed: {after.changed}", new
    if leaked >= min(KEPT_BYTES, KEPT_FRACTION * ceiling_bytes):
        return f"it holds {to_mb(leaked)} MB more than after the first job of each type", new
    if after.outside_bytes >= min(KEPT_BYTES, KEPT_FRACTION * ceiling_bytes):
        return f"its cgroup is charged {to_mb(after.outside_bytes)} MB for tmpfs and the kernel's memory", new
    if max_jobs and new.jobs >= max_jobs:
        return f"it has run {new.jobs} jobs", new
    return "", new
