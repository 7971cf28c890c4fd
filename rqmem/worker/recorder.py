"""What a worker remembers for others: gathered while it works, written to the journal once a second by its heart.

Events of the worker come by subscription, those of the horse over its event ring, readings from the shared page.
Promises: nothing in here waits for Redis but `flush`, which the heart's thread calls; what cannot be written is kept up
to a bound, then dropped and counted; a journal of another version is left alone.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from rqmem import events
from rqmem.measure import machine, procfs
from rqmem.policy.memory_curve import MemoryCurve
from rqmem.store import codec, keys
from rqmem.store.alerts.alert_writer import end_alerts_of_lost_workers
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import OK, Grown, Live, LiveJob, Run
from rqmem.store.history.kept_types import kept_as
from rqmem.store.history.known_peaks import KnownPeaks
from rqmem.store.history.pool_records import HostMemory
from rqmem.store.history.samples import RINGS, Sample, merged
from rqmem.units import to_mb
from rqmem.worker.alerting import Alerting
from rqmem.worker.horse.channel import Ran
from rqmem.worker.horse.source_lines import described_growth
from rqmem.worker.peak_records import Peaks
from rqmem.worker.pool.member import Member
from rqmem.worker.running_job import LEAST_POINTS, RunningJob
from rqmem.worker.shared_memory import SharedPage

_MOST_KEPT = 2000  # of a kind
_LONG_SECONDS = 5.0  # the curve of a job without a story is kept if it took at least so long
T = TypeVar("T")
_log = logging.getLogger("rqmem.journal")


@dataclass(frozen=True)
class About:
    """What does not change while a worker lives. Sizes in MB."""

    worker: str
    queues: list[str]
    limit_mb: float
    worker_limit_mb: float
    kept_by: str
    leases: str = ""
    code_version: str = ""


@dataclass(eq=False)
class Recorder:
    """The memory of one worker for others.

    Args:
        journal: whether anything but the heartbeat is written.
        listener: called with each event, from any thread; it must not wait.
        member: knows the worker's pool.
    """

    about: About
    alerting: Alerting
    journal: bool = True
    listener: Callable[[events.Event], None] | None = None
    member: Member | None = None
    started_at: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()  # between the main thread's `ended` and the heart's `flush`
        self._running: RunningJob | None = None
        self._told: deque[tuple[float, events.Event]] = deque()
        self._runs: deque[Run] = deque()
        self._drawn: deque[Run] = deque()  # those whose curves go into stories
        self._grown: deque[Grown] = deque()
        self._peaks = Peaks(history_writer.KEPT_GROWN, keys.WEEK_SECONDS)
        self._dropped: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._samples: list[Sample] = []
        self._known = KnownPeaks()
        self._usable: bool | None = None

    # In the worker's main thread

    def take(self, event: events.Event) -> None:
        if event.worker != self.about.worker or os.getpid() != self._pid:  # a fork's events come over the event ring
            return
        with self._lock:
            if self._running is not None:
                self._read_events(self._running)  # what the horse told comes first
            self._note(time.time(), event)

    def began(
        self, page: SharedPage, job: str, job_id: str, queue: str, initial_mb: float, horse_pid: int,
        whole_time: MemoryCurve,
    ) -> None:  # fmt: skip
        """A horse runs this job from now on; ``whole_time`` is filled meanwhile."""
        with self._lock:
            self._running = RunningJob(
                page, job, job_id, queue, initial_mb, initial_mb, time.time(), horse_pid, whole_time=whole_time
            )

    def now(self) -> LiveJob | None:
        """The job that runs; from any thread."""
        running = self._running
        return running.live() if running is not None else None

    def lease_ended(self, page: SharedPage, ran: Sequence[Ran], outcome: str, whole_time: MemoryCurve) -> None:
        """A lease has ended, in which these jobs ran.

        Recording each would cost more than running it. So one run represents all of a type: numbers, times, chunks
        and items are exact in sum, and the peak is the highest of one of them. A last job that was long, or no plain
        success, has a run of its own, with ``whole_time``.
        """
        with self._lock:
            running, now = self._running, time.time()
            if running is None:
                return
            self._read_events(running)
            self._running = None
            own = page.outcome or outcome
            self._counts["jobs"] += sum(each.times for each in ran) + bool(own)
            if not self.journal:
                return
            for each in ran:
                seconds, initial_mb = each.seconds / each.times, running.initial_mb
                self._keep_run(
                    Run(
                        job=each.job, queue=running.queue, worker=self.about.worker, ended_at=now, outcome=OK,
                        seconds=round(seconds, 6), initial_mb=initial_mb,
                        peak_mb=max(initial_mb, to_mb(each.peak_bytes)),
                        limit_mb=to_mb(each.limit_bytes or page.ceiling_bytes),
                        declared_mb=to_mb(each.declared_bytes) or None, times=each.times,
                        mb_seconds=round(initial_mb * seconds, 6), tenant=each.tenant, counted=each.counted,
                        chunks=each.chunks, items=each.items, largest_chunk=each.largest_chunk,
                        collections=each.collections, freed_mb=round(each.freed_mb, 3), needed_mb=each.needed_mb,
                        code_version=self.about.code_version,
                    )
                )  # fmt: skip
            if own:
                self._keep_end(replace(running.as_leased(), whole_time=whole_time), own, now)

    def ended(self, outcome: str) -> None:
        """It has ended; ``outcome`` where the horse left no word."""
        with self._lock:
            running, now = self._running, time.time()
            if running is None:
                return
            self._read_events(running)
            self._running = None
            self._counts["jobs"] += 1
            if self.journal:
                self._keep_end(running, running.page.outcome or outcome, now)

    @property
    def runs(self) -> bool:
        return self._running is not None

    # In the heart's thread

    @property
    def busy(self) -> bool:
        """Whether there is something to tell before the next heartbeat."""
        return self._running is not None or bool(self._told) or bool(self._runs) or self.alerting.busy

    def sees_news(self) -> bool:
        """Whether there is an alert to tell. Talks to nobody; to be asked between two calls of `flush`."""
        if not (self.journal and self._usable):
            return False
        now = time.time()
        with self._lock:
            live, initial_mb = self._live(now), self._initial_mb()
        if live.job is not None and not self._known.knows(live.job.job):
            return True  # what it may be expected to need is to be read first
        self._read_alerts(live, now, initial_mb, None)
        return self.alerting.busy

    def flush(self, connection: Redis, seconds: float) -> None:
        """Say that the worker lives, for ``seconds``, and write what has come together. Raises redis-py's errors."""
        now = time.time()
        with self._lock:
            if self._running is not None:
                self._read_events(self._running)
            live, initial_mb = self._live(now), self._initial_mb()
        self._beat(connection, live, seconds)
        if self._usable is None and self.journal:
            self._usable = self._look_at_journal(connection, now)
        if not (self.journal and self._usable):
            return
        self._sample(live, now)
        self._read_alerts(live, now, initial_mb, connection)
        self.alerting.flush(connection, now)
        self._dropped["alerts"], self.alerting.dropped = self._dropped["alerts"] + self.alerting.dropped, 0
        told, runs, dropped = list(self._told), list(self._runs), dict(self._dropped)
        grown, drawn = list(self._grown), list(self._drawn)
        alerts = Counter((event.job, event.rule) for _, event in told if isinstance(event, events.AlertRaised))
        leaks = [event for _, event in told if isinstance(event, events.LeakFound)]
        names = {run.job for run in runs} | {each.job for each in grown} | {job for job, _ in alerts}
        names |= {leak.job for leak in leaks}
        try:
            kept = kept_as(connection, names, now)
        except ResponseError:  # a Redis that refuses even this is reported below
            kept = {}
        with connection.pipeline() as pipeline:  # all or nothing: what a refusal cut in two would be counted twice
            history_writer.write_samples(pipeline, live.worker, self._samples, now)
            history_writer.write_runs(pipeline, runs, alerts, now, leaks, kept)
            for job_id, lines in _stories(told, drawn).items():
                history_writer.write_story(pipeline, job_id, lines, now)
            history_writer.write_grown(pipeline, grown, kept)
            history_writer.count_dropped(pipeline, dropped)
            answers = pipeline.execute(raise_on_error=False)
        self._forget(told, runs, grown, drawn)
        self._dropped -= Counter(dropped)
        self._note_refused(answers)
        if told or runs:
            history_writer.trim(connection)

    def _beat(self, connection: Redis, live: Live, seconds: float) -> None:
        """Command by command: a Redis without memory takes the one that says that the worker lives."""
        with connection.pipeline(transaction=False) as pipeline:
            history_writer.beat(pipeline, live, seconds)
            if (memory := machine.read_memory()) is not None:
                history_writer.write_host(pipeline, HostMemory(live.host, live.at, *memory), seconds)
            if self.member is not None and (record := self.member.record(live.at)) is not None:
                history_writer.write_pool(pipeline, record, seconds)
            refused = [answer for answer in pipeline.execute(raise_on_error=False) if isinstance(answer, RedisError)]
        if refused:
            raise refused[0]

    def begin_anew(self) -> None:
        """Redis has lost the journal: the next `flush` looks at it as the first one did."""
        self._usable = None

    def end_alerts_of_others(self, connection: Redis) -> None:
        """What lost workers had raised has ended with them. Raises redis-py's errors."""
        if self._usable:
            end_alerts_of_lost_workers(connection, time.time())

    def _forget(self, *written: Sequence[Any]) -> None:
        """What was written, or refused, of each kind; what came meanwhile stays."""
        kinds: tuple[deque[Any], ...] = (self._told, self._runs, self._grown, self._drawn)
        for kept, those in zip(kinds, written, strict=True):
            for _ in those:
                kept.popleft()

    def _note_refused(self, answers: list[Any]) -> None:
        refused = [answer for answer in answers if isinstance(answer, RedisError)]
        if refused:
            self._dropped["refused"] += len(refused)
            _log.warning("worker %s: Redis refused %d writes to the journal: %s",
                         self.about.worker, len(refused), refused[0])  # fmt: skip

    def _look_at_journal(self, connection: Redis, now: float) -> bool:
        """Whether it is ours to write; and the samples of this worker's life before it restarted."""
        if not history_writer.version_is_ours(connection):
            _log.warning(
                "worker %s: the journal on this Redis is of another version of rqmem and is left alone: nothing is "
                "remembered of what runs here; 'rqmem journal clear' begins a new one", self.about.worker,
            )  # fmt: skip
            return False
        lasts = [history_reader.samples(connection, self.about.worker, now, ring)[-1:] for ring in RINGS]
        self._samples = [last[0] if last else Sample(0, 0.0, 0.0, 0.0) for last in lasts]
        return True

    def _read_alerts(self, live: Live, now: float, initial_mb: float, connection: Redis | None) -> None:
        """``connection``: None where what is known of the job's type has been read."""
        known_mb = self._known.of(connection, live.job.job, initial_mb, now) if live.job is not None else 0.0
        self.alerting.read(live, now, initial_mb, known_mb)

    def _initial_mb(self) -> float:
        return self._running.with_imports_mb() if self._running is not None else 0.0

    def _sample(self, live: Live, now: float) -> None:
        usage_mb, limit_mb = (live.job.usage_mb, live.job.limit_mb) if live.job else (0.0, 0.0)
        self._samples = [
            merged(before, Sample(ring.begin(now), usage_mb, limit_mb, live.worker_mb))
            for ring, before in zip(RINGS, self._samples, strict=True)
        ]

    def _live(self, now: float) -> Live:
        running = self._running
        jobs = self._counts["jobs"] + (running.page.lease_done if running else 0)
        return Live(
            worker=self.about.worker, host=os.uname().nodename, pid=os.getpid(), at=now, started_at=self.started_at,
            worker_mb=to_mb(procfs.own_held_bytes()), worker_limit_mb=self.about.worker_limit_mb,
            limit_mb=self.about.limit_mb, horse_pid=running.horse_pid if running else 0, kept_by=self.about.kept_by,
            jobs=jobs, breaches=self._counts["breaches"], recycled=self._counts["recycled"],
            queues=self.about.queues, job=running.live() if running else None, process=procfs.process_identity(),
            leases=self.about.leases,
            pool=self.member.pool if self.member is not None else "",
        )  # fmt: skip

    # Either

    def _read_events(self, running: RunningJob) -> None:
        lines, running.position, lost = running.page.event_ring.read(running.position)
        self._dropped["events"] += lost
        for line in lines:
            fields = json.loads(line)
            whose = {"job_id": running.job_id, "queue": running.queue, "worker": self.about.worker}
            event = codec.event_from_values({**fields, **whose} if running.job_id else {**whose, **fields})
            if event is not None:
                self._note(fields["at"], event, running)

    def _note(self, at: float, event: events.Event, running: RunningJob | None = None) -> None:
        running = running or self._running
        if running is not None and running.is_about(event) and not running.take(event):
            return
        if self.listener is not None:
            self.listener(event)
        self._counts["breaches"] += isinstance(event, events.Breach)
        self._counts["recycled"] += isinstance(event, events.HorseRecycled)
        if not self.journal:
            return
        self.alerting.take(event, at)
        told = event.without_evidence() if isinstance(event, events.Breach) else event
        self._keep(self._told, "events", (at, told))

    def _keep(self, kept: deque[T], what: str, item: T) -> None:
        """Keep it for the next `flush`; where there are too many already, it is dropped and counted."""
        if len(kept) < _MOST_KEPT:
            kept.append(item)
        else:
            self._dropped[what] += 1

    def _keep_end(self, running: RunningJob, outcome: str, now: float) -> None:
        run = running.run(outcome, self.about.worker, self.about.code_version, now)
        self._keep_run(run)
        self._keep_curve(running, run)
        self._keep_growth(running.page, run)

    def _keep_run(self, run: Run) -> None:
        self._known.ran(run)
        self._keep(self._runs, "runs", run)

    def _keep_curve(self, running: RunningJob, run: Run) -> None:
        """For the story of the job. A short one of a job that tells none is left out: it would displace others."""
        curve = running.whole_time.points(run.seconds)
        if len(curve) < LEAST_POINTS or not (running.told or run.seconds >= _LONG_SECONDS):
            return
        drawn = replace(run, curve_mb=curve, curve_step_seconds=round(running.whole_time.step_seconds, 3))
        self._keep(self._drawn, "curves", drawn)

    def _keep_growth(self, page: SharedPage, run: Run) -> None:
        """Where a run grew whose peak is a record; one that never grew by a step, or breached, costs nothing here."""
        if not page.grew or run.layer or not self._peaks.is_record(run.job, run.peak_mb, run.ended_at):
            return
        lines = tuple(described_growth(page))
        grown = Grown(run.job, run.job_id, run.worker, round(run.ended_at, 3), run.peak_mb, run.limit_mb, lines)
        self._keep(self._grown, "growth", grown)


def _stories(told: list[tuple[float, events.Event]], drawn: list[Run]) -> dict[str, list[dict[str, Any]]]:
    """Job id -> its events and ends as a story keeps them. Events that are about no job are in none."""
    stories: dict[str, list[dict[str, Any]]] = {}
    for at, event in told:
        if event.job_id:
            stories.setdefault(event.job_id, []).append(history_writer.story_line(at, event))
    for run in drawn:
        stories.setdefault(run.job_id, []).append(history_writer.end_line(run))
    return stories
