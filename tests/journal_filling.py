"""A journal with something of every kind in it, written as workers write it."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from redis import Redis
from rq import Queue
from rq.rate_limit import RateLimitRegistry
from rq.utils import now as rq_now
from rq.utils import utcformat

from rqmem import events
from rqmem.store import codec, keys
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Live, LiveJob, Run, Told
from rqmem.store.history.pool_records import PoolIncident, PoolJob, PoolRecord, PoolTenant, PoolWait
from rqmem.store.history.samples import RINGS, Sample

WORKER = "ada"


def a_run(job_type: str, job_id: str, ended_at: float) -> Run:
    """A run that worked off 1,200 items and freed some memory."""
    return Run(
        job=job_type, job_id=job_id, queue="q", worker=WORKER, ended_at=ended_at, outcome="ok", seconds=12.3,
        initial_mb=40.0, peak_mb=158.7, limit_mb=256.0, declared_mb=256.0, final_mb=60.3, freed_mb=31.0,
        collections=4, chunks=24, items=1200, largest_chunk=50,
    )  # fmt: skip


def fill(connection: Redis, job_type: str, job_id: str) -> None:
    """One run of that type, with its story, a breach, a leak, and an alert that was told, is open, and is quiet now."""
    now = time.time()
    whose = {"job": job_type, "job_id": job_id, "queue": "q", "worker": WORKER}
    breach = events.Breach(
        **whose, used_mb=271.3, limit_mb=256.0, peak_mb=274.0, layer="watch", processes=1, operation="loaded"
    )
    leak = events.LeakFound(**whose, mb_per_run=1.5, runs=40, grew=[("dict", 900, 2.5)])
    story = [events.JobStarted(**whose, memory_mb=40.0, memory_limit_mb=256.0), breach]
    alert = Alert("", now, "usage", "raised", **whose, text="above 80 %")
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_samples(
            pipeline, WORKER, [Sample(ring.begin(now), 80.0, 256.0, 30.0) for ring in RINGS], now
        )
        history_writer.write_runs(pipeline, [a_run(job_type, job_id, now)], {(job_type, "usage"): 1}, now, [leak])
        history_writer.write_story(pipeline, job_id, [history_writer.story_line(now, event) for event in story], now)
        pipeline.xadd(keys.ALERTS, alert.to_entry())
        opened = Open("usage", job_type, now, WORKER, "above 80 %")
        pipeline.hset(keys.OPEN_ALERTS, opened.field, codec.to_json(opened))
        pipeline.set(keys.quiet("usage", job_type), 0, ex=600)
        pipeline.lpush(keys.breaches(job_id), codec.to_json(breach))
        pipeline.expire(keys.breaches(job_id), keys.KEEP_SECONDS)
        pipeline.execute()


def fill_what_jobs_need(connection: Redis, job_id: str) -> None:
    """State of a running, resumable job and its worker, which is no part of the journal."""
    now = time.time()
    live = Live(
        worker=WORKER, host="h", pid=1, at=now, started_at=now, worker_mb=30.0, worker_limit_mb=512.0, limit_mb=256.0,
        horse_pid=2, kept_by="watcher", leases="on", jobs=1, breaches=0, recycled=0, queues=["q"],
    )  # fmt: skip
    with connection.pipeline() as pipeline:
        history_writer.beat(pipeline, replace(live, at=now), 600)
        pipeline.hset(keys.RUNNING, job_id, "{}")
        pipeline.hset(keys.run(job_id), "stage", 0)
        pipeline.rpush(keys.results(job_id), b"0:x")
        pipeline.execute()


def a_live(worker: str, job: LiveJob | None = None, **more: Any) -> Live:
    """What a worker says of itself, which began two minutes ago."""
    now = time.time()
    values: dict[str, Any] = {
        "host": "h", "pid": 7, "at": now, "started_at": now - 120, "worker_mb": 38.0, "worker_limit_mb": 512.0,
        "limit_mb": 256.0, "horse_pid": 8, "kept_by": "watcher", "leases": "on", "jobs": 412, "breaches": 3,
        "recycled": 1, "queues": ["q"], "job": job,
    }  # fmt: skip
    return Live(worker=worker, **{**values, **more})


def a_pool(name: str, worker: str = "p-2") -> PoolRecord:
    """The budget of a pool of which one worker runs a job, another job waits, and a third one was evicted."""
    now = time.time()
    return PoolRecord(
        name, "h", now, workers=2, least_workers=2, most_workers=2, budget_mb=600, reserved_mb=256, usage_mb=192,
        held_mb=12.5, waiting=1, waiting_since=now - 9000, evictions=1, pauses=1, tenant_ceiling_mb=300.0,
        jobs=(PoolJob(worker, "j1", "shop.jobs.Rebuild", 256.0, 192.0, now - 60, 256.0, "acme"),),
        waits=(PoolWait("j9", "shop.jobs.Rebuild", 256.0, now - 9000, "tenant", "acme has 256 of 300 MB", "acme"),),
        incidents=(
            PoolIncident(now - 300, "paused", "only 20 MB of memory are left of 2000"),
            PoolIncident(now - 290, "evicted", "the jobs of the pool use 612 MB of 600", "j7", "shop.jobs.Mail", 80.0),
        ),
        tenants=(PoolTenant("acme", 256.0, 192.0, 1),),
    )  # fmt: skip


def hold_back(connection: Redis, key: str, waiting: list[str], concurrency: int) -> None:
    """Jobs that wait for others of their type, as RQ has them."""
    limits = RateLimitRegistry(key, connection)
    with connection.pipeline() as pipeline:
        limits.register(concurrency, pipeline)
        pipeline.zadd(limits.allowed_key, {f"runs-{number}": 1.0 for number in range(concurrency)})
        for job_id in waiting:
            limits.add_to_rate_limited(job_id, pipeline, time.time() - 9000)
        pipeline.execute()


def register(
    connection: Redis, name: str, *queues: str, state: str = "idle", live: Live | None = None, age_seconds: float = 60
) -> None:
    """A worker as RQ has it, and where ``live`` is given as rqmem has it too."""
    with connection.pipeline() as pipeline:
        born = utcformat(rq_now()) if not age_seconds else "2026-01-01T00:00:00.000000Z"
        fields = {"birth": born, "last_heartbeat": born, "queues": ",".join(queues), "state": state}
        pipeline.hset(f"rq:worker:{name}", mapping={**fields, "pid": 7, "hostname": "h", "successful_job_count": 9})
        pipeline.sadd("rq:workers", f"rq:worker:{name}")
        for queue in queues:
            pipeline.sadd(f"rq:workers:{queue}", f"rq:worker:{name}")
            pipeline.sadd(Queue.redis_queues_keys, f"{Queue.redis_queue_namespace_prefix}{queue}")
        if live is not None:
            history_writer.beat(pipeline, live, 600)
        pipeline.execute()


def tell(connection: Redis, told: Iterable[Told]) -> None:
    """Write events into the stories of their jobs, in this order."""
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        for each in told:
            line = history_writer.story_line(each.at, each.event)
            history_writer.write_story(pipeline, each.event.job_id, [line], each.at)
        pipeline.execute()


def remember(connection: Redis, *runs: Run) -> None:
    """Write runs that ended just now."""
    history_writer.version_is_ours(connection)
    with connection.pipeline() as pipeline:
        history_writer.write_runs(pipeline, runs, {}, time.time())
        pipeline.execute()


def raise_alert(connection: Redis, job_type: str, text: str, *, rule: str = "usage", queue: str = "q") -> None:
    """Tell an alert as a worker does."""
    whose = {"job": job_type, "job_id": "j1", "queue": queue, "worker": WORKER}
    connection.xadd(keys.ALERTS, Alert("", time.time(), rule, "raised", **whose, text=text).to_entry())  # type: ignore[arg-type]


class Bomb:
    """Raises where it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (exec, ("raise AssertionError('it was unpickled')",))
