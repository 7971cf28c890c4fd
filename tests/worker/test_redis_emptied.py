"""A Redis that loses what it knew, and jobs that people delete or cancel while they run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry

from rqmem.connection import embedded_files
from rqmem.observe.snapshot import read_snapshot
from rqmem.store import keys
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import OwnRedis, StartCommand, WorkerProcess

WARM = pytest.mark.parametrize("worker", ["warm"], indirect=True)
QUICK = {"RQMEM_HEARTBEAT": "0.3"}


@pytest.fixture(params=["warm", "fork", "rq worker -w"])
def worker(request: pytest.FixtureRequest, own_redis: OwnRedis, start_command: StartCommand) -> Iterator[WorkerProcess]:
    """One of each kind, that has registered."""
    url = own_redis.server.url
    if request.param == "rq worker -w":
        worker = start_command("worker", "jobs", "-w", "rqmem.MemoryWorker", "--url", url, module="rq.cli", **QUICK)
    else:
        worker = start_command("worker", "jobs", "--isolation", request.param, "--url", url, **QUICK)
    wait_until(lambda: known(own_redis.connection))
    yield worker
    log = worker.stop()
    assert worker.process.returncode == 0, log
    assert "Traceback" not in log


def known(connection: Redis) -> bool:
    """Whether status and RQ know the worker, by all that they read."""
    workers = read_snapshot(connection, 0.0).workers
    names = connection.smembers("rq:workers"), connection.smembers("rq:workers:jobs")
    complete = all(
        connection.hexists(name, "birth")
        and connection.hget(name, "state") in (b"idle", b"busy")  # it has started: a Redis that goes now ends nothing
        and connection.ttl(name) > 0
        for name in names[0]
    )
    return len(workers) == 1 and workers[0].kind == "rqmem" and names[0] == names[1] != set() and complete


def begin(own: OwnRedis, path: Path) -> Job:
    job = own.queue.enqueue(sample_jobs.wait_for_file, str(path))
    wait_until(lambda: Path(f"{path}.begun").exists())
    return job


@WARM
def test_the_record_of_an_idle_worker_outlives_its_wait_after_quick_jobs(
    own_redis: OwnRedis, worker: WorkerProcess
) -> None:
    """Each job gives it 90 seconds; the wait for the next one is longer."""
    for number in range(3):
        job = own_redis.queue.enqueue(sample_jobs.add, number)
        wait_until(lambda job=job: job.is_finished)  # type: ignore[misc]
    [name] = own_redis.connection.smembers("rq:workers")
    wait_until(lambda: own_redis.connection.hget(name, "state") == b"idle" and own_redis.connection.ttl(name) > 400)


@WARM
def test_a_worker_that_waits_is_idle_when_it_has_registered_again(own_redis: OwnRedis, worker: WorkerProcess) -> None:
    job = own_redis.queue.enqueue(sample_jobs.add, 1)
    wait_until(lambda: job.is_finished)
    [name] = own_redis.connection.smembers("rq:workers")
    wait_until(lambda: own_redis.connection.hget(name, "state") == b"idle")
    own_redis.connection.delete(name)
    wait_until(lambda: own_redis.connection.hget(name, "birth"))
    assert own_redis.connection.hget(name, "state") == b"idle"


def test_an_idle_worker_registers_again_after_flushall(own_redis: OwnRedis, worker: WorkerProcess) -> None:
    own_redis.connection.flushall()
    wait_until(lambda: known(own_redis.connection))
    job = own_redis.queue.enqueue(sample_jobs.add, 1)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert job.return_value() == 2


@pytest.mark.parametrize("noticed", [True, False])
def test_the_outcome_of_a_job_that_ran_meanwhile_is_kept_as_by_rq(
    own_redis: OwnRedis, worker: WorkerProcess, tmp_path: Path, noticed: bool
) -> None:
    go = tmp_path / "go"
    job = begin(own_redis, go)
    own_redis.connection.flushall()
    if noticed:
        wait_until(lambda: known(own_redis.connection))
    go.touch()
    wait_until(lambda: own_redis.connection.hget(job.key, "status") == b"finished")
    assert Job.fetch(job.id, connection=own_redis.connection).return_value() == "done"
    assert own_redis.connection.ttl(job.key) > 0
    wait_until(lambda: known(own_redis.connection))
    assert not own_redis.connection.exists(keys.RUNNING)


@WARM
def test_a_worker_registers_with_a_server_that_came_back_empty(own_redis: OwnRedis, worker: WorkerProcess) -> None:
    own_redis.kill()
    shutil.rmtree(embedded_files.locate(own_redis.directory).data)
    own_redis.start_again()
    wait_until(lambda: known(own_redis.connection))


@WARM
def test_a_job_that_is_deleted_while_it_runs_leaves_nothing(
    own_redis: OwnRedis, worker: WorkerProcess, tmp_path: Path
) -> None:
    """RQ's worker writes it anew when it ends, as finished."""
    go = tmp_path / "go"
    job = begin(own_redis, go)
    job.delete()
    go.touch()
    wait_until(lambda: not own_redis.connection.exists(keys.RUNNING))
    after = own_redis.queue.enqueue(sample_jobs.add, 1)
    wait_until(lambda: after.get_status() == JobStatus.FINISHED)
    left = [name.decode() for name in own_redis.connection.scan_iter(f"*{job.id}*")]
    assert [name for name in left if not name.startswith(keys.story(""))] == []


@WARM
def test_a_job_that_is_cancelled_while_it_runs_ends_in_one_registry(
    own_redis: OwnRedis, worker: WorkerProcess, tmp_path: Path
) -> None:
    """RQ has it in both."""
    go = tmp_path / "go"
    job = begin(own_redis, go)
    job.cancel()
    go.touch()
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert job.id in own_redis.queue.finished_job_registry
    assert job.id not in CanceledJobRegistry("jobs", connection=own_redis.connection)
    wait_until(lambda: not own_redis.connection.exists(keys.RUNNING))
