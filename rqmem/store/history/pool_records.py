"""The records of machines and pools: what memory there is, and which jobs have it. No I/O."""

from __future__ import annotations

from rqmem.values import dataclass


@dataclass(frozen=True)
class HostMemory:
    """The memory of a machine, as one of its workers read it. Sizes in MB.

    Attributes:
        at: epoch seconds.
        total_mb, available_mb: of the machine, as the kernel has it.
        container_limit_mb: the limit on the worker's own cgroup, or on one above it; None: there is none.
        some_percentage, full_percentage: of the last ten seconds in which some process, or all, waited for memory
            (the kernel's PSI); None: the kernel does not tell.
    """

    host: str
    at: float
    total_mb: float
    available_mb: float
    container_limit_mb: float | None = None
    some_percentage: float | None = None
    full_percentage: float | None = None


@dataclass(frozen=True)
class PoolJob:
    """A job that has a part of its pool's budget. Sizes in MB.

    Attributes:
        reserved_mb: what its type is known to need, or its ceiling; ``usage_mb``: what it uses.
        started_at: when it was given its part, epoch seconds.
        limit_mb: its ceiling.
        tenant: for whom it works; empty: that was not said.
    """

    worker: str
    job_id: str
    job: str
    reserved_mb: float
    usage_mb: float
    started_at: float
    limit_mb: float = 0.0
    tenant: str = ""


@dataclass(frozen=True)
class PoolWait:
    """A job that a pool has refused, and that is in its queue again. ``since``: when it was first refused.

    Attributes:
        need_mb: what would be reserved for it.
        why: for what it waits: ``"room"`` in the budget, ``"kept"``: room that is kept for one that has waited longer,
            its ``"tenant"``, a ``"paused"`` pool, or a ``"worker"``. ``reason``: the same in words.
    """

    job_id: str
    job: str
    need_mb: float
    since: float
    why: str
    reason: str
    tenant: str = ""


@dataclass(frozen=True)
class PoolIncident:
    """Something that a pool did for want of memory.

    Attributes:
        at: epoch seconds.
        what: ``"paused"``, ``"resumed"`` or ``"evicted"``.
        reason: in words; of ``"resumed"``: why it had been paused.
        job_id, job: that was evicted; ``usage_mb``: what it used then.
    """

    at: float
    what: str
    reason: str
    job_id: str = ""
    job: str = ""
    usage_mb: float | None = None


@dataclass(frozen=True)
class PoolTenant:
    """What the jobs of one tenant have of a pool's budget, and how many of them wait. Sizes in MB."""

    tenant: str
    reserved_mb: float
    usage_mb: float
    waiting: int = 0


@dataclass(frozen=True)
class PoolRecord:
    """The budget of a pool, as one of its workers read it. Sizes in MB, times in epoch seconds.

    Attributes:
        workers: how many there are; ``least_workers``, ``most_workers``: between which numbers the pool chooses.
        budget_mb: what all its jobs may use together; ``reserved_mb``, ``usage_mb``: what they have reserved, and use.
        held_mb: what the horses of idle workers hold.
        waiting: how many jobs wait for room; ``waiting_since``: since when the first one does; None: none does.
        paused: why it takes no jobs; empty: it takes them. ``paused_since``: since when.
        evictions: how many jobs it has evicted since it began; ``pauses``: how often it took none.
        jobs: those that run, in the order of the workers.
        waits: the first of those that wait, the longest first.
        incidents: the last pauses and evictions, oldest first.
        tenant_ceiling_mb: what the jobs of one tenant may use together; None: as all.
        tenants: those who have jobs that run or wait, by name.
    """

    pool: str
    host: str
    at: float
    workers: int
    least_workers: int
    most_workers: int
    budget_mb: float
    reserved_mb: float
    usage_mb: float
    held_mb: float = 0.0
    waiting: int = 0
    waiting_since: float | None = None
    paused: str = ""
    paused_since: float | None = None
    evictions: int = 0
    pauses: int = 0
    jobs: tuple[PoolJob, ...] = ()
    waits: tuple[PoolWait, ...] = ()
    incidents: tuple[PoolIncident, ...] = ()
    tenant_ceiling_mb: float | None = None
    tenants: tuple[PoolTenant, ...] = ()
