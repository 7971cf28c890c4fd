"""A worker and its horse in one process, which lease as theirs do, one script at a time.

What a lease does not cover it leaves to RQ's own methods, on a stock worker. Tests use it where they need to stop
between two scripts.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import time
import zlib
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any
from uuid import uuid4

from redis import Redis
from rq import Queue, Retry, SimpleWorker
from rq.executions import Execution
from rq.job import UNSERIALIZABLE_RETURN_VALUE_PAYLOAD, Job, _current_job
from rq.timeouts import JobTimeoutException

from rqmem.store import keys, lease
from rqmem.store.execution_records import Owner
from rqmem.store.lease_commands import Taken, pack_begins, pack_finished
from rqmem.store.lease_connection import LeaseConnection


class StandIn:
    """Works until its queues are empty. ``batch``: how many jobs it commits at once."""

    def __init__(self, connection: Redis, queues: Sequence[str], name: str = "w", k: int = 4, batch: int = 1) -> None:
        self.connection = connection
        self.queues = [Queue(each, connection=connection) for each in queues]
        self.name = name
        self.worker = SimpleWorker(self.queues, name=name, connection=connection)
        self._k, self._batch = k, batch

    def work(self) -> None:
        self.worker.register_birth()
        while True:
            why = self.lease()
            taken = self.worker.dequeue_job_and_maintain_ttl(None) if why == "needs" else None
            if taken is not None:
                self.worker.execute_job(*taken)
            elif why == "empty":
                break
        self.worker.teardown()

    def lease(self) -> str:
        """One lease of one batch; returns why it was not more."""
        started = Owner("", self.name, "", "host", 1, 2)
        link = LeaseConnection(self.connection, self.name, uuid4().hex[:24])
        try:
            link.send_take([queue.name for queue in self.queues], self._k, started)
            batch = link.read_batch()
            _Horse(self, link, batch.jobs).run()
            lease.give_back(self.connection, self.name, link.token)
        finally:
            link.close()
        return batch.why


class _Horse:
    """Runs one batch."""

    def __init__(self, owner: StandIn, link: LeaseConnection, jobs: list[Taken]) -> None:
        self._of, self._link, self._jobs = owner, link, jobs
        self._pending: list[bytes] = []
        self._spent = 0.0
        self._ended = False
        self._values: dict[bytes, tuple[Taken, str, float, Any]] = {}

    def run(self) -> None:
        for number, taken in enumerate(self._jobs):
            if self._ended:
                break
            execution, start = f"{self._link.token}{number:08x}", time.time()
            begins = pack_begins(taken.id, execution.encode(), self._queue(taken).name.encode(), start)
            if self._step(begins):
                continue
            try:
                value = self._call(taken)
                if isinstance(value, Retry):
                    self._step(b"")
                    self._by_rq(taken, execution, start, value)
                    continue
            except BaseException:
                self._step(b"")  # what ran before ends first
                self._by_rq(taken, execution, start, None, sys.exc_info())
                continue
            end = time.time()
            self._spent += end - start
            self._values[taken.id] = taken, execution, start, value
            ttl = int(taken.result_ttl or 500)
            result = result_bytes(self._of.worker.serializer, value)
            queue = self._queue(taken).name.encode()
            self._pending.append(
                pack_finished(queue, taken.id, taken.created_at, execution.encode(), start, end, ttl, result)
            )
        self._step(b"")

    def _step(self, begins: bytes) -> str:
        """Commit, if there is enough; returns why the next job may not begin."""
        pending = self._pending if len(self._pending) >= self._of._batch or not begins else []
        self._link.send_step(pending, self._spent if pending else 0, begins)
        if pending:
            self._pending, self._spent = [], 0.0
        reply = self._link.read_step()
        for job_id, why in reply.refused.items():
            if why == "plain":
                self._by_rq(*self._values[job_id])
        return reply.next

    def _call(self, taken: Taken) -> Any:
        job = Job.fetch(taken.id.decode(), connection=self._of.connection)
        with contextlib.suppress(zlib.error):
            zlib.decompress(taken.data)
        token = _current_job.set(job)
        try:
            with self._of.worker.death_penalty_class(job.timeout or 180, JobTimeoutException, job_id=job.id):
                assert not inspect.iscoroutine(job)
                return job._execute()
        finally:
            _current_job.reset(token)

    def _by_rq(self, taken: Taken, execution: str, start: float, value: Any, error: Any = None) -> None:
        """RQ's methods end this job. What it may put at the front of the queue comes before what is given back."""
        worker, queue, job_id = self._of.worker, self._queue(taken), taken.id.decode()
        self._ended = True
        lease.give_back(self._of.connection, self._of.name, self._link.token, keep=job_id)
        owner = Owner(execution, self._of.name, queue.name, "host", 1, 2)
        made = taken.created_at.decode()
        shown = lease.show(
            self._of.connection, self._of.name, queue.name, job_id, made, start, owner, 240, hand_over=True
        )
        if shown != "shown":
            return
        job = Job.fetch(job_id, connection=self._of.connection)
        record = Execution(execution, job_id, self._of.connection, self._of.name)
        record.created_at = job.started_at = datetime.fromtimestamp(start, timezone.utc)
        worker.executions[execution] = record
        if error is None:
            worker._finalize_success(job, queue, record, value)
        else:
            worker._finalize_failure(job, queue, record, error)
        self._of.connection.hdel(keys.RUNNING, job_id)

    def _queue(self, taken: Taken) -> Queue:
        return self._of.queues[taken.queue]


def result_bytes(serializer: Any, value: Any) -> bytes | None:
    """What a job returned, as RQ keeps it: a text in place of what the serializer does not take."""
    if value is None:
        return None
    try:
        return bytes(serializer.dumps(value))
    except Exception:
        return bytes(serializer.dumps(UNSERIALIZABLE_RETURN_VALUE_PAYLOAD))
