"""A pool whose workers cannot be started, are told to stop by others, or hear signals at any moment, goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from redis import Redis
from rq import Queue
from rq.command import send_shutdown_command
from rq.job import JobStatus

from rqmem.policy.admission import Room, Waiting
from rqmem.testing import wait_until
from rqmem.worker.pool.budget_table import BudgetTable
from rqmem.worker.pool.telling import Telling
from tests import sample_jobs
from tests.conftest import StartCommand
from tests.worker.test_pool import start_pool, wait_for_workers, workers

__all__ = ["start_pool"]

_FORK_FAILS = """
import errno, os, sys
from multiprocessing import popen_fork
left, fork = [{times}], os.fork

class Failing:
    def __getattr__(self, name):
        return getattr(os, name)

    @staticmethod
    def fork():
        if left[0]:
            left[0] -= 1
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        return fork()

popen_fork.os = Failing()
from rqmem.cli import main
main()
"""


_STOPPED_AT_A_FORK = """
import os, signal, time
pool = os.getpid()

def hook():
    if os.getppid() == pool and callable(signal.getsignal(signal.SIGTERM)):
        os.kill(pool, signal.SIGTERM)
        time.sleep(1)  # the pool tells its workers meanwhile

os.register_at_fork(after_in_child=hook)
from rqmem.cli import main
main()
"""


@pytest.fixture
def queue(connection: Redis) -> Queue:
    return Queue("jobs", connection=connection)


@pytest.fixture
def pool_code(redis_url: str) -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for each in started:
        each.kill()
        each.wait()


def test_a_worker_that_cannot_be_forked_for_now_is_started_later(
    connection: Redis, redis_url: str, queue: Queue, pool_code: list[subprocess.Popen[str]]
) -> None:
    job = queue.enqueue(sample_jobs.add, 1, 2)
    code = _FORK_FAILS.format(times=2)
    command = [sys.executable, "-c", code, "pool", "jobs", "-n", "2", "--burst", "--url", redis_url, "--name", "pool"]
    pool_code.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    log = pool_code[0].communicate(timeout=120)[0]
    assert pool_code[0].returncode == 0, log
    assert "cannot be started" in log and "Traceback" not in log
    assert job.get_status() == JobStatus.FINISHED


@pytest.mark.parametrize("how", ["signal", "command"])
def test_a_worker_that_somebody_else_tells_to_stop_is_replaced(
    connection: Redis, start_pool: StartCommand, queue: Queue, how: str
) -> None:
    """As in RQ's pool."""
    pool = start_pool("jobs", "-n", "1")
    before = wait_for_workers(connection, "pool-1")
    if how == "signal":
        os.kill(before["pool-1"], signal.SIGTERM)
    else:
        send_shutdown_command(connection, "pool-1")
    job = queue.enqueue(sample_jobs.add, 1, 2)
    wait_until(lambda: workers(connection).get("pool-1", before["pool-1"]) != before["pool-1"], 90)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 90)
    pool.stop()
    assert pool.process.returncode == 0


def test_a_renewal_does_not_wait_for_a_worker_that_has_ended_for_good(
    connection: Redis, start_pool: StartCommand
) -> None:
    pool = start_pool("jobs", "-n", "2", "--max-jobs", "1")
    before = wait_for_workers(connection, "pool-1", "pool-2")
    Queue("jobs", connection=connection).enqueue(sample_jobs.add, 1, 2)
    wait_until(lambda: len(workers(connection)) == 1, 90)  # the other one has had its one job
    (left,) = workers(connection)
    pool.process.send_signal(signal.SIGHUP)
    wait_until(lambda: workers(connection).get(left, before[left]) != before[left], 60)
    log = pool.stop()
    assert pool.process.returncode == 0 and "Traceback" not in log, log


def test_a_worker_that_has_just_been_forked_hears_the_stop(
    redis_url: str, pool_code: list[subprocess.Popen[str]]
) -> None:
    """Its pool's handler, which it has inherited, would only note it: such a worker, and its pool, would never end."""
    command = [
        sys.executable,
        "-c",
        _STOPPED_AT_A_FORK,
        "pool",
        "jobs",
        "-n",
        "1",
        "--url",
        redis_url,
        "--name",
        "pool",
    ]
    pool_code.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
    log = pool_code[0].communicate(timeout=60)[0]
    assert pool_code[0].returncode == 0 and "all workers have ended" in log, log


def test_tenants_with_names_that_fill_the_table_hold_nobody_up() -> None:
    table = BudgetTable("pool", 1, 2**20)
    try:
        waiting = tuple(Waiting(f"job-{n}", 1, "\x01" * 200 + str(n), False, 0.0) for n in range(30))
        telling = Telling(table)
        telling.write(waiting, {}, Room(2**20), 1.0)
        assert table.told()
    finally:
        table.close()
