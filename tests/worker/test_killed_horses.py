"""Horses that somebody kills. Alone on the machine: a kill by the kernel, for whomever, is taken for the cause."""

from __future__ import annotations

import os

from redis import Redis

from rqmem.memory.procfs import read_children
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker


def test_a_lost_horse_goes_on_too(connection: Redis, start_worker: StartWorker) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=16, seconds=0.05, connection=connection)
    worker = start_worker("jobs", "--burst")
    wait_until(lambda: connection.llen("done") >= 2, 30)
    [horse] = read_children(worker.pid)
    os.kill(horse, 9)
    log = worker.finish()
    assert job.return_value() == 16, log
    assert "after horse killed" in log


def test_a_kill_by_somebody_does_not_change_the_chunk_size(connection: Redis, start_worker: StartWorker) -> None:
    """In the first chunk, and in a later one, twice in one job: nothing had breached."""
    job = sample_jobs.KilledAt.enqueue("jobs", count=16, firsts=[0, 8], connection=connection)
    log = start_worker("jobs", "--burst", RQMEM_HEARTBEAT="0.5").finish()
    assert job.return_value() == 16, log
    assert set(connection.lrange("sizes", 0, -1)) == {b"4"}
