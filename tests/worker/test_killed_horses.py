"""Horses that somebody kills. Alone on the machine: a kill by the kernel, for whomever, is taken for the cause."""

from __future__ import annotations

import os

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import JobStatus

from rqmem.events import Breach
from rqmem.measure.procfs import read_children
from rqmem.store import execution_reader
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker

pytestmark = pytest.mark.alone  # a kernel's kill elsewhere misleads them


def test_a_lost_horse_goes_on_too(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=16, seconds=0.05, connection=connection)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: connection.llen("done") >= 2)
    [horse] = read_children(worker.pid)
    os.kill(horse, 9)
    log = worker.finish()
    assert job.return_value() == 16, log
    assert "after horse killed" in log


@pytest.mark.parametrize("step", ["record", "event"])
def test_a_breach_is_recorded_and_told_once_where_its_horse_dies_of_a_kill_meanwhile(
    connection: Redis, start_worker: StartWorker, step: str
) -> None:
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.grow_and_have_the_horse_killed_after, step)
    log = start_worker("jobs", "--burst", "--memory", "128").finish()
    assert job.get_status() == JobStatus.FAILED, log
    assert "MemoryLimitExceeded" in job.latest_result().exc_string
    assert len(execution_reader.breaches(connection, job.id)) == 1
    assert execution_reader.run(connection, job.id).breaches == 1
    told = [each.event for each in history_reader.story(connection, job.id) if isinstance(each.event, Breach)]
    assert len(told) == 1


def test_each_breach_of_a_job_that_is_retried_is_recorded(connection: Redis, start_worker: StartWorker) -> None:
    queue = Queue("jobs", connection=connection)
    job = queue.enqueue(sample_jobs.grow_and_have_the_horse_killed_after, "record", retry=Retry(1))
    log = start_worker("jobs", "--burst", "--memory", "128").finish()
    assert len(execution_reader.breaches(connection, job.id)) == 2, log
    assert execution_reader.run(connection, job.id).breaches == 2


def test_a_kill_by_somebody_does_not_change_the_chunk_size(connection: Redis, start_worker: StartWorker) -> None:
    """In the first chunk, and in a later one, twice in one job: nothing had breached."""
    job = sample_jobs.KilledAt.enqueue("jobs", count=16, firsts=[0, 8], connection=connection)
    log = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5").finish()
    assert job.return_value() == 16, log
    assert set(connection.lrange("sizes", 0, -1)) == {b"4"}
