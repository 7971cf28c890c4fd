"""``rqmem pool``: several workers forked from one parent, who replaces those that die."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.scheduler import RQScheduler
from rq.worker import Worker

import rqmem
from rqmem.measure import procfs
from rqmem.testing import wait_until
from tests import forked, sample_jobs
from tests.conftest import StartCommand, WorkerProcess, wait_for_key


@pytest.fixture
def start_pool(connection: Redis, start_command: StartCommand) -> Iterator[StartCommand]:
    """Start ``rqmem pool`` with these options, its workers named pool-1, pool-2...; nothing of it stays."""
    started: list[WorkerProcess] = []

    def start(*options: str, name: str = "pool", **more: Any) -> WorkerProcess:
        started.append(start_command("pool", *options, "--name", name, **more))
        return started[-1]

    yield start
    for pool in started:
        pool.kill()
    wait_until(lambda: not any(procfs.exists(pid) for pid in workers(connection).values()), 60)


def workers(connection: Redis) -> dict[str, int]:
    """Name of each registered worker -> its pid."""
    return {each.name: each.pid or 0 for each in Worker.all(connection=connection)}


def wait_for_workers(connection: Redis, *names: str) -> dict[str, int]:
    wait_until(lambda: set(workers(connection)) == set(names), 90)
    return workers(connection)


def children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_pool_runs_jobs_in_several_processes_and_ends(connection: Redis, start_pool: StartCommand) -> None:
    queue = Queue("jobs", connection=connection)
    jobs = [queue.enqueue(sample_jobs.add, 1, number) for number in range(20)]
    pool = start_pool("jobs", "-n", "3", "--burst")
    log = pool.finish()
    assert pool.process.returncode == 0, log
    assert [job.return_value() for job in jobs] == [1 + number for number in range(20)]
    assert "pool pool: starts 3 workers" in log and "all workers have ended" in log
    assert all(f"worker pool-{number}: memory ceiling" in log for number in (1, 2, 3))
    assert not workers(connection)


def test_a_killed_worker_is_replaced_under_its_name_and_its_job_goes_on(
    connection: Redis, start_pool: StartCommand
) -> None:
    job = sample_jobs.Slow.enqueue("jobs", count=12, seconds=0.1, connection=connection)
    pool = start_pool("jobs", "-n", "2")
    before = wait_for_workers(connection, "pool-1", "pool-2")
    wait_until(lambda: connection.llen("done") >= 2, 90)
    busy = Job.fetch(job.id, connection=connection).worker_name
    os.kill(before[busy], signal.SIGKILL)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED, 90)
    wait_until(lambda: workers(connection).get(busy, 0) not in (0, before[busy]), 90)
    other = next(name for name in before if name != busy)
    assert workers(connection)[other] == before[other]
    log = pool.stop()
    assert pool.process.returncode == 0
    assert f"worker {busy} was ended by SIGKILL" in log


def test_the_scheduler_of_a_killed_worker_ends_and_that_of_the_next_one_begins(
    connection: Redis, start_pool: StartCommand
) -> None:
    """RQ's goes on for ever, holding the lock."""
    pool = start_pool("jobs", "-n", "1")
    before = wait_for_workers(connection, "pool-1")
    lock = RQScheduler.get_locking_key("jobs")
    wait_until(lambda: connection.exists(lock), 60)
    first = connection.get(lock)
    os.kill(before["pool-1"], signal.SIGKILL)
    wait_until(lambda: connection.get(lock) not in (None, first), 90)
    later = Queue("jobs", connection=connection).enqueue_in(timedelta(seconds=1), sample_jobs.add, 5)
    wait_until(lambda: later.get_status() == JobStatus.FINISHED, 90)
    pool.stop()
    assert pool.process.returncode == 0


def test_a_stop_saves_what_is_in_hand(connection: Redis, start_pool: StartCommand) -> None:
    jobs = [sample_jobs.Slow.enqueue("jobs", count=400, seconds=0.1, connection=connection) for _ in range(2)]
    pool = start_pool("jobs", "-n", "2")
    wait_until(lambda: connection.llen("done") >= 4, 90)
    log = pool.stop()
    assert pool.process.returncode == 0, log
    assert "told to stop; its workers finish what they have in hand" in log
    assert {job.get_status() for job in jobs} <= {JobStatus.QUEUED, JobStatus.SCHEDULED}
    assert log.count("Scheduler for jobs started") == 1
    assert not workers(connection)


def test_a_second_stop_ends_a_job_that_does_not_end(connection: Redis, start_pool: StartCommand) -> None:
    Queue("jobs", connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 600)
    pool = start_pool("jobs", "-n", "2")
    wait_for_key(connection, "asleep")
    horse = int(connection.get("asleep"))  # type: ignore[arg-type]
    pool.process.terminate()
    wait_until(lambda: "pool-1" not in workers(connection) or "pool-2" not in workers(connection), 60)
    log = pool.stop()
    assert "was told to stop a second time; its workers end at once" in log
    assert pool.process.returncode == 0
    assert not procfs.exists(horse) and not workers(connection)


def test_a_renewal_replaces_one_worker_after_another(connection: Redis, start_pool: StartCommand) -> None:
    pool = start_pool("jobs", "-n", "2")
    before = wait_for_workers(connection, "pool-1", "pool-2")
    pool.process.send_signal(signal.SIGHUP)
    seen: list[dict[str, int]] = []

    def renewed() -> bool:
        seen.append(workers(connection))
        return set(seen[-1]) == set(before) and not set(seen[-1].values()) & set(before.values())

    wait_until(renewed, 90)
    assert all(seen)  # at any time there was a worker
    pool.stop()
    assert pool.process.returncode == 0


def test_workers_end_when_their_pool_is_killed(connection: Redis, start_pool: StartCommand) -> None:
    pool = start_pool("jobs", "-n", "2")
    before = wait_for_workers(connection, "pool-1", "pool-2")
    pool.process.kill()
    pool.finish()  # when all that have its log open have ended
    wait_until(lambda: not any(procfs.exists(pid) for pid in before.values()))  # reaped by whoever inherits them


def test_ctrl_c_reaches_each_worker_once(connection: Redis, start_pool: StartCommand) -> None:
    """A terminal sends SIGINT to a whole group; two would end the job at once."""
    pool = start_pool("jobs", "-n", "1", start_new_session=True)
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.say_hello_and_sleep, 2)
    wait_for_key(connection, "asleep")
    os.killpg(pool.pid, signal.SIGINT)
    log = pool.finish()
    assert pool.process.returncode == 0, log
    assert job.get_status() == JobStatus.FINISHED, log


def test_a_worker_above_its_own_ceiling_is_replaced(connection: Redis, start_pool: StartCommand) -> None:
    jobs = [Queue("jobs", connection=connection).enqueue(sample_jobs.tell_worker) for _ in range(16)]
    fattening = ("--queue-class", "tests.workers.FatteningQueue", "--worker-memory", "120")
    pool = start_pool("jobs", "-n", "1", "--burst", *fattening)
    log = pool.finish()
    assert pool.process.returncode == 0, log
    told = [job.return_value() for job in jobs]
    assert {name for name, _ in told} == {"pool-1"} and len({pid for _, pid in told}) > 1, log


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["-n", "0"], "-n"),
        (["-n", "many"], "-n"),
        (["-n", "99999999999"], "a pool runs at most 4096 workers"),
        (["--autoscale", "1,99999999999"], "a pool runs at most 4096 workers"),
        (["-n", "2", "--memory", "3"], "a ceiling of 3 MB cannot hold"),
        (["-n", "2", "--worker-memory", "5"], "a ceiling of 5 MB for the worker itself cannot hold"),
        (["-n", "2", "--preload", "no_such_module"], "no_such_module"),
        (["-n", "2", "--memory", "none"], "--memory"),
        (["-n", "2", "--plugin", "no_such_module"], "--plugin no_such_module cannot be imported"),
        (["--plugin", "tests.broken_module"], "--plugin tests.broken_module"),
        (["--alert-url", "nope://secret"], "alert URL 1 (nope://****) cannot be used: Apprise has no service nope://"),
        (["--alert-urls-file", "/nonexistent/file"], "file of alert URLs '/nonexistent/file'"),
        (["--profile-dir", "/dev/null/profiles"], "the profile directory /dev/null/profiles cannot be used"),
        (["--profile", "memray", "--profile-dir", "/proc/profiles"], "the profile directory /proc/profiles"),
        (["--autoscale", "4,2"], "the first number is above the second"),
        (["--autoscale", "4"], "give two numbers"),
        (["--autoscale", "0,2"], "--autoscale"),
        (["--autoscale", "1,2", "-n", "2"], "exclude each other"),
    ],
)
def test_bad_input_gets_a_line_and_code_2_and_nothing_runs(
    connection: Redis, start_pool: StartCommand, options: list[str], said: str
) -> None:
    pool = start_pool("jobs", *options)
    log = pool.finish()
    assert pool.process.returncode == 2, log
    assert len(log.splitlines()) == 1 and said in log
    assert not workers(connection)


def test_the_class_is_a_drop_in_for_rqs(connection: Redis, redis_url: str) -> None:
    """As RQ's documentation starts one."""
    job = Queue("jobs", connection=connection).enqueue(sample_jobs.add, 1, 2)
    code = (
        "from redis import Redis\nfrom rqmem import MemoryWorkerPool\n"
        f"MemoryWorkerPool(['jobs'], connection=Redis.from_url({redis_url!r}), num_workers=2).start(burst=True)\n"
    )
    done = forked.run_code(code, RQMEM_MEMORY="128")
    assert done.returncode == 0, done.stderr
    assert job.return_value() == 3
    assert "memory ceiling 128 MB" in done.stdout + done.stderr
    assert rqmem.MemoryWorkerPool.__name__ == "MemoryWorkerPool"


def test_every_worker_of_a_pool_says_who_it_is(connection: Redis, start_pool: StartCommand) -> None:
    pool = start_pool("jobs", "-n", "2", "--burst", "--log-format", "json")
    log = pool.finish()
    lines = [line for line in log.splitlines() if "Listening" in line]
    assert {json.loads(line)["worker"] for line in lines} == {"pool-1", "pool-2"}


def test_what_concerns_all_workers_is_told_once(connection: Redis, start_pool: StartCommand) -> None:
    pool = start_pool("jobs", "-n", "2", "--burst", "--memory", "99000000")
    log = pool.finish()
    assert pool.process.returncode == 0 and log.count("the kernel will act first") == 1, log


def test_one_more_worker_takes_little_memory(connection: Redis, start_pool: StartCommand) -> None:
    """It shares what the parent has imported. What it has for itself is what it costs the machine."""
    pool = start_pool("jobs", "-n", "2")
    pids = wait_for_workers(connection, "pool-1", "pool-2")
    assert set(pids.values()) <= set(children(pool.pid))
    wait_until(lambda: all(connection.exists(f"rqmem:alive:{name}") for name in pids), 60)
    for pid in pids.values():
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        private_kb = sum(map(int, re.findall(r"^Private_(?:Dirty|Clean):\s+(\d+)", rollup, re.MULTILINE)))
        assert private_kb < 12 * 1024
    pool.stop()
