"""After a breach a job goes on under the next ceiling of its ``escalate_to``: once for each, and never lost."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Callback, Queue, Retry
from rq.job import Job, JobStatus

from rqmem.store import execution_reader, keys
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import escalation_jobs, sample_jobs
from tests.conftest import StartWorker, WorkOff

QUICK = {"RQMEM_HEARTBEAT": "0.5"}


def texts(connection: Redis, key: str) -> list[str]:
    return [raw.decode() for raw in connection.lrange(key, 0, -1)]


@pytest.mark.parametrize("most", ["64", "1"], ids=["leases", "no leases"])
@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_plain_job_starts_again_under_the_next_ceiling(
    connection: Redis, work_off: WorkOff, kind: str, most: str
) -> None:
    queue = Queue("jobs", connection=connection)
    for number in range(4):
        queue.enqueue(sample_jobs.add, number)
    if kind == "class":
        job = escalation_jobs.Plain.enqueue(queue, size_mb=100, retry=Retry(2))
    else:
        job = queue.enqueue(escalation_jobs.function, 100, retry=Retry(2))
    dependent = queue.enqueue(sample_jobs.add, 1, depends_on=job)
    log = work_off("jobs", "--memory", "256", RQMEM_LEASE_MAX=most)
    assert job.return_value() == "done", log
    job.refresh()
    assert (job.origin, job.retries_left) == ("jobs", 2)
    assert dependent.return_value() == 2
    assert texts(connection, "began") == ["jobs", "jobs"]
    assert job.failed_job_registry.count == 0
    [breach] = execution_reader.breaches(connection, job.id)
    assert (breach.limit_mb, breach.next) == (96.0, "goes on from the beginning under 160 MB")
    run = execution_reader.run(connection, job.id)
    assert (run.escalated_mb, run.escalations, run.resumes) == (160.0, 1, 0)
    assert "goes on from the beginning under 160 MB after a memory breach of 96 MB" in log


def test_a_job_goes_to_the_queue_that_is_named_with_its_ceiling(connection: Redis, work_off: WorkOff) -> None:
    job = escalation_jobs.Plain.enqueue("jobs", size_mb=200, connection=connection, result_ttl=900)
    log = work_off("jobs", "--memory", "128")
    job.refresh()
    assert (job.get_status(), job.origin) == (JobStatus.QUEUED, "big"), log
    assert texts(connection, "rq:queue:big") == [job.id]
    assert not connection.exists(keys.RUNNING) and not connection.exists("rq:wip:jobs")
    assert b"rq:queue:big" in connection.smembers("rq:queues")
    assert "under 320 MB in queue big" in log
    log = work_off("big", "--memory", "512")
    assert job.return_value() == "done", log
    assert texts(connection, "began") == ["jobs", "big"]
    assert 0 < connection.ttl(job.key) <= 900


def test_a_job_in_chunks_goes_on_from_its_cursor(connection: Redis, work_off: WorkOff) -> None:
    job = escalation_jobs.Chunks.enqueue("jobs", count=16, heavy_from=8, item_mb=25, connection=connection)
    log = work_off("jobs", "--memory", "256")
    assert job.return_value() == 16, log
    assert texts(connection, "chunks") == ["0-3", "4-7", "8-11", "12-15"]
    assert "goes on from cursor 8 under 160 MB" in log


@pytest.mark.parametrize("memory", ["512", "256"], ids=["one queue", "two queues"])
def test_after_the_last_ceiling_the_error_lists_what_was_tried(
    connection: Redis, work_off: WorkOff, memory: str
) -> None:
    failed = Callback(sample_jobs.remember_failure)
    job = escalation_jobs.Plain.enqueue("jobs", size_mb=600, connection=connection, on_failure=failed)
    log = work_off("jobs", "big", "--memory", memory)
    assert job.get_status() == JobStatus.FAILED
    error = job.latest_result().exc_string or ""
    assert "320 MB is the last ceiling of escalate_to" in error, log
    assert "earlier runs ended with breach under 96 MB in queue jobs; breach under 160 MB in queue jobs" in error
    assert len(execution_reader.breaches(connection, job.id)) == 3
    assert connection.exists("failures"), "the failure callback ran, once, at the end"
    assert connection.llen("failures") == 1


def test_a_retry_begins_with_the_ceiling_that_the_job_had_last(connection: Redis, work_off: WorkOff) -> None:
    job = escalation_jobs.Plain.enqueue("jobs", size_mb=600, connection=connection, retry=Retry(1))
    log = work_off("jobs", "--memory", "512")
    assert job.get_status() == JobStatus.FAILED
    limits = [each.limit_mb for each in reversed(execution_reader.breaches(connection, job.id))]
    assert limits == [96.0, 160.0, 320.0, 320.0], log


def test_a_ceiling_that_no_queue_is_named_for_is_a_clear_error(connection: Redis, work_off: WorkOff) -> None:
    class_without_queue = escalation_jobs.NoQueue
    job = class_without_queue.enqueue("jobs", size_mb=150, connection=connection)
    log = work_off("jobs", "--memory", "128")
    assert job.get_status() == JobStatus.FAILED
    assert "its next ceiling, 320 MB, is above this worker's --memory (128 MB), and escalate_to names no queue" in log


def test_children_escalate_and_their_parent_waits(connection: Redis, work_off: WorkOff) -> None:
    job = escalation_jobs.Children.enqueue("jobs", sizes=[1, 200, 100], connection=connection)
    log = work_off("jobs", "--memory", "192")
    job.refresh()
    assert job.get_status() == JobStatus.DEFERRED, log
    assert len(texts(connection, "rq:queue:big")) == 1
    log = work_off("big", "jobs", "--memory", "512")
    assert job.return_value() == ["child"] * 3, log
    assert sorted(texts(connection, "done")) == ["big", "jobs", "jobs"]


@pytest.mark.parametrize("step", ["before", "after"])
def test_a_worker_that_dies_at_the_hand_over_loses_no_job_and_doubles_none(
    connection: Redis, start_worker: StartWorker, step: str
) -> None:
    job = escalation_jobs.DiesAtTheHandOver.enqueue("jobs", step=step, connection=connection)
    first = start_worker("jobs", "--memory", "128", **QUICK)
    wait_until(lambda: first.process.poll() is not None)
    second = start_worker("jobs", "big", "--memory", "400", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    second.stop()
    assert job.return_value() == "done"
    assert connection.llen("done") == 1
    assert not connection.exists("rq:queue:jobs", "rq:queue:big", "rq:queue:jobs:intermediate", keys.RUNNING)


def test_with_auto_a_job_type_begins_at_what_most_of_its_runs_needed(connection: Redis, work_off: WorkOff) -> None:
    for _ in range(10):
        escalation_jobs.Plain.enqueue("jobs", size_mb=100, connection=connection)
    work_off("jobs", "--memory", "256")
    name = "tests.escalation_jobs.Plain"
    runs = history_reader.runs(connection, name)
    assert [run.needed_mb for run in runs if not run.escalated] == [160.0] * 10
    assert sum(run.escalated for run in runs) == 10
    assert {run.declared_mb for run in runs} == {96.0}
    totals = history_reader.totals(connection, [name])[name]
    assert (totals.escalations, totals.needed, totals.jobs) == (10, {160.0: 10}, 10)
    job = escalation_jobs.Plain.enqueue("jobs", size_mb=100, connection=connection)
    log = work_off("jobs", "--memory", "256", "--auto")
    assert job.return_value() == "done", log
    assert execution_reader.breaches(connection, job.id) == [], "it began at 160 MB"
    tight = escalation_jobs.Plain.enqueue("jobs", size_mb=100, connection=connection)
    work_off("jobs", "--memory", "128", "--auto")
    assert Job.fetch(tight.id, connection).origin == "big", "this worker allows 128 MB: it began with 96"
