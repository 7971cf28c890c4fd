"""Fails jobs of dead workers that cannot be resumed, as RQ's `StartedJobRegistry.cleanup` does.

RQ's does it minutes later, when a heartbeat has expired. Callbacks and exception handlers are user code, so they run in
a process of their own: the heart must beat, and the main thread may be watching a horse. This process belongs to no
job's tree. The worker that has adopted the run (`rqmem.store.executions.adopt`) settles it, again if it was cut short.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Sequence

from redis import Redis

from rqmem.measure import linux, process_tree
from rqmem.rq_names import Execution, NoSuchJobError, Worker
from rqmem.store import executions
from rqmem.values import dataclass
from rqmem.worker.commit import Committer
from rqmem.worker.helper_process import fork
from rqmem.worker.horse_pool import HorsePool
from rqmem.worker.rq_worker import queue_of
from rqmem.worker.settlement import Settlement

_TRIES = 3
_LONGEST_SECONDS = 600.0  # without an end after so long it hangs
_CUT_SHORT = "settling what a dead worker left was cut short"
_log = logging.getLogger("rqmem.worker")


@dataclass(frozen=True)
class Abandoned:
    job_id: str
    queue: str
    execution_id: str
    lost_worker: str


@dataclasses.dataclass(eq=False, repr=False)
class Settler:
    """The process that settles them, one at a time, for one worker."""

    _worker: Worker
    _pool: HorsePool
    _settlement: Settlement
    _committer: Committer

    def __post_init__(self) -> None:
        self._tries: Counter[str] = Counter()
        self._pid = 0
        self._kill_at = 0.0
        self._left = 0
        self._closed = False

    def begin(self, found: Sequence[Abandoned], connection: Redis) -> int:
        """Begin to settle these, unless the process is busy. Returns how many were settled since the last call."""
        settled, self._left = max(0, self._left - len(found)), len(found)
        if self._busy() or self._closed or not found:
            return settled
        hopeful = [each for each in found if self._tries[each.execution_id] < _TRIES]
        for each in found:
            if each not in hopeful:  # its job's record cannot be read, say
                _log.warning("job %s of lost worker %s is left to RQ's maintenance", each.job_id, each.lost_worker)
                executions.release(connection, each.job_id)
        self._tries.update(each.execution_id for each in hopeful)
        if hopeful:
            self._pid = fork(lambda: self._settle_all(hopeful), f"worker {self._worker.name}: {_CUT_SHORT}")
            self._pool.leave_alone(self._pid)
            self._kill_at = time.monotonic() + _LONGEST_SECONDS
        return settled

    def close(self, seconds: float) -> None:
        """Wait so long for its end, then kill it."""
        self._closed = True
        if self._pid:
            process_tree.end_child(self._pid, seconds)
        self._busy()

    def _busy(self) -> bool:
        if not self._pid:
            return False
        if time.monotonic() >= self._kill_at:
            process_tree.end_child(self._pid, 0)
        elif not process_tree.reap(self._pid):
            return True
        self._pool.forget_helper(self._pid)
        self._pid = 0
        return False

    def _settle_all(self, found: Sequence[Abandoned]) -> None:
        """Runs in the process. It must not touch the worker's running job and horse."""
        linux.become_subreaper()
        self._pool.new_page()
        self._pool.group = self._worker._stopped_job_id = None
        for each in found:
            self._settle(each)

    def _settle(self, run: Abandoned) -> None:
        worker = self._worker
        queue = queue_of(worker, run.queue)
        execution = Execution(run.execution_id, run.job_id, worker.connection, run.lost_worker)
        try:
            job = worker.job_class.fetch(run.job_id, connection=worker.connection, serializer=worker.serializer)
        except NoSuchJobError:
            self._committer.forget(queue, execution)
            return
        self._settlement.settle_abandoned(job, queue, execution)
