"""When a warm horse is replaced, and when a breach in it is its own fault. Pure.

What a job type keeps after its first run in a horse is mostly what it imported, and belongs to the
baseline; what later runs add is a leak or fragmentation. A job's ceiling counts all that its horse holds. So a job
begins only where that, and what its type is known to need, fits below its own ceiling; where the type is not known
yet, in a horse that is as good as new.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from rqmem.policy.needs import Known
from rqmem.units import MB, show_mb, to_mb
from rqmem.values import dataclass, field

KEPT_BYTES = 64 * MB
KEPT_FRACTION = 0.2  # of the ceiling
CROWDED_FRACTION = 0.5  # of the ceiling
CLEAN_FRACTION = 0.05  # of the ceiling: a horse in which others left no more is as good as a new one
_MOST_NAMED = 100  # types that may be leased, where others may not
NEED_MARGIN = 1.25  # a run may need more than those before it


@dataclass(frozen=True)
class HorseState:
    """What has happened in a horse.

    Attributes:
        kept_bytes: what it holds beyond what it held when it was forked.
        baseline_bytes: the part of that which first runs of job types left.
        kept_by: the same by job type.
        threads: the most it had after a job.
        threads_by: how many more of them after runs of each job type.
    """

    kept_bytes: int = 0
    baseline_bytes: int = 0
    kept_by: Mapping[str, int] = field(default_factory=dict)
    jobs: int = 0
    threads: int = 1
    threads_by: Mapping[str, int] = field(default_factory=dict)

    def has_run(self, job: str) -> bool:
        return job in self.kept_by


@dataclass(frozen=True)
class AfterJob:
    """What the horse is like after a job: what it keeps, how many threads it has, what the job changed.

    ``outside_bytes``: what its cgroup is charged for and no process holds, such as files in tmpfs. ``jobs``: how many
    it was; of a lease, whose last one was ``job``.
    """

    job: str
    kept_bytes: int
    threads: int = 1
    changed: str = ""
    outside_bytes: int = 0
    jobs: int = 1


@dataclass(frozen=True)
class Fit:
    """A horse before a job, in bytes.

    Attributes:
        held_bytes: what it holds in all.
        left_bytes: the part that jobs before have left; not what the type's own first run here left.
        need_bytes: what the job is known to take beyond that; None: nothing is known.
    """

    held_bytes: int
    left_bytes: int = 0
    need_bytes: int | None = None


def fit(state: HorseState, job: str, known: Known, idle_bytes: int) -> Fit:
    """How a job of this type would fit into a horse that held ``idle_bytes`` when it was forked."""
    own = state.kept_by.get(job, 0)
    need = known.first_bytes
    if state.has_run(job):
        need = known.again_bytes if known.again_bytes is not None else need and max(0, need - own)
    return Fit(idle_bytes + state.kept_bytes, max(0, state.kept_bytes - own), need)


def crowded(before: Fit, ceiling_bytes: int) -> str:
    """Why a job with this ceiling should run in a new horse; empty: it may run in this one."""
    if before.left_bytes <= CLEAN_FRACTION * ceiling_bytes:
        return ""
    left = f"others had left {show_mb(to_mb(before.left_bytes))} MB in it"
    limit = f"its ceiling of {show_mb(to_mb(ceiling_bytes))} MB"
    if before.left_bytes > CROWDED_FRACTION * ceiling_bytes:
        return f"{left}, more than half of {limit} (imports, most likely: --preload shares them)"
    if before.need_bytes is None:
        return f"{left}, and what such a job needs is not known yet"
    if before.held_bytes + NEED_MARGIN * before.need_bytes > ceiling_bytes:
        need = show_mb(to_mb(before.need_bytes))
        return f"{left}, and with the {need} MB that such a job needs that may be more than {limit}"
    return ""


def not_crowded(state: HorseState, ceiling_of: Callable[[str], int]) -> list[str] | None:
    """The job types for which others have left next to nothing in the horse; None: that holds for all it has run."""
    clean = [
        job
        for job, own_bytes in state.kept_by.items()
        if state.kept_bytes - own_bytes <= CLEAN_FRACTION * ceiling_of(job)
    ]
    return None if len(clean) == len(state.kept_by) else clean[:_MOST_NAMED]


def is_horses_fault(left_bytes: int, used_bytes: int, ceiling_bytes: int) -> bool:
    """Whether a job that used this would have fitted into a new horse."""
    return left_bytes > CLEAN_FRACTION * ceiling_bytes and used_bytes - left_bytes <= ceiling_bytes


def decide(
    state: HorseState, after: AfterJob, ceiling_bytes: int, max_jobs: int, threads_allowed: int = 0
) -> tuple[str, HorseState]:
    """Why to replace the horse (empty: keep it), and its state after this job.

    Args:
        max_jobs: how many jobs it may run; 0: any number.
        threads_allowed: how many threads runs of this type may leave in it after the first, whose are its baseline.
    """
    baseline, kept_by, threads_by = state.baseline_bytes, dict(state.kept_by), dict(state.threads_by)
    first = not state.has_run(after.job) and after.jobs > 0
    if first:
        kept_by[after.job] = max(0, after.kept_bytes - state.kept_bytes)
        baseline = max(baseline, after.kept_bytes)
    more_threads = max(0, after.threads - state.threads)
    if more_threads:
        threads_by[after.job] = threads_by.get(after.job, 0) + more_threads
    new = HorseState(
        kept_bytes=after.kept_bytes,
        baseline_bytes=baseline,
        kept_by=kept_by,
        jobs=state.jobs + after.jobs,
        threads=state.threads + more_threads,
        threads_by=threads_by,
    )
    leaked = after.kept_bytes - baseline
    if more_threads and not first and threads_by[after.job] > threads_allowed:
        threads = "1 more thread" if more_threads == 1 else f"{more_threads} more threads"
        return f"{after.job} left {threads} running than its runs before", new
    if after.changed:
        return f"{after.job} left its process changed: {after.changed}", new
    if leaked >= min(KEPT_BYTES, KEPT_FRACTION * ceiling_bytes):
        return f"it holds {to_mb(leaked)} MB more than after the first job of each type", new
    if after.outside_bytes >= min(KEPT_BYTES, KEPT_FRACTION * ceiling_bytes):
        return f"its cgroup is charged {to_mb(after.outside_bytes)} MB for tmpfs and the kernel's memory", new
    if max_jobs and new.jobs >= max_jobs:
        return f"it has run {new.jobs} jobs", new
    return "", new
