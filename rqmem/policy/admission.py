"""Whether a job may start in a pool, from what it is expected to need and what is left of the budget. Pure.

A job starts when it fits. One that does not waits at the front of its queue, and others pass it for
`PATIENCE_SECONDS`. After that, room is kept for the one that has waited longest: nothing starts that would take it.
So the sum of what jobs have reserved never exceeds the budget, but for a job that runs alone, and a job that waits
starts once those that run then have ended, and those that wait longer have had their turn.

A job that runs alone may be given more than the machine has left just now: what it needs may be only its ceiling, which
few jobs reach. Not so one whose need is known: it would meet the kernel's OOM killer. It waits for
`NEIGHBOUR_SECONDS`, should a neighbour give back what it has taken. Meanwhile others pass it.

Where each tenant has a ceiling, a job also has to fit into what its tenant has left. For one that waits only for its
own tenant, no room is kept from others; among the jobs of its tenant the same rules hold as among all.

Sizes in bytes, times in seconds on any one clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import cached_property

from rqmem.policy.histogram import percentile, summed
from rqmem.policy.recommendation import FEWEST_RUNS, Confidence, TypeHistory
from rqmem.values import dataclass

PATIENCE_SECONDS = 30.0
"""How long others pass a job that does not fit."""

NEIGHBOUR_SECONDS = 600.0
"""How long a job that would run alone, and whose need is known, waits for the machine to have that much."""

MOST_WAITING = 500
"""How many waiting jobs are remembered. While there are that many, jobs behind them do not pass."""

FORGET_SECONDS = 5.0
"""A job for which there is room, and that no idle worker has found after this time, is gone from its queue."""

HIGH_FRACTION = 0.99
MARGINS: dict[Confidence, float] = {"low": 1.5, "fair": 1.25, "high": 1.15}
_MOST_STOPPED = 0.01
"""The share of stopped runs from which on a history is no guide to what is enough."""


@dataclass(frozen=True)
class Need:
    """What a run is expected to use at most. ``confidence`` None: its type has too little history, or none."""

    need_mb: float
    confidence: Confidence | None = None


def need(history: TypeHistory | None, ceiling_mb: float) -> Need:
    """What to reserve for a run of a job type: a high percentile of its peaks with a margin, or its ceiling.

    The margin is larger where less is known. A type whose runs reach their ceiling is reserved it.
    """
    if history is None or not is_enough(history):
        return Need(ceiling_mb)
    high_mb = percentile(summed((day.peaks, day.weight) for day in history.days), HIGH_FRACTION)
    return Need(min(ceiling_mb, MARGINS[history.confidence] * (high_mb or ceiling_mb)), history.confidence)


def is_enough(history: TypeHistory) -> bool:
    return history.runs >= FEWEST_RUNS and history.breaches <= _MOST_STOPPED * history.runs


@dataclass(frozen=True)
class Asking:
    """A job that wants to start.

    Attributes:
        tenant: for whom it works; empty: nobody's ceiling counts but the budget.
        is_known: what it needs is known from the history of its type; else it is its ceiling.
    """

    job_id: str
    need_bytes: int
    tenant: str = ""
    is_known: bool = False


@dataclass(frozen=True)
class Share:
    """What one worker has of the budget. ``reserved_bytes``: 0 where it runs nothing; its horse may hold some still.

    ``tenant``: of the job that runs.
    """

    reserved_bytes: int = 0
    used_bytes: int = 0
    tenant: str = ""

    @property
    def charge_bytes(self) -> int:
        """What counts: a job that has outgrown its reservation counts as what it uses."""
        return max(self.reserved_bytes, self.used_bytes)


@dataclass(frozen=True)
class Room:
    """What there is at one moment.

    Attributes:
        budget_bytes: what all jobs may use together.
        shares: one for each worker.
        host_bytes: what the machine or the container has left now; None: nobody can tell.
        tenant_bytes: what the jobs of one tenant may use together; None: as all.
    """

    budget_bytes: int
    shares: Sequence[Share] = ()
    host_bytes: int | None = None
    tenant_bytes: int | None = None

    @property
    def charged_bytes(self) -> int:
        return sum(share.charge_bytes for share in self.shares)

    @cached_property
    def free_bytes(self) -> int:
        """What is left of the budget; less, where the machine has less than running jobs may still grow to."""
        free = self.budget_bytes - self.charged_bytes
        if self.host_bytes is None:
            return free
        return min(free, self.host_bytes - sum(each.charge_bytes - each.used_bytes for each in self.shares))

    @cached_property
    def is_running(self) -> bool:
        return any(share.reserved_bytes for share in self.shares)

    @cached_property
    def charged_to(self) -> Mapping[str, int]:
        """Tenant -> what counts of its jobs that run."""
        found: dict[str, int] = {}
        for share in self.shares:
            if share.reserved_bytes:
                found[share.tenant] = found.get(share.tenant, 0) + share.charge_bytes
        return found


@dataclass(frozen=True)
class Waiting(Asking):
    """A job that was refused and is in its queue again.

    Attributes:
        since: when it was first refused.
        fits_since: since when there has been room for it and an idle worker; None: there is not.
    """

    since: float = 0.0
    fits_since: float | None = None


WaitingJobs = tuple[Waiting, ...]
"""Those that wait longest come first."""


class Answer(Enum):
    START = 1
    WAIT = 2


class Why(Enum):
    ROOM = "room"
    KEPT = "kept"
    TENANT = "tenant"


class Door:
    """Who may start at one moment. It looks at those that wait once, and answers for any number of jobs then."""

    def __init__(self, room: Room, waiting: WaitingJobs, now: float) -> None:
        self._room, self._now = room, now
        self._since = {each.job_id: each.since for each in waiting}
        self._kept_of_tenant: dict[str, Waiting] = {}
        aged = [each for each in waiting if now - each.since >= PATIENCE_SECONDS]
        for each in aged if room.tenant_bytes is not None else ():
            self._kept_of_tenant.setdefault(each.tenant, each)
        self._kept = next((each for each in aged if self._fits_tenant(each) and self._could_run_alone(each)), None)

    def why_not(self, job: Asking) -> Why | None:
        """What this job has to wait for; None: it may start."""
        if not self._fits_tenant(job):
            return Why.TENANT
        kept_bytes = self._bytes_kept_from(job, self._kept)
        if job.need_bytes + kept_bytes <= self._room.free_bytes:
            return None
        if not self._room.is_running and not kept_bytes and self._could_run_alone(job):
            return None
        return Why.KEPT if kept_bytes and job.need_bytes <= self._room.free_bytes else Why.ROOM

    def _could_run_alone(self, job: Asking) -> bool:
        """Whether it could if all that runs had ended."""
        host_bytes = self._room.host_bytes
        if not job.is_known or host_bytes is None:
            return True
        running_bytes = sum(each.used_bytes for each in self._room.shares if each.reserved_bytes)
        waited = self._now - self._since.get(job.job_id, self._now)
        return job.need_bytes <= host_bytes + running_bytes or waited >= NEIGHBOUR_SECONDS

    def _fits_tenant(self, job: Asking) -> bool:
        if self._room.tenant_bytes is None or not job.tenant:
            return True
        charged = self._room.charged_to.get(job.tenant, 0)
        kept_bytes = self._bytes_kept_from(job, self._kept_of_tenant.get(job.tenant))
        return (not charged and not kept_bytes) or job.need_bytes + kept_bytes + charged <= self._room.tenant_bytes

    @staticmethod
    def _bytes_kept_from(job: Asking, kept: Waiting | None) -> int:
        return kept.need_bytes if kept is not None and kept.job_id != job.job_id else 0


def ask(job: Asking, room: Room, waiting: WaitingJobs, now: float) -> tuple[Answer, WaitingJobs]:
    """The answer to a worker that has taken this job, and who waits from now on."""
    if Door(room, waiting, now).why_not(job) is None:
        return Answer.START, without(waiting, job.job_id)
    if any(each.job_id == job.job_id for each in waiting):
        return Answer.WAIT, tuple(
            replace(each, need_bytes=job.need_bytes, is_known=job.is_known, fits_since=None)
            if each.job_id == job.job_id
            else each
            for each in waiting
        )
    if len(waiting) >= MOST_WAITING:
        return Answer.WAIT, waiting
    return Answer.WAIT, (*waiting, Waiting(job.job_id, job.need_bytes, job.tenant, job.is_known, now))


def without(waiting: WaitingJobs, job_id: str) -> WaitingJobs:
    return tuple(each for each in waiting if each.job_id != job_id)


def passed_over(room: Room, waiting: WaitingJobs, now: float) -> dict[str, Why]:
    """Those that do not fit now, with what they wait for: workers leave them in their queue."""
    door = Door(room, waiting, now)
    found = ((each.job_id, door.why_not(each)) for each in waiting)
    return {job_id: why for job_id, why in found if why is not None}


def idle_ones_are_in_the_way(room: Room, waiting: WaitingJobs, now: float) -> bool:
    """Whether a job that waits would fit if the horses of idle workers held nothing."""
    running = replace(room, shares=[each for each in room.shares if each.reserved_bytes])
    return len(passed_over(running, waiting, now)) < len(passed_over(room, waiting, now))


def tidy(room: Room, waiting: WaitingJobs, now: float, *, idle: bool) -> WaitingJobs:
    """Who still waits. ``idle``: whether a worker is free to take a job.

    A job may be cancelled, or run by another pool. Room that is kept for it would be kept for ever. One that is
    forgotten although it is there begins to wait anew.
    """
    kept, door = [], Door(room, waiting, now)
    for each in waiting:
        if not idle or door.why_not(each) is not None:
            kept.append(each if each.fits_since is None else replace(each, fits_since=None))
        elif each.fits_since is None:
            kept.append(replace(each, fits_since=now))
        elif now - each.fits_since < FORGET_SECONDS:
            kept.append(each)
    return tuple(kept)
