"""``rqmem restart``: workers begin anew, one after another, and no job is lost by it."""

from __future__ import annotations

import itertools
import json
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import JobStatus
from rq.worker import Worker

from rqmem.store import actions, restarting
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import StartCommand, StartWorker, wait_for_key
from tests.refusing_redis import Command, refusing

Restart = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def restart(redis_url: str, connection: Redis) -> Restart:
    return lambda *arguments: rqmem("restart", *arguments, RQMEM_REDIS_URL=redis_url)


def births(connection: Redis) -> dict[str, str]:
    """Name of each registered worker -> its life."""
    lives = {each.name: restarting.life(connection, each.name) for each in Worker.all(connection=connection)}
    return {name: life.birth for name, life in lives.items() if life is not None}


def wait_for_workers(connection: Redis, *names: str) -> dict[str, str]:
    wait_until(lambda: set(births(connection)) == set(names))
    return births(connection)


def test_idle_workers_restart_in_place_one_after_another(
    connection: Redis, start_worker: StartWorker, restart: Restart
) -> None:
    workers = [start_worker("jobs", "--name", name) for name in ("ada", "bob")]
    before = wait_for_workers(connection, "ada", "bob")
    done = restart()
    assert (done.returncode, [line.split(" in ")[0] for line in done.stdout.splitlines()]) == (
        0, ["worker ada restarted", "worker bob restarted"],
    ), done.stderr  # fmt: skip
    after = births(connection)
    assert {name: life.split()[-1] for name, life in after.items()} == {
        name: life.split()[-1] for name, life in before.items()
    }, "the pids stay"
    assert all(after[name] != before[name] for name in after)
    assert [each.text for each in actions.read(connection)] == ["restarted ada, bob"]
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.add, 1)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    for worker in workers:
        assert worker.process.poll() is None
        worker.kill()


def test_a_busy_worker_finishes_its_job_first_and_only_the_named_one_restarts(
    connection: Redis, start_worker: StartWorker, restart: Restart
) -> None:
    start_worker("jobs", "--name", "ada")
    start_worker("other", "--name", "bob")
    before = wait_for_workers(connection, "ada", "bob")
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 2)
    wait_for_key(connection, "asleep")
    done = restart("ada", "--json")
    [told] = json.loads(done.stdout)["workers"]
    assert (done.returncode, told["name"], told["outcome"]) == (0, "ada", "restarted")
    assert told["restart_seconds"] > 0
    assert job.get_status() == JobStatus.FINISHED
    after = births(connection)
    assert after["ada"] != before["ada"] and after["bob"] == before["bob"]


def test_a_connection_that_is_lost_while_a_worker_comes_back_ends_nothing(
    connection: Redis, redis_url: str, start_worker: StartWorker
) -> None:
    for name in ("ada", "bob"):
        start_worker("jobs", "--name", name)
    before, told = wait_for_workers(connection, "ada", "bob"), itertools.count()
    looks: dict[bytes, int] = {}

    def lose(command: Command) -> bool:
        """The first two looks at each worker after it was told."""
        if command[0] == b"PUBLISH":
            looks[b"rq:worker:" + command[1].rsplit(b":", 1)[-1]] = 2
        if command[0] != b"HMGET" or not looks.get(command[1]):
            return False
        looks[command[1]] -= 1
        next(told)
        return True

    with refusing(redis_url) as proxy:
        proxy.lose = lose
        done = rqmem("restart", RQMEM_REDIS_URL=proxy.url)
    assert done.returncode == 0, done.stderr
    assert next(told) == 4
    after = births(connection)
    assert all(after[name] != before[name] for name in before)


def test_a_job_in_chunks_goes_on_after_the_restart(
    connection: Redis, start_worker: StartWorker, restart: Restart
) -> None:
    start_worker("jobs", "--name", "ada")
    wait_for_workers(connection, "ada")
    job = sample_jobs.Slow.enqueue("jobs", count=40, seconds=0.2, connection=connection)
    wait_until(lambda: connection.llen("done") >= 2)
    assert restart().returncode == 0
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert [int(each) for each in connection.lrange("done", 0, -1)] == list(range(40)), "nothing is done twice"


def test_workers_of_a_pool_are_replaced_one_after_another(
    connection: Redis, start_command: StartCommand, restart: Restart
) -> None:
    pool = start_command("pool", "jobs", "-n", "2", "--name", "pool")
    before = wait_for_workers(connection, "pool-1", "pool-2")
    done = restart()
    assert done.returncode == 0, done.stdout + done.stderr
    after = births(connection)
    assert all(after[name].split()[-1] != before[name].split()[-1] for name in before), "other processes"
    log = pool.stop()
    assert "ended with exit code" not in log and pool.process.returncode == 0, log


def test_what_cannot_be_restarted_is_said(
    connection: Redis, redis_url: str, start_worker: StartWorker, restart: Restart
) -> None:
    assert restart().stdout == "no worker of rqmem is running here\n"
    stock = Worker(["jobs"], connection=connection, name="stock")
    stock.register_birth()
    assert restart().stdout == "no worker of rqmem is running here\n"
    done = restart("stock")
    assert (done.returncode, done.stdout) == (
        1, "worker stock was not restarted: it is a stock rq worker, or of an older rqmem\n",
    )  # fmt: skip
    done = restart("stok")
    assert (done.returncode, done.stderr) == (2, "rqmem: no worker is called 'stok': did you mean stock?\n")


def test_it_stops_at_the_first_worker_that_does_not_come_back(
    connection: Redis, start_worker: StartWorker, restart: Restart
) -> None:
    start_worker("jobs", "--name", "ada", RQMEM_ON_WORKER_LIMIT="exit")  # and nobody starts another one
    start_worker("jobs", "--name", "bob")
    before: dict[str, Any] = wait_for_workers(connection, "ada", "bob")
    done = restart("--timeout", "3")
    assert (done.returncode, done.stdout) == (1, "worker ada was not restarted: it did not come back in time\n")
    assert births(connection) == {"bob": before["bob"]}
