"""What a pool tells of itself: its parent writes into the table who waits, and what it did; a worker reads all of it.

The parent has no connection to Redis that it may wait for, so one of the workers passes it on (`Member.record`).
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from collections.abc import Mapping

from rqmem.policy.admission import Room, Waiting, WaitingJobs, Why
from rqmem.store import codec
from rqmem.store.history.pool_records import PoolIncident, PoolJob, PoolRecord, PoolTenant, PoolWait
from rqmem.units import show_mb, to_mb
from rqmem.values import dataclass, field
from rqmem.worker.pool.budget_table import TOLD_BYTES, BudgetTable

_MOST_WAITS, _MOST_INCIDENTS, _MOST_TENANTS = 20, 20, 20
_PAUSE_SECONDS = 0.5


@dataclass(frozen=True)
class PoolTold:
    """What the table has for displays. ``waiting_of``: tenant -> how many jobs of it wait."""

    waits: tuple[PoolWait, ...] = ()
    incidents: tuple[PoolIncident, ...] = ()
    waiting_of: dict[str, int] = field(default_factory=dict)


class Telling:
    """The parent's side, of one table."""

    def __init__(self, table: BudgetTable) -> None:
        self._table = table
        self._incidents: deque[PoolIncident] = deque(maxlen=_MOST_INCIDENTS)
        self._types: dict[str, str] = {}  # id of a job that was refused -> its type
        self._next_at = float("-inf")
        self._written = b""

    def happened(self, incident: PoolIncident) -> None:
        """The pool has done something for want of memory."""
        self._incidents.append(incident)
        self._next_at = float("-inf")

    def refused(self, job_id: str, job_type: str) -> None:
        """A job was, and is about to be among those that wait."""
        self._types[job_id] = job_type

    def write(self, waiting: WaitingJobs, held_back: Mapping[str, Why], room: Room, now: float) -> None:
        """Write what has changed, at most every half second. ``held_back``: those that may not start, and why."""
        if now < self._next_at:
            return
        self._next_at = now + _PAUSE_SECONDS
        self._types = {each.job_id: self._types.get(each.job_id, "") for each in waiting}
        ago = time.time() - now
        closed = bool(self._table.header.closed)
        waits = [
            PoolWait(
                each.job_id, self._types[each.job_id], to_mb(each.need_bytes), round(ago + each.since, 3),
                *_reason(each, None if closed else held_back.get(each.job_id), room, closed=closed), each.tenant,
            )
            for each in waiting[:_MOST_WAITS]
        ]  # fmt: skip
        tenants = Counter(each.tenant for each in waiting if each.tenant)
        told = PoolTold(tuple(waits), tuple(self._incidents), dict(tenants.most_common(_MOST_TENANTS)))
        text = codec.to_json(told).encode()
        while len(text) >= TOLD_BYTES:
            waiting_of = dict(list(told.waiting_of.items())[: None if told.waits or told.incidents else -1])
            told = PoolTold(told.waits[:-1], told.incidents[1 if not told.waits else 0 :], waiting_of)
            text = codec.to_json(told).encode()
        if text != self._written:
            self._written = text
            with self._table.changing() as header:
                header.told = text


def _reason(job: Waiting, why: Why | None, room: Room, *, closed: bool) -> tuple[str, str]:
    """For what a job waits, as `PoolWait` has it, and in words."""
    if closed:
        return "paused", "the pool takes no jobs"
    if why is Why.TENANT:
        used = room.charged_to.get(job.tenant, 0)
        return why.value, f"jobs of {job.tenant} have {_mb(used)} of {_mb(room.tenant_bytes or 0)} MB"
    if why is Why.KEPT:
        return why.value, "room is kept for a job that has waited longer"
    if why is Why.ROOM:
        return why.value, f"{_mb(max(0, room.free_bytes))} MB are free"
    return "worker", "there is room, and no idle worker"


def _mb(size_bytes: int) -> str:
    return show_mb(round(to_mb(size_bytes)))


def record_of(table: BudgetTable, teller: str, now: float) -> PoolRecord:
    """The table as others are told of it. ``teller``: a worker of the pool, whose name is as those of the others."""
    header, names = table.header, teller.rpartition("-")[0]
    running = [(number, row) for number, row in enumerate(table.rows, 1) if row.runs]
    jobs = tuple(
        PoolJob(
            f"{names}-{number}", row.text("job_id"), row.text("job_type"), to_mb(row.reserved_bytes),
            to_mb(row.used_bytes), row.since, to_mb(row.ceiling_bytes), row.text("tenant"),
        )
        for number, row in running
    )  # fmt: skip
    text = table.told()
    told = codec.from_json(PoolTold, text) if text else PoolTold()
    return PoolRecord(
        pool=header.name.decode("utf-8", "replace"), host=os.uname().nodename, at=now,
        workers=sum(bool(row.pid) for row in table.rows),
        least_workers=header.least_workers, most_workers=header.most_workers, budget_mb=to_mb(header.budget_bytes),
        reserved_mb=to_mb(sum(row.reserved_bytes for _, row in running)),
        usage_mb=to_mb(sum(row.used_bytes for _, row in running)),
        held_mb=to_mb(sum(row.used_bytes for row in table.rows if not row.runs)),
        waiting=header.waiting, waiting_since=header.waiting_since or None,
        paused=header.reason.decode("utf-8", "replace") if header.closed else "",
        paused_since=header.closed_since or None, evictions=header.evictions, pauses=header.pauses, jobs=jobs,
        waits=told.waits, incidents=told.incidents,
        tenant_ceiling_mb=to_mb(header.tenant_bytes) if header.tenant_bytes else None,
        tenants=_tenants(jobs, told.waiting_of),
    )  # fmt: skip


def _tenants(jobs: tuple[PoolJob, ...], waiting_of: Mapping[str, int]) -> tuple[PoolTenant, ...]:
    names = sorted({each.tenant for each in jobs if each.tenant}.union(waiting_of))
    return tuple(
        PoolTenant(
            name,
            sum(each.reserved_mb for each in jobs if each.tenant == name),
            sum(each.usage_mb for each in jobs if each.tenant == name),
            waiting_of.get(name, 0),
        )
        for name in names
    )
