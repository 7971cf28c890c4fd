"""A job may hold many MB of text: no command hangs on it, or prints all of it where a line was asked for."""

from __future__ import annotations

from typing import Any

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus
from rq.results import Result
from rq.utils import now

from rqmem.store.history import history_reader
from rqmem.tracebacks import what_was_raised
from tests import sample_jobs
from tests.cli.test_commands import rqmem
from tests.conftest import WorkOff

SIZE = 20 * 2**20
ONE_LINE, MANY_LINES, UNPRINTABLE = "x" * SIZE, "line of it\n" * (SIZE // 11), "\x9b\n" * (SIZE // 4)
HEAD = 'Traceback (most recent call last):\n  File "jobs.py", line 1, in job\n'


def failed(connection: Redis, error: str = "", **more: Any) -> Job:
    """A job that failed as RQ has it, without a worker."""
    queue = Queue("large", connection=connection)
    job = Job.create("operator.add", connection=connection, origin="large", id="large", **more)
    job.ended_at = now()
    job.set_status(JobStatus.FAILED)
    job.save()
    queue.failed_job_registry.add(job, ttl=600)
    connection.sadd(Queue.redis_queues_keys, queue.key)
    Result.create_failure(job, ttl=600, exc_string=error)
    return job


@pytest.mark.parametrize(
    "kind", ["error", "error in many lines", "error of control characters", "description", "arguments", "meta"]
)
def test_a_job_with_20_mb_of_something_is_told_in_some_lines(connection: Redis, redis_url: str, kind: str) -> None:
    texts = {"error": ONE_LINE, "error in many lines": MANY_LINES, "error of control characters": UNPRINTABLE}
    if kind in texts:
        failed(connection, f"{HEAD}ValueError: {texts[kind]}")
    elif kind == "description":
        failed(connection, f"{HEAD}ValueError: no", description=UNPRINTABLE)
    else:
        given: dict[str, Any] = {"args": (ONE_LINE, 1)} if kind == "arguments" else {"meta": {"text": ONE_LINE}}
        failed(connection, f"{HEAD}ValueError: no", **given)
    for command in (["inspect", "large"], ["inspect", "large", "--json"], ["status", "--job", "large"]):
        done = rqmem(*command, RQMEM_REDIS_URL=redis_url)
        assert done.returncode in (0, 1) and done.stderr == "", done.stderr[:1000]
        assert len(done.stdout) < 50_000
    assert "ValueError" in rqmem("inspect", "large", RQMEM_REDIS_URL=redis_url).stdout


def test_the_error_is_found_in_a_large_traceback() -> None:
    for text in (ONE_LINE, MANY_LINES):
        assert what_was_raised(f"{HEAD}ValueError: {text}").startswith(f"ValueError: {text[:10]}")
        chained = f"{HEAD}KeyError: {text}\n\nDuring handling of the above exception, another exception occurred:\n\n"
        assert what_was_raised(f"{chained}{HEAD}ValueError: no") == "ValueError: no"
        assert len(what_was_raised(f"{HEAD}ValueError: {text}")) < 11_000


def test_a_checkpoint_with_a_name_of_20_mb_is_told_with_its_beginning(
    connection: Redis, redis_url: str, work_off: WorkOff
) -> None:
    job = Queue("large", connection=connection).enqueue(sample_jobs.name_a_place, "x", SIZE)
    log = work_off("large", "--memory", "512")
    assert job.get_status(refresh=True) == JobStatus.FINISHED, log[-2000:]
    assert len(log) < 50_000 and "at xxx" in log
    assert "Checkpoint" in [type(each.event).__name__ for each in history_reader.story(connection, job.id)]
    assert len(rqmem("inspect", job.id, RQMEM_REDIS_URL=redis_url).stdout) < 50_000
