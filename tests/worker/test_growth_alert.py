"""The alert for growth, from a real worker: for a jump that is new, and not for what the type is known to need."""

from __future__ import annotations

from redis import Redis
from rq import Queue
from rq.job import JobStatus

from rqmem.store import keys
from rqmem.store.alerts.alert_records import Alert
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from tests import sample_jobs
from tests.conftest import StartWorker, wait_for_key


def growth(connection: Redis) -> list[Alert]:
    return [
        each for each in history_reader.alerts(connection) if each.rule == "memory-growth" and each.state == "raised"
    ]


def test_a_jump_is_told_while_it_lasts_and_the_next_of_its_type_is_not(
    connection: Redis, start_worker: StartWorker
) -> None:
    queue = Queue("jobs", connection=connection)
    first = queue.enqueue(sample_jobs.jump, 120, "first")
    # Each in a new horse, so that each loads what it needs; and no alert is quiet because of one before it.
    start_worker("jobs", "--max-jobs-per-horse", "1", "--memory", "500", RQMEM_ALERT_COOLDOWN="1")
    wait_for_key(connection, "first")
    wait_until(lambda: bool(growth(connection)))
    [alert] = growth(connection)
    assert alert.job == "tests.sample_jobs.jump"
    assert alert.text.startswith("grew by ")
    connection.rpush("end first", 1)
    wait_until(lambda: first.get_status() == JobStatus.FINISHED and connection.exists(keys.runs(alert.job)))
    second = queue.enqueue(sample_jobs.jump, 120, "second")
    wait_for_key(connection, "second")
    third = queue.enqueue(sample_jobs.jump, 240, "third")
    connection.rpush("end second", 1)
    wait_until(lambda: second.get_status() == JobStatus.FINISHED)
    wait_for_key(connection, "third")
    wait_until(lambda: len(growth(connection)) > 1)
    assert {each.job_id for each in growth(connection)} == {first.id, third.id}
    connection.rpush("end third", 1)
