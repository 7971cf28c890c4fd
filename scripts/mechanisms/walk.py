"""Runs the job of each mechanism, one after the other on one worker, and judges what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from redis import Redis
from rq.job import JobStatus

from rqmem import MemoryAwareJob
from rqmem.events import Breach
from rqmem.policy.alert_rules import USAGE
from rqmem.store import execution_reader
from rqmem.store.execution_records import RunRecord
from rqmem.store.history import history_reader
from rqmem.units import MB
from scripts.harness import error_of
from scripts.mechanisms import jobs, verdicts
from scripts.mechanisms.own_worker import OwnWorker
from scripts.mechanisms.verdicts import Verdict

JOB_TYPES = [each.path() for each in jobs.ALL]
HELD_MB = 40
BEYOND_MB = 512  # where a job ends that nobody stops
ITEMS, ITEM_KB = 20_000, 10
NUMBERS, CHILDREN = 2_000, 4
HEAVY_ITEMS, HEAVY_FRACTION = 16, 0.16  # of the ceiling each: eight at once are too many, four are not
NEAR_FRACTION = 0.9

_JOB_SECONDS = 60.0
_RESOLVED_SECONDS = 10.0
_ENDED = (JobStatus.FINISHED, JobStatus.FAILED, JobStatus.CANCELED, JobStatus.STOPPED)


@dataclass(frozen=True)
class Ended:
    """How a job ended: RQ's status, its result or the last line of its error, its run and its breaches."""

    status: str
    result: Any
    error: str
    run: RunRecord
    breaches: list[Breach]

    def judged(self, mechanism: str, judge: Callable[[], Verdict]) -> Verdict:
        """The verdict on a job that finished, or that it did not finish."""
        finished = self.status == JobStatus.FINISHED.value
        return judge() if finished else verdicts.unfinished(mechanism, self.status, self.error)


@dataclass(frozen=True)
class Walk:
    """Goes through the mechanisms. ``memory_mb`` is the worker's ceiling; the sizes of the jobs follow it."""

    connection: Redis
    worker: OwnWorker
    mark: str
    memory_mb: float

    def verdicts(self) -> Iterator[Verdict]:
        """One verdict after the other, each as soon as it is known. Raises `RqmemError` if the worker ends."""
        held = self.run(jobs.Tracked, megabytes=HELD_MB)
        yield held.judged("tracking", lambda: verdicts.tracking(HELD_MB, tuple(held.result), held.run.peak_mb))

        collected = self.run(jobs.Collected, megabytes=HELD_MB)
        yield collected.judged("collection", lambda: verdicts.collection(HELD_MB, collected.result))

        greedy = self.run(jobs.Greedy, bound_mb=round(self.memory_mb) + BEYOND_MB)
        breach = greedy.breaches[0] if greedy.breaches else None
        yield verdicts.ceiling(greedy.status, greedy.error, breach, self.run(jobs.After).result)

        items = max(ITEMS, round(2 * self.memory_mb * 1024 / ITEM_KB))  # twice the ceiling at least
        total_mb = items * ITEM_KB * 1024 / MB
        chunked = self.run(jobs.Chunked, count=items, item_kb=ITEM_KB)
        yield chunked.judged(
            "chunking", lambda: verdicts.chunking(items, total_mb, chunked.result, chunked.run, self.memory_mb)
        )

        divided, expected = self.run(jobs.Divided, count=NUMBERS), sum(range(NUMBERS))
        yield divided.judged("splitting", lambda: verdicts.splitting(divided.result, expected, CHILDREN, divided.run))

        heavy = self.run(jobs.Resumed, count=HEAVY_ITEMS, item_mb=round(HEAVY_FRACTION * self.memory_mb))
        yield heavy.judged("resume", lambda: verdicts.resume(heavy.result, HEAVY_ITEMS, heavy.run))

        near = self.run(jobs.NearCeiling, limit_mb=self.memory_mb, fraction=NEAR_FRACTION)
        if near.result is not None:
            self.worker.wait_for(lambda: USAGE.name in self.rules("resolved"), _RESOLVED_SECONDS)
        raised, resolved = self.rules("raised"), self.rules("resolved")
        yield near.judged("alert", lambda: verdicts.alert(near.result, raised, resolved))

    def rules(self, state: str) -> set[str]:
        """The rules of the alerts in that state (raised or resolved) about jobs of this script."""
        alerts = history_reader.alerts(self.connection)
        return {alert.rule for alert in alerts if alert.job in JOB_TYPES and alert.state == state}

    def run(self, job_class: type[MemoryAwareJob], **kwargs: Any) -> Ended:
        """Run a job to its end, or for as long as one may take."""
        name = f"{self.mark}-{job_class.__name__}"
        job = job_class.enqueue(self.mark, connection=self.connection, job_id=name, **kwargs)
        self.worker.wait_for(lambda: job.get_status() in _ENDED, _JOB_SECONDS)
        return Ended(
            status=job.get_status().value,
            result=job.return_value(),
            error=error_of(job),
            run=execution_reader.run(self.connection, job.id),
            breaches=execution_reader.breaches(self.connection, job.id),
        )
