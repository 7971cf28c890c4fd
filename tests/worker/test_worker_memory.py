"""The worker's own memory: it restarts in place between two jobs, or ends, and loses nothing by it."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta

import pytest
from rq import Queue
from rq.job import JobStatus
from rq.worker import Worker

from rqmem.testing import wait_until
from rqmem.worker.restart import Restarted, can_restart
from tests import forked, sample_jobs
from tests.conftest import StartWorker
from tests.worker.test_ceiling import rq_worker

FATTENING = ("--queue-class", "tests.workers.FatteningQueue", "--worker-memory", "120")


def restarts_in(log: str) -> int:
    return log.count("restarts in place, between two jobs")


def test_a_worker_that_grew_restarts_in_place_under_its_name(queue: Queue, start_worker: StartWorker) -> None:
    jobs = [queue.enqueue(sample_jobs.tell_worker) for _ in range(16)]
    worker = start_worker("jobs", "--burst", "--name", "w", *FATTENING)
    log = worker.finish()
    assert worker.process.returncode == 0, log
    told = [job.return_value() for job in jobs]
    assert {tuple(each) for each in told} == {("w", worker.pid)}, log
    assert restarts_in(log) >= 1
    assert "worker w itself uses 1" in log
    assert not Worker.all(connection=queue.connection)


def test_max_jobs_counts_over_all_lives(queue: Queue, start_worker: StartWorker) -> None:
    jobs = [queue.enqueue(sample_jobs.add, 1) for _ in range(16)]
    worker = start_worker("jobs", "--max-jobs", "14", *FATTENING)
    log = worker.finish()
    assert restarts_in(log) >= 1
    assert sum(job.get_status() == JobStatus.FINISHED for job in jobs) == 14, log


def test_the_scheduler_is_ended_and_begins_again(queue: Queue, start_worker: StartWorker) -> None:
    worker = start_worker("jobs", "--with-scheduler", *FATTENING)
    jobs = [queue.enqueue(sample_jobs.add, 1) for _ in range(12)]
    wait_until(lambda: jobs[-1].get_status() == JobStatus.FINISHED)
    later = queue.enqueue_in(timedelta(seconds=1), sample_jobs.add, 5)
    wait_until(lambda: later.get_status() == JobStatus.FINISHED)
    log = worker.stop()
    assert worker.process.returncode == 0
    assert restarts_in(log) >= 1, log
    assert queue.connection.keys("rq:scheduler*") == []


def test_or_it_ends_with_code_12(queue: Queue, start_worker: StartWorker) -> None:
    jobs = [queue.enqueue(sample_jobs.add, 1) for _ in range(16)]
    worker = start_worker("jobs", "--burst", "--on-worker-limit", "exit", *FATTENING)
    log = worker.finish()
    assert worker.process.returncode == 12, log
    done = [job for job in jobs if job.get_status() == JobStatus.FINISHED]
    assert 1 <= len(done) < 16
    assert queue.count == 16 - len(done)
    assert not Worker.all(connection=queue.connection)


def test_rq_worker_restarts_too(queue: Queue, redis_url: str) -> None:
    jobs = [queue.enqueue(sample_jobs.add, 1) for _ in range(16)]
    log = rq_worker(
        "rqmem.MemoryWorker", redis_url, RQMEM_WORKER_MEMORY="120", RQ_QUEUE_CLASS="tests.workers.FatteningQueue"
    )
    assert all(job.get_status() == JobStatus.FINISHED for job in jobs), log
    assert "restarts in place" in log


def test_a_worker_within_another_program_does_not_restart_that(queue: Queue, redis_url: str) -> None:

    for _ in range(14):
        queue.enqueue(sample_jobs.add, 1)
    code = f"""
import logging, redis
from rqmem import MemoryWorker
from tests.workers import FatteningQueue
logging.basicConfig()
connection = redis.Redis.from_url({redis_url!r})
worker = MemoryWorker(["jobs"], connection=connection, queue_class=FatteningQueue)
worker.work(burst=True)
print("after", FatteningQueue("jobs", connection=connection).count)
"""
    done = forked.run_code(code, RQMEM_WORKER_MEMORY="120")
    assert done.stdout == "after 0\n"
    assert done.stderr.count("it goes on: it is part of another program") == 1


@pytest.mark.parametrize("option", ["--worker-memory", "--memory"])
def test_a_ceiling_that_is_exceeded_at_the_start_is_bad_usage(start_worker: Callable, option: str) -> None:
    worker = start_worker("--burst", option, "5")
    [line] = worker.finish().splitlines()
    assert line.startswith("rqmem: a ceiling of 5 MB")
    assert worker.process.returncode == 2


def test_only_a_workers_own_program_may_restart() -> None:
    assert can_restart("/venv/bin/rqmem")
    assert can_restart("/venv/bin/rq")
    assert can_restart("/lib/rqmem/__main__.py")
    assert can_restart("/lib/rq/cli/__main__.py")
    assert not can_restart("manage.py")
    assert not can_restart("/usr/bin/pytest")
    assert not can_restart("-c")


def test_a_life_is_handed_to_the_same_process_only() -> None:
    mine = Restarted("w", os.getpid(), 7)
    assert Restarted.from_environ(mine.to_environ()) == mine
    assert Restarted.from_environ(Restarted("w", os.getpid() + 1, 7).to_environ()) is None
    assert Restarted.from_environ({}) is None
