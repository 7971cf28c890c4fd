"""Taking a job from the worker's queues in one round trip, however many queues there are.

RQ asks one queue after the other, and reads the job then. A job from one of several queues is lost if its worker dies
in between; here it goes to RQ's intermediate queue, whose jobs come back (`rqmem.worker.takeover`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqmem.rq_names import WORKERS_SUSPENDED, Job, NoSuchJobError, Queue
from rqmem.store import keys
from rqmem.store.scripts import script

if TYPE_CHECKING:
    from rqmem.rq_names import Worker

_RQS_WAY = (Queue.dequeue_any.__func__, Queue._fetch_dequeued_job.__func__, Job.fetch.__func__, Job.refresh)  # type: ignore[attr-defined]


class Suspended(Exception):
    """All workers are (``rq suspend``): no job was taken."""


class Taker:
    """Takes jobs for one worker.

    Args:
        worker: RQ's.
    """

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._taken: tuple[Job | None, dict[bytes, bytes]] = (None, {})

    @property
    def usable(self) -> bool:
        """Whether the worker's classes take and read jobs in RQ's way, which this is in place of."""
        queue, job = self._worker.queue_class, self._worker.job_class
        way = (queue.dequeue_any.__func__, queue._fetch_dequeued_job.__func__, job.fetch.__func__, job.refresh)  # type: ignore[attr-defined]
        return way == _RQS_WAY

    def take(self) -> tuple[Job, Queue] | None:
        """A job, and the worker's queue that it comes from; None: there is none in a queue that is not paused.

        Raises:
            Suspended: workers are.
        """
        worker = self._worker
        queues = worker._ordered_queues
        names = [WORKERS_SUSPENDED, keys.PAUSED, *(queue.key for queue in queues)]
        values = [worker.job_class.redis_job_namespace_prefix, *(queue.name for queue in queues)]
        while True:
            answer = script(worker.connection, "take_job")(keys=names, args=values)
            if len(answer) == 1:
                if answer[0] == b"suspended":
                    raise Suspended
                return None
            number, job_id, flat = answer
            fields = dict(zip(flat[::2], flat[1::2], strict=True))
            try:
                job = restored(worker, job_id.decode(), fields)
            except NoSuchJobError:  # as in RQ, a job without data is passed over
                continue
            self._taken = (job, fields)
            return job, queues[number]

    def fields_of(self, job: Job) -> dict[bytes, bytes]:
        """All fields of the job as they were when it was taken; empty: it came in another way."""
        return self._taken[1] if self._taken[0] is job else {}


def restored(worker: Worker, job_id: str, fields: dict[bytes, bytes]) -> Job:
    """The job with these fields, as RQ's `Job.fetch` makes it."""
    job = worker.job_class(job_id, connection=worker.connection, serializer=worker.serializer)
    job.restore(fields)
    return job
