"""The snapshot as JSON: what ``rqmem status --json`` prints. Pure.

Keys are stable within a version; new ones may come. Sizes in MB, times in UTC (``2026-11-24T00:31:07.120Z``), spans
in seconds; what is not known is null::

    version, at, redis   1; when it was read; which Redis, without password
    state, healthy       "running", "suspended" or "no workers"; whether no trouble is a "problem"
    workers              {name, kind, state, host, pid, queues, uptime_seconds, jobs, job_id,
                          and of rqmem's: breaches, recycled, memory_mb, memory_limit_mb, default_limit_mb, kept_by,
                          job}
                          kind: "rqmem", "rq" (not watched) or "silent" (rqmem's, and not heard of)
                          job: {job, job_id, queue, usage_mb, peak_mb, memory_limit_mb, usage_percentage, operation,
                          items_done, seconds} or null
    queues               {name, queued, started, deferred, scheduled, failed, due, scheduler}
    since, types         job types since then: {job, jobs, runs, failed, breaches, resumes, splits, leaks, alerts,
                          last_breach_job_id}
    alerts               those open: {rule, job, since, worker, text}
    troubles             {mark, name, text, advice}; mark: "problem" or "note"
    journal              {error, dropped}; dropped: entries it did not take, by kind
    redis_memory         {used_mb, max_mb, policy} or null
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rqmem.observe.model import JobType, Snapshot, Worker
from rqmem.observe.problems import Problem, healthy
from rqmem.store.history.history_records import LiveJob
from rqmem.text import timestamp_ms
from rqmem.units import to_mb

VERSION = 1


def as_json(snapshot: Snapshot, found: Sequence[Problem]) -> dict[str, Any]:
    """All of it, as `json` takes it."""
    memory = snapshot.memory
    return {
        "version": VERSION,
        "at": timestamp_ms(snapshot.at),
        "redis": snapshot.where,
        "state": snapshot.state,
        "healthy": healthy(found),
        "workers": [_worker(worker, snapshot.at) for worker in snapshot.workers],
        "queues": [dict(vars(queue)) for queue in snapshot.queues],
        "since": timestamp_ms(snapshot.since),
        "types": [_type(each) for each in snapshot.job_types],
        "alerts": [{**dataclasses.asdict(alert), "since": timestamp_ms(alert.since)} for alert in snapshot.open_alerts],
        "troubles": [dataclasses.asdict(each) for each in found],
        "journal": {"error": snapshot.journal_error, "dropped": snapshot.dropped},
        "redis_memory": None
        if memory is None
        else {"used_mb": to_mb(memory.used_bytes), "max_mb": to_mb(memory.max_bytes), "policy": memory.policy},
    }


def worker_json(worker: Worker, now: float) -> dict[str, Any]:
    """One worker, as it is in ``workers``."""
    return {"version": VERSION, "at": timestamp_ms(now), **_worker(worker, now)}


def _worker(worker: Worker, now: float) -> dict[str, Any]:
    live = worker.live
    return {
        "name": worker.name,
        "kind": worker.kind,
        "state": worker.state,
        "host": worker.host,
        "pid": worker.pid,
        "queues": list(worker.queues),
        "uptime_seconds": round(now - worker.started_at, 1) if worker.started_at is not None else None,
        "jobs": worker.jobs,
        "job_id": worker.job_id,
        "breaches": live.breaches if live else None,
        "recycled": live.recycled if live else None,
        "memory_mb": live.worker_mb if live else None,
        "memory_limit_mb": live.worker_limit_mb if live else None,
        "default_limit_mb": live.limit_mb if live else None,
        "kept_by": live.kept_by if live else None,
        "job": _job(live.job, now) if live and live.job else None,
    }


def _job(job: LiveJob, now: float) -> dict[str, Any]:
    return {
        "job": job.job,
        "job_id": job.job_id,
        "queue": job.queue,
        "usage_mb": job.usage_mb,
        "peak_mb": job.peak_mb,
        "memory_limit_mb": job.limit_mb,
        "usage_percentage": round(100 * job.usage_mb / job.limit_mb, 1) if job.limit_mb else None,
        "operation": job.operation,
        "items_done": job.items_done,
        "seconds": round(now - job.started_at, 1),
    }


def _type(each: JobType) -> dict[str, Any]:
    tally = each.tally
    return {
        "job": each.job_type,
        "jobs": round(tally.jobs),
        "runs": round(tally.runs),
        "failed": round(tally.failed),
        "breaches": round(tally.breached),
        "resumes": round(tally.resumed),
        "splits": round(tally.splits),
        "leaks": round(tally.leaks),
        "alerts": round(tally.alerts),
        "splitting_rate": _rate(tally.splitting_rate),
        "alerts_per_job": _rate(tally.alerts_per_job),
        "last_breach_job_id": each.last_breach.job_id if each.last_breach else None,
    }


def _rate(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
