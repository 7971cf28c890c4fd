"""`MemoryWorker` as a class: subclasses, and the programs that run it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue

from tests import forked
from tests.conftest import StartWorker, WorkOff


@pytest.mark.parametrize("name", ["main", "monitor"])
def test_an_override_that_a_warm_horse_does_not_call_gets_a_horse_for_each_job(
    connection: Redis, work_off: WorkOff, name: str
) -> None:
    queue = Queue("jobs", connection=connection)
    jobs = [queue.enqueue("tests.sample_jobs.with_hooks") for _ in range(2)]
    worker_class = f"tests.workers.Own{name.title()}"
    log = work_off("jobs", "-w", worker_class, "--isolation", "warm")
    assert all(job.return_value() == "done" for job in jobs)
    assert connection.get(f"tests:own {name}") == b"2"
    [line] = [line for line in log.splitlines() if "overrides" in line]
    assert "WARNING worker " in line
    assert f"Own{name.title()} overrides {name}_work_horse, which a warm horse does not call" in line


def test_the_ceiling_holds_in_such_a_horse(connection: Redis, work_off: WorkOff) -> None:
    job = Queue("jobs", connection=connection).enqueue("tests.misbehaving_hooks.greedy")
    work_off("jobs", "-w", "tests.workers.OwnMain", "--memory", "64")
    assert "MemoryLimitExceeded" in (job.latest_result().exc_string or "")


def test_a_class_that_watches_by_itself_is_told_that_nobody_keeps_the_ceiling(
    connection: Redis, work_off: WorkOff
) -> None:
    queue = Queue("jobs", connection=connection)
    jobs = [queue.enqueue("tests.sample_jobs.with_hooks") for _ in range(2)]
    log = work_off("jobs", "-w", "tests.workers.OwnWatch")
    assert all(job.return_value() == "done" for job in jobs)
    assert log.count("ran without its ceiling: OwnWatch.monitor_work_horse does not call MemoryWorker's") == 1


def test_a_worker_class_of_rq_is_refused(start_worker: StartWorker) -> None:
    worker = start_worker("--burst", "-w", "rq.Worker")
    output = worker.finish()
    assert worker.process.returncode == 2
    assert output.strip() == "rqmem: --worker-class 'rq.Worker' is no subclass of rqmem.MemoryWorker"


@pytest.mark.parametrize("options", [(), ("--quiet",), ("--verbose",)])
def test_under_rq_worker_our_lines_are_in_its_log_with_times(
    connection: Redis, redis_url: str, options: tuple[str, ...]
) -> None:
    Queue("jobs", connection=connection).enqueue("tests.misbehaving_hooks.greedy")
    command = ("worker", "jobs", "--burst", "-w", "rqmem.MemoryWorker", *options, "--url", redis_url)
    done = forked.run_module("rq.cli", *command, RQMEM_MEMORY="64")
    assert done.returncode == 0, done.stderr
    log = done.stdout + done.stderr
    assert re.search(r"^\d\d:\d\d:\d\d MemoryLimitExceeded: tests.misbehaving_hooks.greedy used", log, re.MULTILINE)
    ceiling = re.search(r"^\d\d:\d\d:\d\d worker \w+: memory ceiling 64 MB for each job", log, re.MULTILINE)
    assert (ceiling is None) == (options == ("--quiet",))


def test_a_log_that_the_project_has_configured_is_left_as_it_is(
    connection: Redis, redis_url: str, tmp_path: Path
) -> None:
    program = f"""
import logging
from redis import Redis
from rqmem import MemoryWorker
logging.basicConfig(format="mine %(name)s %(message)s")
logging.getLogger("rqmem").setLevel("ERROR")
MemoryWorker(["jobs"], connection=Redis.from_url({redis_url!r})).work(burst=True)
"""
    done = forked.run_code(program, directory=tmp_path)
    assert "mine rq.worker" in done.stderr
    assert "memory ceiling" not in done.stdout + done.stderr


def test_a_worker_that_an_error_ended_while_it_ran_a_job_says_so_by_its_exit_code(
    connection: Redis, start_worker: StartWorker
) -> None:
    """RQ logs the error and returns as if all were well, with jobs left in the queue."""
    job = Queue("jobs", connection=connection).enqueue("tests.sample_jobs.add", 1)
    worker = start_worker("jobs", "--burst", "-w", "tests.workers.Broken")
    log = worker.finish()
    assert worker.process.returncode == 1, log
    assert f"was ended by an error that nobody handled: KeyError: '{job.id}'" in log
