"""A queue of a script's own, on a Redis that may belong to somebody else.

Other workers must not take the script's jobs, which use the script's database and its stand-in for Retell, and its
worker must not take other jobs. At the end, however the script ends, the jobs that are left are removed: nobody would
run them, and `rqmem status` would ask for a worker. A script that is killed leaves them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis import Redis
from rq import Queue, Worker
from rq.exceptions import NoSuchJobError
from rq.job import Job

from rqmem.errors import RqmemError
from rqmem.job import tree


@contextmanager
def own_queue(connection: Redis, prefix: str, *, keep_ended: bool = False) -> Iterator[Queue]:
    """A queue that is removed when the block is left. Its workers must have ended by then.

    Args:
        keep_ended: jobs that have ended stay for rq-dashboard, with their queue, until a script runs with this prefix.
    """
    queue = Queue(f"{prefix}-{os.getpid()}", connection=connection)
    for old in Queue.all(connection=connection):
        if old.name.startswith(f"{prefix}-") and not unfinished(old) and not Worker.count(queue=old):
            forget(old)  # without a worker, no job can be on its way to a registry
    try:
        yield queue
    finally:
        with contextlib.suppress(redis.RedisError):  # Redis is gone: the first error matters
            forget(queue, unfinished(queue) if keep_ended else None)


def unfinished(queue: Queue) -> list[str]:
    """Ids of the jobs that wait, run, or are to run later."""
    registries = (queue.started_job_registry, queue.scheduled_job_registry, queue.deferred_job_registry)
    return [*queue.job_ids, *(job_id for each in registries for job_id in each.get_job_ids(cleanup=False))]


def forget(queue: Queue, job_ids: list[str] | None = None) -> None:
    """Remove these jobs. By default remove all jobs, also those that have ended, and the queue."""
    connection = queue.connection
    ended = (queue.finished_job_registry, queue.failed_job_registry, queue.canceled_job_registry)
    for job_id in unfinished(queue) if job_ids is None else job_ids:
        with contextlib.suppress(RqmemError):  # it ended meanwhile, or its parent took it along
            tree.cancel(connection, job_id)
    whole = [job_id for each in ended for job_id in each.get_job_ids(cleanup=False)] if job_ids is None else job_ids
    for job_id in whole:
        with contextlib.suppress(NoSuchJobError):  # its time to live is over
            Job.fetch(job_id, connection=connection).delete()
    if job_ids is None:
        connection.delete(*(each.key for each in ended))
    if not connection.exists(*(each.key for each in ended)):
        queue.delete()
