"""The job that a worker's horse runs now, as the worker sees it: events and the shared page, made into records.

Nothing in here talks to Redis. `rqmem.worker.recorder` writes the records.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from rqmem import child_ids, events
from rqmem.policy.memory_curve import MemoryCurve
from rqmem.store.history.history_records import LiveJob, Run
from rqmem.units import to_mb
from rqmem.worker.horse.source_lines import described_growth
from rqmem.worker.shared_memory import SharedPage

LEAST_POINTS = 2
"""A curve with fewer points is not kept."""
_LASTS_SECONDS = 0.01  # under a lease nobody sees shorter jobs


@dataclass
class RunningJob:
    """One execution, or all jobs of a lease.

    Attributes:
        ordered_mb: what the horse used when the job was ordered.
        initial_mb: what it used when the job began.
        position: how far the event ring was read.
        told: the job has an event, so it has a story.
    """

    page: SharedPage
    job: str
    job_id: str
    queue: str
    ordered_mb: float
    initial_mb: float
    started_at: float
    horse_pid: int
    position: int = 0
    ended: events.RunEnded | None = None
    resumed: bool = False
    escalated: bool = False
    children: int = 0
    collections: int = 0
    breach: events.Breach | None = None
    whole_time: MemoryCurve = field(default_factory=MemoryCurve)
    told: bool = False

    @property
    def job_type(self) -> str:
        """As the horse says; until then as the data of the job say, without deserialising them."""
        return self.page.job or self.job

    def with_imports_mb(self) -> float:
        """What was used when the job began, with what its module has imported."""
        return max(self.initial_mb, self.ordered_mb + to_mb(self.page.imported_bytes))

    def as_leased(self) -> RunningJob:
        """Under a lease: the job in hand, as the page names it now."""
        page = self.page
        return replace(self, job=page.job, job_id=page.job_id, queue=page.queue, started_at=page.began_at)

    def is_about(self, event: events.Event) -> bool:
        return event.job_id == (self.job_id or self.page.job_id)

    def take(self, event: events.Event) -> bool:
        """Note what an event of the job says. False: it was told before."""
        self.told = True
        if isinstance(event, events.RunEnded) and event.job == self.job_type:
            self.ended = event
        elif isinstance(event, events.JobStarted) and event.job == self.job_type:
            self.initial_mb = event.memory_mb
        elif isinstance(event, events.Collection):
            self.collections = event.collections
        elif isinstance(event, events.Resumed | events.Escalated):
            self.resumed, self.escalated = True, isinstance(event, events.Escalated)
        elif isinstance(event, events.Split):
            self.children = event.children
        elif isinstance(event, events.Breach):
            if self.breach is not None and not self.page.recorded:
                return False  # its horse died between telling the breach and noting that it had
            self.breach = event
        return True

    def live(self) -> LiveJob | None:
        """The job as displays show it now. None: a lease, and the job in hand does not last."""
        page, job = self.page, self
        if page.leased:
            job = self.as_leased()
            if not page.in_user_code or time.time() - job.started_at < _LASTS_SECONDS:
                return None
        return LiveJob(
            job=job.job_type, job_id=job.job_id, queue=job.queue, started_at=job.started_at,
            usage_mb=to_mb(page.usage_bytes), peak_mb=to_mb(page.peak_bytes), limit_mb=to_mb(page.ceiling_bytes),
            operation=page.operation, items_done=page.items_done, grew=tuple(described_growth(page)),
            items_total=page.items_total - 1 if page.items_total else None,
        )  # fmt: skip

    def run(self, outcome: str, worker: str, code_version: str, now: float) -> Run:
        """The record of the execution. A killed job has reported no figures, so they are missing."""
        page, breach, ended = self.page, self.breach, self.ended
        peaks = [self.initial_mb, to_mb(page.peak_bytes)]
        peaks += [breach.peak_mb] if breach else []
        peaks += [ended.peak_memory_mb] if ended else []
        seconds = round(now - self.started_at, 3)
        return Run(
            job=self.job_type, job_id=self.job_id, queue=self.queue, worker=worker, ended_at=now, outcome=outcome,
            seconds=seconds, initial_mb=self.initial_mb, peak_mb=max(peaks), limit_mb=to_mb(page.ceiling_bytes),
            declared_mb=to_mb(page.declared_bytes) or None, final_mb=ended.final_memory_mb if ended else None,
            resumed=self.resumed, escalated=self.escalated, needed_mb=ended.needed_mb if ended else None,
            layer=breach.layer if breach else "", freed_mb=ended.freed_mb if ended else 0.0,
            collections=ended.collections if ended else self.collections, chunks=page.chunks, items=page.items,
            largest_chunk=page.largest_chunk, children=self.children, peak_sampled=page.peak_sampled,
            mb_seconds=_mb_seconds(self.whole_time, seconds, max(peaks)), tenant=page.tenant, code_version=code_version,
            counted=not (self.resumed or page.again or page.gathers or child_ids.parent_of(self.job_id)),
        )  # fmt: skip


def _mb_seconds(curve: MemoryCurve, seconds: float, peak_mb: float) -> float:
    """MB times seconds of a run; of one that was too short to be drawn, the peak for all of its time."""
    points = curve.points(seconds)
    if len(points) < LEAST_POINTS:
        return round(seconds * peak_mb, 3)
    last_seconds = max(0.0, seconds - curve.step_seconds * (len(points) - 1))
    return round(curve.step_seconds * sum(points[:-1]) + min(last_seconds, curve.step_seconds) * points[-1], 3)
