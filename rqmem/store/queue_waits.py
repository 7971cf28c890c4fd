"""How long jobs wait in queues: the figures by which a pool chooses its number of workers, and which displays show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

from redis import Redis

from rqmem.rq_names import Job, utcparse
from rqmem.rq_names import Queue as RqQueue
from rqmem.store import keys
from rqmem.store.scripts import answers, of_each
from rqmem.store.unreadable import readable


class Backlog(NamedTuple):
    """Of one queue. ``oldest_enqueued_at``: of the job that is next to run, epoch seconds; None: none waits."""

    queued: int
    oldest_enqueued_at: float | None


def read_waits(connection: Redis, names: Sequence[str]) -> dict[str, Backlog]:
    """Of these queues, but those that are paused. Raises redis-py's errors."""
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.smembers(keys.PAUSED)
        for name in names:
            key = f"{RqQueue.redis_queue_namespace_prefix}{name}"
            pipeline.llen(key)
            pipeline.lindex(key, 0)
        paused, *replies = pipeline.execute()
    counts = {name: each for name, *each in zip(names, replies[::2], replies[1::2], strict=True)}
    since = enqueued_at(connection, [job_id for _, job_id in counts.values()])
    return {
        name: Backlog(queued, since.get(job_id))
        for name, (queued, job_id) in counts.items()
        if name.encode() not in paused
    }


def queues_of(connection: Redis) -> list[RqQueue]:
    """All queues that had a job, without names that are none of a queue."""
    known = cast("set[bytes]", connection.smembers(RqQueue.redis_queues_keys))
    of_key = partial(RqQueue.from_queue_key, connection=connection)
    return readable(lambda key: of_key(key.decode()), known, RqQueue.redis_queues_keys)


def enqueued_at(connection: Redis, job_ids: Sequence[bytes | None]) -> dict[bytes | None, float]:
    """Job id -> when it was enqueued, epoch seconds, of those that there are."""
    asked = readable(bytes.decode, (job_id for job_id in job_ids if job_id is not None), RqQueue.redis_queues_keys)
    found = answers(connection, Redis.hget, Job.key_for, asked, "enqueued_at")

    def read(each: tuple[str, bytes]) -> tuple[bytes | None, float]:
        return each[0].encode(), utcparse(each[1].decode()).timestamp()

    return dict(readable(read, found.items(), Job.key_for("*")))


def read_job_seconds(connection: Redis, worker_keys: Iterable[str]) -> float:
    """What a job has taken so far on these workers, on average; 0: none has run one."""
    fields = ("total_working_time", "successful_job_count", "failed_job_count")
    replies = of_each(connection, Redis.hmget, worker_keys, *fields)
    return job_seconds(dict(zip(fields, each, strict=True)) for each in replies)


def job_seconds(workers: Iterable[Mapping[str, bytes | str | None]]) -> float:
    """The same, by what RQ has written of each worker: its working time, in seconds, and its jobs."""
    seconds = jobs = 0.0
    for each in workers:
        seconds += float(each.get("total_working_time") or 0)
        jobs += int(each.get("successful_job_count") or 0) + int(each.get("failed_job_count") or 0)
    return seconds / jobs if jobs else 0.0
