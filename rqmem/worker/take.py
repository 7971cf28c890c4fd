"""Takes a job from the worker's queues in one round trip, however many queues there are.

RQ pops from one queue after the other, and then reads the job. If the worker dies in between, a job from one of several
queues is lost. Here one script takes the job and starts it, or moves it to RQ's intermediate queue, from which it is
put back if the worker dies (`rqmem.worker.takeover`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rqmem.rq_names import RQ_KEY_PREFIX, WORKERS_SUSPENDED, Job, Queue
from rqmem.store import keys
from rqmem.store.executions import give_back
from rqmem.store.job_ids import tell_dropped
from rqmem.store.retrying import until_redis_answers
from rqmem.store.scripts import script
from rqmem.worker.unreadable_jobs import mend

if TYPE_CHECKING:
    from rqmem.rq_names import Worker
    from rqmem.worker.claim import Claimer
    from rqmem.worker.pool.member import Member

_RQS_WAY = (Queue.dequeue_any.__func__, Queue._fetch_dequeued_job.__func__, Job.fetch.__func__, Job.refresh)  # type: ignore[attr-defined]


class Suspended(Exception):
    """Workers are suspended (``rq suspend``), so no job was taken."""


class Taker:
    """Takes jobs for one worker."""

    def __init__(self, worker: Worker, member: Member, claimer: Claimer) -> None:
        self._worker = worker
        self._member = member
        self._claimer = claimer
        self._taken: tuple[Job | None, dict[bytes, bytes]] = (None, {})

    @property
    def usable(self) -> bool:
        """Whether the worker's queue and job class read jobs by RQ's methods, which the script replaces."""
        queue, job = self._worker.queue_class, self._worker.job_class
        way = (queue.dequeue_any.__func__, queue._fetch_dequeued_job.__func__, job.fetch.__func__, job.refresh)  # type: ignore[attr-defined]
        return way == _RQS_WAY

    def take(self) -> tuple[Job, Queue] | None:
        """Take a job. Returns it and its queue; None if there is none, or only in paused queues.

        A job for which the pool has no room goes back to its place, and the next one is taken.

        Raises:
            Suspended: workers are suspended.
            StopRequested: the worker was told to stop meanwhile, and has no job in hand.
        """
        worker = self._worker
        queues = worker._ordered_queues
        while not self._member.must_wait:
            left = self._member.passed_over()
            with self._claimer.starting() as start:
                answer = script(worker.connection, "take_job")(
                    keys=[WORKERS_SUSPENDED, keys.PAUSED, *start.keys, *(queue.key for queue in queues)],
                    args=[
                        *(RQ_KEY_PREFIX, worker.job_class.redis_job_namespace_prefix, *start.values),
                        *(keys.returned(""), *(queue.name for queue in queues), *left),
                    ],
                )
                if len(answer) == 1:
                    if answer[0] == b"suspended":
                        raise Suspended
                    return None
                number, job_id, flat, before, started = answer
                if not flat:
                    tell_dropped(queues[number].key, job_id)
                    continue
                fields = dict(zip(flat[::2], flat[1::2], strict=True))
                mend(queues[number], job_id.decode(), fields)
                job = restored(worker, job_id.decode(), fields)
                self._claimer.has_taken(job.id, kept=True)
                if started:
                    self._claimer.started(job, start)
            if started or self.may_start(job, queues[number], before):
                self._taken = (job, fields)
                return job, queues[number]
            if job_id not in self._member.passed_over():  # the member's state has changed: ask again later
                return None
        return None

    def may_start(self, job: Job, queue: Queue, before: bytes = b"") -> bool:
        """Whether the pool has room for the job. If not, it goes back to its place, behind the job ``before``.

        Raises:
            StopRequested: the worker was told to stop, and the job has gone back.
        """
        admitted = self._member.admits(job, queue)
        if not admitted:
            until_redis_answers(
                lambda: give_back(queue, job.id, before), f"put job {job.id} back, for which there is no room"
            )
            self._claimer.none_in_hand()
        return admitted

    def fields_of(self, job: Job) -> dict[bytes, bytes]:
        """The job's fields in Redis when it was taken; empty if another method took it."""
        return self._taken[1] if self._taken[0] is job else {}


def restored(worker: Worker, job_id: str, fields: dict[bytes, bytes]) -> Job:
    """The job with these fields, as RQ's `Job.fetch` makes it."""
    job = worker.job_class(job_id, connection=worker.connection, serializer=worker.serializer)
    job.restore(fields)
    return job
