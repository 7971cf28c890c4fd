"""A Redis with something of everything in it, and commands run in this process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from click.testing import CliRunner
from redis import Redis
from rq import Queue
from rq.job import Job

from rqmem import events
from rqmem.cli import main
from rqmem.store import codec, keys
from rqmem.store.history import history_writer
from rqmem.store.history.history_records import Grown, LiveJob, Told
from rqmem.store.history.samples import RINGS, Sample
from tests.conftest import ROOT
from tests.journal_filling import WORKER, a_live, a_pool, a_run, fill, hold_back, raise_alert, register, remember, tell

JOB = "shop.jobs.Rebuild"
Run = Callable[..., Any]


@pytest.fixture
def filled(connection: Redis) -> Redis:
    """Three workers (one of RQ's own, one silent), two queues, three job types, a split, breaches, alerts, a leak."""
    now = time.time()
    live = LiveJob(JOB, "j1", "q", now - 30, 120.5, 158.7, 256.0, "customers 100-150", 150, ((80.5, "a.py:7 rows"),))
    register(connection, WORKER, "q", state="busy", live=a_live(WORKER, live, pool="p"))
    hold_back(connection, "shop.jobs.Sync:eu", ["j10", "j11"], 3)
    with connection.pipeline() as pipeline:
        history_writer.write_pool(pipeline, a_pool("p", WORKER), 600)
        pipeline.execute()
    register(connection, "bob", "q", "mail", state="idle")
    register(connection, "cleo", "mail", state="busy")
    queue = Queue("q", connection=connection)
    for job_id in ("j1", "j2"):
        queue.enqueue("tests.sample_jobs.nothing", job_id=job_id)
    Job.fetch("j1", connection).set_status("started")
    Job.fetch("j1", connection).prepare_for_execution(WORKER, connection.pipeline())
    connection.lrem(queue.key, 1, "j1")
    connection.hset(Job.key_for("j1"), mapping={"worker_name": WORKER, "status": "started"})
    fill(connection, JOB, "j1")
    whose = {"job": JOB, "job_id": "j1", "queue": "q", "worker": WORKER}
    ended = events.RunEnded(
        **whose, outcome="ok", duration_seconds=12.3, initial_memory_mb=40.0, peak_memory_mb=158.7,
        final_memory_mb=60.3, memory_limit_mb=256.0, collections=4, freed_mb=31.0, chunks=24, items=1200,
        growth_kb_per_item=2.5,
    )  # fmt: skip
    resumed = events.Resumed(
        **whose, cause="breach", cursor="150", chunk_size=25, resumes=1, max_resumes=5, spent=1, delay_seconds=2.0
    )
    leak = events.LeakFound(**whose, mb_per_run=1.5, runs=40, grew=[("dict", 900, 2.5)])
    tell(connection, [Told(now + 1, resumed), Told(now + 2, ended), Told(now + 3, leak)])
    breach = events.Breach(
        **whose, used_mb=271.3, limit_mb=256.0, peak_mb=274.0, layer="watch", processes=2, operation="loaded",
        where="a.py:7", baseline_mb=31, curve=[(0.5, 200.0), (0.0, 271.3)], grew=[(106.0, "a.py:7 rows")],
        kinds=[("dict", 900, 2.5)], checkpoints=[("loaded", 80.0)], tree=[(7, "python", 271.3)],
        segments_left=[("/dev/shm/x", 1.0)], beyond_reach=[(9, "sudo")],
    )  # fmt: skip
    connection.lset(keys.breaches("j1"), 0, codec.to_json(breach))
    remember(connection, *(a_run(JOB, f"r{number}", now) for number in range(30)))
    remember(connection, replace(a_run("shop.jobs.Mail", "m1", now), outcome="ValueError", chunks=0, items=0))
    remember(
        connection, replace(a_run("shop.jobs.Split", "parent", time.time()), children=3, layer="watch", resumed=True)
    )
    split = {"split_queue": "q", "split_sealed": 1, "split_total": 3, "split_ended": 1, "split_failed": 1}
    connection.hset(keys.run("parent"), mapping={**split, "split_started_at": now - 10, "job": "shop.jobs.Split"})
    with connection.pipeline() as pipeline:
        history_writer.write_samples(
            pipeline, "cleo", [Sample(ring.begin(now), 80.0, 256.0, 30.0) for ring in RINGS], now
        )
        grown = Grown(JOB, "j1", WORKER, now, 158.7, 256.0, ((80.5, "a.py:7 rows"),))
        pipeline.zadd(keys.grew(JOB, int(now // keys.WEEK_SECONDS)), {codec.to_json(grown): 158.7})
        pipeline.execute()
    raise_alert(connection, JOB, "above 90 %")
    return connection


@pytest.fixture
def run(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in this process; what it prints as JSON, of several lines a list."""
    monkeypatch.chdir(ROOT)
    for name in list(os.environ):
        if name.startswith(("RQMEM_", "MEMORY_")) and name != "RQMEM_WRITE_GOLDEN":
            monkeypatch.delenv(name)
    monkeypatch.setenv("RQMEM_REDIS_URL", redis_url)

    def run(*arguments: str) -> Any:
        done = CliRunner().invoke(main, arguments)
        assert done.exit_code in (0, 1), done.output
        try:
            return json.loads(done.stdout)
        except json.JSONDecodeError:
            return [json.loads(line) for line in done.stdout.splitlines()]

    return run
