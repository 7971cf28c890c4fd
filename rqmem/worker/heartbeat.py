"""The heart's thread: all that talks to Redis while the worker's main thread watches a horse.

It writes heartbeats of the worker and of the running job, takes over runs of dead workers, and writes the history
(`rqmem.worker.recorder`), once a second while there is something to write. It has a connection of its own with a short
timeout. While Redis is away or refuses, it skips beats. Any other error is logged once; the other steps go on.
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
_SETTLE_SECONDS = 3.0  # `stop` waits this long for the process that settles jobs of dead workers
_AGAIN_SECONDS = 2.0
_MOST_LOGGED = 20
_LOOKS = 3  # per tick, at the job's usage, so that growth is reported within a second
log = logging.getLogger("rqmem.heart")


class Heart:
    """Beats for one worker from `start` to `stop`, any number of times.

    Attributes:
        recorder: has the history to write. Not set before the first `start`.
        beating: True between `start` and `stop`.
        epoch: epoch of the data in Redis (`rqmem.store.keys.EPOCH`); it changes when Redis has lost its data.
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
        # Not a `SimpleQueue`: its `get` with a timeout can block for ever after a `get` that did not have to wait.
        self._errands: deque[Callable[[Redis], object]] = deque()  # only the thread takes from it
        self._nothing_new = threading.Lock()  # released when there is an errand, or at the end
        self._nothing_new.acquire()
        self._running: tuple[Job, Execution] | None = None
        self._maintained_at = 0.0
        self._parents: set[str] = set()  # ids of parents whose RQ meta is to be updated: a child ran here
        self._state: State | None = None
        self._changed_at = float("-inf")
        self._logged: set[str] = set()
        self._wrote: tuple[float, int | None] = (float("-inf"), None)
        self.epoch = ""

    def start(self, recorder: Recorder) -> None:
        """Write the first heartbeat now, so that this worker does not seem dead, then start the thread.

        Runs of dead workers are taken over before the first job is taken. Raises redis-py's errors.
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
        """Beat during the block, for a job outside of `work`, where `start` was not called."""
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
        """Look now whether jobs of dead workers will come back to the worker's queues. In the main thread."""
        self._do(self._look_for_lost)
        return self._recovery.due_back > 0 or self.away

    def stop(self) -> None:
        """Stop beating, and write to Redis that the worker has ended. An error of Redis is logged only."""
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
        """Also write this job's heartbeats from now on; the first one when it has run for a second."""
        self._maintained_at = time.monotonic() + _TICK_SECONDS - self._worker.job_monitoring_interval
        self._running = (job, execution)
        self.note_ran(job.id)

    def note_ran(self, job_id: str) -> None:
        """This job runs, or has run. If it is a child, RQ's meta of its parent is updated soon."""
        if (child := child_ids.parent_of(job_id)) is not None:
            self._parents.add(child[0])

    def is_due(self, timeout: int | None) -> bool:
        """Whether to write RQ's heartbeat. While this beats, one a second is enough, unless ``timeout`` changes."""
        at, before = self._wrote
        if self.beating and before == timeout and time.monotonic() - at < _TICK_SECONDS:
            return False
        self._wrote = (time.monotonic(), timeout)
        return True

    def forget_written(self) -> None:
        """Make RQ's next heartbeat due: a horse may have shortened the time to live of the worker's record."""
        self._wrote = (float("-inf"), None)

    def idle(self) -> None:
        self._running = None

    def soon(self, errand: Callable[[Redis], object]) -> None:
        """Call ``errand`` with the connection at once, in the heart's thread. It must be safe to repeat.

        While Redis is away it is tried again at each beat. Signal handlers may call this.
        """
        self._errands.append(errand)
        self._ring()

    def _ring(self) -> None:
        """Wake the thread, or keep it from its next sleep."""
        with contextlib.suppress(RuntimeError):  # released already
            self._nothing_new.release()

    @property
    def away(self) -> bool:
        """Whether Redis did not answer the last beat, or refused it."""
        return self.beating and self._state is not None

    @property
    def steady(self) -> bool:
        """Whether Redis is back for so long that other workers' heartbeats are there again too."""
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
        """Call these one after another. Stop at the first for which Redis is away, or refuses."""
        for step in steps:
            try:
                step()
            except StopRequested:  # raised by RQ's signal handler, in the main thread
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
        """Register with RQ again if Redis has lost the worker's record: after FLUSHALL, for example."""
        epoch = executions.epoch(self._connection)
        if epoch != self.epoch:
            self.epoch = epoch
            self.recorder.begin_anew()
        state = self._worker.get_state()
        if state == WorkerStatus.BUSY and self._running is None and not self.recorder.runs:
            state = WorkerStatus.IDLE  # it is idle: BUSY only keeps RQ's signal handler from raising
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
        """Update RQ's meta of parents whose children run here, or have ended here."""
        for parent_id in tuple(self._parents):
            running = self._running
            child = child_ids.parent_of(running[0].id) if running is not None else None
            told = parent_meta.refresh(self._connection, parent_id, self._worker.serializer)
            if told and (child is None or child[0] != parent_id):  # otherwise again in a second
                self._parents.discard(parent_id)

    def _run_errands(self) -> None:
        while self._errands:
            try:
                self._errands[0](self._connection)
            except Exception as error:
                if unavailable(error) is None:
                    self._errands.popleft()  # otherwise it would fail for ever
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
        """Log one line when Redis goes away or begins to refuse, and one when it is back."""
        before, self._state = self._state, state
        if state == before:
            return
        self._changed_at = time.monotonic()
        if state is None:
            self._maintained_at = 0.0  # so that nobody takes the job for abandoned
            log.warning("worker %s: %s", self._worker.name, words.REDIS_BACK["away"])
        else:
            log.warning("worker %s: %s the heartbeat: %s", self._worker.name, words.REDIS_GONE[state], reason)
