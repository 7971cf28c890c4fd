"""However a worker is started, and whatever jobs do to one another, a lease leaves what a stock RQ worker leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import pytest
from redis import Redis
from rq import Queue, Repeat, Retry
from rq.group import Group
from rq.job import Dependency
from rq.serializers import JSONSerializer

from tests.conftest import StartWorker
from tests.lease import jobs
from tests.lease.dump import differences, dump
from tests.lease.test_compare import OURS, QUEUES, stock
from tests.worker.test_lease import leased

JSON = "rq.serializers.JSONSerializer"


def fill(connection: Redis, name: str = "jobs", count: int = 12, **options: object) -> Queue:
    """A queue with short jobs, so that the next ones come under a lease."""
    queue = Queue(name, connection=connection, **options)  # type: ignore[arg-type]
    for number in range(count):
        queue.enqueue(jobs.does, "returns", number, job_id=f"{name}-{number:02d}")
    return queue


def json_jobs(connection: Redis) -> None:
    queue = fill(connection, serializer=JSONSerializer)
    other = Queue("other", connection=connection, serializer=JSONSerializer)
    for number, value in enumerate((None, "text", {"a": [1, 2]}, "x" * 5000)):
        queue.enqueue(jobs.returns, value, job_id=f"value-{number}", meta={"before": number})
    parent = queue.enqueue(jobs.returns, job_id="parent")
    failing = queue.enqueue(jobs.fails, job_id="failing")
    queue.enqueue(jobs.returns, depends_on=parent, job_id="here")
    other.enqueue(jobs.returns, depends_on=parent, job_id="elsewhere")
    queue.enqueue(jobs.returns, depends_on=failing, job_id="never")
    queue.enqueue(jobs.returns, depends_on=Dependency(failing, allow_failure=True), job_id="all-the-same")
    queue.enqueue(jobs.saves_meta, job_id="meta")


def two_queues(connection: Redis) -> None:
    for name in QUEUES:
        fill(connection, name)


def failing_jobs(connection: Redis) -> None:
    queue = fill(connection)
    for number in range(3):
        queue.enqueue(jobs.does, "fails", job_id=f"fails-{number}")
        queue.enqueue(jobs.does, "returns", job_id=f"after-{number}")


def what_others_delete_and_cancel(connection: Redis) -> None:
    """Jobs that a lease has taken, and not begun, or finished."""
    queue = fill(connection)
    for what in ("deletes", "cancels"):
        queue.enqueue(jobs.does, "returns", job_id=f"{what}-before")
        queue.enqueue(jobs.does, what, f"{what}-next", job_id=what)
        queue.enqueue(jobs.does, "returns", job_id=f"{what}-next")
        queue.enqueue(jobs.does, "returns", job_id=f"{what}-after")


def what_is_requeued(connection: Redis) -> None:
    queue = fill(connection)
    queue.enqueue(jobs.does, "fails_once", job_id="fails")
    for number in range(6):
        queue.enqueue(jobs.does, "returns", job_id=f"between-{number}")
    queue.enqueue(jobs.does, "requeues", "fails", job_id="requeues")
    for number in range(3):
        queue.enqueue(jobs.does, "returns", job_id=f"after-{number}")


def what_jobs_do_to_themselves(connection: Redis) -> None:
    queue = fill(connection)
    statuses = [("sets_its_status", status) for status in ("queued", "scheduled", "finished", "failed")]
    unusual = [("returns_a_function",), ("compares_itself",), ("asks_itself_for_more",), *statuses]
    for place, call in enumerate(unusual):
        queue.enqueue(jobs.does, *call, job_id=f"unusual-{place}")
        for number in range(4):
            queue.enqueue(jobs.does, "returns", job_id=f"after-{place}-{number}")


def what_jobs_do_to_their_records(connection: Redis) -> None:
    queue = fill(connection)
    changes = [{"result_ttl": 0}, {"result_ttl": 77}, {"result_ttl": -1}, {"description": "new"}, {"failure_ttl": 9}]
    for place, changed in enumerate(changes):
        queue.enqueue(jobs.does, args=("saves_itself",), kwargs=changed, job_id=f"saves-{place}")
        queue.enqueue(jobs.does, "returns", job_id=f"after-saves-{place}")
    queue.enqueue(jobs.does, "sets_its_ttl", 88, job_id="sets-without-a-look")
    queue.enqueue(jobs.does, "requeues", "requeues-itself", job_id="requeues-itself")
    queue.enqueue(jobs.does, "stays", 5000, job_id="stays")
    queue.enqueue(jobs.does, "enqueues", "to-the-front", "jobs", True, job_id="enqueues")
    for number in range(4):
        queue.enqueue(jobs.does, "returns", job_id=f"after-{number}")


def groups_of_all_ends(connection: Redis) -> None:
    queue = fill(connection)
    calls = [("returns", {}), ("fails", {}), ("returns", {"result_ttl": 0}), ("fails_once", {"retry": Retry(max=1)})]
    datas = [
        Queue.prepare_data(jobs.does, (what,), job_id=f"group-{number}", **options)
        for number, (what, options) in enumerate(calls)
    ]
    Group.create(connection, "party").enqueue_many(queue, datas)
    for number in range(4):
        queue.enqueue(jobs.does, "returns", job_id=f"after-{number}")


def retries_of_all_kinds(connection: Redis) -> None:
    queue = fill(connection)
    kinds = [{"max": 3}, {"max": 2, "interval": [0, 1000]}, {"max": 1, "enqueue_at_front": True}]
    for number, kind in enumerate(kinds):
        retry = Retry(**kind)  # type: ignore[arg-type]
        queue.enqueue(jobs.does, "fails", retry=retry, failure_ttl=300 + number, job_id=f"retries-{number}")
        queue.enqueue(jobs.does, "returns", job_id=f"after-{number}")
    queue.enqueue(jobs.does, "asks_for_another_try", 2, job_id="asks")
    queue.enqueue(jobs.does, "fails_once", repeat=Repeat(times=2), retry=Retry(max=1), job_id="repeats")
    queue.enqueue(jobs.does, "returns", job_id="last")


def chains(connection: Redis) -> None:
    queue = fill(connection)
    heads = {"good": ("returns",), "bad": ("fails",)}
    for kind, call in heads.items():
        queue.enqueue(jobs.does, *call, job_id=f"{kind}-0")
        for number in range(1, 4):
            before = Dependency(f"{kind}-{number - 1}", allow_failure=number == 2)
            queue.enqueue(jobs.does, "returns", depends_on=before, job_id=f"{kind}-{number}")
    for number in range(4):
        queue.enqueue(jobs.does, "returns", job_id=f"after-{number}")


def odd_fields(connection: Redis) -> None:
    queue = fill(connection)
    connection.hdel(queue.enqueue(jobs.does, "returns", job_id="made-when").key, "created_at")
    queue.enqueue(jobs.does, "returns", job_id="after")


class Case(NamedTuple):
    """``lease``: whether there are leases. ``unordered``: in an order by chance."""

    enqueue: Callable[[Redis], None]
    rqs: tuple[str, ...] = ()
    ours: tuple[str, ...] = ()
    lease: bool = True
    unordered: bool = False


CASES = {
    "JSON": Case(json_jobs, ("-S", JSON), ("-S", JSON)),
    "round robin": Case(
        two_queues, ("--dequeue-strategy", "round_robin"), ("--dequeue-strategy", "round_robin"), lease=False
    ),
    "random": Case(two_queues, ("--dequeue-strategy", "random"), ("--dequeue-strategy", "random"), False, True),
    "exception handlers": Case(
        failing_jobs,
        ("--exception-handler", "tests.lease.jobs.note_exception"),
        ("--exception-handler", "tests.lease.jobs.note_exception"),
    ),
    "only own exception handlers": Case(
        failing_jobs,
        ("--exception-handler", "tests.lease.jobs.note_exception", "--disable-default-exception-handler"),
        ("--exception-handler", "tests.lease.jobs.note_exception", "--disable-default-exception-handler"),
    ),
    "job class": Case(
        failing_jobs, ("--job-class", "tests.lease.jobs.OwnJob"), ("--job-class", "tests.lease.jobs.OwnJob"), False
    ),
    "queue class": Case(
        failing_jobs,
        ("--queue-class", "tests.lease.jobs.OwnQueue"),
        ("--queue-class", "tests.lease.jobs.OwnQueue"),
        False,
    ),
    "max jobs": Case(failing_jobs, ("--max-jobs", "14"), ("--max-jobs", "14"), lease=False),
    "result ttl": Case(failing_jobs, ("--results-ttl", "900"), ("--results-ttl", "900")),
    "deleted and cancelled": Case(what_others_delete_and_cancel),
    "what jobs do to themselves": Case(what_jobs_do_to_themselves),
    "odd fields": Case(odd_fields),
    "requeued": Case(what_is_requeued),
    "records": Case(what_jobs_do_to_their_records),
    "groups": Case(groups_of_all_ends),
    "retries": Case(retries_of_all_kinds),
    "chains": Case(chains),
}


@pytest.mark.parametrize("name", CASES)
def test_our_worker_leaves_what_a_stock_worker_leaves(
    connection: Redis, redis_url: str, start_worker: StartWorker, name: str
) -> None:
    case = CASES[name]
    case.enqueue(connection)
    stock(redis_url, *case.rqs)
    expected = dump(connection)
    connection.flushall()
    case.enqueue(connection)
    worker = start_worker(*QUEUES, "--burst", "--name", "w", *case.ours, RQMEM_LEASE_MAX="64")
    log = worker.finish()
    assert worker.process.returncode == 0, log
    found = dump(connection)
    if case.unordered:
        for each in (expected, found):
            kind, ran, lives = each["tests:order"]
            each["tests:order"] = kind, sorted(ran), lives
    differ = [each for each in differences(expected, found) if not each.startswith(OURS)]
    assert "\n".join(differ) == "", log
    assert (leased(log) > 0) == case.lease, log
