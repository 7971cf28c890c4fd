"""A worker's side of its pool's budget: it asks before a job starts, says what the job uses, and hears when it must go.

A worker that is in no pool may start everything. Promises: nothing in here waits for Redis while a horse is watched;
a worker that dies at any moment leaves a job in RQ's intermediate queue, from where it comes back, and its part of the
budget to the parent, who hears of its death from the kernel.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from redis import Redis
from redis.exceptions import RedisError

from rqmem import events
from rqmem.errors import JournalVersionError
from rqmem.measure import procfs
from rqmem.meta_of_jobs import TENANT
from rqmem.policy import admission
from rqmem.policy.admission import Answer, Need
from rqmem.policy.ceiling import effective_limit_mb
from rqmem.policy.pressure import How
from rqmem.policy.recommendation import TypeHistory
from rqmem.rq_names import Job, Queue, Worker
from rqmem.store.history import history_reader, learned
from rqmem.store.history.pool_records import PoolRecord
from rqmem.type_of_job import job_type, path_of
from rqmem.units import to_bytes, to_mb
from rqmem.values import dataclass
from rqmem.worker.pool.budget_table import BudgetTable, Row
from rqmem.worker.pool.telling import record_of
from rqmem.worker.worker_setup import Setup

_KNOWN_SECONDS, _LITTLE_KNOWN_SECONDS = 60.0, 5.0
_MOST_TYPES = 200
_LOOK_SECONDS = 0.2
_NEAR = 0.9  # of what is reserved: from there on a job is looked at as often as the budget needs


@dataclass(frozen=True)
class EvictionOrder:
    """The job is to go."""

    how: How
    reason: str


class Member:
    """One worker in its pool, or in none.

    Attributes:
        evicted: the order that the last job got to go; None: it got none.
        soon: has something done in the thread that may wait for Redis.
    """

    def __init__(self, worker: Worker, setup: Setup) -> None:
        self._worker = worker
        self._setup = setup
        self._table: BudgetTable | None = None
        self._number = 0
        self._row: Row = None  # type: ignore[assignment]
        self._history: dict[str, tuple[float, TypeHistory | None]] = {}
        self._needs: dict[str, Need] = {}  # of the types that this worker has asked for
        self._declared: dict[str, float] = {}
        self._with_tenants: set[str] = set()  # types whose jobs work for somebody
        self._type = ""
        self.evicted: EvictionOrder | None = None
        self.soon: Callable[[Callable[[Redis], object]], None] = lambda errand: None

    def join(self, table: BudgetTable, number: int) -> None:
        """Before `work`: this worker has row ``number`` of the table."""
        self._table, self._number, self._row = table, number, table.rows[number]
        self._row.start_time = procfs.read_start_time(os.getpid()) or 0
        self._row.pid = os.getpid()

    @property
    def budgeted(self) -> bool:
        return self._table is not None

    @property
    def table(self) -> BudgetTable | None:
        return self._table

    @property
    def number(self) -> int:
        return self._number

    @property
    def pool(self) -> str:
        """The name of its pool; empty: it is in none."""
        return self._table.header.name.decode("utf-8", "replace") if self._table is not None else ""

    def record(self, now: float) -> PoolRecord | None:
        """What the pool's budget is used for; None: another worker is to say it, or there is no pool."""
        table = self._table
        if table is None or next((row for row in table.rows if row.pid), None) is not self._row:
            return None
        return record_of(table, self._setup.name, now)

    # Between jobs

    @property
    def must_wait(self) -> bool:
        """Whether no job is to be taken now."""
        return self._table is not None and bool(self._table.header.closed)

    @property
    def others_wait(self) -> bool:
        """Whether jobs wait for room: a worker must not take from a queue what it cannot leave there."""
        return self._table is not None and bool(self._table.header.waiting)

    @property
    def gives_way(self) -> bool:
        """Whether what the idle horse here holds keeps a job of another worker from its start."""
        return self._table is not None and bool(self._table.header.give_way) and self._row.used_bytes > 0

    def passed_over(self) -> list[bytes]:
        """Ids of jobs that wait in their queues until there is room for them."""
        return self._table.passed_over() if self._table is not None else []

    def wait(self, seconds: float) -> None:
        if self._table is not None:
            self._table.wait(self._number, seconds)

    def admits(self, job: Job, queue: Queue) -> bool:
        """Whether a job that was taken may start; else the caller puts it back to the front of its queue."""
        table, row = self._table, self._row
        if table is None:
            return True
        self._type, self.evicted = job_type(job), None
        tenant = tenant_noted(job)
        if tenant is not None:
            self._with_tenants.add(self._type)
        need, ceiling_mb = self._look_up(job, tenant or "")
        row.need_bytes, row.ceiling_bytes = to_bytes(need.need_mb), to_bytes(ceiling_mb)
        row.is_known = int(need.confidence is not None)
        row.resumable, row.has_retry = 0, int(job.should_retry)
        row.set_text("job_id", job.id)
        row.set_text("job_type", self._type)
        row.set_text("queue", queue.name)
        row.set_text("tenant", tenant or "")
        row.since = time.time()
        row.asked += 1  # last: from here on the parent may answer
        table.ring()
        while row.answered != row.asked:
            if self._worker._stop_requested or self._worker._shutdown_requested_date is not None:
                self.release(row.used_bytes)
                return False
            table.wait(self._number, _LOOK_SECONDS)
        return row.answer == Answer.START.value

    def release(self, held_bytes: int, declared_bytes: int = 0) -> None:
        """The job has ended, and its horse holds this much still. ``declared_bytes``: the ceiling that it declared."""
        if self._table is None:
            return
        if declared_bytes and self._type:
            self._declared[self._type] = to_mb(declared_bytes)
        self._row.used_bytes = held_bytes
        self._row.released = self._row.asked
        self._table.ring()

    def fitting(self) -> list[str] | None:
        """Job types that need no more than what is reserved for the last job; None: all. For a lease, within it.

        Where tenants have a ceiling, each job that works for one is asked for by itself.
        """
        if self._table is None:
            return None
        reserved = self._row.reserved_bytes
        alone = self._with_tenants if self._table.header.tenant_bytes else ()
        return [name for name, each in self._needs.items() if to_bytes(each.need_mb) <= reserved and name not in alone]

    @property
    def wants_room(self) -> bool:
        """Whether what is reserved here had better be given back soon: jobs wait, or none may start."""
        return self._table is not None and (self.must_wait or self.others_wait or self._ordered)

    # While a job runs, in the thread that watches

    def note(self, used_bytes: int) -> None:
        if self._table is None:
            return
        row = self._row
        row.used_bytes = used_bytes
        if used_bytes > row.reserved_bytes and self._used_by_all() > self._table.header.budget_bytes:
            self._table.ring()

    def headroom(self, used_bytes: int, headroom_bytes: int) -> int:
        """How much the job may grow until somebody has to look: up to its ceiling, or until the budget is used up."""
        if self._table is None or used_bytes < _NEAR * self._row.reserved_bytes:
            return headroom_bytes
        return min(headroom_bytes, max(0, self._table.header.budget_bytes - self._used_by_all()))

    @property
    def _ordered(self) -> bool:
        row = self._row
        return row.evict > 0 and row.evict == row.asked and row.evict != row.released

    def order(self) -> EvictionOrder | None:
        """Whether the job is to go, and how; as often as it is asked."""
        if self._table is None or not self._ordered:
            return None
        if self.evicted is None:
            self._tell_eviction()
        if self.evicted is None or self.evicted.how.value != self._row.evict_how:
            self.evicted = EvictionOrder(How(self._row.evict_how), self._row.text("reason"))
        return self.evicted

    def _tell_eviction(self) -> None:
        row = self._row
        event = events.Evicted(
            reason=row.text("reason"), how=How(row.evict_how).name.lower(), used_mb=to_mb(row.used_bytes),
            reserved_mb=to_mb(row.reserved_bytes), job=row.text("job_type"), job_id=row.text("job_id"),
            queue=row.text("queue"), worker=self._setup.name,
        )  # fmt: skip
        self.soon(lambda connection: events.emit(event))

    # In the heart's thread

    def tell_news(self) -> None:
        """Whether the pool takes jobs, where this worker is the one to tell it."""
        if self._table is None or self._row.news == self._row.told:
            return
        header, number = self._table.header, self._row.news
        reason, closed = header.reason.decode("utf-8", "replace"), header.closed
        about = {"job": "", "job_id": "", "queue": "", "worker": self._setup.name}
        if closed:
            events.emit(events.IntakePaused(reason=reason, **about))
        else:
            events.emit(events.IntakeResumed(reason=reason, seconds=header.was_closed_seconds, **about))
        self._row.told = number

    def note_resumable(self, resumable: bool) -> None:
        if self._table is not None and bool(self._row.resumable) != resumable:
            self._row.resumable = int(resumable)

    def _used_by_all(self) -> int:
        assert self._table is not None
        return sum(row.used_bytes for row in self._table.rows)

    # What a job needs

    def _look_up(self, job: Job, tenant: str) -> tuple[Need, float]:
        """What it is expected to need, and its ceiling in MB."""
        config = self._setup.config
        history = self._history_of(self._type)
        declared_mb = (
            config.of_job(self._type).get("memory_limit_mb")
            or declared_in_code(path_of(job))
            or self._declared.get(self._type)
            or (history.declared_mb if history is not None else None)
        )
        most_mb = config.budget_of(tenant)
        ceiling_mb = effective_limit_mb(declared_mb, config.memory_mb, config.default_limit_mb, most_mb)
        found = admission.need(history, ceiling_mb)
        if len(self._needs) >= _MOST_TYPES:
            self._needs.clear()
            self._with_tenants.clear()
        self._needs[self._type] = found
        return found, ceiling_mb

    def _history_of(self, name: str) -> TypeHistory | None:
        """Of a job type; None: the journal has none, or cannot be read."""
        now = time.monotonic()
        at, history = self._history.get(name, (float("-inf"), None))
        known = history is not None and admission.is_enough(history)
        if now - at >= (_KNOWN_SECONDS if known else _LITTLE_KNOWN_SECONDS):
            with suppress(RedisError, JournalVersionError):
                history = _read_history(self._worker.connection, name)
            if len(self._history) >= _MOST_TYPES:
                self._history.clear()
            self._history[name] = now, history
        return history


def _read_history(connection: Redis, name: str) -> TypeHistory:
    history_reader.check_version(connection)
    now = time.time()
    return learned.past(connection, name, now, history_reader.first_seen(connection, [name], now).get(name, now))


def tenant_noted(job: Job) -> str | None:
    """For whom the job works, as it was noted when it was enqueued; None: its type declares no tenant."""
    ours = job.meta.get("rqmem") if isinstance(job.meta, dict) else None
    noted = ours.get(TENANT) if isinstance(ours, dict) else None
    return noted if isinstance(noted, str) else None


def declared_in_code(path: str | None) -> float | None:
    """The ceiling that a job's code declares, in MB, if its module is imported here; nothing is imported for it."""
    parts = (path or "").removesuffix(".run").split(".")
    for end in range(len(parts) - 1, 0, -1):
        found: Any = sys.modules.get(".".join(parts[:end]))
        if found is None:
            continue
        for part in parts[end:]:
            found = vars(found).get(part) if hasattr(found, "__dict__") else None
        declared = getattr(found, "memory_limit_mb", None) or getattr(found, "__rqmem_limit_mb__", None)
        return float(declared) if isinstance(declared, (int, float)) and declared > 0 else None
    return None
