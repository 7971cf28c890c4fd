"""All writes about running and resumable jobs.

Promises: a write of an execution that no longer owns its job is refused, or raises `RunTakenOver`. Keys that must agree
are written in one script or one transaction.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any, cast
from uuid import uuid4

from redis import Redis
from redis.client import Pipeline

from rqmem.errors import RunTakenOver, SourceError
from rqmem.events import EVIDENCE, Breach
from rqmem.policy.escalation import Step
from rqmem.rq_names import (
    RQ_KEY_PREFIX,
    Execution,
    ExecutionRegistry,
    FailedJobRegistry,
    Job,
    Queue,
    RateLimitRegistry,
    ScheduledJobRegistry,
    StartedJobRegistry,
    now,
    utcformat,
    utcparse,
)
from rqmem.store import codec, keys
from rqmem.store.execution_records import Owner
from rqmem.store.held_run import HeldRun
from rqmem.store.keys import KEEP_SECONDS, WAITING_SECONDS
from rqmem.store.retrying import until_redis_answers
from rqmem.store.scripts import script

_WITH_FRACTION = len("2026-01-02T03:04:05.678901Z")
_WAITS_FOR_A_PLACE = 2  # what the script `due` answers then
KEPT_BREACHES, KEPT_EVIDENCE = 50, 8
"""How many breaches of a job are kept, as many as its story can name, and how many of them with their evidence."""


def claim(pipeline: Pipeline, job_id: str, owner: Owner) -> None:
    """Make ``owner`` the owner of the job. Writes of older executions are refused from now on."""
    pipeline.hset(keys.RUNNING, job_id, codec.to_json(owner))


def release(connection: Redis | Pipeline, job_id: str) -> None:
    """End the ownership: an execution of the job that still runs cannot commit any more."""
    connection.hdel(keys.RUNNING, job_id)


def epoch(connection: Redis) -> str:
    """The name of the data in Redis: another one after FLUSHALL, or if the server came back empty."""
    with connection.pipeline() as pipeline:
        pipeline.set(keys.EPOCH, uuid4().hex, nx=True)
        pipeline.get(keys.EPOCH)
        return str(pipeline.execute()[1].decode())


def let_go(connection: Redis, job: Job, execution: Execution) -> None:
    """End an execution without an outcome: remove its claim, and what it has written about a deleted job."""
    with connection.pipeline() as pipeline:
        execution.delete(job, pipeline)
        names, values = [keys.RUNNING, job.key], [job.id, execution.id]
        script(connection, "let_go")(keys=names, args=values, client=pipeline)
        pipeline.execute()


def release_if(connection: Redis, job_id: str, owner: Owner) -> bool:
    """Remove a dead owner, unless the job has another owner by now."""
    return script(connection, "release_if")(keys=[keys.RUNNING], args=[job_id, owner.execution]) == 1


def adopt(connection: Redis, job_id: str, dead: Owner, settler: Owner) -> bool:
    """Make ``settler`` the owner in place of ``dead``, unless the job has another owner by now."""
    was = (dead.execution, dead.host, dead.pid, dead.start_time)
    return script(connection, "adopt")(keys=[keys.RUNNING], args=[job_id, *was, codec.to_json(settler)]) == 1


def farewell(connection: Redis, worker: str) -> None:
    """Say that ``worker`` ends, so that its jobs may be taken over at once."""
    connection.delete(keys.alive(worker))


def expire_run(pipeline: Pipeline, job_id: str) -> None:
    """Keep all of a run for some days from now."""
    for key in keys.forgotten("run ends", job_id):
        pipeline.expire(key, KEEP_SECONDS)


def finish(pipeline: Pipeline, job_id: str, result_ttl: int) -> None:
    """The job is done: keep its run as long as its result. A repetition, or another job with this id, starts afresh."""
    pipeline.srem(keys.SPLITS, job_id)
    if result_ttl == 0:
        pipeline.delete(*keys.forgotten("run ends", job_id))
        return
    pipeline.delete(*keys.forgotten("job is done", job_id))
    pipeline.hset(keys.run(job_id), "finished", 1)
    for key in keys.forgotten("run ends", job_id):
        pipeline.expire(key, KEEP_SECONDS if result_ttl < 0 else result_ttl)


def save_breach(connection: Redis, breach: Breach) -> None:
    """Keep a breach with its job; of two breaches of one execution the last one."""
    key = keys.breaches(breach.job_id)
    with connection.pipeline() as pipeline:
        names = [key, keys.run(breach.job_id)]
        values = [breach.execution, codec.to_json(breach), KEPT_BREACHES, KEPT_EVIDENCE, *EVIDENCE]
        script(connection, "save_breach")(keys=names, args=values, client=pipeline)
        pipeline.expire(key, keys.breaches.expires)
        pipeline.zadd(keys.STORIES, {breach.job_id: round(now().timestamp())})
        expire_run(pipeline, breach.job_id)
        pipeline.execute()


def note_peak(connection: Redis, job_id: str, peak_mb: float) -> None:
    """Raise the peak of the run to that of an execution whose horse died before it could save it."""
    script(connection, "note_peak")(keys=[keys.run(job_id)], args=[peak_mb])


def requeue(
    job: Job,
    queue: Queue,
    execution: Execution,
    stage: int | None,
    chunk_size: int,
    cost: int,
    *,
    cut: bool = False,
    history: Sequence[str] = (),
    delay_seconds: float = 0.0,
    step: Step | None = None,
) -> bool:
    """End ``execution`` and put its job back at the front of its queue, once. It spends ``cost`` resumes.

    ``cut``: the next execution cuts the rest into two children. ``history``: how the executions ended.
    ``delay_seconds``: `release_due` enqueues it after this time; until then RQ shows it as scheduled.
    ``step``: the next execution has this ceiling, and runs in the queue that it names.

    Returns False if the execution no longer owns the job, or somebody else has ended the job.
    """
    registries = (FailedJobRegistry, ScheduledJobRegistry)
    registry_keys = [each(job.origin, connection=job.connection).key for each in registries]
    moves_to = step.queue if step is not None and step.queue != job.origin else ""
    target = f"{queue.redis_queue_namespace_prefix}{moves_to}" if moves_to else queue.key
    answer = script(job.connection, "requeue")(
        keys=keys_of_an_end(job, queue, execution, *registry_keys, keys.DELAYED, target),
        args=[
            *(job.id, execution.id, "" if stage is None else stage, chunk_size, utcformat(now()), cost, int(cut)),
            *("\n".join(history), time.time() + delay_seconds if delay_seconds else 0, WAITING_SECONDS),
            *("" if step is None else step.ceiling_mb, moves_to),
        ],
    )
    return answer == 1


def renew_budget(job: Job) -> None:
    """Give the job its full budget of resumes again, before it fails: RQ's Retry or a person may run it again."""
    job.connection.hdel(keys.run(job.id), "resumes_spent", "history")


def begin_again(connection: Redis, job_id: str) -> None:
    """Have the next execution forget what earlier ones left, as if the job were another one with the same id."""
    key = keys.run(job_id)
    if connection.exists(key):  # else the new field would never expire
        connection.hset(key, "job_created_at", "begins again")


def release_due(connection: Redis, job_class: type[Job], queue_class: type[Queue]) -> int:
    """Put jobs whose delayed resume is due at the front of their queues; returns how many."""
    released = 0
    for raw in cast("list[bytes]", connection.zrangebyscore(keys.DELAYED, 0, time.time(), start=0, num=100)):
        job_id = raw.decode()
        origin = cast("bytes | None", connection.hget(job_class.key_for(job_id), "origin"))
        queue = queue_class(origin.decode() if origin else "default", connection=connection)
        registry = ScheduledJobRegistry(queue.name, connection=connection)
        answer = script(connection, "due")(
            keys=[keys.DELAYED, registry.key, job_class.key_for(job_id), queue.key, queue.redis_queues_keys],
            args=[job_id, utcformat(now()), RQ_KEY_PREFIX],
        )
        if answer == _WAITS_FOR_A_PLACE:
            _give_a_place(connection, job_class.key_for(job_id))
        released += answer > 0
    return released


def _give_a_place(connection: Redis, job_key: str) -> None:
    """If there is one, now; else RQ gives it one when another job ends. Also if we die here: its maintenance does."""
    limit = cast("list[bytes | None]", connection.hmget(job_key, "rate_limit_key", "rate_limit_concurrency"))
    if limit[0] and limit[1]:
        RateLimitRegistry(limit[0].decode(), connection).acquire_and_enqueue(int(limit[1]))


def keys_of_an_end(job: Job, queue: Queue, execution: Execution, *more: str) -> list[str]:
    """The keys of a script that ends an execution of a job; ``more``: those that only this script needs."""
    connection = job.connection
    return [
        keys.RUNNING,
        job.key,
        StartedJobRegistry(job.origin, connection=connection).key,
        execution.key,
        ExecutionRegistry(job.id, connection=connection).key,
        execution.worker_executions_key,
        queue.intermediate_queue_key,
        queue.key,
        keys.run(job.id),
        queue.redis_queues_keys,
        *more,
        *keys.forgotten("run ends", job.id),
    ]


def put_back(queue: Queue, job_id: str) -> bool:
    """Move a job that nobody began from the intermediate queue to the front of its queue, once; not one of a lease."""
    job_key = queue.job_class.key_for(job_id)
    answer = script(queue.connection, "put_back")(
        keys=[queue.intermediate_queue_key, queue.key, job_key, keys.LEASES], args=[job_id, keys.taken("")]
    )
    return answer == 1


def give_back(queue: Queue, job_id: str, before: bytes = b"") -> None:
    """Put a job that was taken and not begun back to the front of its queue, or drop a cancelled one. Safe to repeat.

    ``before``: the job that stood before it, and was passed over. If it is in the queue, this one goes behind it.
    """
    names = [queue.intermediate_queue_key, queue.key, Job.key_for(job_id)]
    script(queue.connection, "give_back")(keys=names, args=[job_id, before])


class RunWriter:
    """What one execution of a memory-aware job writes to the run of the job. It waits while Redis is away.

    Args:
        held: under a lease: what is written stays there until Redis has to have it.
    """

    def __init__(self, connection: Redis, job_id: str, execution_id: str, held: HeldRun | None = None) -> None:
        self._connection = connection
        self._job_id = job_id
        self._execution_id = execution_id
        self._held = held

    def open(self, opening: Mapping[str, Any], *, anew: bool) -> None:
        """Begin a new execution with these fields (`opening`); ``anew`` forgets the executions before it."""
        if self._held is not None:
            self._held.begin()
        elif anew:
            old = keys.forgotten("run ends", self._job_id)
            until_redis_answers(lambda: self._connection.delete(*old), f"begin the run of job {self._job_id}")
        self._update(opening)

    def begin_stage(self, stage: int, chunk_size: int) -> None:
        self._update({"stage": stage, f"chunk_size:{stage}": chunk_size})

    def save_chunks(
        self, stage: int, cursor: Any, items_done: int, chunks: int, results: bytes, chunk_size: int, chunk_state: str
    ) -> None:
        """Save finished chunks in one step, once: cursor, items of the stage so far, results, and the next size.

        Raises `RunTakenOver`, and `SourceError` where the cursor is no JSON.
        """
        text = _as_json(cursor)
        if self._held is not None and self._held.hold(
            {
                f"cursor:{stage}": text, f"items:{stage}": items_done,
                f"chunk_size:{stage}": chunk_size, f"chunk_state:{stage}": chunk_state,
            },
            {"chunks": chunks, "execution_chunks": chunks},
            b"%d:%b" % (stage, results) if results else b"",
        ):  # fmt: skip
            return
        save = script(self._connection, "save_chunks")
        names = [keys.RUNNING, keys.run(self._job_id), keys.results(self._job_id)]
        values = [
            *(self._job_id, self._execution_id, stage, text, items_done, KEEP_SECONDS, results, chunks),
            *(chunk_size, chunk_state),
        ]
        answer = until_redis_answers(
            lambda: save(keys=names, args=values), f"save a chunk of job {self._job_id}", self._connection
        )
        if answer != 1:
            raise RunTakenOver(
                f"job {self._job_id}: another worker took this run over; the outcome of this execution is not recorded"
            )

    def close(self, peak_mb: float, seconds: float, unsaved_chunks: int, unsaved_items: int) -> None:
        """End an execution of ``handle``.

        ``unsaved_chunks``, ``unsaved_items``: without a `save_chunks` of their own; no items if it did not end well,
        since they will be done again.
        """
        more = {"items_unsaved": unsaved_items} if unsaved_items else {}
        self._update({"peak_mb": peak_mb, **more}, {"seconds": seconds, "chunks": unsaved_chunks}, last=True)

    def _update(
        self, values: Mapping[Any, Any], added: Mapping[str, float] | None = None, *, last: bool = False
    ) -> None:
        """Set these fields of the run, and add to the others. ``last``: the job's code has ended."""
        if self._held is not None and self._held.hold(values, added, last=last):
            return
        key = keys.run(self._job_id)

        def write() -> None:
            with self._connection.pipeline() as pipeline:
                pipeline.hset(key, mapping=values)
                for field, amount in (added or {}).items():
                    pipeline.hincrbyfloat(key, field, amount)
                expire_run(pipeline, self._job_id)
                pipeline.execute()

        until_redis_answers(write, f"write to the run of job {self._job_id}")


def made_at(created_at: bytes) -> str:
    """When a job was made, as the record of its run has it. ``created_at``: as RQ has it."""
    text = created_at.decode()
    if len(text) == _WITH_FRACTION and not text.endswith(".000000Z"):
        return f"{text[:-1]}+00:00"
    return utcparse(text).isoformat()


def opening(job: str, on_breach: str, escalate_to: str, job_created_at: str, run_id: str) -> dict[str, Any]:
    """The fields of a run when an execution of it begins: its own count of chunks is 0."""
    fields = {"job": job, "on_breach": on_breach, "job_created_at": job_created_at, "run_id": run_id}
    return {**fields, **({"escalate_to": escalate_to} if escalate_to else {}), "execution_chunks": 0}


def _as_json(cursor: Any) -> str:
    try:
        return json.dumps(cursor, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise SourceError(
            f"a source gave the cursor {cursor!r:.200}, which is no JSON ({error}): give one that is"
        ) from None
