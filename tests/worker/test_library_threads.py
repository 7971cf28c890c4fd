"""Threads that libraries begin in a job and leave are no reason for a new horse; a leak of threads is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job

from tests import library_threads, sample_jobs
from tests.conftest import StartWorker, WorkOff

RUNS = 8


@pytest.fixture
def queue(connection: Redis, request: pytest.FixtureRequest) -> Queue:
    if request.config.getoption("--isolation") == "fork":
        pytest.skip("a horse for each job keeps no threads")
    return Queue("jobs", connection=connection)


def pids(jobs: list[Job]) -> list[Any]:
    found = [job.return_value() for job in jobs]
    assert None not in found
    return found


@pytest.mark.parametrize("work", [library_threads.uses_tqdm, library_threads.computes_with_openmp])
def test_threads_of_a_library_stay_with_their_horse(
    queue: Queue, start_worker: StartWorker, work: Callable[..., int]
) -> None:
    jobs = [queue.enqueue(work) for _ in range(RUNS)]
    log = start_worker("jobs", "--burst", "--memory", "500").finish(300)
    assert len(set(pids(jobs))) == 1, log
    assert log.count("they stay, and only more of them replace the horse") == 1


def test_sentrys_transport_stays_with_its_horse_beside_jobs_of_other_types(queue: Queue, work_off: WorkOff) -> None:
    dsn = "http://public@127.0.0.1:9/1"  # nobody listens there; the transport is the same
    jobs = []
    for _ in range(RUNS):
        jobs += [queue.enqueue(library_threads.tells_sentry, dsn), queue.enqueue(sample_jobs.own_pid)]
    log = work_off("jobs", "--memory", "1000")  # else its imports alone crowd a job that is not known yet
    assert len(set(pids(jobs))) == 1, log
    assert log.count("tells_sentry left ") == 1


def test_a_job_that_leaves_a_thread_more_each_time_does_not_keep_its_horse(queue: Queue, work_off: WorkOff) -> None:
    jobs = [queue.enqueue(sample_jobs.leave_a_thread) for _ in range(RUNS)]
    log = work_off("jobs")
    assert 3 <= len(set(pids(jobs))) <= RUNS, log
    assert log.count("they stay, and only more of them replace the horse") == 1
