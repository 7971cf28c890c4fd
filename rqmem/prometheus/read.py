"""What a scrape tells, read from RQ and the journal in a few round trips. Only reads; raises redis-py's errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rqmem.errors import JournalVersionError
from rqmem.observe.model import Memory, Queue, Worker
from rqmem.observe.snapshot import read_memory, read_queues, read_workers
from rqmem.rq_names import WORKERS_SUSPENDED
from rqmem.store import execution_reader
from rqmem.store.alerts.alert_records import Open
from rqmem.store.history import history_reader
from rqmem.store.history.totals import Totals

if TYPE_CHECKING:
    from redis import Redis


@dataclass(frozen=True)
class JobType:
    """A job type: what has happened to it, when it was last seen (epoch seconds), the ceiling of its last run in MB."""

    totals: Totals
    seen_at: float
    limit_mb: float | None = None


@dataclass(frozen=True)
class Scrape:
    """All of it.

    Attributes:
        at: when it was read, epoch seconds.
        refuses: with which words Redis refuses writes; empty: it takes them.
        memory: Redis' own; None: it does not tell.
        journal: whether the journal is of our version; if not, nothing of it is here.
        types: job type -> what is known of it.
        about_no_job: what has happened that is about no job type.
        alerts: those that have not ended.
        dropped: entries that the journal did not take, by kind.
    """

    at: float
    suspended: bool
    workers: list[Worker]
    queues: list[Queue]
    memory: Memory | None
    journal: bool
    types: dict[str, JobType] = field(default_factory=dict)
    about_no_job: Totals = field(default_factory=Totals)
    alerts: list[Open] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    refuses: str = ""


def read_scrape(connection: Redis, now: float) -> Scrape:
    """How it stands ``now`` (epoch seconds)."""
    try:
        history_reader.check_version(connection)
        journal = True
    except JournalVersionError:
        journal = False
    suspended = bool(connection.exists(WORKERS_SUSPENDED))
    workers, queues = read_workers(connection, now, readable=journal), read_queues(connection, now)
    memory, refuses = read_memory(connection), execution_reader.refusal_of_writes(connection)
    if not journal:
        return Scrape(now, suspended, workers, queues, memory, journal, refuses=refuses)
    seen = history_reader.types(connection)
    totals = history_reader.totals(connection, [*seen, ""])
    limits = history_reader.last_limits(connection, seen)
    return Scrape(
        now, suspended, workers, queues, memory, journal,
        types={name: JobType(totals[name], seen[name], limits.get(name)) for name in sorted(seen) if name in totals},
        about_no_job=totals.get("", Totals()),
        alerts=history_reader.open_alerts(connection),
        dropped=history_reader.dropped(connection),
        refuses=refuses,
    )  # fmt: skip
