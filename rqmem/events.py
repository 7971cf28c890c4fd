"""The catalogue of what rqmem can tell: each thing that happens is one frozen dataclass here.

Code emits (`emit`); whoever wants to know subscribes (`subscribe`): the log (`rqmem.log`), and the recorder of the
worker (`rqmem.worker.recorder`), which feeds journal and alerts; what the horse emits reaches it over a ring in shared
memory (`rqmem.worker.event_ring`). A subscriber that fails is logged once per failure and stops nobody. Values only:
nothing here reads a clock, a process or Redis.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any, Literal

from rqmem.text import printable
from rqmem.units import show_mb
from rqmem.values import dataclass, field

Layer = Literal["checkpoint", "watch", "kill", "kernel"]
"""Which layer acted at a breach: the job at a checkpoint, the watcher's signal, its SIGKILL, or the job's cgroup."""

EVIDENCE = ("curve", "grew", "kinds", "checkpoints", "tree", "segments_left", "beyond_reach")
"""The fields of a breach that may be large."""


@dataclass(frozen=True)
class Event:
    """What all events carry: the job type as a dotted path, and where it ran."""

    job: str
    job_id: str
    queue: str
    worker: str


WHOSE = ("job", "job_id", "queue", "worker")


@dataclass(frozen=True)
class JobStarted(Event):
    """A memory-aware job begins, in this execution. Sizes in MB."""

    memory_mb: float
    memory_limit_mb: float


@dataclass(frozen=True)
class Checkpoint(Event):
    """Usage read at a named place in a job. Sizes in MB.

    ``notable``: one of those worth a line where a job makes thousands (`rqmem.policy.thinning`). ``again``: reported
    before, as not notable, and notable now, since it was the last one.
    """

    operation: str
    current_memory_mb: float
    peak_memory_mb: float
    memory_limit_mb: float
    notable: bool = True
    again: bool = False


@dataclass(frozen=True)
class UsageWarning(Event):
    """At a checkpoint usage is above MEMORY_WARNING_THRESHOLD, after it was below."""

    operation: str
    current_memory_mb: float
    memory_limit_mb: float
    threshold_percentage: float


@dataclass(frozen=True)
class Collection(Event):
    """Garbage was collected and freed memory given back to the kernel; ``collections``: how often in this run."""

    operation: str
    freed_mb: float
    memory_mb: float
    collections: int


@dataclass(frozen=True)
class ChunkDone(Event):
    """A chunk is finished; told once a second at most. ``items_done``: of its stage so far."""

    items: int
    items_done: int
    memory_mb: float


@dataclass(frozen=True)
class RunEnded(Event):
    """``handle`` returned or raised; the whole run's figures. ``outcome`` is ``ok`` or the error's name.

    ``items``: in finished chunks; ``largest_chunk``: items of the largest of them; ``growth_kb_per_item``: what stayed
    of each after a stage's first chunks; None: nothing beyond noise, or nobody looked. ``needed_mb``: the lowest of its
    ceilings that a run that ended well would have kept; None: the job does not escalate.
    """

    outcome: str
    initial_memory_mb: float
    peak_memory_mb: float
    final_memory_mb: float
    memory_limit_mb: float
    freed_mb: float
    collections: int
    chunks: int
    duration_seconds: float
    items: int = 0
    largest_chunk: int = 0
    growth_kb_per_item: float | None = None
    needed_mb: float | None = None


@dataclass(frozen=True)
class CeilingCut(Event):
    """A job declares more than its worker allows; told once per job type and worker."""

    declared_mb: float
    allowed_mb: float


@dataclass(frozen=True)
class Breach(Event):
    """A job used more than its ceiling. The record behind `MemoryLimitExceeded`; sizes in MB.

    Attributes:
        used_mb, limit_mb, peak_mb: what it used when it was stopped, might use, and used at most.
        layer: who acted.
        processes: how many it had.
        counted_whole: how many of them the worker may not examine, so that pages they share counted whole.
        hidden: how many of them ``/proc`` hides from the worker, so that what they use did not count.
        operation: the place last named (checkpoint or items of the chunk).
        where: the line of code that ran when it was stopped.
        baseline_mb: what its horse used before it.
        from_mb, growth_seconds: where its last growth began, and how long that took.
        curve: its last seconds: seconds before the stop, and MB.
        grew: MB charged to lines of code, most first.
        kinds: type of object, objects more and MB more than before the job, most MB first.
        checkpoints: the last ones, with MB.
        tree: pid, command and MB of its processes, largest first.
        shared_mb, kernel_mb: where its cgroup told, what that was charged for shared memory and files in tmpfs, and for
            the kernel's memory (sockets, pipes, page tables).
        swallowed: how far the exception got that nobody meant to catch: a line of code.
        segments_left: files in /dev/shm that its processes had mapped and left behind, with MB.
        beyond_reach: pid and command of processes that go on, since the worker may not end them.
        next: what was done about it.
        execution: in which execution of the job it happened.
    """

    used_mb: float
    limit_mb: float
    peak_mb: float
    layer: Layer
    processes: int
    operation: str
    where: str = ""
    baseline_mb: float | None = None
    from_mb: float | None = None
    growth_seconds: float | None = None
    curve: list[tuple[float, float]] = field(default_factory=list)
    grew: list[tuple[float, str]] = field(default_factory=list)
    kinds: list[tuple[str, int, float]] = field(default_factory=list)
    checkpoints: list[tuple[str, float]] = field(default_factory=list)
    tree: list[tuple[int, str, float]] = field(default_factory=list)
    shared_mb: float | None = None
    kernel_mb: float | None = None
    segments_left: list[tuple[str, float]] = field(default_factory=list)
    swallowed: str = ""
    next: str = ""
    counted_whole: int = 0
    hidden: int = 0
    beyond_reach: list[tuple[int, str]] = field(default_factory=list)
    execution: str = ""

    def __post_init__(self) -> None:
        if self.peak_mb < self.used_mb:  # each was read by somebody else, or at another moment
            object.__setattr__(self, "peak_mb", self.used_mb)

    def summary(self) -> str:
        """The one line in the job's result: which job, how much, where, who acted."""
        return printable(f"{self.job} {self.what()}")

    def what(self) -> str:
        """How much, where and who acted, without whose it is."""
        place = f" at '{self.operation}'" if self.operation else ""
        count = "1 process" if self.processes == 1 else f"{self.processes} processes"
        count += f", {self.counted_whole} of them counted whole" if self.counted_whole else ""
        count += f", {self.hidden} more not counted" if self.hidden else ""
        return (
            f"used {show_mb(self.used_mb)} MB of {show_mb(self.limit_mb)} MB{place} "
            f"(peak {self.peak_mb:.1f} MB, by {self.layer}, {count})"
        )

    def short(self) -> dict[str, Any]:
        """What is kept in the job's meta."""
        return {
            "breach": self.summary(),
            "used_mb": self.used_mb,
            "limit_mb": self.limit_mb,
            "peak_mb": self.peak_mb,
            "where": self.where,
            "grew": [f"{grown:.0f} MB {line}" for grown, line in self.grew[:3]],
            "kinds": [f"{name} +{count}" for name, count, _ in self.kinds[:3]],
            "next": self.next,
        }

    def without_evidence(self) -> Breach:
        """The same without the fields in `EVIDENCE`."""
        bare: dict[str, Any] = {name: [] for name in EVIDENCE}
        return dataclasses.replace(self, **bare)


@dataclass(frozen=True)
class Resumed(Event):
    """An execution ended before its job did; the job goes on from its cursor in a new horse.

    ``resumes``: how often that happened; ``spent``: what it cost so far, of a budget of ``max_resumes``;
    ``delay_seconds``: not before.
    """

    cause: str
    cursor: str
    chunk_size: int
    resumes: int
    max_resumes: int
    spent: int
    delay_seconds: float = 0.0


@dataclass(frozen=True)
class Escalated(Event):
    """A job breached, and goes on under the next ceiling of its ``escalate_to``. Sizes in MB.

    Attributes:
        from_mb, to_mb: the ceiling that it breached, and the next one.
        to_queue: where it goes on; empty: in the same queue.
        cursor: where it goes on from; ``null``: from the start.
        escalations: how often that happened to this job.
    """

    from_mb: float
    to_mb: float
    to_queue: str
    cursor: str
    escalations: int


@dataclass(frozen=True)
class GaveUp(Event):
    """An execution ended before its job did, and the job fails: it may not be resumed, or not any more."""

    cause: str
    reason: str
    resumes: int


@dataclass(frozen=True)
class Split(Event):
    """A job cut its work into children."""

    children: int


@dataclass(frozen=True)
class LeakFound(Event):
    """What runs of a job type leave in a warm horse goes on growing (`rqmem.policy.leaks`); told after such a run.

    Attributes:
        mb_per_run: that stays for good.
        runs: of this type, among which it was found.
        grew: type of object, objects more and MB more than at the horse's first tidying, most MB first; empty where
            Python's collector sees nothing of it.
    """

    mb_per_run: float
    runs: int
    grew: list[tuple[str, int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class HookFailed(Event):
    """A hook (`rqmem.hooks`) raised, left, hung or breached, and was passed over; ``where``: the line of code."""

    hook: str
    error: str
    where: str = ""


@dataclass(frozen=True)
class HorseRecycled(Event):
    """A warm horse is replaced after this job; ``reason`` says why."""

    reason: str


@dataclass(frozen=True)
class RunsAgain(Event):
    """A job used more than its ceiling because of what others had left in its horse; it runs once more, in a new one.

    Nothing of RQ's Retry and no resume is spent. Sizes in MB; ``left_mb`` is what others had left.
    """

    used_mb: float
    limit_mb: float
    left_mb: float
    layer: Layer
    operation: str


@dataclass(frozen=True)
class WorkerFull(Event):
    """The worker process itself is above its own ceiling; ``action``: ``restart``, ``exit`` or ``none``."""

    used_mb: float
    limit_mb: float
    action: str


@dataclass(frozen=True)
class WorkerRestarted(Event):
    """A worker that was full has restarted in place, after this number of jobs."""

    jobs: int


@dataclass(frozen=True)
class WorkerLost(Event):
    """The worker that ran this job is dead; ``worker`` is who noticed."""

    lost_worker: str


@dataclass(frozen=True)
class IntakePaused(Event):
    """A pool takes no jobs for want of memory; ``worker`` is the one of its workers that tells it."""

    reason: str


@dataclass(frozen=True)
class IntakeResumed(Event):
    """It takes jobs again. ``seconds``: how long it took none."""

    reason: str
    seconds: float


@dataclass(frozen=True)
class Evicted(Event):
    """A pool has a job go, because there is too little memory for all. Sizes in MB.

    Attributes:
        reason: why one had to go.
        how: ``stop``: it saves what it has and continues later; ``kill``: it is killed, and continues from its last
            chunk, is run again by RQ's Retry, or fails.
        used_mb, reserved_mb: what it used, and what was reserved for it.
    """

    reason: str
    how: str
    used_mb: float
    reserved_mb: float


@dataclass(frozen=True)
class AlertRaised(Event):
    """Something a person should know; ``rule`` names it (`rqmem.policy.alert_rules`), ``text`` tells it in one line.

    ``suppressed``: how many more of rule and job type were not told since the last one.
    """

    rule: str
    text: str
    suppressed: int = 0


@dataclass(frozen=True)
class AlertResolved(Event):
    """What an alert was about has ended."""

    rule: str
    text: str


CATALOGUE: dict[str, type[Event]] = {each.__name__: each for each in Event.__subclasses__()}
"""Every kind of event by name."""


Subscriber = Callable[[Event], None]
_subscribers: list[Subscriber] = []


def subscribe(subscriber: Subscriber) -> None:
    """Have ``subscriber`` called with each event emitted in this process from now on."""
    if subscriber not in _subscribers:
        _subscribers.append(subscriber)


def unsubscribe(subscriber: Subscriber) -> None:
    if subscriber in _subscribers:
        _subscribers.remove(subscriber)


def emit(event: Event) -> None:
    """Tell every subscriber; one that raises is logged and stops nobody."""
    for subscriber in tuple(_subscribers):
        try:
            subscriber(event)
        except Exception:
            logging.getLogger("rqmem.events").exception("subscriber %r failed on %r", subscriber, event)
