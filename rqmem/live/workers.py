"""What the readings of workers add up to: histories, crossings of the threshold, totals. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from rqmem.live.crossings import Crossing, Crossings
from rqmem.live.steps import WorkerStep, fullest
from rqmem.observe.model import Kind, Worker
from rqmem.observe.snapshot import HISTORY_SECONDS
from rqmem.observe.worker_histories import Histories
from rqmem.store.history.history_records import Live
from rqmem.values import dataclass

MOST_KEPT = 1000
"""Workers that are remembered, those seen last; each restart of a worker may be a new name."""


@dataclass(frozen=True)
class WorkerTotals:
    """A worker over the whole time. Times in epoch seconds.

    Attributes:
        counted: jobs that ended on it since it was born; ``ended``: those in the time of the monitor.
        fullest: when its job was nearest its ceiling; None: nothing was seen of its memory.
    """

    worker: str
    host: str
    kind: Kind
    first_seen_at: float
    last_seen_at: float
    counted: int
    ended: int = 0
    fullest: WorkerStep | None = None


@dataclass(frozen=True)
class Seen:
    """What one look added of one worker: its memory then, the crossing that began, jobs that ended."""

    step: WorkerStep | None
    crossing: Crossing | None
    ended: int


class Workers:
    def __init__(self, threshold_percentage: float) -> None:
        self.crossings = Crossings(threshold_percentage)
        self.histories = Histories(HISTORY_SECONDS)
        self._spoke: dict[str, tuple[float, float]] = {}
        self._totals: dict[str, WorkerTotals] = {}

    @property
    def totals(self) -> list[WorkerTotals]:
        """By name."""
        return sorted(self._totals.values(), key=lambda each: each.worker)

    @property
    def sampled(self) -> dict[str, float]:
        """Of when the last sample of each is."""
        return {name: float(max(points)) for name, points in self.histories.points.items() if points}

    def silent_seconds(self, worker: str, now: float) -> float:
        """How long it has said nothing new, by our clock: its own may be another."""
        return now - self._spoke[worker][1] if worker in self._spoke else 0.0

    def add(self, worker: Worker, at: float, *, first_look: bool = False) -> Seen:
        """What the look at ``at`` saw of a worker. ``first_look``: what is counted now was before our time."""
        live = worker.live
        if first_look and live is not None and live.job is not None:
            self.crossings.pass_over(worker.name, live.job)
        begun = self.crossings.add(worker.name, live.job if live is not None else None, at)
        if live is not None and self._spoke.get(worker.name, (0.0, 0.0))[0] != live.at:
            self._spoke[worker.name] = live.at, at
        self.histories.add(worker, worker.samples)
        step = _step(live) if live is not None else None
        known = self._totals.get(worker.name)
        if known is None:
            known = WorkerTotals(worker.name, worker.host, worker.kind, at, at, worker.jobs if first_look else 0)
        ended = worker.jobs - known.counted if worker.jobs >= known.counted else worker.jobs  # it has restarted
        self._totals[worker.name] = replace(
            known,
            kind=worker.kind,
            last_seen_at=at,
            counted=worker.jobs,
            ended=known.ended + ended,
            fullest=fullest(known.fullest, step) if step is not None else known.fullest,
        )
        return Seen(step, begun, ended)

    def forget_all_but(self, names: Collection[str]) -> None:
        """The others are gone; of those only totals and crossings are kept."""
        for name in self.histories.points.keys() - set(names):
            self.crossings.lost(name)
            self._spoke.pop(name, None)
        self.histories.forget_all_but(names)
        while len(self._totals) > MOST_KEPT:
            del self._totals[min(self._totals.values(), key=lambda each: each.last_seen_at).worker]


def _step(live: Live) -> WorkerStep:
    job = live.job
    if job is None:
        return WorkerStep(live.worker, 0.0, 0.0, live.worker_mb)
    return WorkerStep(
        live.worker, job.usage_mb, job.limit_mb, live.worker_mb, job.job, job.job_id, job.operation, job.items_done
    )
