"""What nobody but RQ should write to RQ's keys, and somebody did: no such job ends a worker, or holds others up."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Queue, Retry
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry, ScheduledJobRegistry

from rqmem.store import keys
from rqmem.testing import wait_until
from tests import lease_jobs
from tests.conftest import StartWorker, WorkOff

JUNK = b"\xff\xfe junk"
FIELDS = (
    *("timeout", "result_ttl", "failure_ttl", "ttl", "ended_at", "retries_left", "retry_intervals", "dependency_ids"),
    *("allow_dependency_failures", "enqueue_at_front", "success_callback_name", "failure_callback_timeout"),
    *("description", "group_id", "rate_limit_concurrency"),
)
LEASES = pytest.mark.parametrize("lease_max", ["0", "64"])


def enqueue(queue: Queue, name: str, **options: object) -> Job:
    return queue.enqueue(lease_jobs.act, name, job_id=name, **options)


def fields_of(connection: Redis, job_id: str) -> dict[bytes, bytes]:
    return connection.hgetall(Job.key_for(job_id))  # type: ignore[return-value]


@pytest.fixture
def queue(connection: Redis) -> Queue:
    return Queue("jobs", connection=connection)


@LEASES
def test_a_job_with_an_unreadable_field_fails_and_the_others_run(
    queue: Queue, connection: Redis, work_off: WorkOff, lease_max: str
) -> None:
    enqueue(queue, "before")
    for name in FIELDS:
        connection.hset(enqueue(queue, f"bad-{name}", retry=Retry(3)).key, name, JUNK)  # type: ignore[arg-type]
        enqueue(queue, f"after-{name}")
    log = work_off("jobs", RQMEM_LEASE_MAX=lease_max)
    assert "Traceback" not in log
    for name in FIELDS:
        assert Job.fetch(f"after-{name}", connection).get_status() == JobStatus.FINISHED, name
        job = Job.fetch(f"bad-{name}", connection)  # it is readable again
        if lease_max == "0" or job.is_failed:
            assert job.is_failed, name
            assert job.id in FailedJobRegistry("jobs", connection=connection)
            (result,) = job.results()
            assert rf"{name} = '\xff\xfe junk'" in (result.exc_string or "")
            assert log.count(f"job {job.id} failed: UnreadableJob") == 1
    assert not queue.job_ids
    assert connection.hlen(keys.RUNNING) == 0


@pytest.mark.parametrize("value", [b'{"a": 1}', b"5", b'["a", 7]'])
def test_dependencies_that_are_no_list_of_ids_fail_the_job(
    queue: Queue, connection: Redis, work_off: WorkOff, value: bytes
) -> None:
    job = enqueue(queue, "bad")
    connection.hset(job.key, "dependency_ids", value)  # type: ignore[arg-type]
    work_off("jobs", RQMEM_LEASE_MAX="0")
    assert job.get_status() == JobStatus.FAILED


@LEASES
def test_a_job_runs_without_what_is_known_of_it_anyway(
    queue: Queue, connection: Redis, work_off: WorkOff, lease_max: str
) -> None:
    """As with stock RQ where these are missing."""
    for name in ("status", "origin", "created_at"):
        connection.hdel(enqueue(queue, f"without-{name}").key, name)
        connection.hset(enqueue(queue, f"bad-{name}").key, name, JUNK)  # type: ignore[arg-type]
    only_data = enqueue(queue, "only-data")
    connection.hdel(only_data.key, *set(fields_of(connection, "only-data")) - {b"data"})
    ids = queue.job_ids
    work_off("jobs", RQMEM_LEASE_MAX=lease_max)
    assert {job_id: Job.fetch(job_id, connection).get_status() for job_id in ids} == dict.fromkeys(
        ids, JobStatus.FINISHED
    )


@LEASES
@pytest.mark.parametrize("waits", [False, True])
def test_an_entry_of_a_queue_that_is_no_job_is_dropped_with_a_line(
    queue: Queue, connection: Redis, start_worker: StartWorker, lease_max: str, waits: bool
) -> None:
    data = fields_of(connection, enqueue(queue, "model").id)
    queue.empty()
    odd = (b"\xff\xfe", b"a:b", b"a\nb", b"")
    for entry in odd:
        connection.hset(b"rq:job:" + entry, mapping=data)  # type: ignore[arg-type]
    connection.set("rq:job:a-text", "no hash")
    connection.hset("rq:job:no-call", mapping={each: data[each] for each in data if each != b"data"})  # type: ignore[arg-type]
    worker = start_worker("jobs", *(() if waits else ("--burst",)), RQMEM_LEASE_MAX=lease_max) if waits else None
    if worker is not None:
        worker.wait_for("Listening on")
    for entry in (*odd, b"a-text", b"no-call"):
        enqueue(queue, f"good-{entry.hex()}")
        connection.rpush(queue.key, entry)
    enqueue(queue, "last")
    if worker is None:
        worker = start_worker("--burst", "jobs", RQMEM_LEASE_MAX=lease_max)
        log = worker.finish()
    else:
        wait_until(lambda: Job.fetch("last", connection).get_status() == JobStatus.FINISHED)
        log = worker.stop()
    assert worker.process.returncode == 0, log
    assert log.count("dropped ") == len(odd) + 2
    assert r"dropped 'a\nb' from rq:queue:jobs" in log
    assert "Traceback" not in log
    assert connection.llen("ran") == len(odd) + 3
    assert not queue.job_ids
    assert connection.llen(queue.intermediate_queue_key) == 0


def test_a_scheduled_job_that_is_unreadable_holds_no_other_up(
    queue: Queue, connection: Redis, work_off: WorkOff
) -> None:
    scheduled = ScheduledJobRegistry("jobs", connection=connection)
    for name in ("bad", "good"):
        connection.zadd(scheduled.key, {enqueue(queue, name).id: 1})
        connection.hset(Job.key_for(name), "status", "scheduled")
    connection.delete(queue.key)
    connection.hset(Job.key_for("bad"), "retry_intervals", JUNK)  # type: ignore[arg-type]
    work_off("jobs", "--with-scheduler", RQMEM_LEASE_MAX="0")
    assert Job.fetch("good", connection).get_status() == JobStatus.FINISHED
    assert Job.fetch("bad", connection).get_status() == JobStatus.FAILED


def test_an_entry_of_a_registry_that_cannot_be_read_ends_no_worker(
    queue: Queue, connection: Redis, work_off: WorkOff
) -> None:
    connection.zadd(queue.started_job_registry.key, {JUNK: 1})
    job = enqueue(queue, "good")
    assert "maintenance of registries failed: UnicodeDecodeError" in work_off("jobs")
    assert job.get_status() == JobStatus.FINISHED


@LEASES
@pytest.mark.parametrize("fault", ["time to live", "results"])
def test_a_result_that_redis_does_not_take_fails_one_job_and_loses_no_other(
    queue: Queue, connection: Redis, work_off: WorkOff, lease_max: str, fault: str
) -> None:
    """Under a lease, the others of the same commit were in no queue any more, and stayed "queued"."""
    before = [enqueue(queue, f"before-{number}") for number in range(20)]
    bad = enqueue(queue, "bad", result_ttl=10**16 if fault == "time to live" else 500)
    if fault == "results":
        connection.set(f"rq:results:{bad.id}", "no stream")
    after = [enqueue(queue, f"after-{number}") for number in range(20)]
    work_off("jobs", RQMEM_LEASE_MAX=lease_max)
    assert {job.get_status() for job in before + after} == {JobStatus.FINISHED}
    assert bad.get_status() == JobStatus.FAILED
    assert connection.llen("ran") == 41
    assert connection.hlen(keys.RUNNING) == 0
    assert connection.llen(queue.intermediate_queue_key) == 0
