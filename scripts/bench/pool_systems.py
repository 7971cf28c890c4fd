"""What `scripts.bench.pool` compares: the command of each system, how to enqueue a job, and what became of all jobs."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from redis import Redis
from rq import Queue

from scripts.bench import pool_mix
from scripts.harness import ROOT, without_settings

BUDGET_MB, WORKERS = 450, 4
RQMEM, RQMEM_BY_CEILINGS = "rqmem pool", "rqmem, ceilings"
_KEPT_SECONDS = 7200  # results, until the run is over and counted


@dataclass(frozen=True)
class System:
    """One of those compared.

    Attributes:
        enqueue: kind and number of a job -> its id.
        states: ids of jobs -> in which of RQ's registries, or in the queue, each is now; None: not known one by one.
        ended: jobs that failed, and that are done.
    """

    name: str
    command: list[str]
    environ: dict[str, str]
    enqueue: Callable[[str, str], str]
    ended: Callable[[], tuple[int, int]]
    states: Callable[[list[str]], dict[str, list[str]]] | None = None


def systems(url: str) -> list[System]:
    """Those that can be run here."""
    environ = {**without_settings(), "BENCH_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
    found = _of_rq(url, environ)
    with contextlib.suppress(ImportError):
        found.append(_celery(url, environ))
    return found


def _of_rq(url: str, environ: dict[str, str]) -> list[System]:
    queue = Queue("bench", connection=Redis.from_url(url))
    registries = {
        "finished": queue.finished_job_registry, "failed": queue.failed_job_registry,
        "started": queue.started_job_registry, "scheduled": queue.scheduled_job_registry,
        "deferred": queue.deferred_job_registry,
    }  # fmt: skip

    def states(ids: list[str]) -> dict[str, list[str]]:
        places = {name: set(each.get_job_ids(cleanup=False)) for name, each in registries.items()}
        places["queued"] = set(queue.job_ids)
        return {job_id: [name for name, there in places.items() if job_id in there] for job_id in ids}

    def ended() -> tuple[int, int]:
        return queue.failed_job_registry.get_job_count(cleanup=False), queue.finished_job_registry.get_job_count(False)

    def enqueue(kind: str, number: str) -> str:
        return queue.enqueue(getattr(pool_mix, kind), number, result_ttl=_KEPT_SECONDS).id

    def enqueue_aware(kind: str, number: str) -> str:
        if kind != "chunked":
            return enqueue(kind, number)
        options = {"result_ttl": _KEPT_SECONDS, "connection": queue.connection}
        return cast("Any", pool_mix.Chunked.enqueue("bench", number=number, **options)).id

    python, common = [sys.executable, "-m"], ["bench", "-n", str(WORKERS), "--url", url, "--quiet"]
    pool = [*python, "rqmem", "pool", *common, "--memory", str(BUDGET_MB), "--total-memory", str(BUDGET_MB)]
    return [
        System(RQMEM, pool, environ, enqueue_aware, ended, states),
        # Without a journal no type's need is known, so each job is reserved its ceiling.
        System(RQMEM_BY_CEILINGS, pool, {**environ, "RQMEM_JOURNAL": "false"}, enqueue_aware, ended, states),
        System("rq worker-pool", [*python, "rq.cli", "worker-pool", *common], environ, enqueue, ended, states),
    ]


def _celery(url: str, environ: dict[str, str]) -> System:
    """Raises `ImportError` where it is not installed."""
    os.environ["BENCH_REDIS_URL"] = url
    app: Any = pool_mix.make_celery()
    connection = Redis.from_url(url)
    command = ["celery", "-A", "scripts.bench.pool_mix", "worker", "--loglevel", "ERROR", "-c"]
    return System(
        "Celery prefork", [sys.executable, "-m", *command, str(WORKERS)], {**environ, "BENCH_CELERY": "1"},
        lambda kind, number: app.send_task(kind, [number]).id,
        lambda: (0, int(connection.hlen("bench:done"))),
    )  # fmt: skip
