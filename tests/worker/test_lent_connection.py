"""What a job leaves on the connection that it is given reaches neither its horse's records nor the next job."""

from __future__ import annotations

import pytest
from redis import Redis
from rq import Callback, Queue
from rq.job import Job, JobStatus

from rqmem.worker.lent_connection import lend, lent, take_back
from tests import connection_jobs
from tests.conftest import WorkOff


@pytest.mark.parametrize("lease", ["0", "64"])
@pytest.mark.parametrize("what", connection_jobs.WAYS)
def test_what_a_job_leaves_on_its_connection_ends_with_it(
    queue: Queue, work_off: WorkOff, what: str, lease: str
) -> None:
    first = [queue.enqueue(connection_jobs.state) for _ in range(3)]
    left = [queue.enqueue(connection_jobs.leave, what) for _ in range(2)]
    after = [queue.enqueue(connection_jobs.state) for _ in range(3)]
    log = work_off("jobs", RQMEM_LEASE_MAX=lease)
    assert [each.get_status() for each in (*first, *left, *after)] == [JobStatus.FINISHED] * 8, log
    assert [each.return_value() for each in after] == [first[0].return_value()] * 3
    assert "Traceback" not in log


def test_neither_does_what_its_callbacks_leave(queue: Queue, work_off: WorkOff) -> None:
    failed = queue.enqueue(connection_jobs.fail, on_failure=Callback(connection_jobs.leave_in_failure_callback))
    done = queue.enqueue(connection_jobs.succeed, on_success=Callback(connection_jobs.leave_in_success_callback))
    after = queue.enqueue(connection_jobs.state)
    log = work_off("jobs")
    statuses = [each.get_status() for each in (failed, done, after)]
    assert statuses == [JobStatus.FAILED, JobStatus.FINISHED, JobStatus.FINISHED], log


def test_a_connection_is_lent_once_and_taken_back_once(queue: Queue, connection: Redis) -> None:
    job = queue.enqueue(connection_jobs.succeed)
    for _ in range(2):
        lend(job)
    own = job.connection
    assert own is not connection and own.ping()
    for _ in range(2):
        take_back(job)
    assert job.connection is queue.connection
    assert own.ping(), "who keeps it can go on"


def test_a_client_that_no_job_has_used_serves_the_next_one_and_a_changed_one_does_not(connection: Redis) -> None:
    clients = []
    for change in (
        lambda client: None,
        lambda client: client.connection_pool.connection_kwargs.update(db=5),
        lambda client: client.response_callbacks.clear(),
        lambda client: client.ping(),
        lambda client: None,
    ):
        job = Job("one", connection=connection)
        with lent(job):
            clients.append(job.connection)
            change(job.connection)
        assert job.connection is connection
    first, second, third, fourth, fifth = clients
    assert first is second and len({id(each) for each in (second, third, fourth, fifth)}) == 4
