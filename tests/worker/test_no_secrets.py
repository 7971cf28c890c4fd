"""However a job ends, its arguments and its description stay with RQ: nothing that rqmem keeps or tells has them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job, JobStatus

from rqmem.store import keys
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import StartWorker, WorkOff

SECRET = "hunter2"


def kept(connection: Redis) -> Iterator[bytes]:
    """Every key, field and value of rqmem's."""
    for key in connection.scan_iter(f"{keys.PREFIX}:*"):
        yield key
        match connection.type(key):
            case b"string":
                yield connection.get(key) or b""
            case b"hash":
                yield from (part for pair in connection.hgetall(key).items() for part in pair)
            case b"list":
                yield from connection.lrange(key, 0, -1)
            case b"set":
                yield from connection.smembers(key)
            case b"zset":
                yield from connection.zrange(key, 0, -1)
            case b"stream":
                yield from (part for _, entry in connection.xrange(key) for part in entry.values())


def assert_secret_is_safe(connection: Redis, redis_url: str, log: str) -> None:
    assert not [part for part in kept(connection) if SECRET.encode() in part]
    assert SECRET not in log
    for command in ("alerts", "report", "status"):
        assert SECRET not in rqmem(command, RQMEM_REDIS_URL=redis_url).stdout


def test_of_a_worker_that_died_before_the_job_began(
    connection: Redis, redis_url: str, start_worker: StartWorker
) -> None:
    queue = Queue("x", connection=connection)
    options = ("x", "--memory", "128", "--disable-job-desc-logging")
    victim = start_worker(*options, RQMEM_HEARTBEAT="0.5", RQMEM_ISOLATION="warm")
    first = queue.enqueue(sample_jobs.add, 1)
    wait_until(lambda: first.get_status() == JobStatus.FINISHED)
    wait_until(lambda: history_reader.runs(connection, "tests.sample_jobs.add"))
    wait_until(lambda: psutil.Process(victim.pid).children())
    for horse in psutil.Process(victim.pid).children():
        horse.send_signal(signal.SIGSTOP)
    job = queue.enqueue("operator.concat", "user=bob ", f"password={SECRET}")
    wait_until(lambda: connection.hexists(keys.RUNNING, job.id))
    victim.kill()
    survivor = start_worker(*options, RQMEM_HEARTBEAT="0.5")
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    wait_until(lambda: history_reader.runs(connection, "operator.concat"))
    os.kill(survivor.pid, signal.SIGTERM)
    log = survivor.finish()
    assert "it was running operator.concat (" in log
    assert_secret_is_safe(connection, redis_url, log)
    assert [each.job for each in history_reader.alerts(connection)] == ["operator.concat"]
    assert {*history_reader.types(connection)} == {"tests.sample_jobs.add", "operator.concat"}


@pytest.mark.parametrize("isolation", ["warm", "fork"])
@pytest.mark.parametrize(
    "function",
    [sample_jobs.grow_in_c, sample_jobs.killed_by_somebody, sample_jobs.raise_error, "no_such_module.at_all"],
    ids=lambda function: getattr(function, "__name__", function),
)
def test_of_a_job_that_ends_badly(
    connection: Redis, redis_url: str, work_off: WorkOff, function: Callable[..., None] | str, isolation: str
) -> None:
    text = f"{SECRET}(1)\n12:00:00 ERROR forged {SECRET}"
    job = Queue("x", connection=connection).enqueue(
        function, description=text, on_failure=Callback(sample_jobs.fill, timeout=20)
    )
    log = work_off("x", "--memory", "128", "--disable-job-desc-logging", "--isolation", isolation)
    assert job.get_status() == JobStatus.FAILED
    assert_secret_is_safe(connection, redis_url, log)
    name = function if isinstance(function, str) else f"{function.__module__}.{function.__name__}"
    assert {*history_reader.types(connection)} == {name}


def test_of_calls_that_are_no_path(connection: Redis, redis_url: str, work_off: WorkOff) -> None:
    jobs = [Queue("x", connection=connection).enqueue(f"time.sleep({number}, '{SECRET}')") for number in range(3)]
    log = work_off("x", "--memory", "128", "--disable-job-desc-logging")
    assert {Job.fetch(job.id, connection).get_status() for job in jobs} == {JobStatus.FAILED}
    assert not [part for part in kept(connection) if SECRET.encode() in part]
    assert "(unknown)" in log or list(history_reader.types(connection)) == ["(unknown)"]
    assert history_reader.tally(connection, "(unknown)", time.time() - 60, time.time()).failed == 3
