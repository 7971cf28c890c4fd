"""Unique jobs, and jobs of which at most so many run at once, over all workers."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis import Redis
from rq import Queue
from rq.exceptions import DuplicateJobError
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimitRegistry

import rqmem
from rqmem import MemoryAwareJob, memory_aware
from rqmem.errors import ConfigError
from rqmem.job.per_type import PerType
from rqmem.store import keys
from rqmem.testing import wait_until
from tests import per_type_jobs
from tests.conftest import StartWorker, WorkOff
from tests.per_type_jobs import AtMostTwo, OnePerTenant, Unique

QUICK = {"RQMEM_HEARTBEAT": "0.5"}


# Unique


def test_a_second_job_with_the_same_arguments_is_the_first_one(connection: Redis, work_off: WorkOff) -> None:
    first = Unique.enqueue(tenant_id=7, connection=connection)
    same = [
        Unique.enqueue("jobs", 7, connection=connection),
        Unique.enqueue("other", 7, month="2026-11", connection=connection),
        Unique.enqueue_in(timedelta(hours=1), tenant_id=7, connection=connection),
    ]
    assert {each.id for each in same} == {first.id}
    assert Unique.enqueue(tenant_id=8, connection=connection).id != first.id
    assert connection.llen("rq:queue:jobs") == 2
    work_off("jobs")
    assert connection.get("ran") == b"2"


@pytest.mark.parametrize("more", [None, "fail"], ids=["finished", "failed"])
def test_a_job_that_has_ended_makes_way(connection: Redis, work_off: WorkOff, more: str | None) -> None:
    first = Unique.enqueue(tenant_id=7, more=more, connection=connection)
    work_off("jobs")
    again = Unique.enqueue(tenant_id=7, more=more, connection=connection)
    assert again.id == first.id and again.get_status() == JobStatus.QUEUED
    assert not connection.exists("rq:finished:jobs", "rq:failed:jobs", f"rq:results:{first.id}")
    work_off("jobs")
    assert connection.get("ran") == b"2"


def test_of_many_that_enqueue_at_once_one_does(connection: Redis, work_off: WorkOff) -> None:
    Unique.enqueue(tenant_id=7, connection=connection)
    work_off("jobs")  # the one that has ended makes way for one
    threads = [threading.Thread(target=lambda: Unique.enqueue(tenant_id=7, connection=connection)) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert connection.llen("rq:queue:jobs") == 1


def test_a_cancelled_job_that_still_runs_does_not_make_way(connection: Redis) -> None:
    job = Unique.enqueue(tenant_id=7, connection=connection)
    connection.hset(job.key, "status", "canceled")
    connection.hset(keys.RUNNING, job.id, '{"execution": "x"}')
    connection.delete("rq:queue:jobs")
    assert Unique.enqueue(tenant_id=7, connection=connection).get_status() == JobStatus.CANCELED
    connection.delete(keys.RUNNING)
    assert Unique.enqueue(tenant_id=7, connection=connection).get_status() == JobStatus.QUEUED


def test_rqs_own_enqueue_raises_rqs_error_for_classes_and_functions(connection: Redis, work_off: WorkOff) -> None:
    queue = Queue("jobs", connection=connection)
    queue.enqueue(Unique, tenant_id=7)
    queue.enqueue(per_type_jobs.unique, 7)
    with pytest.raises(DuplicateJobError):
        queue.enqueue(Unique, 7)
    with pytest.raises(DuplicateJobError):
        queue.enqueue(per_type_jobs.unique, tenant_id=7)
    work_off("jobs")
    assert queue.enqueue(per_type_jobs.unique, kwargs={"tenant_id": 7}).get_status() == JobStatus.QUEUED


@pytest.mark.parametrize("of", ["class", "function"])
def test_enqueue_many_leaves_out_what_waits_and_has_what_ended_make_way(
    connection: Redis, work_off: WorkOff, of: str
) -> None:
    def enqueue_many(*numbers: int) -> int:
        function = Unique if of == "class" else per_type_jobs.unique
        return rqmem.enqueue_many("jobs", [(function, {"tenant_id": n}) for n in numbers], connection=connection)

    assert enqueue_many(1, 2, 2, 1) == 2
    assert enqueue_many(1, 3) == 1
    work_off("jobs")
    assert enqueue_many(1, 3, 4) == 3
    work_off("jobs")
    assert connection.get("ran") == b"6"


def test_enqueue_many_keeps_the_limit(connection: Redis) -> None:
    assert OnePerTenant.enqueue_many([{"tenant": each} for each in "aab"], connection=connection) == 3
    assert connection.llen("rq:queue:jobs") == 2


def test_a_call_may_say_that_it_is_not_unique(connection: Redis) -> None:
    ids = {Unique.enqueue(tenant_id=7, unique=False, connection=connection).id for _ in range(2)}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"job_id": "mine"}, "Unique is unique, so it takes no job_id: the id is made of its arguments"),
        ({"depends_on": "other"}, "takes no depends_on: RQ cannot enqueue a unique job"),
        ({"more": object()}, "its argument 'more' has a object: give numbers, texts"),
    ],
)
def test_what_cannot_be_unique_is_one_clear_error(connection: Redis, options: dict[str, object], error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        Unique.enqueue(tenant_id=7, connection=connection, **options)
    assert connection.dbsize() == 0


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False) | st.dates() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.frozensets(st.integers()),
    max_leaves=8,
)


@given(VALUES, VALUES)
def test_two_jobs_have_one_id_only_if_their_arguments_are_equal(one: object, other: object) -> None:
    import inspect

    signature = inspect.signature(lambda value: None)
    declared = PerType("jobs.X", "X", unique=True)
    ids = [declared.options(signature, (each,), {}, {})["job_id"] for each in (one, other)]
    if ids[0] == ids[1]:
        assert one == other
    assert declared.options(signature, (), {"value": one}, {})["job_id"] == ids[0]


# At most N at once


@pytest.mark.parametrize("most", ["64", "1"], ids=["leases", "no leases"])
def test_at_most_two_run_at_once_over_all_workers(connection: Redis, start_worker: StartWorker, most: str) -> None:
    jobs = [AtMostTwo.enqueue(connection=connection) for _ in range(8)]
    workers = [start_worker("jobs", RQMEM_LEASE_MAX=most, **QUICK) for _ in range(3)]
    wait_until(lambda: all(job.get_status() == JobStatus.FINISHED for job in jobs))
    assert connection.zscore("most:two", "most") <= 2
    order = [raw.decode() for raw in connection.lrange("order", 0, -1)]
    assert sorted(order) == sorted(job.id for job in jobs)
    for worker in workers:
        worker.kill()


def test_each_key_has_places_of_its_own(connection: Redis, start_worker: StartWorker) -> None:
    queue = Queue("jobs", connection=connection)
    jobs = [OnePerTenant.enqueue(tenant=tenant, connection=connection) for tenant in "aabb"]
    jobs += [queue.enqueue(per_type_jobs.one_per_tenant, tenant) for tenant in ("c", "c")]
    assert connection.llen("rq:queue:jobs") == 3
    workers = [start_worker("jobs", **QUICK) for _ in range(3)]
    wait_until(lambda: all(job.get_status() == JobStatus.FINISHED for job in jobs))
    assert [connection.zscore(f"most:{tenant}", "most") for tenant in "abc"] == [1, 1, 1]
    for worker in workers:
        worker.kill()


def test_a_dead_worker_keeps_no_place_whether_its_job_goes_on_or_fails(
    connection: Redis, start_worker: StartWorker
) -> None:
    first = per_type_jobs.SlowChunks.enqueue(name="first", count=10, connection=connection)
    second = per_type_jobs.SlowChunks.enqueue(name="second", count=2, connection=connection)
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: connection.llen("chunks") >= 3)
    worker.kill()
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: second.get_status() == JobStatus.FINISHED)
    assert first.get_status() == JobStatus.FINISHED
    names = connection.lrange("chunks", 0, -1)
    assert names == sorted(names), "the second began when the first had ended"
    plain = [per_type_jobs.Plain.enqueue(seconds=30 if number == 0 else 0, connection=connection) for number in (0, 1)]
    wait_until(lambda: connection.llen("plain") == 1)
    worker.kill()
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: plain[1].get_status() == JobStatus.FINISHED)
    assert plain[0].get_status() == JobStatus.FAILED
    worker.kill()


def test_a_job_that_waits_before_it_goes_on_gets_a_place_again_and_not_one_too_many(
    connection: Redis, start_worker: StartWorker
) -> None:
    job = per_type_jobs.SlowChunks.enqueue(name="delayed", count=2, connection=connection)
    connection.lrem("rq:queue:jobs", 0, job.id)
    connection.hset(job.key, "status", "scheduled")
    connection.zadd("rq:scheduled:jobs", {job.id: 1})
    registry = RateLimitRegistry.from_job(job)
    registry.cleanup()  # RQ's maintenance takes the place of a job that is neither queued nor started
    other = per_type_jobs.SlowChunks.enqueue(name="other", count=20, connection=connection)
    assert registry.get_allowed_job_ids() == [other.id]
    connection.zadd(keys.DELAYED, {job.id: 1})
    worker = start_worker("jobs", **QUICK)
    wait_until(lambda: job.get_status() == JobStatus.RATE_LIMITED)
    wait_until(lambda: job.get_status() == JobStatus.FINISHED)
    assert Job.fetch(other.id, connection).get_status() == JobStatus.FINISHED
    assert connection.lrange("chunks", 0, -1) == [b"other"] * 20 + [b"delayed"] * 2
    worker.kill()


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"unique": 1}, "unique is 1: give True or False"),
        ({"concurrency": 0}, "concurrency is 0: give a whole number of at least 1"),
        ({"concurrency": True}, "concurrency is True: give a whole number"),
        ({"concurrency": "3"}, "concurrency is '3': give a whole number"),
        ({"concurrency_key": "tenant"}, "has a concurrency_key and no concurrency"),
        ({"concurrency": 1, "concurrency_key": "tennant"}, r"is 'tennant': the job takes no argument .* \(tenant\)"),
        ({"concurrency": 1, "concurrency_key": 3}, "concurrency_key is 3: name an argument"),
        ({"concurrency": 1, "unique": True}, "has unique and concurrency: RQ cannot limit unique jobs"),
    ],
)
def test_what_cannot_be_declared_is_one_clear_error(attributes: dict[str, object], error: str) -> None:
    def handle(self: object, tenant: str) -> None: ...

    def function(tenant: str) -> None: ...

    with pytest.raises(ConfigError, match=error):
        type("Wrong", (MemoryAwareJob,), {"handle": handle, **attributes})
    with pytest.raises(ConfigError, match=error):
        memory_aware(**attributes)(function)  # type: ignore[arg-type]


def test_a_key_that_is_no_text_is_one_clear_error(connection: Redis) -> None:
    with pytest.raises(ConfigError, match=r"OnePerTenant.concurrency_key gave None for this job"):
        OnePerTenant.enqueue(tenant=None, connection=connection)
    assert connection.dbsize() == 0
