"""When a worker leases jobs to its horse, how many at once, and when it takes them back. Pure.

A lease pays for short jobs, and only if more of them wait. Every job that others could run meanwhile is held back while
the one before it runs; so a batch is kept short in time, and a job that turns long has the rest taken back.
"""

from __future__ import annotations

from typing import NamedTuple

from rqmem.values import dataclass

K_MAX = 64
A_HORSE_EACH = "each job has a horse of its own"
LEASE_SECONDS = 1.0
"""A lease takes no further jobs after this time."""

SHOWN_SECONDS = 0.010
"""A job that has run for this time is shown as running."""

LONG_SECONDS, LONG_CPU_SECONDS = 0.050, 0.010
_SHORT_SECONDS = 0.020
_FIRST_K = 4
_FEWEST_SUCCESSES = _FEWEST_WAITING = 2


@dataclass(frozen=True)
class Way:
    """How a worker was started, as far as leases need to know.

    Attributes:
        forks: a horse per job.
        strategy: RQ's name of the order in which it takes from several queues.
        own_parts: what is not RQ's own: classes of jobs and queues, the serializer, the death penalty.
        own_hooks: methods of a subclass that RQ calls for each job and a lease does not.
    """

    lease_max: int = K_MAX
    forks: bool = False
    profiles: bool = False
    strategy: str = "default"
    own_parts: tuple[str, ...] = ()
    own_hooks: tuple[str, ...] = ()


class History(NamedTuple):
    """What a worker has seen of its jobs.

    Attributes:
        short: short successes without a lease, in a row.
        k: how many jobs the next batch may have.
    """

    short: int = 0
    k: int = _FIRST_K


def why_never(way: Way) -> str:
    """Why a worker that was started in this way never leases; empty if it may."""
    reasons = (
        (way.lease_max < 1, "--lease-max is 0"),
        (way.forks, A_HORSE_EACH),
        (way.profiles, "runs are profiled"),
        (way.strategy != "default", f"the order of the queues is {way.strategy}"),
        (bool(way.own_parts), f"not RQ's own: {', '.join(way.own_parts)}"),
        (bool(way.own_hooks), f"overridden: {', '.join(way.own_hooks)}"),
    )
    return next((reason for applies, reason in reasons if applies), "")


def shown(why_never: str) -> str:
    """For people and displays: ``on``, or ``off`` and why."""
    return f"off: {why_never}" if why_never else "on"


def may_lease(history: History, waiting: int) -> bool:
    """Whether to lease now. ``waiting``: jobs in the queue from which the last one came."""
    return history.short >= _FEWEST_SUCCESSES and waiting >= _FEWEST_WAITING


def may_wait(history: History) -> bool:
    """Whether an idle horse is to wait for jobs by itself: the next one is likely to be as short as those before."""
    return history.short >= _FEWEST_SUCCESSES


def next_k(history: History, k_max: int, left: int | None = None) -> int:
    """How many jobs to take, at least 1. ``left``: jobs until the horse or the worker ends; None: no limit."""
    return max(1, min(history.k, k_max, k_max if left is None else left))


def after_plain(history: History, seconds: float, *, succeeded: bool) -> History:
    return history._replace(short=history.short + 1 if succeeded and seconds < _SHORT_SECONDS else 0)


def after_batch(history: History, jobs: int, seconds: float) -> History:
    """After ``jobs`` of a lease that took this time together: the next batch takes a similar time, some 20 ms."""
    k = history.k
    if seconds > 2 * _SHORT_SECONDS:
        k = max(1, min(k, jobs) // 2)
    elif seconds < _SHORT_SECONDS and jobs >= k:
        k = min(2 * k, K_MAX)
    return history._replace(k=k)


def after_recall() -> History:
    """After a job of a lease turned long: jobs must prove to be short again."""
    return History(short=0, k=1)


def turned_long(seconds: float, cpu_seconds: float, *, runnable: bool) -> bool:
    """Whether to take back what the running job holds up, by the time that it has taken and used.

    ``runnable``: its process could use a processor. On a crowded machine a short job takes long, too.
    """
    return seconds >= LONG_SECONDS and (cpu_seconds >= LONG_CPU_SECONDS or not runnable)
