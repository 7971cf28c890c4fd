"""All that is known of one job, and what follows from it. Values and decisions; no I/O, no clock."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from rqmem import events
from rqmem.job.progress import Progress
from rqmem.observe.model import JobRow, Limit
from rqmem.store.execution_records import Owner, RunRecord
from rqmem.store.history.history_records import OK, Grown, LiveJob, Run, Told
from rqmem.store.history.pool_records import PoolWait
from rqmem.store.history.samples import Sample
from rqmem.values import dataclass, field

E = TypeVar("E", bound=events.Event)
_ENDED_BADLY = ("failed", "stopped", "canceled")


def _first(names: Iterable[str]) -> str:
    """The first that is not empty."""
    return next(filter(None, names), "")


@dataclass(frozen=True)
class LastCheckpoint:
    """The last checkpoint of a job, or the place it named last."""

    operation: str
    memory_mb: float | None
    at: float | None


@dataclass(frozen=True)
class Case:
    """One job. Sizes in MB, times in epoch seconds.

    Attributes:
        now: when it was read.
        in_rq: None: RQ has forgotten it.
        owner: who runs it now, where it is rqmem's.
        live: as its worker last said.
        silent: its worker has not been heard of.
        told: its story, oldest first; ``breaches``: with their evidence, and ``runs``: executions that ended, likewise.
        cut_at: until then the story has its first entries, and entries between them and its last ones are left out;
            None: it has all.
        limit: that holds it back, where RQ's status is ``rate_limited``.
        pool: that has had no room for it, where it is queued; empty: none has. ``wait``: for what it waits there.
        samples: of its worker while it ran, where it has no story.
        children: how far they are; None for a job that has not split.
        grown: where its executions grew whose peaks are records of the job type, oldest first.
    """

    job_id: str
    now: float
    in_rq: JobRow | None = None
    owner: Owner | None = None
    live: LiveJob | None = None
    silent: bool = False
    record: RunRecord = field(default_factory=RunRecord)
    told: list[Told] = field(default_factory=list)
    breaches: list[events.Breach] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    children: Progress | None = None
    grown: list[Grown] = field(default_factory=list)
    cut_at: float | None = None
    limit: Limit | None = None
    pool: str = ""
    wait: PoolWait | None = None

    @property
    def job(self) -> str:
        """Its job type; empty if it is not known."""
        named = [self.live.job if self.live else "", self.record.job]
        named += [told.event.job for told in self.told[:1]]
        named += [run.job for run in self.runs[:1]] + [breach.job for breach in self.breaches[:1]]
        named.append(self.in_rq.job_type if self.in_rq else "")
        return _first(named)

    @property
    def call(self) -> str:
        """As RQ describes it; else its type."""
        return self.in_rq.call if self.in_rq and self.in_rq.call else self.job

    @property
    def queue(self) -> str:
        if self.in_rq is not None:
            return self.in_rq.queue
        known = [told.event.queue for told in self.told[-1:]] + [run.queue for run in self.runs[-1:]]
        return _first(known)

    @property
    def status(self) -> str:
        """RQ's; empty: it has forgotten the job."""
        return self.in_rq.status if self.in_rq else ""

    @property
    def running(self) -> bool:
        """By RQ's word; by the worker's only of a job that RQ has forgotten."""
        return self.status == "started" or (not self.status and self.live is not None)

    @property
    def worker(self) -> str:
        """Who runs it, or ran it last."""
        if self.owner is not None:
            return self.owner.worker
        known = [self.in_rq.worker if self.in_rq else ""]
        known += [run.worker for run in self.runs[-1:]] + [told.event.worker for told in self.told[-1:]]
        return _first(known)

    @property
    def ceiling_mb(self) -> float | None:
        """Of its last execution; None: not known yet."""
        if self.live is not None:
            return self.live.limit_mb
        for told in reversed(self.told):
            event = told.event
            if isinstance(event, events.JobStarted | events.Checkpoint | events.UsageWarning | events.RunEnded):
                return event.memory_limit_mb
            if isinstance(event, events.Breach):
                return event.limit_mb
        known = [run.limit_mb for run in self.runs[-1:]] + [breach.limit_mb for breach in self.breaches[-1:]]
        return next((limit for limit in known if limit > 0), None)

    @property
    def peak_mb(self) -> float | None:
        """The most that was seen in any execution."""
        seen = [run.peak_mb for run in self.runs] + [breach.peak_mb for breach in self.breaches]
        seen += [self.live.peak_mb] if self.live else []
        seen += [self.record.peak_mb] if self.record.peak_mb else []
        for told in self.told:
            if isinstance(told.event, events.Checkpoint | events.RunEnded):
                seen.append(told.event.peak_memory_mb)
            elif isinstance(told.event, events.Breach):
                seen.append(told.event.peak_mb)
        return max(seen, default=None)

    @property
    def executions(self) -> int:
        """How often it was begun."""
        begun = sum(isinstance(told.event, events.JobStarted) for told in self.told)
        return max(begun, len(self.runs) + self.running, self.resumes + self.escalations + 1 if self.record.job else 0)

    @property
    def resumes(self) -> int:
        return max([self.record.resumes, *(each.resumes for each in self.of(events.Resumed))])

    @property
    def escalations(self) -> int:
        """How often it went on under a higher ceiling."""
        return max([self.record.escalations, *(each.escalations for each in self.of(events.Escalated))])

    @property
    def breached(self) -> int:
        """How often; the evidence of the first may be forgotten."""
        return max(self.record.breaches, len(self.breaches), len(self.of(events.Breach)))

    @property
    def items_done(self) -> int:
        """In all executions, with those of its children that have ended; while it runs, as its worker last said."""
        if not self.record.job:  # nothing is kept of its run, or not any more
            told = [each.items_done for each in self.of(events.ChunkDone)]
            told += [each.items for each in self.of(events.RunEnded)] + [run.items for run in self.runs]
            return max(told, default=0) if self.live is None else self.live.items_done
        kept = self.children.items if self.children is not None else self.record.all_items
        if self.live is None:
            return kept
        saved = 0 if self.record.stage is None else self.record.items.get(self.record.stage, 0)
        return kept + max(0, self.live.items_done - saved)

    @property
    def last_checkpoint(self) -> LastCheckpoint | None:
        for told in reversed(self.told):
            if isinstance(told.event, events.Checkpoint):
                return LastCheckpoint(told.event.operation, told.event.current_memory_mb, told.at)
        return LastCheckpoint(self.live.operation, None, None) if self.live and self.live.operation else None

    @property
    def began_at(self) -> float | None:
        """The first time, as far as that is remembered."""
        known = [told.at for told in self.told[:1]] + [run.ended_at - run.seconds for run in self.runs[:1]]
        known += [self.live.started_at] if self.live else []
        known += [self.in_rq.started_at] if self.in_rq and self.in_rq.started_at else []
        return min(known, default=None)

    @property
    def ended_at(self) -> float | None:
        """None: it has not."""
        if self.running or self.status in ("queued", "scheduled", "deferred"):
            return None
        known = [run.ended_at for run in self.runs[-1:]]
        known += [told.at for told in self.told if isinstance(told.event, events.RunEnded)][-1:]
        known += [self.in_rq.ended_at] if self.in_rq and self.in_rq.ended_at else []
        return max(known, default=None)

    @property
    def outcome(self) -> str:
        """``running``, ``ok``, the name of an error, or that it has not run."""
        if self.running:
            return "running"
        ends = [each.outcome for each in self.of(events.RunEnded)[-1:]]
        last = self.runs[-1].outcome if self.runs else (ends[-1] if ends else "")
        if not last and self.in_rq and self.in_rq.error:
            last = self.in_rq.error.partition(":")[0]
        if not last:
            return OK if self.status == "finished" else "has not run"
        return f"{last}, goes on" if self.goes_on else last

    @property
    def goes_on(self) -> bool:
        """Its last execution ended, and another is to come."""
        return bool(self.runs or self.told) and self.status in ("queued", "scheduled", "deferred")

    @property
    def error(self) -> str:
        """The last error in one line, as far as it is remembered; empty for none."""
        if self.status == "finished":
            return ""
        if self.in_rq is not None and self.in_rq.error:
            return self.in_rq.error
        gave_up = self.of(events.GaveUp)
        if gave_up and not self.running:
            return gave_up[-1].reason
        if self.breaches and self.outcome != OK:
            return f"MemoryLimitExceeded: {self.breaches[-1].summary()}"
        well = (OK, f"{OK}, goes on", "has not run")
        return "" if self.running or self.outcome in well else self.outcome

    @property
    def well(self) -> bool:
        """Neither failed nor stopped, nor left by its worker."""
        ended_badly = not self.status and self.outcome not in (OK, "has not run")
        return not (self.status in _ENDED_BADLY or self.silent or ended_badly)

    def of(self, kind: type[E]) -> list[E]:
        """Its events of one kind, oldest first."""
        return [told.event for told in self.told if isinstance(told.event, kind)]
