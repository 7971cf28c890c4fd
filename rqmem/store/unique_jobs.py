"""Unique jobs that have ended make way for the next one with the same arguments."""

from __future__ import annotations

from redis import Redis

from rqmem.rq_names import RQ_KEY_PREFIX, ExecutionRegistry, Job
from rqmem.store import keys
from rqmem.store.scripts import script


def make_way(connection: Redis, *job_ids: str) -> None:
    """Remove those of these jobs that have ended. Those that wait or run are left alone."""
    if not job_ids:
        return
    remove = script(connection, "make_way")
    with connection.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            names = [Job.key_for(job_id), ExecutionRegistry(job_id, connection=connection).key, keys.RUNNING]
            remove(keys=names, args=[RQ_KEY_PREFIX, job_id], client=pipeline)
        pipeline.execute()
