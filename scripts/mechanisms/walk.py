"""Runs the job of each mechanism, one after the other on one worker, and asks for its verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis import Redis
from rq.job import Job, JobStatus

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

    @property
    def well(self) -> bool:
        return self.status == JobStatus.FINISHED.value


class Walk:
    """The mechanisms in turn. ``memory_mb``: the worker's ceiling, which the jobs' sizes follow."""

    def __init__(self, connection: Redis, worker: OwnWorker, mark: str, memory_mb: float) -> None:
        self.connection = connection
        self.worker = worker
        self.mark = mark
        self.memory_mb = memory_mb

    def verdicts(self) -> Iterator[Verdict]:
        """One after the other, each as soon as it is known. Raises `RqmemError` when the worker ends."""
        steps: list[Callable[[], Verdict]] = [
            self.tracking, self.collection, self.ceiling, self.chunking, self.splitting, self.resume, self.alert,
        ]  # fmt: skip
        for step in steps:
            yield step()

    def tracking(self) -> Verdict:
        ended = self.run(jobs.Tracked, megabytes=HELD_MB)
        return self.judged("tracking", ended, lambda seen: verdicts.tracking(HELD_MB, tuple(seen), ended.run.peak_mb))

    def collection(self) -> Verdict:
        return self.judged(
            "collection", self.run(jobs.Collected, megabytes=HELD_MB), partial(verdicts.collection, HELD_MB)
        )

    def ceiling(self) -> Verdict:
        greedy = self.run(jobs.Greedy, bound_mb=round(self.memory_mb) + BEYOND_MB)
        after = self.run(jobs.After)
        breach = greedy.breaches[0] if greedy.breaches else None
        return verdicts.ceiling(greedy.status, greedy.error, breach, after.result)

    def chunking(self) -> Verdict:
        items = max(ITEMS, round(2 * self.memory_mb * 1024 / ITEM_KB))  # twice the ceiling at least
        total_mb = items * ITEM_KB * 1024 / MB
        ended = self.run(jobs.Chunked, count=items, item_kb=ITEM_KB)
        return self.judged(
            "chunking",
            ended,
            lambda seen: verdicts.chunking(items, total_mb, seen[0], seen[1], ended.run, self.memory_mb),
        )

    def splitting(self) -> Verdict:
        ended = self.run(jobs.Divided, count=NUMBERS)
        return self.judged(
            "splitting", ended, lambda total: verdicts.splitting(total, sum(range(NUMBERS)), CHILDREN, ended.run)
        )

    def resume(self) -> Verdict:
        ended = self.run(jobs.Resumed, count=HEAVY_ITEMS, item_mb=round(HEAVY_FRACTION * self.memory_mb))
        return self.judged("resume", ended, lambda result: verdicts.resume(result, HEAVY_ITEMS, ended.run))

    def alert(self) -> Verdict:
        ended = self.run(jobs.NearCeiling, limit_mb=self.memory_mb, fraction=NEAR_FRACTION)
        if ended.result is not None:
            self.worker.wait_for(lambda: USAGE.name in self.rules("resolved"), _RESOLVED_SECONDS)
        return self.judged(
            "alert", ended, lambda seconds: verdicts.alert(seconds, self.rules("raised"), self.rules("resolved"))
        )

    def rules(self, state: str) -> set[str]:
        """Of the alerts that were raised, or resolved, about jobs of this script."""
        return {
            alert.rule
            for alert in history_reader.alerts(self.connection)
            if alert.job in JOB_TYPES and alert.state == state
        }

    def run(self, job_class: type[MemoryAwareJob], **kwargs: Any) -> Ended:
        """Run a job to its end, or for as long as one may take."""
        name = f"{self.mark}-{job_class.__name__}"
        job = job_class.enqueue(self.mark, connection=self.connection, job_id=name, **kwargs)
        self.worker.wait_for(lambda: job.get_status() in _ENDED, _JOB_SECONDS)
        return self.ended(job)

    def ended(self, job: Job) -> Ended:
        return Ended(
            status=job.get_status().value,
            result=job.return_value(),
            error=error_of(job),
            run=execution_reader.run(self.connection, job.id),
            breaches=execution_reader.breaches(self.connection, job.id),
        )

    def judged(self, mechanism: str, ended: Ended, judge: Callable[[Any], Verdict]) -> Verdict:
        """The verdict on the result of a job that ended well, or that it did not."""
        return judge(ended.result) if ended.well else verdicts.unfinished(mechanism, ended.status, ended.error)
