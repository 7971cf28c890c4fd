"""Putting jobs whose dependencies are met on their queues: those that RQ has moved to its registry of ready jobs.

RQ's own method leaves a job in that registry for ten minutes if Redis is away for a moment, or if the reply to the move
was lost. Here redis-py's errors are raised, and all of it may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from redis.exceptions import WatchError

from rqmem.rq_names import JobStatus, NoSuchJobError
from rqmem.store.retrying import unavailable

if TYPE_CHECKING:
    from rqmem.rq_names import Queue


def enqueue_ready(queue: Queue, job_ids: Collection[str]) -> None:
    """As RQ's `ReadyJobRegistry.enqueue_jobs`, for jobs of any queue. Those that are not ready are left as they are.

    Args:
        queue: its connection and classes are used.
    """
    for job_id in job_ids:
        while not _is_done(queue, job_id):
            pass


def _is_done(queue: Queue, job_id: str) -> bool:
    """False: somebody else has changed the job meanwhile."""
    job_class, connection, serializer = queue.job_class, queue.connection, queue.serializer
    try:
        with connection.pipeline() as pipeline:
            pipeline.watch(job_class.key_for(job_id))
            try:
                job = job_class.fetch(job_id, connection=connection, serializer=serializer)
            except NoSuchJobError:
                return True
            target = type(queue)(job.origin, connection=connection, job_class=job_class, serializer=serializer)
            registry = target.ready_job_registry
            if pipeline.zscore(registry.key, job_id) is None:
                return True
            pipeline.multi()
            registry.remove(job, pipeline=pipeline)
            if job.get_status(refresh=False) == JobStatus.READY_TO_ENQUEUE:
                if job.has_rate_limit:
                    target._enqueue_rate_limited_job(job, pipeline=pipeline)
                else:
                    target._enqueue_job(job, pipeline=pipeline, at_front=job.should_enqueue_at_front())
            pipeline.execute()
    except WatchError as error:
        if unavailable(error) is not None:
            raise
        return False
    return True
