"""Reads workers, queues, job types and Redis into one `Snapshot`, in a few round trips. Changes nothing.

Status, monitor, top, exporter and `rqmem.api` call this module, so they cannot disagree about a worker. Raises
redis-py's errors.

RQ's `Worker.all` and the counts of its registries tidy up while they read, and a `Worker` sets the timeouts of the
connection it is given. So this module reads RQ's keys, by the names that RQ gives them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any, cast

from redis import Redis
from redis.exceptions import ResponseError

from rqmem.errors import JournalVersionError
from rqmem.observe.model import JobType, Kind, KnownAlert, Queue, RedisMemory, Snapshot, Worker, by_queue
from rqmem.observe.period_read import read_ceilings
from rqmem.observe.statistics import Ceilings
from rqmem.observe.waits import read_limits, read_pools
from rqmem.policy.alert_rules import LEAK
from rqmem.policy.autoscale import expected_wait_seconds
from rqmem.rq_names import (
    WORKER_EXECUTIONS_KEY_TEMPLATE,
    WORKERS_SUSPENDED,
    RQScheduler,
    decode_redis_hash,
    parse_composite_key,
    utcparse,
)
from rqmem.rq_names import Worker as RqWorker
from rqmem.store import execution_reader, keys, unreadable
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Live, Totals
from rqmem.store.history.samples import Sample
from rqmem.store.queue_waits import enqueued_at, queues_of
from rqmem.values import dataclass, field

LATELY_SECONDS = 3600
HISTORY_SECONDS = 300
"""How far back a worker's samples are read when it is first seen."""

_YOUNG_SECONDS = 15  # a worker registers, and its first heartbeat comes a moment later
_UNHEARD_SECONDS = 15.0  # an idle worker reports every few seconds
_CLOCKS_APART_SECONDS = 10  # the clock of a worker may be ahead of ours, and its newest samples are wanted


@dataclass(frozen=True)
class Before:
    """What earlier readings have seen: the id of the last alert, and for each worker the time of its last sample."""

    alert: str = "-"
    sampled: Mapping[str, float] = field(default_factory=dict)


def read_snapshot(connection: Redis, now: float, where: str = "") -> Snapshot:
    """The state ``now`` (epoch seconds) of that Redis, which people know as ``where``; without job types."""
    journal_error = _journal_error(connection)
    readable = not journal_error
    workers = _read_workers(connection, worker_names(connection), now, readable=readable)
    serving = by_queue(each for each in workers if each.kind != "silent")
    return Snapshot(
        at=now,
        where=where,
        suspended=bool(connection.exists(WORKERS_SUSPENDED)),
        workers=workers,
        queues=[_with_waits(queue, serving.get(queue.name, []), now) for queue in _read_queues(connection, now)],
        open_alerts=history_reader.open_alerts(connection) if readable else (),
        dropped=history_reader.dropped(connection) if readable else {},
        journal_error=journal_error,
        memory=_read_memory(connection),
        refuses=execution_reader.refusal_of_writes(connection),
        host_memory=history_reader.hosts(connection, {each.host for each in workers}) if readable else {},
        pools=read_pools(connection, {each.live.pool for each in workers if each.live is not None}, now),
        limits=read_limits(connection),
    )


def read_status(connection: Redis, where: str, now: float, warning_fraction: float | None = None) -> Snapshot:
    """The same, with the job types that something happened to lately."""
    return with_job_types(connection, read_snapshot(connection, now, where), now - LATELY_SECONDS, warning_fraction)


def with_job_types(
    connection: Redis, snapshot: Snapshot, since: float, warning_fraction: float | None = None
) -> Snapshot:
    """The same, with the job types that something happened to since then, the busiest first.

    The journal counts by the hour, so the time begins with one.

    Args:
        warning_fraction: as in `rqmem.observe.period_read.read_ceilings`.
    """
    since = since // keys.HOUR_SECONDS * keys.HOUR_SECONDS
    seen = {} if snapshot.journal_error else history_reader.types(connection)
    lately = {name: at for name, at in seen.items() if at >= since}
    ceilings = read_ceilings(connection, lately, warning_fraction, snapshot.at)
    leaks = history_reader.last_leaks(connection, lately)
    told = {each.job: each for each in history_reader.alerts(connection) if each.rule == LEAK.name}  # the last of each
    found = []
    for name, seen_at in lately.items():
        tally = history_reader.tally(connection, name, since, snapshot.at)
        leak = told.get(name) if tally.leaks else None
        breach = history_reader.last_breach(connection, name) if tally.breached else None
        known = ceilings.get(name, Ceilings())
        found.append(JobType(name, tally, breach, leak, seen_at=seen_at, ceilings=known, leak=leaks.get(name)))
    return replace(snapshot, since=since, job_types=sorted(found, key=lambda each: (-each.tally.runs, each.job_type)))


def read_totals(connection: Redis, now: float) -> Snapshot:
    """The state with all job types that are remembered, by name, and their totals."""
    snapshot = read_snapshot(connection, now)
    if snapshot.journal_error:
        return snapshot
    seen = history_reader.types(connection)
    totals = history_reader.totals(connection, [*seen, ""])
    ceilings = read_ceilings(connection, seen, None, now)
    found = [
        JobType(name, totals=totals[name], seen_at=seen[name], ceilings=ceilings.get(name, Ceilings()))
        for name in sorted(seen)
        if name in totals
    ]
    tenants = history_reader.tenants_in_all(connection)
    return replace(snapshot, job_types=found, about_no_job=totals.get("", Totals()), tenants=tenants)


def read_news(connection: Redis, now: float, before: Before, queues: Sequence[str] = (), where: str = "") -> Snapshot:
    """The state with samples and alerts that are newer than ``before``.

    ``queues``: only these, and the workers that serve one of them; empty: all.
    """
    snapshot = read_snapshot(connection, now, where)
    alerts = history_reader.alerts(connection, before.alert)
    workers = [each for each in snapshot.workers if not queues or set(queues).intersection(each.queues)]
    samples = _samples(connection, now, before, [each.name for each in workers if each.live is not None])
    pools = {each.live.pool for each in workers if each.live is not None}
    return replace(
        snapshot,
        pools=[each for each in snapshot.pools if each.pool in pools],
        workers=[replace(each, samples=tuple(samples.get(each.name, ()))) for each in workers],
        queues=[each for each in snapshot.queues if not queues or each.name in queues],
        alerts=[alert for alert in alerts if not queues or alert.queue in {"", *queues}],
        last_alert=alerts[-1].id if alerts else before.alert,
    )


def read_alerts(connection: Redis) -> list[KnownAlert]:
    """All alerts that are remembered, oldest first."""
    still = {(each.rule, each.job, each.worker, each.since) for each in history_reader.open_alerts(connection)}
    return [
        KnownAlert(**vars(each), open=each.state == "raised" and (each.rule, each.job, each.worker, each.at) in still)
        for each in history_reader.alerts(connection)
    ]


def read_worker(connection: Redis, name: str, now: float) -> Worker | None:
    """One worker, in a few commands; None: RQ has none of that name, or has given it up."""
    return next(iter(_read_workers(connection, [name], now, readable=not _journal_error(connection))), None)


def worker_names(connection: Redis) -> list[str]:
    """The workers that RQ has registered."""
    prefix = RqWorker.redis_worker_namespace_prefix
    known = cast("set[bytes]", connection.smembers(RqWorker.redis_workers_keys))
    return sorted(
        key.removeprefix(prefix) for key in unreadable.readable(bytes.decode, known, RqWorker.redis_workers_keys)
    )


def known_queues(connection: Redis) -> set[str]:
    """Queues that had a job, or that a worker serves."""
    workers = _read_workers(connection, worker_names(connection), 0.0, readable=False)
    return used_queues(connection).union(*(worker.queues for worker in workers))


def served_queues(connection: Redis) -> set[str]:
    """Queues that a registered worker serves. Two round trips, however many workers and queues there are."""
    prefix = RqWorker.redis_worker_namespace_prefix
    with connection.pipeline(transaction=False) as pipeline:
        for name in worker_names(connection):
            pipeline.hget(prefix + name, "queues")
        return {queue for found in pipeline.execute() if found for queue in found.decode().split(",")}


def used_queues(connection: Redis) -> set[str]:
    """Queues that had a job. One command, however many workers there are."""
    return {queue.name for queue in queues_of(connection)}


def _journal_error(connection: Redis) -> str:
    try:
        history_reader.check_version(connection)
    except JournalVersionError as error:
        return error.what
    return ""


def _read_workers(connection: Redis, names: list[str], now: float, *, readable: bool) -> list[Worker]:
    """By name. ``readable``: the reports of rqmem's workers are of this version."""
    prefix = RqWorker.redis_worker_namespace_prefix
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hgetall(prefix + name)
            pipeline.smembers(WORKER_EXECUTIONS_KEY_TEMPLATE.format(name))
        answers = pipeline.execute()
    absent = execution_reader.absent(connection, names)
    reports = {live.worker: live for live in (history_reader.workers(connection, names) if readable else [])}
    ours = {owner.worker for owner in execution_reader.owners(connection).values()}
    ours.update(history_reader.sampled_workers(connection) if readable else ())

    def read(name: str, raw: dict[Any, Any], executions: set[bytes]) -> Worker:
        fields = decode_redis_hash(raw, decode_values=True)
        is_ours = name in ours or keys.PROCESS in fields
        kind: Kind = "rqmem" if name not in absent else ("silent" if is_ours else "rq")
        return _worker(name, fields, executions, kind, reports.get(name), now)

    known = [each for each in zip(names, answers[::2], answers[1::2], strict=True) if each[1]]  # others RQ has given up
    return unreadable.readable(lambda each: read(*each), known, f"{prefix}*")


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
        kind=kind,
        state="busy" if live is not None and live.job is not None else fields.get("state", "starting"),
        queues=tuple(queue for queue in fields.get("queues", "").split(",") if queue),
        host=fields.get("hostname", ""),
        pid=int(fields.get("pid") or 0),
        started_at=live.started_at if live is not None else born_at,
        job_id=live.job.job_id if live is not None and live.job is not None else "".join(running[:1]),
        jobs=live.jobs if live is not None else done,
        live=live,
        read_at=now,
        worked_seconds=float(fields.get("total_working_time") or 0),
        done=done,
    )


def _samples(connection: Redis, now: float, before: Before, names: Sequence[str]) -> dict[str, list[Sample]]:
    """Of workers that are new, or were long unheard of; for the others, their reports are samples."""
    known = {name: before.sampled.get(name, now - HISTORY_SECONDS) for name in names}
    wanted = {name: at for name, at in known.items() if now - at > _UNHEARD_SECONDS}
    return history_reader.newest_samples(connection, wanted, now + _CLOCKS_APART_SECONDS) if wanted else {}


def _read_queues(connection: Redis, now: float) -> list[Queue]:
    queues = sorted(queues_of(connection), key=lambda queue: queue.name)
    with connection.pipeline(transaction=False) as pipeline:
        pipeline.smembers(keys.PAUSED)
        for queue in queues:
            pipeline.llen(queue.key)
            pipeline.zcard(queue.started_job_registry.key)
            pipeline.zcard(queue.deferred_job_registry.key)
            pipeline.zcard(queue.scheduled_job_registry.key)
            pipeline.zcard(queue.failed_job_registry.key)
            pipeline.zcount(queue.scheduled_job_registry.key, 0, now)
            pipeline.exists(RQScheduler.get_locking_key(queue.name))
            pipeline.zcard(queue.finished_job_registry.key)
            pipeline.lindex(queue.key, 0)
        paused, *answers = pipeline.execute()
    rows = list(zip(*[iter(answers)] * 9, strict=True))
    since = enqueued_at(connection, [next_job for *_, next_job in rows])
    found = []
    for queue, counts in zip(queues, rows, strict=True):
        queued, started, deferred, scheduled, failed, due, scheduler, finished, next_job = counts
        found.append(
            Queue(
                queue.name, queued, started, deferred, scheduled, failed, due, bool(scheduler), finished,
                queue.name.encode() in paused, since.get(next_job),
            )
        )  # fmt: skip
    return found


def _with_waits(queue: Queue, serving: Sequence[Worker], now: float) -> Queue:
    done = sum(each.done for each in serving)
    job_seconds = sum(each.worked_seconds for each in serving) / done if done else 0.0
    since = queue.oldest_enqueued_at
    return replace(
        queue,
        oldest_seconds=max(0.0, now - since) if since is not None else 0.0,
        expected_wait_seconds=expected_wait_seconds(queue.queued, job_seconds, len(serving)),
    )


def _read_memory(connection: Redis) -> RedisMemory | None:
    """None where ``INFO`` is forbidden, as managed services may."""
    with suppress(ResponseError):
        info: Any = connection.info("memory")
        if "used_memory" in info:
            return memory_of(info)
    return None


def memory_of(info: Mapping[str, Any]) -> RedisMemory:
    limit, policy = int(info.get("maxmemory", 0)), str(info.get("maxmemory_policy", "noeviction"))
    return RedisMemory(int(info.get("used_memory", 0)), limit, policy)
