"""The worker's helper thread: everything that talks to Redis while the main thread watches a horse.

Says that the worker lives, keeps RQ's heartbeats of the running job, looks for runs of dead workers, and writes what
the worker remembers for others (`rqmem.worker.recorder`): once a second while there is something to tell.
It has a connection of its own with a short timeout; a Redis that is away or refuses makes it skip a beat and
ends nothing. Any other error is logged once, and spoils one step of the beat.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from redis import Redis
from redis.exceptions import RedisError

from rqmem import child_ids, words
from rqmem.measure.machine import OomKills
from rqmem.rq_names import Execution, Job, StopRequested, Worker, WorkerStatus
from rqmem.store import executions, parent_meta
from rqmem.store.guarded import Existing
from rqmem.store.retrying import (
    State,
    connection_with_short_timeout,
    described,
    note,
    reopen_at_failover,
    unavailable,
)
from rqmem.worker.abandoned_jobs import Settler
from rqmem.worker.pool.member import Member
from rqmem.worker.recorder import Recorder
from rqmem.worker.rq_worker import OnConnection
from rqmem.worker.takeover import Recovery
from rqmem.worker.worker_name import register_again
from rqmem.worker.worker_setup import Setup

_TICK_SECONDS = 1.0
_SETTLE_SECONDS = 3.0  # what is being settled for a dead worker may end, when this one stops
_AGAIN_SECONDS = 2.0
_MOST_LOGGED = 20
_LOOKS = 3  # in a tick, at what the job uses: growth is reported within a second
log = logging.getLogger("rqmem.heart")


class Heart:
    """Beats for one worker from `start` to `stop`, any number of times.

    Attributes:
        recorder: what it writes. There is none before the first start.
        beating: between `start` and `stop`.
        epoch: of the data that Redis has now (`rqmem.store.keys.EPOCH`).
    """

    recorder: Recorder

    def __init__(self, worker: Worker, setup: Setup, settler: Settler, oom_kills: OomKills, member: Member) -> None:
        self._member = member
        member.soon = self.soon
        self._worker = worker
        self._config = setup.config
        self._seconds = setup.config.heartbeat_seconds
        self._settler = settler
        self._oom_kills = oom_kills
        self._stopped = threading.Event()
        self._stopped.set()
        # Not a `SimpleQueue`: its `get` with a timeout may wait for ever, if an item was there without a wait before.
        self._errands: deque[Callable[[Redis], object]] = deque()  # the thread alone takes from it
        self._nothing_new = threading.Lock()  # held until there are errands, or the end
        self._nothing_new.acquire()
        self._running: tuple[Job, Execution] | None = None
        self._maintained_at = 0.0
        self._parents: set[str] = set()  # of jobs that ran here, whose RQ meta does not say so yet
        self._state: State | None = None
        self._changed_at = float("-inf")
        self._logged: set[str] = set()
        self._wrote: tuple[float, int | None] = (float("-inf"), None)
        self.epoch = ""

    def start(self, recorder: Recorder) -> None:
        """Beat once at once, so that no run is claimed by a worker that seems dead; then in the thread.

        What dead workers left comes before what is queued.
        """
        self.recorder = recorder
        self._state = None
        self._stopped.clear()
        self._thread = threading.Thread(target=self._beat_until_stopped, name="rqmem-heart", daemon=True)
        self._connection = connection_with_short_timeout(self._worker.connection, self._seconds)
        reopen_at_failover(self._connection)
        self._recovery = Recovery(self._worker, self._connection, self._config, self._settler)
        self._oom_kills.begin()
        recorder.flush(self._worker.connection, 2 * self._seconds)
        self.epoch = executions.epoch(self._worker.connection)
        self._do(self._look_for_lost)
        self._thread.start()

    @contextlib.contextmanager
    def beats_meanwhile(self, new_recorder: Callable[[], Recorder]) -> Iterator[None]:
        """For one job outside of `work`, where nobody has started it."""
        if self.beating:
            yield
            return
        self.start(new_recorder())
        try:
            yield
        finally:
            self.stop()

    @property
    def beating(self) -> bool:
        return not self._stopped.is_set()

    @property
    def put_back(self) -> int:
        """How often a job of a dead worker was queued again or settled here, since the start."""
        return self._recovery.put_back if self.beating else 0

    def waits_for_lost(self) -> bool:
        """Look again whether anything of dead workers is due to come back to the worker's queues."""
        self._do(self._look_for_lost)
        return self._recovery.due_back > 0 or self.away

    def stop(self) -> None:
        """Stop beating, and tell others that the worker has ended. A Redis that is away is no reason to fail."""
        if not self.beating:
            return
        self._recovery.close(min(self._seconds, _SETTLE_SECONDS))
        self._stopped.set()
        self._ring()
        if self._thread.is_alive():
            self._thread.join(timeout=2 * self._seconds)
        try:
            self._run_errands()
            self.recorder.flush(self._connection, 2 * self._seconds)
            executions.farewell(self._connection, self._worker.name)
        except RedisError as error:
            log.warning("worker %s: could not tell Redis that it ends: %s", self._worker.name, error)

    def has_taken(self, job_id: str) -> None:
        if self.beating:
            self._recovery.taken_here = job_id

    def running(self, job: Job, execution: Execution) -> None:
        """From now on that job's heartbeats are kept too, for the first time when it has run for a second."""
        self._maintained_at = time.monotonic() + _TICK_SECONDS - self._worker.job_monitoring_interval
        self._running = (job, execution)
        self.note_ran(job.id)

    def note_ran(self, job_id: str) -> None:
        """That job has run here, or runs: if it is a child, RQ's meta of its parent is soon brought up to date."""
        if (child := child_ids.parent_of(job_id)) is not None:
            self._parents.add(child[0])

    def is_due(self, timeout: int | None) -> bool:
        """Whether RQ's heartbeat is to be written: one a second is enough while this beats, of each time to live."""
        at, before = self._wrote
        if self.beating and before == timeout and time.monotonic() - at < _TICK_SECONDS:
            return False
        self._wrote = (time.monotonic(), timeout)
        return True

    def forget_written(self) -> None:
        """The next of RQ's heartbeats is due: a horse may have given the worker's record a shorter time to live."""
        self._wrote = (float("-inf"), None)

    def idle(self) -> None:
        self._running = None

    def soon(self, errand: Callable[[Redis], object]) -> None:
        """Have ``errand`` done at once, in the thread that may wait for Redis; it must bear being repeated.

        While Redis is away, it waits for the next beat. Signal handlers may call this.
        """
        self._errands.append(errand)
        self._ring()

    def _ring(self) -> None:
        """Wake whoever waits for errands, or will."""
        with contextlib.suppress(RuntimeError):  # somebody has rung already
            self._nothing_new.release()

    @property
    def away(self) -> bool:
        """Whether Redis did not answer the last beat, or refused it."""
        return self.beating and self._state is not None

    @property
    def steady(self) -> bool:
        """Whether Redis has taken beats for so long that those of other workers are there again too."""
        return not self.away and time.monotonic() - self._changed_at >= 2 * self._seconds

    def _beat_until_stopped(self) -> None:
        pause = min(self._seconds, self._worker.job_monitoring_interval)
        beat_at = flush_at = 0.0
        tick = min(_TICK_SECONDS, pause)
        while True:
            now = time.monotonic()
            if now >= beat_at:
                self._oom_kills.look()
                self._do(
                    self._flush,
                    self._register,
                    self._run_errands,
                    self._maintain,
                    lambda: self.recorder.end_alerts_of_others(self._connection),
                    self._look_for_lost,
                )
                beat_at = time.monotonic() + (pause if self._state is None else min(pause, _AGAIN_SECONDS))
                flush_at = time.monotonic() + tick
            elif self._errands and self._state is None:
                self._do(self._run_errands)
                beat_at = min(beat_at, now + _AGAIN_SECONDS) if self._state is not None else beat_at
            elif (self.recorder.busy or self._parents) and self._state is None:
                self._do(self._flush if now >= flush_at else self._flush_news)
                flush_at = now + tick if now >= flush_at else flush_at
            self._member.tell_news()
            self._nothing_new.acquire(timeout=tick / _LOOKS)
            if self._stopped.is_set():
                return

    def _do(self, *steps: Callable[[], None]) -> None:
        """One after another, up to the first for which Redis is away, or refuses."""
        for step in steps:
            try:
                step()
            except StopRequested:  # of a signal handler, in the main thread
                raise
            except Exception as error:
                if (state := unavailable(error)) is not None:
                    note(error)
                    self._recovery.forget()
                    self._tell(state, described(error))
                    return
                what = f"{type(error).__name__}: {error}"
                if what not in self._logged and len(self._logged) < _MOST_LOGGED:
                    self._logged.add(what)
                    log.exception("worker %s: a part of the heartbeat failed; this is logged once", self._worker.name)
        self._tell(None)

    def _register(self) -> None:
        """Register with RQ again where that is lost: after FLUSHALL, with an empty server, after a long absence."""
        epoch = executions.epoch(self._connection)
        if epoch != self.epoch:
            self.epoch = epoch
            self.recorder.begin_anew()
        state = self._worker.get_state()
        if state == WorkerStatus.BUSY and self._running is None and not self.recorder.runs:
            state = WorkerStatus.IDLE  # it waits, and its own state is to keep a request to stop from raising
        if not self._stopped.is_set() and register_again(self._worker, self._connection, state):
            log.warning("worker %s: its record in Redis was gone; it has been written again", self._worker.name)

    def _look_for_lost(self) -> None:
        self._recovery.scan(time.monotonic())

    def _flush_news(self) -> None:
        if self.recorder.sees_news():
            self._flush()

    def _flush(self) -> None:
        self.recorder.flush(self._connection, 2 * self._seconds)
        self._tell_parents()

    def _tell_parents(self) -> None:
        """RQ's meta of jobs whose children run here, or ended here since."""
        for parent_id in tuple(self._parents):
            running = self._running
            child = child_ids.parent_of(running[0].id) if running is not None else None
            told = parent_meta.refresh(self._connection, parent_id, self._worker.serializer)
            if told and (child is None or child[0] != parent_id):  # else again in a second
                self._parents.discard(parent_id)

    def _run_errands(self) -> None:
        while self._errands:
            try:
                self._errands[0](self._connection)
            except Exception as error:
                if unavailable(error) is None:
                    self._errands.popleft()  # else it would fail for ever
                raise
            self._errands.popleft()

    def _maintain(self) -> None:
        running = self._running
        now = time.monotonic()
        if running is None or now - self._maintained_at < self._worker.job_monitoring_interval:
            return
        self._maintained_at = now
        existing = OnConnection(self._worker, Existing(self._connection))
        Worker.maintain_heartbeats(existing, *running)  # type: ignore[arg-type]

    def _tell(self, state: State | None, reason: str = "") -> None:
        """One line when Redis goes or begins to refuse, and one when that is over."""
        before, self._state = self._state, state
        if state == before:
            return
        self._changed_at = time.monotonic()
        if state is None:
            self._maintained_at = 0.0  # so that nobody takes the job for abandoned
            log.warning("worker %s: %s", self._worker.name, words.REDIS_BACK["away"])
        else:
            log.warning("worker %s: %s the heartbeat: %s", self._worker.name, words.REDIS_GONE[state], reason)
