"""Parents and children in the model, and a worker of ours that runs jobs one by one.

It is a real `MemoryWorker` whose methods are called one after another, so that anything may happen between any two. It
runs what leases leave: parents that gather, and jobs that go on.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from redis import Redis
from rq import Queue
from rq.exceptions import NoSuchJobError
from rq.executions import Execution
from rq.job import Job

from rqmem import MemoryWorker
from rqmem.child_ids import child_id, parent_of
from rqmem.config.settings import Config
from rqmem.errors import RunTakenOver
from rqmem.store import execution_reader, executions, keys, ledger
from rqmem.store.execution_records import Pending
from rqmem.worker.orphaned_children import Mending

Steps = Iterator[None]
_numbers = count()


def is_parent(job_id: str) -> bool:
    return job_id.startswith("p") and parent_of(job_id) is None


def goes_on(job_id: str) -> bool:
    """Whether it is memory-aware: it is resumed where its worker dies."""
    return job_id.startswith("p")


def children_of(job_id: str) -> int:
    return 1 + int(job_id[1:]) % 5


def opening(job_id: str, created_at: str) -> dict[str, object]:
    return executions.opening("tests.Family", "resume", "", created_at, f"run-{job_id}")


def record(created_at: str) -> bytes:
    """Of the run of a child that has finished one item."""
    fields = [str(each) for pair in opening("", created_at).items() for each in pair]
    return json.dumps(
        {"version": 2, "fields": [*fields, "items:0", "1", "finished", "1"], "saved": False, "items": 1, "peak": 1.0}
    ).encode()


@dataclass
class Family:
    """What is known of all parents.

    Attributes:
        made: children, in the order in which they were made.
        gathered: how often each parent has gathered all results.
    """

    made: list[str] = field(default_factory=list)
    gathered: list[str] = field(default_factory=list)

    def split(self, queue: Queue, job_id: str, execution: Execution) -> Steps:
        """Make the children, two at a time. Raises `RunTakenOver`. Begun anew, it goes on behind the last one."""
        connection = queue.connection
        ledger.open_split(connection, job_id, queue, time.time())
        yield
        ids = [child_id(job_id, number) for number in range(children_of(job_id))]
        for first in range(0, len(ids), 2):
            datas = {
                number: Queue.prepare_data("tests.Family.run", job_id=ids[number])
                for number in range(first, min(first + 2, len(ids)))
            }
            ledger.add_children(queue, job_id, execution, datas, first)
            self.made += [each for each in ids[first : first + 2] if each not in self.made]
            yield

    def check(self, connection: Redis, parent_id: str) -> None:
        """The sums of a parent are those of its children: each counts once."""
        split = execution_reader.run(connection, parent_id).split
        if split is None or not connection.exists(Job.key_for(parent_id)):
            return
        outcomes = [outcome for _, outcome in ledger.outcomes(connection, parent_id)]
        ended = [outcome for outcome in outcomes if outcome]
        assert split.ended == len(ended), (parent_id, split, outcomes)
        assert split.failed == len(ended) - ended.count("ok"), (parent_id, split, outcomes)
        waits = connection.hget(Job.key_for(parent_id), "status") == b"deferred"
        assert not (waits and split.sealed and split.ended == split.total), f"{parent_id} waits for nobody"


class Single:
    """A worker that orders each job from its horse."""

    def __init__(self, connection: Redis, history: Any, family: Family, queues: tuple[str, ...]) -> None:
        self.connection, self.history, self.family = connection, history, family
        self.name = f"single{next(_numbers)}"
        self.queues = [Queue(name, connection=connection) for name in queues]
        self.worker = MemoryWorker(self.queues, connection=connection, name=self.name, config=Config())
        self.held = ""
        self.work: Steps | None = None
        self._begun: tuple[str, str] | None = None

    def dies(self) -> None:
        self.work = None
        if self._begun is not None:
            self.history.may_begin_again(self._begun)

    def run_one(self) -> Steps:
        for queue in self.queues:
            raw = self.connection.lmove(queue.key, queue.intermediate_queue_key)
            if raw is not None:
                self.held = raw.decode()
                yield
                yield from self._run(queue, self.held)
                self.held, self._begun = "", None
                self.worker.executions.clear()
                return

    def _run(self, queue: Queue, job_id: str) -> Steps:
        try:
            job = Job.fetch(job_id, connection=self.connection)
        except NoSuchJobError:
            self.connection.lrem(queue.intermediate_queue_key, 1, job_id)
            return
        execution = self.worker.prepare_execution(job)
        yield
        try:
            self.worker.prepare_job_execution(job, remove_from_intermediate_queue=True)
            self._begun = (job_id, job.created_at.strftime("%Y-%m-%dT%H:%M:%S.%fZ"))
            split = execution_reader.run(self.connection, job_id).split
            gathers = split is not None and split.sealed
            if not gathers:  # the code of `gather` may begin again with each resume
                self.history.begins(self._begun)
            yield
            if goes_on(job_id):
                self.connection.hset(keys.run(job_id), mapping=opening(job_id, job.created_at.isoformat()))
                yield
            result: Any = b"ok"
            if is_parent(job_id) and not gathers:
                yield from self.family.split(queue, job_id, execution)
                result = Pending(children_of(job_id), children_of(job_id))
            elif is_parent(job_id):
                assert split is not None and split.ended == split.total, split
                if split.failed:
                    raise ValueError("children have failed")
                found = [each for _, each in ledger.results(self.connection, job_id, children_of(job_id))]
                assert len(found) == children_of(job_id) and None not in found, found
                self.family.gathered.append(job_id)
            self.worker._finalize_success(job, queue, execution, result)
        except (RunTakenOver, ValueError) as error:
            self.worker._finalize_failure(job, queue, execution, (type(error), error, error.__traceback__))
        if goes_on(job_id) and self._begun is not None:
            self.history.may_begin_again(self._begun)  # RQ's Retry, a requeue, or the end of its children


def mend(connection: Redis, parent_id: str) -> None:
    """Tell a parent of children that have ended without telling it."""
    mending = Mending(connection, Job, None)
    for number, outcome in list(ledger.outcomes(connection, parent_id)):
        if outcome == ledger.WAITING:
            mending._look(parent_id, number)


def requeue(connection: Redis, job_id: str, queue_name: str, execution_id: str, worker: str) -> bool:
    """A run whose process died goes on, if it is still the one that owns the job."""
    with contextlib.suppress(NoSuchJobError):
        job = Job.fetch(job_id, connection=connection)
        execution = Execution(execution_id, job_id, connection, worker)
        queue = Queue(queue_name, connection=connection)
        return executions.requeue(job, queue, execution, stage=None, chunk_size=0, cost=0)
    return False
