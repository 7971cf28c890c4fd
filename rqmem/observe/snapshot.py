"""The facts, read from RQ and the journal in a few round trips. Changes nothing.

RQ's `Worker.all` and the counts of its registries tidy up while they read, and a `Worker` sets the timeouts of the
connection it is given; so here RQ's keys are asked for by the names that RQ gives them.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from rqmem.errors import JournalVersionError
from rqmem.observe.model import Facts, JobType, Kind, Memory, Queue, Worker
from rqmem.policy.alert_rules import LEAK
from rqmem.rq_names import (
    WORKER_EXECUTIONS_KEY_TEMPLATE,
    WORKERS_SUSPENDED,
    RQScheduler,
    decode_redis_hash,
    get_worker_keys,
    parse_composite_key,
    utcparse,
)
from rqmem.rq_names import Queue as RqQueue
from rqmem.rq_names import Worker as RqWorker
from rqmem.store import execution_reader, keys
from rqmem.store.history import history_reader

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from redis import Redis

    from rqmem.store.alerts.alert_records import Alert
    from rqmem.store.history.history_records import Live

LATELY_SECONDS = 3600
_YOUNG_SECONDS = 15  # a worker registers, and beats a moment later


def read_facts(connection: Redis, where: str, now: float) -> Facts:
    """How it all stands ``now`` (epoch seconds) on that Redis, which people know as ``where``."""
    journal_error = ""
    try:
        history_reader.check_version(connection)
    except JournalVersionError as error:
        journal_error = str(error)
    readable = not journal_error
    since = _hour_of(now - LATELY_SECONDS)
    return Facts(
        at=now,
        where=where,
        suspended=bool(connection.exists(WORKERS_SUSPENDED)),
        workers=read_workers(connection, now, readable=readable),
        queues=read_queues(connection, now),
        since=since,
        types=_types(connection, since, now) if readable else [],
        alerts=history_reader.open_alerts(connection) if readable else [],
        dropped=history_reader.dropped(connection) if readable else {},
        journal_error=journal_error,
        memory=read_memory(connection),
        refuses=execution_reader.refusal_of_writes(connection),
    )


def _hour_of(at: float) -> float:
    """The beginning of its hour: tallies are kept by the hour."""
    return at // history_reader.HOUR_SECONDS * history_reader.HOUR_SECONDS


def read_worker(connection: Redis, name: str, now: float) -> Worker | None:
    """One worker, in a few commands; None: RQ has none of that name, or has given it up."""
    try:
        history_reader.check_version(connection)
        readable = True
    except JournalVersionError:
        readable = False
    return next(iter(_read(connection, [name], now, readable=readable)), None)


def read_workers(connection: Redis, now: float, *, readable: bool) -> list[Worker]:
    """By name. ``readable``: whether what rqmem's workers say of themselves is of this version."""
    return _read(connection, worker_names(connection), now, readable=readable)


def worker_names(connection: Redis) -> list[str]:
    """Those that RQ has registered."""
    prefix = RqWorker.redis_worker_namespace_prefix
    return sorted(key.removeprefix(prefix) for key in get_worker_keys(connection=connection))


def _read(connection: Redis, names: list[str], now: float, *, readable: bool) -> list[Worker]:
    prefix = RqWorker.redis_worker_namespace_prefix
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hgetall(prefix + name)
            pipeline.smembers(WORKER_EXECUTIONS_KEY_TEMPLATE.format(name))
        answers = pipeline.execute()
    absent = execution_reader.absent(connection, names)
    said = {live.worker: live for live in (history_reader.workers(connection, names) if readable else [])}
    ours = {owner.worker for owner in execution_reader.owners(connection).values()}
    ours.update(history_reader.sampled_workers(connection) if readable else ())
    workers = []
    for name, raw, executions in zip(names, answers[::2], answers[1::2], strict=True):
        if raw:  # else RQ has given it up
            fields = decode_redis_hash(raw, decode_values=True)
            said_so = name in ours or keys.PROCESS in fields
            kind: Kind = "rqmem" if name not in absent else ("silent" if said_so else "rq")
            workers.append(_worker(name, fields, executions, kind, said.get(name), now))
    return workers


def _worker(
    name: str, fields: Mapping[str, str], executions: Iterable[bytes], kind: Kind, live: Live | None, now: float
) -> Worker:
    born_at = utcparse(fields["birth"]).timestamp() if fields.get("birth") else None
    if kind == "silent" and born_at is not None and now - born_at < _YOUNG_SECONDS:
        kind = "rqmem"
    running = sorted(parse_composite_key(key.decode())[0] for key in executions)
    done = sum(int(fields.get(f"{how}_job_count") or 0) for how in ("successful", "failed"))
    return Worker(
        name=name,
        state="busy" if live is not None and live.job is not None else fields.get("state", "starting"),
        kind=kind,
        queues=tuple(queue for queue in fields.get("queues", "").split(",") if queue),
        host=fields.get("hostname", ""),
        pid=int(fields.get("pid") or 0),
        born_at=live.started_at if live is not None else born_at,
        job_id=live.job.job_id if live is not None and live.job is not None else "".join(running[:1]),
        jobs=live.jobs if live is not None else done,
        live=live,
    )


def read_queues(connection: Redis, now: float) -> list[Queue]:
    """All that RQ knows, by name."""
    queues = sorted(RqQueue.all(connection), key=lambda queue: queue.name)
    with connection.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue.key)
            pipeline.zcard(queue.started_job_registry.key)
            pipeline.zcard(queue.deferred_job_registry.key)
            pipeline.zcard(queue.scheduled_job_registry.key)
            pipeline.zcard(queue.failed_job_registry.key)
            pipeline.zcount(queue.scheduled_job_registry.key, 0, now)
            pipeline.exists(RQScheduler.get_locking_key(queue.name))
        answers = iter(pipeline.execute())
    return [Queue(queue.name, *counts) for queue, counts in zip(queues, zip(*[answers] * 7, strict=True), strict=True)]


def _types(connection: Redis, since: float, now: float) -> list[JobType]:
    """Job types that something happened to, busiest first."""
    found = []
    for name, seen in history_reader.types(connection).items():
        if seen < since:
            continue
        tally = history_reader.tally(connection, name, since, now)
        runs = history_reader.runs(connection, name) if tally.breached else []
        leak = _last_leak(connection, name) if tally.leaks else None
        found.append(JobType(name, tally, next((run for run in runs if run.layer), None), leak))
    return sorted(found, key=lambda each: (-each.tally.runs, each.job))


def _last_leak(connection: Redis, job: str) -> Alert | None:
    alerts = history_reader.alerts(connection)
    return next((each for each in reversed(alerts) if (each.rule, each.job) == (LEAK.name, job)), None)


def read_memory(connection: Redis) -> Memory | None:
    """Redis' own; None where ``INFO`` is forbidden, as managed services may."""
    with suppress(ResponseError):
        info: Any = connection.info("memory")
        if "used_memory" in info:
            limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", "noeviction"))
            return Memory(int(info["used_memory"]), limit, policy)
    return None
