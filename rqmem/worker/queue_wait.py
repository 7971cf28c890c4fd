"""The worker itself waits until one of its queues has a job. Used where an idle horse cannot wait.

RQ's own wait pops a job from one of several queues. There a request to stop raises an exception, which may lose the
job. Here the request ends the wait, and a job that has come goes back.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from rqmem.rq_names import Queue, Worker
from rqmem.store import executions
from rqmem.store.queue_fronts import MOST_QUEUES, QueueFronts
from rqmem.store.retrying import until_redis_answers
from rqmem.worker.claim import Claimer

_KNOWS_BLMOVE = (6, 2, 0)


def moves_jobs(worker: Worker) -> bool:
    """Whether this Redis can move a job to RQ's intermediate queue with a blocking command."""
    return tuple(worker.get_redis_server_version()) >= _KNOWS_BLMOVE


class QueueWait:
    def __init__(self, worker: Worker, claimer: Claimer) -> None:
        self._worker = worker
        self._claimer = claimer
        self._wake: int | None = None

    def wait(self, queues: Sequence[Queue], seconds: float) -> tuple[Queue, str] | None:
        """Wait until a queue has a job, and take it. Returns the queue and the job's id; None after ``seconds``.

        The first job is kept. Jobs of other queues that came at the same time are put back.

        Raises redis-py's errors, and StopRequested.
        """
        worker = self._worker
        keeps = len(queues) <= MOST_QUEUES and moves_jobs(worker)
        put_back = executions.put_back if keeps else executions.give_back
        fronts = QueueFronts(worker.connection, [queue.name for queue in queues], keeps=keeps)
        fronts.open()  # connect here: a request to stop still raises if Redis hangs
        awake, self._wake = os.pipe()
        try:
            with self._claimer.taking():
                moved = [] if worker._stop_requested else fronts.wait(seconds, awake)
                first = None if worker._stop_requested or not moved else moved[0]
                if first is not None:
                    self._claimer.has_taken(first.id, kept=keeps)
                for each in moved if first is None else moved[1:]:
                    until_redis_answers(lambda: put_back(queues[each.queue], each.id), f"put job {each.id} back")  # noqa: B023
        finally:
            wake, self._wake = self._wake, None
            os.close(wake)
            os.close(awake)
            fronts.close()
        return (queues[first.queue], first.id) if first is not None else None

    def stop(self) -> None:
        """End the wait. Called in a signal handler."""
        if self._wake is not None:
            os.write(self._wake, b"1")
