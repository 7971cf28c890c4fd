"""The actors of the model: workers with leases, a stock worker, and who takes over from the dead.

Each method sends at most one command or script, so that anything may happen between any two. What needs several is a
generator that yields between them.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job

from rqmem.child_ids import parent_of
from rqmem.errors import RunTakenOver
from rqmem.store import execution_reader, executions, held_run, lease, ledger
from rqmem.store.execution_records import Owner, Pending
from rqmem.store.held_run import NO_RECORD, HeldRecord
from rqmem.store.lease_commands import Moved, Stepped, Taken, pack_begins, pack_finished
from rqmem.store.lease_connection import LeaseConnection
from tests.lease.family import Family, children_of, goes_on, opening, record, requeue

QUEUES = ("high", "low")
Steps = Iterator[None]
_numbers = count()


@dataclass
class History:
    """What has happened, apart from Redis.

    Attributes:
        begun: id and time of making -> how often its user code has begun; ``excused``: how often more than once it may.
        disturbed: jobs that users have cancelled or deleted, or that a stock worker had.
        fronted: jobs that were put to the front of their queue since their worker died, or had not taken them yet.
        family: parents and children.
    """

    begun: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    excused: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    disturbed: set[str] = field(default_factory=set)
    fronted: set[str] = field(default_factory=set)
    family: Family = field(default_factory=Family)

    def begins(self, job: tuple[str, str]) -> None:
        self.begun[job] += 1
        assert self.begun[job] <= 1 + self.excused[job], f"{job} began {self.begun[job]} times"

    def may_begin_again(self, job: tuple[str, str]) -> None:
        self.excused[job] += 1


@dataclass
class Run:
    job: Taken
    execution: bytes
    start: float

    @property
    def id(self) -> str:
        return self.job.id.decode()

    @property
    def queue(self) -> bytes:
        return QUEUES[self.job.queue].encode()

    @property
    def key(self) -> tuple[str, str]:
        return self.id, self.job.created_at.decode()

    def begins(self) -> bytes:
        run = held_run.opening(opening(self.id, self.key[1])) if goes_on(self.id) else b""
        return pack_begins(self.job.id, self.execution, self.queue, self.start, run)

    def finished(self) -> bytes:
        job, run = self.job, record(self.key[1]) if goes_on(self.id) else b""
        return pack_finished(
            self.queue, job.id, job.created_at, self.execution, self.start, time.time(), 500, b"ok", run
        )


class Leasing:
    """A worker and its horse. Alive until `die`."""

    def __init__(self, connection: Redis, history: History) -> None:
        self.name = f"w{next(_numbers)}"
        self.connection, self.history = connection, history
        self.link: LeaseConnection | None = None
        self.waiting: list[Taken] = []
        self.moved: list[Moved] = []  # what has come to the horse that waited
        self.now: Run | None = None
        self.last: Run | None = None
        self.ring: list[Run] = []  # finished, and perhaps not committed
        self.recalled = self.ending = self.dead = False
        self.work: Steps | None = None  # of the worker's other thread, or of the horse in place of its loop

    # The horse

    def take(self, k: int) -> None:
        opens = None
        if self.link is None:
            self.link = LeaseConnection(self.connection, self.name, f"token-{next(_numbers)}")
            opens = Owner("", self.name, "", "host", 1, 2)
        self.link.send_take(QUEUES, k, opens, self.moved)
        self.moved = []
        batch = self.link.read_batch()
        assert batch.why not in ("token", "recalled"), batch
        self.waiting += batch.jobs
        if opens is not None and not batch.jobs:
            self._closed()

    def wait(self, queue: str) -> None:
        """For a job. It is in the intermediate queue then, and nobody has it."""
        raw = self.connection.lmove(f"rq:queue:{queue}", f"rq:queue:{queue}:intermediate")
        if raw is not None:
            self.moved.append(Moved(QUEUES.index(queue), raw.decode()))
            self.history.fronted.add(raw.decode())  # one that another waiting horse had before may come behind it

    def begin(self, *, awaited: bool, lost: bool) -> None:
        """Commit what has finished and begin the next; or only begin it, as within a group of commits."""
        job = self.waiting.pop(0)
        run = Run(job, f"{next(_numbers):032x}".encode(), time.time())
        if awaited:
            reply = self._step(run.begins(), lost=lost)
            if reply.next:
                return
        self.now = self.last = run
        self.history.begins(run.key)

    def finish(self) -> None:
        assert self.now is not None
        self.ring.append(self.now)
        self.now = None

    def commit(self, *, lost: bool) -> None:
        self._step(b"", lost=lost)

    def fail(self) -> Steps:
        """The job raised: RQ's own methods record that, and the lease ends."""
        run = self.now
        assert run is not None
        self.ending = True
        self._step(b"", lost=False)
        yield
        self._give_back(run.id)
        yield
        yield from self._end_by_rq(run)
        self.now = None
        yield from self.end()

    def split(self) -> Steps:
        """The job makes its children, and is to wait for them. It leaves the lease, which ends."""
        run = self.now
        assert run is not None
        self.ending = True
        fields = [str(each) for pair in opening(run.id, run.key[1]).items() for each in pair]
        shown = self._show(run, hand_over=False, record=HeldRecord(json.dumps({"version": 1, "fields": fields})))
        yield
        queue = Queue(QUEUES[run.job.queue], connection=self.connection)
        execution = Execution(run.execution.decode(), run.id, self.connection, self.name)
        try:
            if shown != "shown":
                raise RunTakenOver
            yield from self.history.family.split(queue, run.id, execution)
            children = Pending(children_of(run.id), children_of(run.id))
        except RunTakenOver:
            children = None
        self._step(b"", lost=False)
        yield
        self._give_back(run.id)
        yield
        if self._show(run, hand_over=True) == "shown":
            yield
            job = Job(run.id, connection=self.connection)
            job.origin = queue.name
            if children is None or not ledger.defer(job, queue, execution, children):
                executions.let_go(self.connection, job, execution)
        self.history.may_begin_again(run.key)  # to gather
        self.now = None
        yield from self.end()

    def end(self) -> Steps:
        self.ending = True
        self._step(b"", lost=False)
        yield
        self._give_back("")
        self._closed()

    # The worker

    def show(self) -> None:
        """The job has run for 10 ms; it may have ended meanwhile."""
        assert self.last is not None
        self._show(self.last, hand_over=False)

    def recall(self) -> Steps:
        """The job has run for 50 ms. The horse may end it meanwhile, and begins no other."""
        self.recalled = True
        keep = self.now.id if self.now is not None else self.last.id if self.last is not None else ""
        self._commit_from_ring()
        yield
        if self.link is not None and keep:
            self._give_back(keep)

    def horse_dies(self) -> Steps:
        """The worker settles what its horse has left."""
        run, self.now, self.ending = self.now, None, True
        self.waiting.clear()
        if run is not None:
            self.history.may_begin_again(run.key)
        self._commit_from_ring()
        yield
        if run is not None:
            yield from self._end_by_rq(run, died=True)
            yield
        self._give_back("")
        self._closed()

    def die(self) -> bytes:
        """Worker and horse die. Returns what the horse has sent and Redis has not received yet."""
        self.dead, self.work = True, None
        lost = self.ring if self.now is None else [*self.ring, self.now]
        for run in lost:
            self.history.may_begin_again(run.key)
        if self.link is None:
            return b""
        sent: list[bytes] = []
        self.link._write = sent.append  # type: ignore[method-assign]
        self.link.send_step([run.finished() for run in lost], 0.0)
        return sent[0]

    # Parts

    def _step(self, begins: bytes, *, lost: bool) -> Stepped:
        if self.link is None:
            return Stepped("gone", {})
        self.link.send_step([run.finished() for run in self.ring], 0.0, begins)
        if lost:  # the reply; Redis has done it
            self.link.read_step()
            self.link.send_step([run.finished() for run in self.ring], 0.0, begins)
        reply = self.link.read_step()
        runs = {run.job.id: run for run in self.ring}
        self.ring = []
        for job_id, why in reply.refused.items():
            if why == "plain" and self._show(runs[job_id], hand_over=True) == "shown":
                end_by_rq(self.connection, runs[job_id], self.name, succeeds=True)
            if why == "gone" and job_id.decode() not in self.history.disturbed:
                run = runs[job_id]
                assert lease.was_committed(self.connection, run.id, run.execution.decode()), run
            if why == "deleted":
                self.history.may_begin_again(runs[job_id].key)
        return reply

    def _commit_from_ring(self) -> None:
        if self.link is not None and self.ring:
            link = LeaseConnection(self.connection, self.name, self.link.token)
            link.send_step([run.finished() for run in self.ring], 0.0, self.now.begins() if self.now else b"")
            link.read_step()
            link.close()

    def _show(self, run: Run, *, hand_over: bool, record: HeldRecord = NO_RECORD) -> str:
        queue = QUEUES[run.job.queue]
        owner = Owner(run.execution.decode(), self.name, queue, "host", 1, 2)
        made = run.job.created_at.decode()
        return lease.show(
            self.connection, self.name, queue, run.id, made, run.start, owner, 240, record, hand_over=hand_over
        )

    def _give_back(self, keep: str) -> None:
        if self.link is not None:
            assert lease.give_back(self.connection, self.name, self.link.token, keep) is not None
        if not keep:
            self.waiting.clear()

    def _closed(self) -> None:
        if self.link is not None:
            self.link.close()
        self.link, self.recalled, self.ending, self.last = None, False, False, None

    def _end_by_rq(self, run: Run, *, died: bool = False) -> Steps:
        if self._show(run, hand_over=True) == "shown":
            yield
            if died and goes_on(run.id):
                self.history.fronted.add(run.id)
                requeue(self.connection, run.id, QUEUES[run.job.queue], run.execution.decode(), self.name)
                return
            end_by_rq(self.connection, run, self.name)
            self.history.may_begin_again(run.key)  # after a requeue


def end_by_rq(connection: Redis, run: Run, worker: str, *, succeeds: bool = False) -> None:
    record_end(connection, run.id, QUEUES[run.job.queue], run.execution.decode(), worker, succeeds=succeeds)


def record_end(
    connection: Redis, job_id: str, queue_name: str, execution_id: str, worker_name: str, *, succeeds: bool = False
) -> None:
    """Record an outcome as our worker does: RQ's transaction, with a fence and the end of the ownership in it."""
    queue = Queue(queue_name, connection=connection)
    worker = SimpleWorker([queue], name=worker_name, connection=connection)
    execution = Execution(execution_id, job_id, connection, worker_name)
    try:
        job = Job.fetch(job_id, connection=connection)
    except NoSuchJobError:
        job = Job(job_id, connection=connection)
        job.origin = queue_name
    standing = execution_reader.standing(connection, job, queue, execution)
    if not standing.ours:
        executions.let_go(connection, job, execution)
        return
    cleanup = worker.cleanup_execution

    def with_release(job: Job, pipeline: Any, execution: Execution | None = None) -> None:
        cleanup(job, pipeline, execution)
        executions.release(pipeline, job.id)
        if parent_of(job.id) is not None:
            ledger.tell_parent(pipeline, job, ledger.OK if succeeds else "failed", result=b"ok" if succeeds else b"")
        if standing.status == "canceled":
            pipeline.zrem(queue.canceled_job_registry.key, job.id)

    worker.cleanup_execution = with_release  # type: ignore[method-assign]
    if succeeds:
        job.started_at = job.ended_at = execution.created_at
        job._result = "ok"
        worker.handle_job_success(job, queue, queue.started_job_registry, execution)
    else:
        worker.handle_job_failure(job, queue, exc_string="failed", execution=execution)


class Stock:
    """A stock worker of the queue low. It does not look whether a job was cancelled meanwhile."""

    def __init__(self, connection: Redis, history: History) -> None:
        self.connection, self.history = connection, history
        self.worker = SimpleWorker(["low"], name=f"stock{next(_numbers)}", connection=connection)
        self.held = ""  # the job that it has
        self.work: Steps | None = None

    def run_one(self) -> Steps:
        queue = self.worker.queues[0]
        raw = self.connection.lmove("rq:queue:low", "rq:queue:low:intermediate")
        if raw is None:
            return
        self.held = raw.decode()
        yield
        try:
            job = Job.fetch(self.held, connection=self.connection)
        except NoSuchJobError:
            self.held = ""
            return
        execution = self.worker.prepare_execution(job)
        yield
        self.worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
        self.history.begins((job.id, job.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")))
        yield
        job.ended_at = job.started_at
        job._result = "ok"
        self.worker.handle_job_success(job, queue, queue.started_job_registry, execution)
        self.held = ""


def take_over(connection: Redis, dead: str, history: History) -> Steps:
    """What a worker does for a dead one, as `rqmem.worker.takeover`; two may do it at once."""
    found = lease.leases(connection).get(dead)
    yield
    if found is not None:
        lease.take_over(connection, dead, found.token)
        yield
    owned = {job_id: owner for job_id, owner in execution_reader.owners(connection).items() if owner.worker == dead}
    for job_id, owner in owned.items():
        yield
        never_began = connection.hget(f"rq:job:{job_id}", "status") == b"queued"
        if goes_on(job_id) or never_began:
            history.fronted.add(job_id)
            if requeue(connection, job_id, owner.queue, owner.execution, dead):
                continue
        settler = Owner(owner.execution, f"settles for {dead}", owner.queue, "host", 3, 4, settles=dead)
        if executions.adopt(connection, job_id, owner, settler):
            record_end(connection, job_id, owner.queue, owner.execution, dead)
