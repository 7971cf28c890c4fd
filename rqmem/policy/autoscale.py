"""How many workers a pool runs, by how long jobs wait. Pure.

More workers come when jobs wait longer than `WAIT_SECONDS`, at most twice as many at once; not while memory is what
jobs wait for. Fewer come when a worker has had nothing to do for `IDLE_SECONDS`, one after another.

Times in seconds on any one clock.
"""

from __future__ import annotations

import math

from rqmem.values import dataclass

WAIT_SECONDS = 5.0
PAUSE_SECONDS = 5.0
IDLE_SECONDS = 60.0


@dataclass(frozen=True)
class Queued:
    """What waits in the queues of a pool.

    Attributes:
        oldest_seconds: how long the job has waited that is next to run; 0: none waits.
        job_seconds: what a job has taken so far, on average; 0: not known.
    """

    jobs: int = 0
    oldest_seconds: float = 0.0
    job_seconds: float = 0.0


@dataclass(frozen=True)
class Scale:
    """How many workers there are to be.

    Attributes:
        changed_at: since when there are that many.
        idle_since: since when a worker has been idle all the time; None: none has.
    """

    workers: int
    changed_at: float = float("-inf")
    idle_since: float | None = None


def expected_wait_seconds(jobs: int, job_seconds: float, workers: int) -> float:
    """How long a job waits that is enqueued now, if all go on as they have so far; 0 where that is not known."""
    return jobs * job_seconds / workers if workers > 0 else 0.0


def rescaled(scale: Scale, least: int, most: int, queued: Queued, idle: int, *, short: bool, now: float) -> Scale:
    """How many there are to be from now on.

    ``idle``: workers that run nothing; ``short``: jobs wait for memory, which more workers would not give them.
    """
    idle_since = (scale.idle_since if scale.idle_since is not None else now) if idle else None
    scale = Scale(min(most, max(least, scale.workers)), scale.changed_at, idle_since)
    if now - scale.changed_at < PAUSE_SECONDS:
        return scale
    wait = max(queued.oldest_seconds, expected_wait_seconds(queued.jobs, queued.job_seconds, scale.workers))
    if queued.jobs and not idle and not short and wait > WAIT_SECONDS and scale.workers < most:
        wanted = math.ceil(scale.workers * wait / WAIT_SECONDS)
        more = min(wanted, 2 * scale.workers, scale.workers + queued.jobs, most)
        return Scale(max(more, scale.workers + 1), now, idle_since)
    if idle_since is not None and now - idle_since >= IDLE_SECONDS and scale.workers > least:
        return Scale(scale.workers - 1, now, now)
    return scale
