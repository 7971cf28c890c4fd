"""The records of the journal: what runs now, how runs ended, what job types cost. No I/O."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

from rqmem.events import Event
from rqmem.policy.histogram import percentile
from rqmem.values import dataclass, field

VERSION = 1
"""The version of everything here and in `rqmem.store.history.samples`."""

OK = "ok"
RUN = "Run"
"""What an entry of a story calls the end of an execution, where others have the name of an event."""
CUT = "Cut"
"""And the place where entries have been left out."""


PEAK_BOUNDS_MB = (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096, 8192, 16384)
SECONDS_BOUNDS = (0.01, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)

Lines = tuple[tuple[float, str], ...]
"""MB and line of code, most first."""


@dataclass(frozen=True)
class LiveJob:
    """A job that runs now. Sizes in MB, times in epoch seconds.

    Attributes:
        usage_mb, peak_mb: of its process tree, as the watcher last read them; ``limit_mb``: its ceiling.
        operation: the last named place.
        items_done: finished in its present stage, if it works in chunks; ``items_total``: of how many; None: the
            source cannot count them exactly.
        grew: where its memory has grown, in steps of some MB.
    """

    job: str
    job_id: str
    queue: str
    started_at: float
    usage_mb: float
    peak_mb: float
    limit_mb: float
    operation: str = ""
    items_done: int = 0
    grew: Lines = ()
    items_total: int | None = None


@dataclass(frozen=True)
class EndedSplit:
    """A job whose children have all ended. It may gather still; RQ has its status.

    Attributes:
        children, failed: how many, and how many of them failed; ``items``: that they finished.
        peak_mb: the highest usage of one of them.
        started_at, ended_at: epoch seconds; of the children.
    """

    job_id: str
    job: str = ""
    children: int = 0
    failed: int = 0
    items: int = 0
    peak_mb: float = 0.0
    started_at: float = 0.0
    ended_at: float = 0.0


@dataclass(frozen=True)
class Live:
    """What a worker last said of itself. It expires after two missed heartbeats. Sizes in MB.

    Attributes:
        at: epoch seconds.
        worker_mb, worker_limit_mb: usage and ceiling of the worker process itself.
        horse_pid: 0 if it has no horse.
        limit_mb: the ceiling of jobs that declare none.
        kept_by: ``"watcher"`` or ``"watcher and cgroup"``.
        leases: whether its horse may take short jobs by itself: ``"on"``, or ``"off: "`` and why; empty: not told.
        jobs, breaches, recycled: how many since it started.
        process: `rqmem.measure.procfs.process_identity` of the worker.
        pool: whose budget it shares; empty: it is in no pool.
    """

    worker: str
    host: str
    pid: int
    at: float
    started_at: float
    worker_mb: float
    worker_limit_mb: float
    limit_mb: float
    horse_pid: int
    kept_by: str
    jobs: int
    breaches: int
    recycled: int
    queues: list[str] = field(default_factory=list)
    job: LiveJob | None = None
    process: str = ""
    leases: str = ""
    pool: str = ""


@dataclass(frozen=True, kw_only=True)
class Run:
    """One execution of a job, from its beginning to its end. Sizes in MB.

    Attributes:
        ended_at: epoch seconds.
        outcome: ``ok`` or the error's name.
        resumed: it ended early, and the job continues in another execution; ``escalated``: under a higher ceiling.
        needed_mb: the lowest of its ceilings that it would have kept; None: it did not end well, or does not escalate.
        layer: which layer acted at its breach; empty without a breach.
        mb_seconds: its memory in MB, added up over each second; ``tenant``: whose it was, empty: nobody's.
        code_version: the version of the code that its worker was started with; empty: not known.
        initial_mb: usage before the job.
        peak_mb: the highest reading, also while RQ stored the result.
        peak_sampled: it had several processes, so it may have used more between two readings.
        declared_mb: the ceiling that its code declares; None: none.
        final_mb: usage after the job; None if nobody read it.
        freed_mb, collections: by garbage collection.
        chunks, items, largest_chunk: finished in this execution.
        children: how many it split into.
        times: how many runs it represents, all like this one: short jobs of a lease. ``seconds`` is their mean.
        counted: whether this execution counts the job as one that somebody enqueued. Children, gathers, and executions
            after which the job runs again (a resume, RQ's Retry) do not.
        curve_mb: the highest reading of each step of ``curve_step_seconds`` since its beginning, at most 96. It is kept
            with the story of the job only, and empty elsewhere.
    """

    job: str = ""
    job_id: str = ""
    queue: str = ""
    worker: str = ""
    ended_at: float
    outcome: str = ""
    seconds: float
    initial_mb: float
    peak_mb: float
    limit_mb: float
    declared_mb: float | None = None
    final_mb: float | None = None
    resumed: bool = False
    escalated: bool = False
    needed_mb: float | None = None
    layer: str = ""
    mb_seconds: float = 0.0
    tenant: str = ""
    freed_mb: float = 0.0
    collections: int = 0
    chunks: int = 0
    items: int = 0
    largest_chunk: int = 0
    children: int = 0
    counted: bool = True
    peak_sampled: bool = False
    code_version: str = ""
    times: int = 1
    curve_mb: tuple[float, ...] = ()
    curve_step_seconds: float = 0.0

    @property
    def curve(self) -> list[tuple[float, float]]:
        """Seconds from the beginning to the end of a step, and the highest MB in it."""
        ends = (self.curve_step_seconds * (number + 1) for number in range(len(self.curve_mb)))
        return [(round(min(end, self.seconds), 3), mb) for end, mb in zip(ends, self.curve_mb, strict=True)]

    @property
    def mb_per_item(self) -> float | None:
        """The growth of the run by the items of its largest chunk; None without chunks."""
        if self.largest_chunk == 0:
            return None
        return max(0.0, self.peak_mb - self.initial_mb) / self.largest_chunk


@dataclass(frozen=True)
class Grown:
    """Where the memory of a run grew, if its peak was a record of its job type. A breach has its own evidence.

    Attributes:
        at: when the run ended, epoch seconds.
        peak_mb, limit_mb: as in `Run`.
        grew: in steps of some MB.
    """

    job: str
    job_id: str
    worker: str
    at: float
    peak_mb: float
    limit_mb: float
    grew: Lines


@dataclass(frozen=True)
class Sums:
    """What happened to a job type within some time. Sizes in MB.

    Attributes:
        jobs: that somebody enqueued (`Run.counted`); ``jobs_split``: those of them that split.
        runs: executions that ended; ``failed``: the job failed with them; ``resumed``: it continued in another one.
        collections, freed_mb, chunks, items, seconds: sums.
        splits: runs that split.
        leaks: found; ``leak_mb``: the sum of what they leave per run.
        mb_seconds: the memory of its runs in MB, added up over each second.
        breaches: by layer.
        escalations: runs after which the job went on under a higher ceiling; ``needed``: runs that ended well, by the
            ceiling in MB that they needed.
    """

    jobs: float = 0
    jobs_split: float = 0
    runs: float = 0
    failed: float = 0
    resumed: float = 0
    splits: float = 0
    leaks: float = 0
    leak_mb: float = 0
    collections: float = 0
    freed_mb: float = 0
    chunks: float = 0
    items: float = 0
    seconds: float = 0
    mb_seconds: float = 0
    breaches: dict[str, float] = field(default_factory=dict, metadata={"name": "breach:"})
    escalations: float = 0
    needed: dict[float, float] = field(default_factory=dict, metadata={"name": "needed:"})


@dataclass(frozen=True)
class Totals(Sums):
    """Sums since the job type was first seen: counters that never fall, which the sums of tallies would not be.

    They are kept as long as the type, so they are small: histograms have few bounds. The hash under no job type's name
    counts the alerts that are about none.

    Attributes:
        peak_mb: the peaks of all runs, summed.
        since: when the first run began, epoch seconds; 0: not known.
        alerts: by rule.
        peaks, durations: bound (`PEAK_BOUNDS_MB`, `SECONDS_BOUNDS`) as text -> runs up to it and above the one before.
    """

    peak_mb: float = 0
    since: float = 0
    alerts: dict[str, float] = field(default_factory=dict, metadata={"name": "alert:"})
    peaks: dict[str, float] = field(default_factory=dict, metadata={"name": "peak:"})
    durations: dict[str, float] = field(default_factory=dict, metadata={"name": "sec:"})


@dataclass(frozen=True)
class Tally(Sums):
    """Sums of an hour or a day.

    Attributes:
        peak_sum_mb: the peaks of runs that finished items, summed.
        code_versions: runs by the version of their code, where it is known.
        peaks, durations, costs: histograms (`rqmem.policy.histogram`) of peak MB, seconds, and **KB** per item.
    """

    alerts: float = 0
    peak_sum_mb: float = 0
    code_versions: dict[str, float] = field(default_factory=dict, metadata={"name": "code:"})
    peaks: dict[int, float] = field(default_factory=dict, metadata={"name": "peak:"})
    durations: dict[int, float] = field(default_factory=dict, metadata={"name": "sec:"})
    costs: dict[int, float] = field(default_factory=dict, metadata={"name": "item:"})

    @classmethod
    def of(cls, values: dict[str, Any]) -> Tally:
        """As ``Tally(**values)``, where the names are known to be right: in a quarter of the time."""
        made = cls.__new__(cls)
        vars(made).update({**_NOTHING, **values})
        return made

    @classmethod
    def total(cls, tallies: Iterable[Tally]) -> Tally:
        known = [vars(tally) for tally in tallies]  # quicker than attributes: a page of a month adds up 3,000
        if not known:
            return cls()
        sums: dict[str, Any] = dict(zip(_NUMBERS, map(sum, zip(*map(_numbers_of, known), strict=True)), strict=True))
        for name in _COUNTS:
            there = [each[name] for each in known if each[name]]
            counts: dict[Any, float] = dict(there[0]) if there else {}
            for key, count in chain.from_iterable(map(dict.items, there[1:])):
                counts[key] = counts.get(key, 0) + count
            sums[name] = counts
        return cls.of(sums)

    @cached_property
    def p90_mb(self) -> float | None:
        """Nine of ten peaks are at most this, up to 5 % too high; None without a run."""
        return percentile(self.peaks, 0.9)

    @property
    def breached(self) -> float:
        """Breaches by any layer."""
        return sum(self.breaches.values())

    @property
    def mb_per_1000_items(self) -> float | None:
        """Memory efficiency: peak MB by a thousand items; None without items."""
        return 1000 * self.peak_sum_mb / self.items if self.items else None

    @property
    def leak_mb_per_run(self) -> float | None:
        """MB that stay after a run, on average of the leaks found; None without leaks."""
        return self.leak_mb / self.leaks if self.leaks else None

    @property
    def freed_mb_per_collection(self) -> float | None:
        """Collection effectiveness; None without collections."""
        return self.freed_mb / self.collections if self.collections else None

    @property
    def splitting_rate(self) -> float | None:
        """Jobs that split by all that somebody enqueued; None without."""
        return self.jobs_split / self.jobs if self.jobs else None

    @property
    def alerts_per_job(self) -> float | None:
        """Alerts by jobs that somebody enqueued; None without."""
        return self.alerts / self.jobs if self.jobs else None


_COUNTS = [each.name for each in dataclasses.fields(Tally) if "name" in each.metadata]
_NUMBERS = [each.name for each in dataclasses.fields(Tally) if each.name not in _COUNTS]
_NOTHING = vars(Tally())
_numbers_of = itemgetter(*_NUMBERS)


@dataclass(frozen=True)
class Told:
    """An event of a job's story, and when it happened (epoch seconds)."""

    at: float
    event: Event


@dataclass(frozen=True)
class Story:
    """What is remembered of a job, oldest first: its events, and how its executions ended, with their curves.

    ``cut_at``: of a long story the first and the last entries are kept; here the first ones end (epoch seconds).
    """

    told: list[Told] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    cut_at: float | None = None
