"""One look at everything: what the journal and RQ say now. Changes nothing.

Made once a second, so it asks for little: what rqmem's workers say of themselves is one command for all of them, RQ's
word is asked for of the others only, and samples once, when a worker is first seen or was long unheard of.

RQ's `Worker.all` and the counts of its registries tidy up while they read, and a `Worker` sets the timeouts of the
connection it is given; so here RQ's keys are asked for by the names that RQ gives them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from rqmem.rq_names import Queue as RqQueue
from rqmem.rq_names import Worker as RqWorker
from rqmem.rq_names import get_worker_keys
from rqmem.store.alerts.alert_records import Alert, Open
from rqmem.store.history import history_reader
from rqmem.store.history.history_records import Live
from rqmem.store.history.samples import Sample

if TYPE_CHECKING:
    from redis import Redis

HISTORY_SECONDS = 300
"""How far back a worker's samples are read when it is first seen."""

_UNHEARD_SECONDS = 15.0  # an idle worker speaks every few seconds
_CLOCKS_APART_SECONDS = 10  # a worker's clock may be ahead of ours: its newest samples are wanted all the same
_WORKER_FIELDS = ("state", "queues", "hostname", "successful_job_count", "failed_job_count")

Kind = Literal["rqmem", "silent", "rq"]


@dataclass(frozen=True)
class Worker:
    """A worker that is registered with RQ.

    Attributes:
        kind: ``rqmem``: it watches its jobs; ``silent``: it should, and has not been heard of; ``rq``: RQ's own.
        state: ``busy`` or ``idle``; of others than rqmem's by RQ, also ``suspended``, ``starting``.
        ended: jobs that ended on it since it was born, by its own count, else by RQ's.
        live: what it last said of itself.
        samples: by the second, those that were asked for, oldest first.
    """

    name: str
    kind: Kind
    state: str
    host: str
    queues: tuple[str, ...]
    ended: int
    live: Live | None = None
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class Queue:
    """How many jobs a queue has."""

    name: str
    queued: int
    started: int
    deferred: int
    failed: int


@dataclass(frozen=True)
class Look:
    """All of it, ``at`` epoch seconds. Workers and queues by name.

    Attributes:
        alerts: told since the look before, oldest first; ``last_alert``: id of the last one, on whatever queue.
        open_alerts: those that can end and have not, longest first.
    """

    at: float
    workers: tuple[Worker, ...] = ()
    queues: tuple[Queue, ...] = ()
    alerts: tuple[Alert, ...] = ()
    last_alert: str = "-"
    open_alerts: tuple[Open, ...] = ()


@dataclass(frozen=True)
class Before:
    """What looks before have seen already.

    Attributes:
        alert: id of the last alert; ``"-"``: none.
        sampled: worker -> of when its last sample is that is known.
    """

    alert: str = "-"
    sampled: Mapping[str, float] = field(default_factory=dict)


def look(connection: Redis, now: float, before: Before, queues: Sequence[str] = ()) -> Look:
    """How it all stands ``now``. ``queues``: only these, and the workers that serve one of them. Raises redis-py's."""
    alerts = history_reader.alerts(connection, before.alert)
    return Look(
        at=now,
        workers=tuple(_workers(connection, now, before, set(queues))),
        queues=tuple(_queues(connection, set(queues))),
        alerts=tuple(alert for alert in alerts if not queues or alert.queue in {"", *queues}),
        last_alert=alerts[-1].id if alerts else before.alert,
        open_alerts=tuple(history_reader.open_alerts(connection)),
    )


def known_queues(connection: Redis) -> set[str]:
    """Queues that had a job, or that a worker serves."""
    names = {queue.name for queue in RqQueue.all(connection)}
    return names.union(*(worker.queues for worker in _as_rq_has_them(connection, _registered(connection))))


def _registered(connection: Redis) -> list[str]:
    prefix = RqWorker.redis_worker_namespace_prefix
    return sorted(key.removeprefix(prefix) for key in get_worker_keys(connection=connection))


def _workers(connection: Redis, now: float, before: Before, queues: set[str]) -> list[Worker]:
    names = _registered(connection)
    lives = {live.worker: live for live in history_reader.workers(connection, names)}
    others = _as_rq_has_them(connection, [name for name in names if name not in lives])
    workers = [*map(_as_it_says, lives.values()), *others]
    workers = [each for each in workers if not queues or queues.intersection(each.queues)]
    samples = _samples(connection, now, before, [each.name for each in workers if each.live is not None])
    return [
        replace(each, samples=tuple(samples[each.name])) if each.name in samples else each
        for each in sorted(workers, key=lambda each: each.name)
    ]


def _as_it_says(live: Live) -> Worker:
    state = "busy" if live.job is not None else "idle"
    return Worker(live.worker, "rqmem", state, live.host, tuple(live.queues), live.jobs, live)


def _as_rq_has_them(connection: Redis, names: Sequence[str]) -> list[Worker]:
    """Workers that say nothing to rqmem; those that RQ has given up are left out."""
    if not names:
        return []
    with connection.pipeline(transaction=False) as pipeline:
        for name in names:
            pipeline.hmget(RqWorker.redis_worker_namespace_prefix + name, *_WORKER_FIELDS)
        answers = pipeline.execute()
    sampled = history_reader.sampled_workers(connection)
    workers = []
    for name, raw in zip(names, answers, strict=True):
        state, queues, host, succeeded, failed = ((value or b"").decode() for value in raw)
        if any(raw):
            kind: Kind = "silent" if name in sampled else "rq"
            serves = tuple(queue for queue in queues.split(",") if queue)
            ended = int(succeeded or 0) + int(failed or 0)
            workers.append(Worker(name, kind, state or "starting", host, serves, ended))
    return workers


def _samples(connection: Redis, now: float, before: Before, names: Sequence[str]) -> dict[str, list[Sample]]:
    """Of workers that were not seen yet, or long unheard of; the others' words are samples themselves."""
    known = {name: before.sampled.get(name, now - HISTORY_SECONDS) for name in names}
    wanted = {name: at for name, at in known.items() if now - at > _UNHEARD_SECONDS}
    return history_reader.newest_samples(connection, wanted, now + _CLOCKS_APART_SECONDS) if wanted else {}


def _queues(connection: Redis, wanted: set[str]) -> list[Queue]:
    queues = sorted(RqQueue.all(connection), key=lambda queue: queue.name)
    queues = [queue for queue in queues if not wanted or queue.name in wanted]
    with connection.pipeline(transaction=False) as pipeline:
        for queue in queues:
            pipeline.llen(queue.key)
            pipeline.zcard(queue.started_job_registry.key)
            pipeline.zcard(queue.deferred_job_registry.key)
            pipeline.zcard(queue.failed_job_registry.key)
        answers = iter(pipeline.execute())
    rows = zip(queues, zip(*[answers] * 4, strict=True), strict=True)
    return [Queue(queue.name, *counts) for queue, counts in rows]
