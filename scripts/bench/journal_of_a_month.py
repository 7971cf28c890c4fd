"""Runs of a month and more, written to a journal through its own writer within minutes.

Time is made up, so what Redis itself would have let expire meanwhile is removed here, when its time has come.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

from redis import Redis

from rqmem import events
from rqmem.store import executions, keys
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Run
from rqmem.store.history.samples import RINGS, Sample
from rqmem.store.keys import DAY_SECONDS, DAYS_KEPT, HOUR_SECONDS, HOURS_KEPT

_DAYS = 35
_AT_ONCE = 500
_EACH_WITH_A_STORY = 250
_BREACHES_EACH = 5  # stories
_WORKERS = 20


class Month:
    """``runs`` runs in 35 days, and as many a day after that."""

    TYPES = 20

    def __init__(self, connection: Redis, runs: int) -> None:
        self._connection = connection
        self._done = 0
        self._now = time.time() - _DAYS * DAY_SECONDS
        self._step_seconds = _DAYS * DAY_SECONDS / runs
        self._random = random.Random(7)
        self._types = [f"jobs.campaigns.of_customers.ProcessCampaignStep{number:02}Job" for number in range(self.TYPES)]
        history_writer.version_is_ours(connection)
        self._fill_rings()

    def go_on_until(self, runs: int) -> None:
        """Write until ``runs`` runs in all are written."""
        while self._done < runs:
            count = min(_AT_ONCE, runs - self._done)
            before, self._now = self._now, self._now + count * self._step_seconds
            ended = [self._run(self._done + number) for number in range(count)]
            with self._connection.pipeline(transaction=False) as pipeline:
                history_writer.write_runs(pipeline, ended, {(self._types[0], "memory-usage"): 1}, self._now)
                for run in ended:
                    if int(run.job_id[4:]) % _EACH_WITH_A_STORY == 0:
                        history_writer.write_story(pipeline, run.job_id, list(self._story(run)), self._now)
                pipeline.execute()
            for run in ended:
                if int(run.job_id[4:]) % (_EACH_WITH_A_STORY * _BREACHES_EACH) == 0:
                    executions.save_breach(self._connection, _breach(run))
            history_writer.trim(self._connection)
            self._let_expire(before)
            self._done += count

    def _run(self, number: int) -> Run:
        kind = self._random.randrange(self.TYPES)
        peak_mb = 30 + self._random.lognormvariate(3 + kind / 10, 0.5)
        items = self._random.randrange(1, 2000) if kind % 2 else 0
        return Run(
            job=self._types[kind], job_id=f"job-{number:032}", queue="campaigns", worker=f"host-{number % _WORKERS}",
            ended_at=self._now, outcome="ok" if number % 50 else "MemoryLimitExceeded",
            seconds=round(self._random.lognormvariate(kind / 5, 1), 3), initial_mb=28.4, peak_mb=round(peak_mb, 1),
            limit_mb=512.0, final_mb=round(peak_mb * 0.6, 1), layer="" if number % 50 else "watch",
            freed_mb=12.5 * (kind % 3), collections=kind % 3, chunks=items // 50, items=items,
            largest_chunk=min(items, 50),
        )  # fmt: skip

    def _story(self, run: Run) -> Iterator[dict[str, object]]:
        whose: dict[str, Any] = {"job": run.job, "job_id": run.job_id, "queue": run.queue, "worker": run.worker}
        for number in range(history_writer.KEPT_STORY_LINES):
            event = events.Checkpoint(
                **whose, operation=f"items {50 * number + 1}-{50 * number + 50}", current_memory_mb=run.peak_mb,
                peak_memory_mb=run.peak_mb, memory_limit_mb=run.limit_mb,
            )  # fmt: skip
            yield history_writer.story_line(self._now, event)

    def _let_expire(self, before: float) -> None:
        """Tallies whose time to live ended since: see `rqmem.store.history.history_writer.write_runs`."""
        gone = []
        for period, seconds, kept in (("h", HOUR_SECONDS, HOURS_KEPT), ("d", DAY_SECONDS, DAYS_KEPT)):
            oldest = int(self._now // seconds) - kept - 1
            for number in range(int(before // seconds) - kept - 1, oldest):
                gone += [keys.tally(name, period, number) for name in self._types]
        if gone:
            self._connection.unlink(*gone)

    def _fill_rings(self) -> None:
        now = time.time()
        with self._connection.pipeline(transaction=False) as pipeline:
            for number in range(_WORKERS):
                last = [Sample((ring.slots - 1) * ring.step_seconds, 200.0, 512.0, 40.0) for ring in RINGS]
                history_writer.write_samples(pipeline, f"host-{number}", last, now)
            pipeline.execute()


def _breach(run: Run) -> events.Breach:
    """One with all the evidence there can be."""
    return events.Breach(
        job=run.job, job_id=run.job_id, queue=run.queue, worker=run.worker, used_mb=run.peak_mb, limit_mb=run.limit_mb,
        peak_mb=run.peak_mb, layer="watch", processes=4, execution=run.job_id,
        operation="items 1200-1250", where="jobs/x.py:41 " + "x" * 150,
        curve=[(number / 10, 200.0 + number) for number in range(64)],
        grew=[(40.0, f"jobs/exports.py:{number} in handle: " + "x" * 150) for number in range(5)],
        kinds=[("dict", 100_000 * number, 50.0) for number in range(5)],
        checkpoints=[(f"items {number}-{number + 50}", 190.5) for number in range(0, 400, 50)],
        tree=[(4000 + number, "python -m rqmem worker campaigns", 60.0) for number in range(4)],
    )  # fmt: skip
