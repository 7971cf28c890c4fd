"""All writes to rqmem's own Redis keys. Reading is `reader`'s, naming is `keys`'.

Promises: a write of an execution that no longer owns its job is refused and raises `RunTakenOver`;
what several keys must agree on is written in one script or one transaction.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rq.executions import Execution, ExecutionRegistry
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.utils import now, utcformat

from rqmem.errors import RunTakenOver
from rqmem.events import Breach
from rqmem.journal import keys
from rqmem.journal.records import Owner

if TYPE_CHECKING:
    from redis import Redis
    from redis.client import Pipeline
    from rq.job import Job
    from rq.queue import Queue

KEEP_SECONDS = 7 * 24 * 3600
"""How long the record of a run stays when nothing more is written to it."""

KEPT_BREACHES = 20


def claim(pipeline: Pipeline, job_id: str, owner: Owner) -> None:
    """Name the owner of a job's execution; from now on older executions are refused."""
    pipeline.hset(keys.RUNNING, job_id, owner.to_json())


def release(pipeline: Pipeline, job_id: str) -> None:
    """The execution ended; rides in the transaction that commits its outcome."""
    pipeline.hdel(keys.RUNNING, job_id)


def release_if(connection: Redis, job_id: str, owner: Owner) -> bool:
    """Forget a dead owner, unless somebody else owns the job by now."""
    return _script(connection, "release_if")(keys=[keys.RUNNING], args=[job_id, owner.execution]) == 1


def beat(connection: Redis, worker: str, seconds: float) -> None:
    """Say that ``worker`` lives, for ``seconds`` from now."""
    connection.set(keys.alive(worker), "1", px=int(seconds * 1000))


def farewell(connection: Redis, worker: str) -> None:
    """Say that ``worker`` ends; what it still owned may be taken over at once."""
    connection.delete(keys.alive(worker))


def finish(pipeline: Pipeline, job_id: str, result_ttl: int) -> None:
    """The job is done: its run stays as long as its result, and another job of that id begins anew."""
    pipeline.delete(keys.results(job_id))
    if result_ttl == 0:
        pipeline.delete(keys.run(job_id))
        return
    pipeline.hset(keys.run(job_id), "finished", 1)
    pipeline.expire(keys.run(job_id), KEEP_SECONDS if result_ttl < 0 else result_ttl)


def save_breach(connection: Redis, breach: Breach) -> None:
    """Keep the breach with its job."""
    key = keys.breaches(breach.job_id)
    with connection.pipeline() as pipeline:
        pipeline.lpush(key, breach.to_json())
        pipeline.ltrim(key, 0, KEPT_BREACHES - 1)
        pipeline.expire(key, KEEP_SECONDS)
        pipeline.hincrby(keys.run(breach.job_id), "breaches", 1)
        pipeline.expire(keys.run(breach.job_id), KEEP_SECONDS)
        pipeline.execute()


def requeue(job: Job, queue: Queue, execution: Execution, stage: int | None, chunk_size: int) -> bool:
    """End ``execution`` and put its job at the front of its queue again, once.

    Returns False where the execution no longer owns the job, or the job was ended by somebody else.
    """
    connection = job.connection
    registry_keys = [
        StartedJobRegistry(job.origin, connection=connection).key,
        execution.key,
        ExecutionRegistry(job.id, connection=connection).key,
        execution.worker_executions_key,
        queue.intermediate_queue_key,
        queue.key,
        FailedJobRegistry(job.origin, connection=connection).key,
    ]
    answer = _script(connection, "requeue")(
        keys=[keys.RUNNING, job.key, *registry_keys, keys.run(job.id), queue.redis_queues_keys],
        args=[job.id, execution.id, "" if stage is None else stage, chunk_size, utcformat(now())],
    )
    return answer == 1


def put_back(queue: Queue, job_id: str) -> bool:
    """Move a job that nobody began from the intermediate queue to the front of its queue, once."""
    job_key = queue.job_class.key_for(job_id)
    answer = _script(queue.connection, "put_back")(
        keys=[queue.intermediate_queue_key, queue.key, job_key], args=[job_id]
    )
    return answer == 1


class RunWriter:
    """Writes of one execution of a memory-aware job to the job's run."""

    def __init__(self, connection: Redis, job_id: str, execution_id: str) -> None:
        self._connection = connection
        self._job_id = job_id
        self._execution_id = execution_id

    def open(self, job: str, job_created_at: str, on_breach: str, *, anew: bool) -> None:
        """A new execution begins: its own count of chunks starts at 0; ``anew`` forgets what went before."""
        if anew:
            self._connection.delete(keys.run(self._job_id), keys.results(self._job_id), keys.breaches(self._job_id))
        self._update({"job": job, "job_created_at": job_created_at, "on_breach": on_breach, "execution_chunks": 0})

    def begin_stage(self, stage: int, chunk_size: int) -> None:
        self._update({"stage": stage, f"chunk_size:{stage}": chunk_size})

    def save_chunk(self, stage: int, cursor: Any, items: int, results: bytes) -> None:
        """A chunk is finished: its cursor and results, in one step. Raises `RunTakenOver`."""
        answer = _script(self._connection, "save_chunk")(
            keys=[keys.RUNNING, keys.run(self._job_id), keys.results(self._job_id)],
            args=[
                self._job_id, self._execution_id, stage, json.dumps(cursor), items, KEEP_SECONDS, results
            ],
        )  # fmt: skip
        if answer != 1:
            raise RunTakenOver(
                f"job {self._job_id}: another worker took this run over; this execution ends without a verdict"
            )

    def close(self, peak_mb: float, seconds: float, unsaved_chunks: int) -> None:
        """An execution of ``handle`` ended, well or not; ``unsaved_chunks`` had no `save_chunk` of their own."""
        key = keys.run(self._job_id)
        with self._connection.pipeline() as pipeline:
            pipeline.hset(key, "peak_mb", peak_mb)
            pipeline.hincrbyfloat(key, "seconds", seconds)
            pipeline.hincrby(key, "chunks", unsaved_chunks)
            pipeline.expire(key, KEEP_SECONDS)
            pipeline.execute()

    def _update(self, mapping: Mapping[Any, Any]) -> None:
        key = keys.run(self._job_id)
        with self._connection.pipeline() as pipeline:
            pipeline.hset(key, mapping=mapping)
            pipeline.expire(key, KEEP_SECONDS)
            pipeline.execute()


@cache
def _source(name: str) -> str:
    return (Path(__file__).parent / f"{name}.lua").read_text()


def _script(connection: Redis, name: str) -> Any:
    return connection.register_script(_source(name))
