"""A run of the monitor: looks once a second, shows, saves now and then, and makes the report. Has the clocks.

Redis may be away meanwhile: that is shown, counted, and a gap in the samples. When it cannot be asked at the end
either, the report says until when it knows. Writes nothing but the report's file.
"""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass

from redis import Redis
from redis.exceptions import RedisError

from rqmem.live.job_types import JobTypes
from rqmem.live.record import News, Record
from rqmem.live.recording import MonitorOptions, Recording
from rqmem.live.saving import Output
from rqmem.live.screen import OutputClosed, Show
from rqmem.live.stopping import Stopping
from rqmem.live.system import read_system
from rqmem.observe.snapshot import Before, read_news
from rqmem.observe.statistics import Ceilings, JobStatistics, job_statistics
from rqmem.store.history.history_records import Tally

LOOK_SECONDS = 1.0
SAVE_SECONDS = 60.0
_NOTHING = Tally()
_SAVING_SHARE = 200  # saving takes half a percent of the time at most, however long the report has become


@dataclass
class Watch:
    """One run of the monitor, from its making on. Raises redis-py's errors when Redis does not answer the first time.

    Attributes:
        duration_seconds: None: until a signal comes.
        notice: what is shown as wrong: the report could not be saved.
    """

    connection: Redis
    setting: MonitorOptions
    duration_seconds: float | None
    output: Output | None
    notice: str = ""

    def __post_init__(self) -> None:
        self._begun = time.monotonic()
        now, system = time.time(), read_system()
        self.jobs = JobTypes(self.connection, now, self.setting.warning_fraction)
        first = read_news(self.connection, now, Before(), self.setting.queues)
        self.record = Record(
            first,
            system,
            step_seconds=self.setting.interval_seconds,
            threshold_percentage=self.setting.threshold_percentage,
        )
        self._save_at = self._begun + SAVE_SECONDS

    @property
    def until(self) -> float | None:
        """When it will end, epoch seconds."""
        return None if self.duration_seconds is None else self.record.started_at + self.duration_seconds

    def until_over(self, display: AbstractContextManager[Show], stopping: Stopping) -> Recording:
        """Look until it is over; the whole report."""
        ended_by, news, ticks = "duration", self.record.news, 0
        try:
            with display as show:
                while True:
                    show(self.record, news, time.time(), self.notice)
                    left = self._seconds_left()
                    ticks = max(ticks + 1, int((time.monotonic() - self._begun) / LOOK_SECONDS))
                    pause = self._begun + ticks * LOOK_SECONDS - time.monotonic()
                    if stopping.wait(min(pause, left)):
                        ended_by = stopping.reason
                        break
                    if self._seconds_left() <= 0:
                        break
                    news = self._look()
                    self._save_meanwhile()
        except OutputClosed:
            ended_by = stopping.reason or "output closed"
        self._look()
        self._read_jobs()
        return self.report(time.time(), ended_by)

    def report(self, now: float, ended_by: str = "", *, complete: bool = True) -> Recording:
        """What is known until ``now``."""
        jobs = self._statistics()
        return Recording(self.setting, self.record, jobs, self.jobs.read_at, now, ended_by, complete)

    def _seconds_left(self) -> float:
        if self.duration_seconds is None:
            return LOOK_SECONDS
        return self._begun + self.duration_seconds - time.monotonic()

    def _look(self) -> News:
        system, now = read_system(), time.time()
        try:
            seen = read_news(self.connection, now, self.record.before, self.setting.queues)
        except RedisError:
            self.record.away(now, system)
            return News()
        return self.record.add(seen, system)

    def _read_jobs(self) -> None:
        if self.record.away_since is not None:
            return
        now = time.time()
        try:
            self.jobs.read(self.connection, now)
        except RedisError:
            self.record.away(now, self.record.system)

    def _save_meanwhile(self) -> None:
        """Read what jobs did, which the journal forgets, and save, for a monitor that is killed."""
        begun = time.monotonic()
        if begun < self._save_at:
            return
        self._read_jobs()
        if self.output is not None:
            try:
                self.output.save(self.output.write(self.report(time.time(), complete=False)))
                self.notice = ""
            except OSError as error:
                self.notice = f"{self.output.path} cannot be written now: {error.strerror}"
        ended = time.monotonic()
        self._save_at = ended + max(SAVE_SECONDS, _SAVING_SHARE * (ended - begun))

    def _statistics(self) -> list[JobStatistics]:
        """Of job types that something happened to, by name."""
        added, record = self.jobs.added, self.record
        crossings = record.workers.crossings.by_job
        names = sorted({*added, *(name for name in record.alerts_by_job if name), *crossings})
        found = [
            job_statistics(
                name,
                self.jobs.runs.get(name, []),
                added.get(name, _NOTHING),
                since=record.started_at,
                queues=self.setting.queues,
                threshold_percentage=self.setting.threshold_percentage,
                alerts=record.alerts_by_job[name],
                crossings=crossings[name],
                ceilings=self.jobs.ceilings.get(name, Ceilings()),
            )
            for name in names
        ]
        return [each for each in found if each.tally.runs or each.tally.alerts or each.crossings]
