"""When a pool takes no jobs for want of memory, and which running job it ends then. Pure.

First the intake is closed; what runs may end. Jobs are evicted when that is not enough: when all together are above the
budget, when the machine or the container has next to nothing left, or when processes go on waiting for memory.

Sizes in bytes, times in seconds on any one clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from rqmem.units import MB
from rqmem.values import dataclass

STALLED, STALLED_NO_MORE = 0.10, 0.02
"""Share of time in which all processes waited for memory: from the first on no job starts, below the second again."""

STALLED_SECONDS = 10.0
"""A job is evicted after a stall of this length, and another one each time it has lasted that long again."""

LEAST_BYTES = 32 * MB
FRACTION = 0.05
EVICTED_BELOW, KILLED_BELOW = 3 / 4, 1 / 3
"""Parts of the margin: a job has to go when less is left; below the second at once. A neighbour that takes 100 MB a
second uses up the last third of 32 MB in 0.1 s, and the end of a job takes about that long."""

REACTION_SECONDS = 0.5
"""From a reading until a job that is told to go has given its memory back, on a busy machine."""

FEWEST_SECONDS = 0.2
"""What is taken in less than this says nothing of how fast others grow."""

GRACE_SECONDS = 2.0
"""How long a job may take to save when there is nothing left. Then it is killed."""


class How(Enum):
    STOP = 1
    KILL = 2


@dataclass(frozen=True)
class HostReading:
    """What the machine, or the container, has.

    Attributes:
        stalled: share of the last seconds in which all processes waited for memory.
        taken_per_second: how fast others than the pool's jobs take memory, in bytes.
    """

    free_bytes: int
    total_bytes: int
    stalled: float = 0.0
    taken_per_second: float = 0.0

    @property
    def soon_free_bytes(self) -> int:
        """What is left when a decision of now has its effect, if others go on as they do."""
        return self.free_bytes - int(self.taken_per_second * REACTION_SECONDS)

    @property
    def margin_bytes(self) -> int:
        """Less than this is next to nothing."""
        return int(max(min(LEAST_BYTES, self.total_bytes // 4), FRACTION * self.total_bytes))


@dataclass(frozen=True)
class Running:
    """A job that runs.

    Attributes:
        tenant: for whom it works; empty: that was not said.
        used_bytes, reserved_bytes: what it uses, and what it is expected to.
        since: when it began.
        resumable: it can continue later, from its last chunk.
        has_retry: RQ runs it again if it fails.
        evictions: how often it was evicted before.
        how: in which way it was asked to end; None: it was not. ``told_at``: when that was.
    """

    number: int
    used_bytes: int
    reserved_bytes: int
    since: float
    resumable: bool = False
    has_retry: bool = False
    evictions: int = 0
    how: How | None = None
    told_at: float = 0.0
    tenant: str = ""


@dataclass(frozen=True)
class Eviction:
    number: int
    how: How
    reason: str


def why_closed(host: HostReading | None, was_closed: bool) -> str:
    """Why no job may start; empty: one may. What has closed the intake must be clearly over before it opens."""
    if host is None:
        return ""
    if host.stalled >= (STALLED_NO_MORE if was_closed else STALLED):
        return f"processes wait for memory {host.stalled:.0%} of the time"
    if host.soon_free_bytes < (1.5 if was_closed else 1.0) * host.margin_bytes:
        return _little_left(host)
    return ""


def evict(
    running: Sequence[Running], budget_bytes: int, reserve_bytes: int, host: HostReading | None,
    stalled_since: float | None, now: float, whose: str = "the jobs of the pool",
) -> list[Eviction]:  # fmt: skip
    """Which jobs to evict now, besides those that go already, and which of those to kill.

    A job that is alone keeps to the budget by its ceiling. It goes only if the machine has nothing left.
    While that is only foreseen, since others grow, none goes that cannot continue later.

    Args:
        reserve_bytes: by how much they may be above it while one saves what it has.
        host: what is left elsewhere; None: nobody can tell.
        stalled_since: since when processes have waited for memory; None: they do not.
        whose: what to call all of them in the reason.
    """
    used = sum(each.used_bytes for each in running)
    above = used - budget_bytes if len(running) > 1 else 0
    least = int(EVICTED_BELOW * host.margin_bytes) if host is not None else 0
    short = least - host.soon_free_bytes if host is not None else 0
    stalls = stalled_since is not None and now - stalled_since >= STALLED_SECONDS
    if above <= 0 and short <= 0 and not stalls:
        return []
    if above > 0 and above >= short:
        reason = f"{whose} use {_mb(used)} MB of {_mb(budget_bytes)}"
    elif short > 0 and host is not None:
        reason = _little_left(host)
    else:
        reason = "processes wait for memory"
    urgent = above > reserve_bytes // 2 or (host is not None and host.free_bytes < KILLED_BELOW * host.margin_bytes)
    found, missing, left = [], max(above, short, 1), len(running)
    for each in running:
        if each.how is not None:
            left -= 1
            missing -= each.used_bytes
            if each.how is How.STOP and (urgent or now - each.told_at >= GRACE_SECONDS):
                found.append(Eviction(each.number, How.KILL, reason))
    if stalls and above <= 0 and short <= 0 and left < len(running):
        return found
    only_foreseen = above <= 0 and not stalls and host is not None and host.free_bytes >= least
    candidates = [each for each in running if each.how is None and (each.resumable or not only_foreseen)]
    for each in sorted(candidates, key=_order):
        if missing <= 0 or (left <= 1 and short <= 0):
            break
        how = How.STOP if each.resumable and not urgent else How.KILL
        found.append(Eviction(each.number, how, reason))
        missing -= each.used_bytes
        left -= 1
    return found


def _order(job: Running) -> tuple[int, float, float]:
    """Who goes first: jobs that can continue, the youngest first; those with a Retry; those furthest above their need.

    A job that was evicted before goes after others of its kind, so that it is not always the same one.
    """
    if job.resumable:
        return 0, job.evictions, -job.since
    if job.has_retry:
        return 1, job.evictions, -job.since
    return 2, 0, job.reserved_bytes - job.used_bytes


def taken_by_others(before: tuple[float, int, int], now: tuple[float, int, int]) -> float:
    """How fast others than the pool's jobs take memory, in bytes a second, by two looks at it.

    What a job has given back meanwhile is not counted: the free memory may have shown it before the job said so.

    Args:
        before, now: when it was, what was free then, and what the jobs used.
    """
    seconds = now[0] - before[0]
    if seconds < FEWEST_SECONDS:
        return 0.0
    return max(0.0, (before[1] - now[1] - max(0, now[2] - before[2])) / seconds)


def _little_left(host: HostReading) -> str:
    growing = host.taken_per_second * REACTION_SECONDS
    others = f", and others take {_mb(host.taken_per_second)} MB a second" if growing >= MB else ""
    return f"only {_mb(host.free_bytes)} MB of memory are left of {_mb(host.total_bytes)}{others}"


def _mb(size_bytes: float) -> str:
    return f"{max(0.0, size_bytes) / MB:.0f}"
