"""The read model: workers, hosts, queues, job types and Redis as values. Every display shows these and no others.

No I/O and no clock. Sizes are in MB, times in epoch seconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, get_args

from rqmem.job.progress import Progress
from rqmem.observe.statistics import Ceilings, peaks_in
from rqmem.observe.vocabulary import encoded, job_type_head, of_tally, percentage, versioned
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history.history_records import EndedSplit, Live, LiveJob, Run, Tally, Told, Totals
from rqmem.store.history.pool_records import HostMemory, PoolRecord
from rqmem.store.history.samples import Sample
from rqmem.values import dataclass, field

Kind = Literal["rqmem", "silent", "rq"]


@dataclass(frozen=True)
class Worker:
    """A worker that is registered with RQ.

    Attributes:
        kind: ``rqmem``: it watches its jobs; ``silent``: it should, and its heartbeat is gone; ``rq``: RQ's own.
        state: RQ's: ``busy``, ``idle``, ``suspended``, ``starting``; ``busy`` too while ``live`` has a job.
        job_id: the job that it runs, according to RQ; empty for none.
        jobs: how many it has run since it started.
        live: its last report about itself; None: it makes none, or it is out of date.
        samples: its memory by the second, oldest first, where the reader asked for them.
        read_at: when this was read.
        worked_seconds, done: how long its jobs have taken, and how many they were, as RQ counts them.
    """

    name: str
    kind: Kind
    state: str
    queues: tuple[str, ...]
    host: str = ""
    pid: int = 0
    started_at: float | None = None
    job_id: str = ""
    jobs: int = 0
    live: Live | None = None
    samples: tuple[Sample, ...] = ()
    read_at: float = 0.0
    worked_seconds: float = 0.0
    done: int = 0

    @property
    def busy(self) -> bool:
        return self.state == "busy"

    @property
    def job(self) -> LiveJob | None:
        """The job that it reports."""
        return self.live.job if self.live is not None else None

    @property
    def usage_mb(self) -> float | None:
        """What its job uses; None: no job, or not known."""
        return self.job.usage_mb if self.job is not None else None

    @property
    def ceiling_mb(self) -> float | None:
        """The ceiling of its job, else that of jobs that declare none; None: not known."""
        if self.live is None:
            return None
        return self.live.job.limit_mb if self.live.job is not None else self.live.limit_mb

    @property
    def share(self) -> float | None:
        """The usage of its job as a fraction of the ceiling; None: no job, or not known."""
        return self.job.usage_mb / self.job.limit_mb if self.job is not None and self.job.limit_mb > 0 else None

    def to_json(self) -> dict[str, Any]:
        first = ("name", "host", "pid", "kind", "state", "queues", "ceiling_mb", "usage_mb")
        own = {
            "job": self._job_values(self.job) if self.job is not None else None,
            "job_id": self.job_id,
            "jobs": self.jobs,
            "started_at": self.started_at,
            "uptime_seconds": self.read_at - self.started_at if self.started_at is not None else None,
        }
        # Names of JSON, where they differ from those of `Live`
        reported = {"own_memory_mb": "worker_mb", "own_ceiling_mb": "worker_limit_mb", "default_ceiling_mb": "limit_mb"}
        last = (*reported, "breaches", "recycled", "kept_by", "leases")
        return encoded(
            {name: getattr(self, name) for name in first}
            | own
            | {name: getattr(self.live, reported.get(name, name), None) for name in last}
        )

    def _job_values(self, job: LiveJob) -> dict[str, Any]:
        share = percentage(job.usage_mb, job.limit_mb)
        return {**vars(job), "usage_percentage": share, "run_seconds": max(0.0, self.read_at - job.started_at)}


@dataclass(frozen=True)
class Host:
    """A machine, by what its workers report. Sizes in MB.

    Attributes:
        usage_mb, own_memory_mb: the sums of what their jobs use, and of what they use themselves.
        memory: of the whole machine, as one of them read it lately; None: none of them tells.
    """

    name: str
    workers: int
    busy: int
    usage_mb: float
    own_memory_mb: float
    memory: HostMemory | None = None

    def to_json(self) -> dict[str, Any]:
        """``pressure_..._percentage``: of the last ten seconds in which processes waited for memory."""
        of, values = self.memory, {name: value for name, value in vars(self).items() if name != "memory"}
        return encoded(
            {
                **values,
                "total_mb": of.total_mb if of else None,
                "available_mb": of.available_mb if of else None,
                "container_limit_mb": of.container_limit_mb if of else None,
                "pressure_some_percentage": of.some_percentage if of else None,
                "pressure_full_percentage": of.full_percentage if of else None,
            }
        )


@dataclass(frozen=True)
class Pool(PoolRecord):
    """Workers that share a budget, and what it is used for. ``read_at``: when this was read."""

    read_at: float = 0.0

    @property
    def waiting_seconds(self) -> float | None:
        """How long the job has waited for room that waits longest; None: none waits."""
        return max(0.0, self.read_at - self.waiting_since) if self.waiting_since else None

    @property
    def share(self) -> float:
        """What is used, as a fraction of the budget."""
        return self.usage_mb / self.budget_mb if self.budget_mb > 0 else 0.0

    def to_json(self) -> dict[str, Any]:
        lists = ("jobs", "waits", "incidents", "tenants")
        values = {name: value for name, value in vars(self).items() if name not in ("pool", "read_at", *lists)}
        return encoded(
            {"name": self.pool, **values, "waiting_seconds": self.waiting_seconds}
            | {"usage_percentage": percentage(self.usage_mb, self.budget_mb)}
        ) | {name: [encoded(each) for each in getattr(self, name)] for name in lists}


@dataclass(frozen=True)
class Limit:
    """How many jobs may be in a queue or run at once (``concurrency``), and how many it holds back. RQ keeps it.

    Attributes:
        key: the job type; with a ``concurrency_key`` a colon and the value of that follow.
        concurrency: how many may; ``admitted``: how many do.
        waiting: how many wait until one of those has ended; ``waiting_since``: when the first of them was enqueued,
            epoch seconds; None: none waits, or it is not known.
    """

    key: str
    concurrency: int
    admitted: int
    waiting: int
    waiting_since: float | None = None

    @property
    def job_type(self) -> str:
        return self.key.partition(":")[0]

    @property
    def value(self) -> str:
        """Of the ``concurrency_key``; empty: the type has none."""
        return self.key.partition(":")[2]

    def to_json(self) -> dict[str, Any]:
        return encoded({"job_type": self.job_type, "concurrency_key": self.value, **vars(self)})


@dataclass(frozen=True)
class Queue:
    """How many jobs a queue has.

    Attributes:
        due: scheduled jobs whose time has come; ``scheduler``: a worker moves them.
        paused: rqmem's workers take no job from it (``rqmem pause``).
        oldest_enqueued_at: when the job was enqueued that is next to run, epoch seconds; None: none waits.
        oldest_seconds: how long that job has waited; 0: none waits.
        expected_wait_seconds: how long a job will wait that is enqueued now, by what jobs have taken so far on the
            workers of the queue; 0: that is not known, or there are no workers.
    """

    name: str
    queued: int
    started: int = 0
    deferred: int = 0
    scheduled: int = 0
    failed: int = 0
    due: int = 0
    scheduler: bool = False
    finished: int = 0
    paused: bool = False
    oldest_enqueued_at: float | None = None
    oldest_seconds: float = 0.0
    expected_wait_seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return encoded(self)


@dataclass(frozen=True)
class JobType:
    """A job type.

    Attributes:
        job_type: its dotted path.
        tally: what happened to it since the snapshot's ``since``; ``totals``: since it was first seen. A reader fills
            the one that it was asked for.
        ceilings: those that are known.
        last_breach: its last run that breached; ``last_leak``: the last alert about a leak of it.
        leak: the last `rqmem.events.LeakFound` in it, with the types of objects that grew, and when; None: none within
            a month.
    """

    job_type: str
    tally: Tally = field(default_factory=Tally)
    last_breach: Run | None = None
    last_leak: Alert | None = None
    totals: Totals = field(default_factory=Totals)
    seen_at: float | None = None
    ceilings: Ceilings = Ceilings()
    leak: Told | None = None

    @property
    def ceiling_mb(self) -> float | None:
        """The ceiling of its last run; None: not known."""
        return self.ceilings.ceiling_mb

    def to_json(self) -> dict[str, Any]:
        head = job_type_head(self.job_type, self.ceilings)
        last = self.last_breach.job_id if self.last_breach else None
        return {**head, **of_tally(self.tally, peaks_in(self.tally.peaks)), "last_breach_job_id": last}


@dataclass(frozen=True)
class KnownAlert(Alert):
    """An alert; ``open``: what it is about has not ended."""

    open: bool = False

    def to_json(self) -> dict[str, Any]:
        return versioned(**vars(self))


@dataclass(frozen=True)
class SplitJob:
    """A job that has split, and how far its children are."""

    job_id: str
    job_type: str
    children: Progress

    def to_json(self) -> dict[str, Any]:
        return encoded(self)


@dataclass(frozen=True)
class EndedSplitJob(EndedSplit):
    """A job whose children have all ended. ``status``: RQ's now, ``finished`` say; empty: RQ has forgotten it."""

    status: str = ""

    def to_json(self) -> dict[str, Any]:
        return encoded(self)


State = Literal["queued", "started", "deferred", "scheduled", "failed", "finished", "canceled"]
"""Of jobs in RQ's queues and registries. A job that was stopped is among the failed ones."""

STATES: tuple[State, ...] = get_args(State)


@dataclass(frozen=True)
class JobRow:
    """A job as RQ has it, for a row of a list. Times in epoch seconds; None: not yet, or not known.

    Attributes:
        status: RQ's: one of `State`, or ``stopped``, ``created``.
        job_type: the dotted path of what it runs; empty where its data do not tell.
        call: its description, which has its arguments.
        worker: that runs it, or ran it last; empty for none.
        error: what it raised, in one line, if it ended badly.
        waits_for: ids of jobs that must end first, if it is deferred.
        due_at: when it is moved to its queue, if it is scheduled.
        position: in its queue, from 0, if it is queued.
    """

    job_id: str
    status: str
    job_type: str
    call: str
    queue: str
    worker: str = ""
    enqueued_at: float | None = None
    started_at: float | None = None
    ended_at: float | None = None
    error: str = ""
    waits_for: tuple[str, ...] = ()
    due_at: float | None = None
    position: int | None = None

    @property
    def seconds(self) -> float | None:
        """How long its last execution took; None: it has not ended."""
        begun, ended = self.started_at, self.ended_at
        return max(0.0, ended - begun) if begun is not None and ended is not None and self.status != "started" else None

    def to_json(self) -> dict[str, Any]:
        return encoded({**vars(self), "run_seconds": self.seconds})


@dataclass(frozen=True)
class JobPage:
    """Some jobs of one state, in order: those that run or are due next, or ended last, first.

    Attributes:
        total: of the whole list; with a filter by type or error None, since nobody has counted.
        cursor: asks for the jobs after these; empty: there are none.
        compared: how many jobs were compared with the filter. Where this is all that one answer may look at, ``rows``
            may be few or none, and ``cursor`` goes on.
    """

    state: State
    rows: tuple[JobRow, ...]
    total: int | None
    cursor: str = ""
    compared: int = 0

    def to_json(self) -> dict[str, Any]:
        return versioned(
            state=self.state, jobs=[each.to_json() for each in self.rows], total=self.total, cursor=self.cursor,
            compared=self.compared,
        )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What a text that somebody typed may mean.

    Attributes:
        job_ids: jobs with that id, or whose id begins so; of a job that has split, the job and not its children.
        job_types: types whose path has it in it.
        more: there are more than these.
    """

    text: str
    job_ids: tuple[str, ...] = ()
    job_types: tuple[str, ...] = ()
    more: bool = False

    def to_json(self) -> dict[str, Any]:
        return versioned(**vars(self))


@dataclass(frozen=True)
class RedisMemory:
    """The memory of Redis. ``max_bytes`` 0: no limit; ``policy``: what Redis does at the limit."""

    used_bytes: int
    max_bytes: int
    policy: str


@dataclass(frozen=True)
class Snapshot:
    """One reading of everything. Workers and queues are sorted by name.

    Attributes:
        where: which Redis, for people, without password.
        suspended: by ``rq suspend``.
        since: ``job_types`` say what happened from then on.
        about_no_job: totals of what concerns no job type.
        tenants: MB seconds of each in all, where the reader asked for totals.
        alerts: raised since the reading before, oldest first, where the reader asked for them.
        last_alert: the id of the last of all alerts; ``"-"``: none.
        open_alerts: alerts that have not ended, the longest first.
        dropped: entries that the journal did not take, by kind.
        journal_error: why the journal cannot be read; the snapshot has nothing from it then.
        memory: None: Redis does not allow ``INFO``.
        refuses: the words in which Redis refuses writes; empty: it takes them.
        host_memory: by the name of a machine.
        pools: by name.
        limits: those that hold jobs back, those with most of them first.
    """

    at: float
    where: str = ""
    suspended: bool = False
    workers: Sequence[Worker] = ()
    queues: Sequence[Queue] = ()
    since: float = 0.0
    job_types: Sequence[JobType] = ()
    about_no_job: Totals = field(default_factory=Totals)
    tenants: Mapping[str, float] = field(default_factory=dict)
    alerts: Sequence[Alert] = ()
    last_alert: str = "-"
    open_alerts: Sequence[Open] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    journal_error: str = ""
    memory: RedisMemory | None = None
    refuses: str = ""
    host_memory: Mapping[str, HostMemory] = field(default_factory=dict)
    pools: Sequence[Pool] = ()
    limits: Sequence[Limit] = ()

    @cached_property
    def alive(self) -> list[Worker]:
        """Workers whose heartbeat is there, or that have none because they are RQ's own."""
        return [worker for worker in self.workers if worker.kind != "silent"]

    @property
    def state(self) -> Literal["running", "suspended", "no workers"]:
        if not self.alive:
            return "no workers"
        return "suspended" if self.suspended else "running"

    @property
    def hosts(self) -> list[Host]:
        """The machines that workers run on, by name."""
        found = []
        by_host: dict[str, list[Worker]] = {}
        for worker in self.alive:
            by_host.setdefault(worker.host, []).append(worker)
        for name, here in sorted(by_host.items()):
            lives = [worker.live for worker in here if worker.live is not None]
            usage_mb = sum(live.job.usage_mb for live in lives if live.job is not None)
            busy = sum(worker.busy for worker in here)
            own_mb = sum(live.worker_mb for live in lives)
            memory = self.host_memory.get(name)
            found.append(Host(name, len(here), busy, round(usage_mb, 1), round(own_mb, 1), memory))
        return found

    def serving(self, queue: str) -> list[Worker]:
        """The workers that are alive and take jobs from a queue."""
        return self._by_queue.get(queue, [])

    @cached_property
    def _by_queue(self) -> dict[str, list[Worker]]:
        return by_queue(self.alive)


def by_queue(workers: Iterable[Worker]) -> dict[str, list[Worker]]:
    """Queue -> those of the workers that take jobs from it."""
    found: dict[str, list[Worker]] = {}
    for worker in workers:
        for queue in worker.queues:
            found.setdefault(queue, []).append(worker)
    return found
