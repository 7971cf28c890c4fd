"""Lists of jobs, page by page, over real queues and registries."""

from __future__ import annotations

import math
import pickle
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from flask import Flask
from redis import Redis
from redis.connection import AbstractConnection
from rq import Queue
from rq.job import Job
from rq.results import Result

import rqmem.api
from rqmem.errors import ConfigError
from rqmem.observe.job_lists import ANY, Filter, each_id, read_page
from tests.journal_filling import Bomb, a_live, register


def put(connection: Redis, queue: str, name: str, path: str = "jobs.a.A.run", status: str = "failed") -> Job:
    """A job with data that nobody may load."""
    job = Job.create(path, args=(1,), connection=connection, origin=queue, id=name, status=status)  # type: ignore[arg-type]
    job.save()
    Queue(queue, connection=connection)
    connection.sadd("rq:queues", f"rq:queue:{queue}")
    connection.hset(job.key, "meta", pickle.dumps(Bomb()))
    return job


def fail(connection: Redis, queue: str, name: str, score: float, error: str = "ValueError: no", **more: str) -> None:
    job = put(connection, queue, name, **more)
    Result.create_failure(job, ttl=-1, exc_string=f"Traceback (most recent call last):\n  File x\n{error}\n")
    connection.zadd(Queue(queue, connection=connection).failed_job_registry.key, {name: score})


def pages(connection: Redis, state: Any, wanted: Filter = ANY, limit: int = 7) -> Iterator[list[str]]:
    cursor = ""
    while True:
        page = read_page(connection, state, wanted, cursor=cursor, limit=limit)
        yield [row.job_id for row in page.rows]
        cursor = page.cursor
        if not cursor:
            return


def test_pages_of_two_queues_have_each_failed_job_once_newest_first(connection: Redis) -> None:
    for number in range(40):
        fail(connection, "ab"[number % 2], f"j{number:02}", 1000 + number // 4)  # four of each second
    shown = list(pages(connection, "failed"))
    assert [len(each) for each in shown] == [7] * 5 + [5]
    names = [name for each in shown for name in each]
    assert sorted(names) == [f"j{number:02}" for number in range(40)]
    assert [int(name[1:]) // 4 for name in names] == sorted((n // 4 for n in range(40)), reverse=True)


@pytest.mark.parametrize("score", [1000.0, math.inf])
def test_a_page_goes_on_where_the_last_job_of_the_page_before_has_gone(connection: Redis, score: float) -> None:
    for number in range(30):
        fail(connection, "a", f"j{number:02}", score)
    first = read_page(connection, "failed", limit=10)
    key = Queue("a", connection=connection).failed_job_registry.key
    connection.zrem(key, first.rows[-1].job_id)
    rest = read_page(connection, "failed", cursor=first.cursor, limit=30)
    seen = [row.job_id for row in (*first.rows, *rest.rows)]
    assert len(seen) == len(set(seen)) and len(seen) >= 29


def test_a_queue_is_shown_in_order_while_jobs_leave_it(connection: Redis) -> None:
    queue = Queue("a", connection=connection)
    jobs = [queue.enqueue("jobs.a.A.run", number) for number in range(25)]
    first = read_page(connection, "queued", limit=10)
    assert [row.job_id for row in first.rows] == [job.id for job in jobs[:10]]
    assert [row.position for row in first.rows] == list(range(10)) and first.total == 25
    for _ in range(5):
        connection.lpop(queue.key)
    second = read_page(connection, "queued", cursor=first.cursor, limit=10)
    assert [row.job_id for row in second.rows] == [job.id for job in jobs[10:20]]


def test_a_row_tells_what_people_look_for(connection: Redis) -> None:
    fail(connection, "a", "j1", 1.0, error="RuntimeError: disk <b>full</b>")
    connection.hset("rq:job:j1", mapping={"worker_name": "ada", "started_at": "2026-01-01T00:00:00.000000Z",
                                          "ended_at": "2026-01-01T00:00:02.500000Z"})  # fmt: skip
    [row] = rqmem.api.jobs("failed", connection=connection).rows
    assert (row.job_type, row.status, row.queue, row.worker) == ("jobs.a.A", "failed", "a", "ada")
    assert (row.error, row.seconds) == ("RuntimeError: disk <b>full</b>", 2.5)
    shown = row.to_json()
    assert shown["run_seconds"] == 2.5 and shown["ended_at"] == "2026-01-01T00:00:02.500Z"


def test_jobs_are_filtered_by_type_and_error(connection: Redis) -> None:
    for number in range(60):
        path = "jobs.a.A.run" if number % 3 else "jobs.b.B.run"
        fail(connection, "a", f"j{number:02}", number, "ValueError: no" if number % 2 else "OSError: Full", path=path)
    wanted = Filter(job_type="jobs.b.B", error="full")
    expected = [f"j{number:02}" for number in range(54, -1, -6)]
    assert [name for page in pages(connection, "failed", wanted, 4) for name in page] == expected
    assert list(each_id(connection, "failed", wanted)) == expected
    assert read_page(connection, "failed", wanted, limit=200).total is None


def test_a_filter_that_fits_little_gives_up_soon_and_goes_on(
    connection: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rqmem.observe.job_lists.LOOKED_AT", 20)
    monkeypatch.setattr("rqmem.observe.job_lists._AT_ONCE", 10)
    for number in range(50):
        fail(connection, "a", f"j{number:02}", number, path="jobs.b.B.run" if number == 3 else "jobs.a.A.run")
    page = read_page(connection, "failed", Filter(job_type="jobs.b.B"))
    assert page.rows == () and page.cursor and page.compared == 20
    assert [name for each in pages(connection, "failed", Filter(job_type="jobs.b.B")) for name in each] == ["j03"]


def test_running_and_scheduled_jobs_have_their_own_order(connection: Redis) -> None:
    queue = Queue("a", connection=connection)
    for number, name in enumerate(("late", "soon")):
        put(connection, "a", name, status="scheduled")
        connection.zadd(queue.scheduled_job_registry.key, {name: 2000 - 500 * number})
    page = read_page(connection, "scheduled")
    assert [(row.job_id, row.due_at) for row in page.rows] == [("soon", 1500.0), ("late", 2000.0)]
    put(connection, "a", "runs", status="started")
    connection.zadd(queue.started_job_registry.key, {"runs:e1": time.time()})
    assert [row.job_id for row in read_page(connection, "started").rows] == ["runs"]


def test_a_job_that_rq_has_forgotten_keeps_its_place(connection: Redis) -> None:
    connection.sadd("rq:queues", "rq:queue:a")
    connection.zadd(Queue("a", connection=connection).finished_job_registry.key, {"gone": 5})
    [row] = read_page(connection, "finished").rows
    assert (row.job_id, row.status, row.queue) == ("gone", "", "a")


@pytest.mark.parametrize(
    ("state", "more"),
    [("lost", {}), ("failed", {"limit": 0}), ("failed", {"limit": 201}), ("failed", {"cursor": "abc"}),
     ("failed", {"cursor": "W10"})],
)  # fmt: skip
def test_what_cannot_be_asked_for_is_an_error(connection: Redis, state: Any, more: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        read_page(connection, state, **more)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the commands that this thread sends; another test's hub may read in one of its own."""
    names: list[str] = []
    here = threading.get_ident()

    def note(more: Iterable[str]) -> None:
        if threading.get_ident() == here:
            names.extend(more)

    one, many = AbstractConnection.send_command, AbstractConnection.pack_commands
    monkeypatch.setattr(
        AbstractConnection,
        "send_command",
        lambda self, *args, **more: (note(args[:1]), one(self, *args, **more))[1],
    )
    monkeypatch.setattr(
        AbstractConnection,
        "pack_commands",
        lambda self, each: (note(args[0] for args in each), many(self, each))[1],
    )
    return names


def test_a_page_costs_the_same_at_any_depth(connection: Redis, sent: list[str]) -> None:
    """100,000 failed jobs: a page near the end takes no more commands than the first."""
    connection.sadd("rq:queues", "rq:queue:a")
    key = Queue("a", connection=connection).failed_job_registry.key
    with connection.pipeline(transaction=False) as pipeline:
        for first in range(0, 100_000, 5000):
            pipeline.zadd(key, {f"j{number:06}": number // 7 for number in range(first, first + 5000)})
        pipeline.execute()
    page = read_page(connection, "failed", limit=200)
    counts = []
    for _ in range(400):
        before = len(sent)
        page = read_page(connection, "failed", cursor=page.cursor, limit=200)
        counts.append(len(sent) - before)
    assert page.rows[-1].job_id == f"j{100_000 - 401 * 200:06}"
    assert min(counts) > 0 and max(counts) <= 25 and len(set(counts)) == 1, counts


@pytest.mark.parametrize("state", ["failed", "queued", "started"])
def test_a_page_of_jobs_takes_as_few_commands_with_many_workers(app: Flask, filled: Redis, state: str) -> None:
    """It asked Redis for each worker before."""

    def commands() -> int:
        before = int(filled.info("stats")["total_commands_processed"])
        assert client.get(f"/jobs?state={state}").status_code == 200
        return int(filled.info("stats")["total_commands_processed"]) - before - 1

    client = app.test_client()
    commands()  # a first one loads scripts
    few = commands()
    for number in range(40):
        register(filled, f"w{number}", "q", live=a_live(f"w{number}"))
    assert commands() == few <= 25
