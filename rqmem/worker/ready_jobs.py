"""Putting jobs whose dependencies are met on their queues: those that RQ has moved to its registry of ready jobs.

RQ's own method leaves a job in that registry for ten minutes if Redis is away for a moment, or if the reply to the move
was lost. Here redis-py's errors are raised, and all of it may be repeated.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from redis.client import Pipeline

from rqmem.rq_names import JobStatus, NoSuchJobError, Queue
from rqmem.store.watching import watching


def enqueue_ready(queue: Queue, job_ids: Collection[str]) -> None:
    """As RQ's `ReadyJobRegistry.enqueue_jobs`, for jobs of any queue. Those that are not ready are left as they are."""
    for job_id in job_ids:
        watching(queue.connection, queue.job_class.key_for(job_id), partial(_enqueue, queue, job_id))


def _enqueue(queue: Queue, job_id: str, pipeline: Pipeline) -> None:
    job_class, connection, serializer = queue.job_class, queue.connection, queue.serializer
    try:
        job = job_class.fetch(job_id, connection=connection, serializer=serializer)
    except NoSuchJobError:
        return
    target = type(queue)(job.origin, connection=connection, job_class=job_class, serializer=serializer)
    registry = target.ready_job_registry
    if pipeline.zscore(registry.key, job_id) is None:
        return
    pipeline.multi()
    registry.remove(job, pipeline=pipeline)
    if job.get_status(refresh=False) != JobStatus.READY_TO_ENQUEUE:
        return
    if job.has_rate_limit:
        target._enqueue_rate_limited_job(job, pipeline=pipeline)
    else:
        target._enqueue_job(job, pipeline=pipeline, at_front=job.should_enqueue_at_front())
