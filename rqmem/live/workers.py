"""What the readings of workers add up to: histories, crossings of the threshold, totals. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import replace

from rqmem.live.crossings import Crossing, Crossings
from rqmem.live.steps import WorkerStep, fullest
from rqmem.observe.model import Kind, Worker
from rqmem.observe.snapshot import HISTORY_SECONDS
from rqmem.store.history.history_records import Live
from rqmem.store.history.samples import Sample
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
        self._histories: dict[str, deque[Sample]] = {}
        self._spoke: dict[str, tuple[float, float]] = {}
        self._totals: dict[str, WorkerTotals] = {}

    @property
    def totals(self) -> list[WorkerTotals]:
        """By name."""
        return sorted(self._totals.values(), key=lambda each: each.worker)

    @property
    def sampled(self) -> dict[str, float]:
        """Of when the last sample of each is."""
        return {name: float(samples[-1].at) for name, samples in self._histories.items() if samples}

    def history(self, worker: str) -> list[Sample]:
        """Its samples of the last `HISTORY_SECONDS`, oldest first."""
        return list(self._histories.get(worker, ()))

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
        self._remember(worker.name, [*worker.samples, *([_sample(live)] if live is not None else [])])
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
        for name in self._histories.keys() - set(names):
            self.crossings.lost(name)
            del self._histories[name]
            self._spoke.pop(name, None)
        while len(self._totals) > MOST_KEPT:
            del self._totals[min(self._totals.values(), key=lambda each: each.last_seen_at).worker]

    def _remember(self, worker: str, samples: Iterable[Sample]) -> None:
        history = self._histories.setdefault(worker, deque())
        for sample in samples:
            if not history or history[-1].at < sample.at:
                history.append(sample)
            elif history[-1].at == sample.at and history[-1].usage_mb < sample.usage_mb:
                history[-1] = sample
        while history and history[0].at < history[-1].at - HISTORY_SECONDS:
            history.popleft()


def _sample(live: Live) -> Sample:
    usage_mb, limit_mb = (live.job.usage_mb, live.job.limit_mb) if live.job is not None else (0.0, 0.0)
    return Sample(int(live.at), usage_mb, limit_mb, live.worker_mb)


def _step(live: Live) -> WorkerStep:
    job = live.job
    if job is None:
        return WorkerStep(live.worker, 0.0, 0.0, live.worker_mb)
    return WorkerStep(
        live.worker, job.usage_mb, job.limit_mb, live.worker_mb, job.job, job.job_id, job.operation, job.items_done
    )
