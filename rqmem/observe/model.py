"""How workers, queues, job types and Redis stand. Values only."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history.history_records import Live, Run, Tally

Kind = Literal["rqmem", "silent", "rq"]


@dataclass(frozen=True)
class Worker:
    """A worker that is registered with RQ.

    Attributes:
        state: RQ's: ``busy``, ``idle``, ``suspended``, ``starting``; ``busy`` too where ``live`` has a job still.
        kind: ``rqmem``: it watches its jobs; ``silent``: it should, and has not been heard of; ``rq``: RQ's own.
        born_at: epoch seconds.
        job_id: that it runs, by RQ; empty for none.
        jobs: that it has run.
        live: what it last said of itself, where it is rqmem's.
    """

    name: str
    state: str
    kind: Kind
    queues: tuple[str, ...]
    host: str = ""
    pid: int = 0
    born_at: float | None = None
    job_id: str = ""
    jobs: int = 0
    live: Live | None = None

    @property
    def busy(self) -> bool:
        return self.state == "busy" or (self.live is not None and self.live.job is not None)


@dataclass(frozen=True)
class Queue:
    """How many jobs a queue has. ``due``: scheduled ones whose time has come; ``scheduler``: 1: somebody moves them."""

    name: str
    queued: int
    started: int = 0
    deferred: int = 0
    scheduled: int = 0
    failed: int = 0
    due: int = 0
    scheduler: int = 0


@dataclass(frozen=True)
class JobType:
    """What happened to a job type lately. ``last_breach``: the last run that breached; ``last_leak``: the last alert
    about a leak; each where it is remembered."""

    job: str
    tally: Tally
    last_breach: Run | None = None
    last_leak: Alert | None = None


@dataclass(frozen=True)
class Memory:
    """Redis' own. ``max_bytes`` 0: no limit; ``policy``: what happens at it."""

    used_bytes: int
    max_bytes: int
    policy: str


@dataclass(frozen=True)
class Facts:
    """All of it.

    Attributes:
        at: when it was read, epoch seconds.
        where: which Redis, for people, without password.
        suspended: by ``rq suspend``.
        refuses: with which words Redis refuses writes; empty: it takes them.
        since: the beginning of what ``types`` tell of.
        alerts: those that have not ended.
        dropped: entries that the journal did not take, by kind.
        journal_error: why the journal cannot be read; nothing of it is here then.
        memory: None: Redis does not tell.
    """

    at: float
    where: str
    suspended: bool = False
    workers: list[Worker] = field(default_factory=list)
    queues: list[Queue] = field(default_factory=list)
    since: float = 0.0
    types: list[JobType] = field(default_factory=list)
    alerts: list[Open] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    journal_error: str = ""
    memory: Memory | None = None
    refuses: str = ""

    @property
    def alive(self) -> list[Worker]:
        """Workers that are there, as far as anybody knows."""
        return [worker for worker in self.workers if worker.kind != "silent"]

    @property
    def state(self) -> Literal["running", "suspended", "no workers"]:
        if not self.alive:
            return "no workers"
        return "suspended" if self.suspended else "running"

    def serving(self, queue: str) -> list[Worker]:
        """The workers that are there and take jobs from a queue."""
        return [worker for worker in self.alive if queue in worker.queues]
