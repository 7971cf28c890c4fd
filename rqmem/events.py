"""The catalogue of what rqmem can tell: each thing that happens is one frozen dataclass here.

Code emits (`emit`); whoever wants to know subscribes (`subscribe`): today the log (`rqmem.log`).
A subscriber that fails is logged once per failure and stops nobody. Values only: nothing here
reads a clock, a process or Redis.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from rqmem.units import show_mb

Layer = Literal["checkpoint", "watch", "kill"]
"""Which layer acted at a breach: the job at a checkpoint, the watcher's signal, or its SIGKILL."""


@dataclass(frozen=True)
class Event:
    """What all events carry: the job type as a dotted path, and where it ran."""

    job: str
    job_id: str
    queue: str
    worker: str


@dataclass(frozen=True)
class Checkpoint(Event):
    """Usage read at a named place in a job. Sizes in MB."""

    operation: str
    current_memory_mb: float
    peak_memory_mb: float
    memory_limit_mb: float


@dataclass(frozen=True)
class RunEnded(Event):
    """``handle`` returned or raised; the whole run's figures. ``outcome`` is ``ok`` or the error's name."""

    outcome: str
    initial_memory_mb: float
    peak_memory_mb: float
    final_memory_mb: float
    memory_limit_mb: float
    freed_mb: float
    collections: int
    chunks: int
    duration_seconds: float


@dataclass(frozen=True)
class CeilingCut(Event):
    """A job declares more than its worker allows; told once per job type and worker."""

    declared_mb: float
    allowed_mb: float


@dataclass(frozen=True)
class Breach(Event):
    """A job used more than its ceiling. The record behind `MemoryLimitExceeded`; sizes in MB.

    ``operation`` is the place last named (checkpoint or items of the chunk), ``where`` the line of
    code that ran when the job was stopped, ``from_mb`` and ``growth_seconds`` where its growth began,
    ``grew`` the MB charged to lines of code, most first, ``next`` what was done about it.
    """

    used_mb: float
    limit_mb: float
    peak_mb: float
    layer: Layer
    processes: int
    operation: str
    where: str = ""
    from_mb: float | None = None
    growth_seconds: float | None = None
    grew: list[tuple[float, str]] = field(default_factory=list)
    next: str = ""

    def summary(self) -> str:
        """The one line that stands in the job's result: which job, how much, where, who acted."""
        place = f" at '{self.operation}'" if self.operation else ""
        count = "1 process" if self.processes == 1 else f"{self.processes} processes"
        return (
            f"{self.job} used {show_mb(self.used_mb)} MB of {show_mb(self.limit_mb)} MB{place} "
            f"(peak {self.peak_mb:.1f} MB, by {self.layer}, {count})"
        )

    def explanation(self) -> list[str]:
        """Lines below the summary: where it was stopped, how fast it grew, what was done, as far as known."""
        lines = []
        label = "where it grew:"
        for grown_mb, line in self.grew:
            lines.append(f"{label:<14} {grown_mb:>6.0f} MB  {line}")
            label = ""
        if self.where:
            lines.append(f"{'stopped at:':<14} {self.where}")
        if self.from_mb is not None and self.growth_seconds:
            rate = (self.peak_mb - self.from_mb) / self.growth_seconds
            lines.append(
                f"{'growth:':<14} {self.from_mb:.0f} MB -> {self.peak_mb:.0f} MB in {self.growth_seconds:.1f} s "
                f"({rate:.0f} MB/s)"
            )
        if self.next:
            lines.append(f"{'next:':<14} {self.next}")
        return lines

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Breach:
        """The breach in ``text``; fields of a newer rqmem are passed over."""
        known = {each.name for each in dataclasses.fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        values["grew"] = [(grown_mb, line) for grown_mb, line in values.get("grew", [])]
        return cls(**values)


@dataclass(frozen=True)
class Resumed(Event):
    """An execution ended before its job did; the job goes on from its cursor in a new horse."""

    cause: str
    cursor: str
    chunk_size: int
    resumes: int
    max_resumes: int

    def summary(self) -> str:
        place = "the beginning" if self.cursor == "null" else f"cursor {self.cursor}"
        return f"goes on from {place} with chunk size {self.chunk_size} (resume {self.resumes} of {self.max_resumes})"


@dataclass(frozen=True)
class HorseRecycled(Event):
    """A warm horse is replaced after this job; ``reason`` says why."""

    reason: str


@dataclass(frozen=True)
class WorkerLost(Event):
    """The worker that ran this job is dead; ``worker`` is who noticed."""

    lost_worker: str


Subscriber = Callable[[Event], None]
_subscribers: list[Subscriber] = []


def subscribe(subscriber: Subscriber) -> None:
    """Have ``subscriber`` called with each event emitted in this process from now on."""
    if subscriber not in _subscribers:
        _subscribers.append(subscriber)


def emit(event: Event) -> None:
    """Tell every subscriber; one that raises is logged and stops nobody."""
    for subscriber in _subscribers:
        try:
            subscriber(event)
        except Exception:
            logging.getLogger("rqmem.events").exception("subscriber %r failed on %r", subscriber, event)
