"""Jobs of every kind that RQ knows. Each case enqueues its own, whose ids begin with its name."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from redis import Redis
from rq import Callback, Queue, Repeat, Retry
from rq.group import Group
from rq.job import Dependency
from rq.rate_limit import RateLimit
from rq.webhook import Webhook

from tests.lease import jobs

Case = Callable[[Queue, Redis], None]
CASES: dict[str, Case] = {}


def case(enqueue: Case) -> Case:
    CASES[enqueue.__name__] = enqueue
    return enqueue


@case
def results(queue: Queue, connection: Redis) -> None:
    for number, value in enumerate((None, 0, "", "text", b"\x00\xff", {"a": [1, 2]}, "x" * 5000, float("inf"))):
        queue.enqueue(jobs.returns, value, job_id=f"results-{number}")
    queue.enqueue(jobs.returns_what_no_serializer_takes, job_id="results-unserializable")
    queue.enqueue(jobs.is_a_coroutine, job_id="results-coroutine")
    queue.enqueue(jobs.Counter(3).count, 4, job_id="results-method")
    queue.enqueue("time.monotonic", job_id="results-builtin", result_ttl=0)
    queue.enqueue("math.floor", 1.5, job_id="results-by-name")


@case
def result_ttls(queue: Queue, connection: Redis) -> None:
    for ttl in (0, -1, 1000, 5000):
        queue.enqueue(jobs.returns, "kept", result_ttl=ttl, job_id=f"result_ttls-{ttl}")


@case
def time_to_live_in_the_queue(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.returns, ttl=5000, job_id="ttl-1")
    queue.enqueue(jobs.returns, ttl=5000, result_ttl=-1, job_id="ttl-2")
    queue.enqueue(jobs.fails, ttl=5000, job_id="ttl-3")


@case
def failures(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.fails, job_id="failures-1")
    queue.enqueue(jobs.fails, failure_ttl=1000, job_id="failures-2")
    queue.enqueue(jobs.fails, failure_ttl=-1, job_id="failures-3")
    queue.enqueue("tests.lease.jobs.is_not_there", job_id="failures-4")
    queue.enqueue("no_such_module.job", job_id="failures-5")
    queue.enqueue(jobs.returns, 1, 2, 3, job_id="failures-6")
    queue.enqueue(jobs.returns, job_id="failures-and-after")


@case
def time_limits(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.sleeps, 60, job_timeout=1, job_id="time_limits-1")
    queue.enqueue(jobs.returns, job_timeout=-1, job_id="time_limits-2")
    queue.enqueue(jobs.returns, job_timeout="2h", job_id="time_limits-3")
    queue.enqueue(jobs.sleeps, 0.15, job_id="time_limits-long")
    queue.enqueue(jobs.returns, job_id="time_limits-after-the-long-one")


@case
def retries(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.fails_once, retry=Retry(max=2), job_id="retries-1")
    queue.enqueue(jobs.fails, retry=Retry(max=2), job_id="retries-2")
    queue.enqueue(jobs.fails, retry=Retry(max=2, interval=1000), job_id="retries-3")
    queue.enqueue(jobs.returns, retry=Retry(max=2), job_id="retries-4")
    queue.enqueue(jobs.asks_for_another_try, 1, job_id="retries-5")
    queue.enqueue(jobs.asks_for_another_try, 1, 1000, job_id="retries-6")


@case
def repeats(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.returns, repeat=Repeat(times=2), job_id="repeats-1")
    queue.enqueue(jobs.returns, repeat=Repeat(times=2, interval=1000), job_id="repeats-2")


@case
def callbacks(queue: Queue, connection: Redis) -> None:
    both = {"on_success": Callback(jobs.on_success), "on_failure": Callback(jobs.on_failure)}
    queue.enqueue(jobs.returns, 1, job_id="callbacks-1", **both)
    queue.enqueue(jobs.fails, job_id="callbacks-2", **both)
    queue.enqueue(jobs.returns, 1, job_id="callbacks-3", on_failure=Callback(jobs.on_failure))
    queue.enqueue(jobs.fails, job_id="callbacks-4", on_failure=Callback(jobs.on_failure))


@case
def dependents(queue: Queue, connection: Redis) -> None:
    other = Queue("other", connection=connection)
    parent = queue.enqueue(jobs.returns, job_id="dependents-parent")
    failing = queue.enqueue(jobs.fails, job_id="dependents-failing")
    queue.enqueue(jobs.returns, depends_on=parent, job_id="dependents-1")
    other.enqueue(jobs.returns, depends_on=parent, job_id="dependents-2")
    other.enqueue(jobs.returns, depends_on=[parent, "dependents-1"], job_id="dependents-3")
    queue.enqueue(jobs.returns, depends_on=failing, job_id="dependents-4")
    queue.enqueue(jobs.returns, depends_on=Dependency(failing, allow_failure=True), job_id="dependents-5")
    queue.enqueue(jobs.returns, depends_on=Dependency(parent, enqueue_at_front=True), job_id="dependents-6")
    queue.enqueue(jobs.adds_a_dependent, "dependents-late", job_id="dependents-7")


@case
def limited(queue: Queue, connection: Redis) -> None:
    for number in range(3):
        queue.enqueue(jobs.returns, rate_limit=RateLimit("mail", 1), job_id=f"limited-{number}")


@case
def groups(queue: Queue, connection: Redis) -> None:
    datas = [Queue.prepare_data(jobs.returns, (number,), job_id=f"groups-{number}") for number in range(3)]
    datas.append(Queue.prepare_data(jobs.returns, result_ttl=0, job_id="groups-not-kept"))
    Group.create(connection, "party").enqueue_many(queue, datas)


@case
def webhooks(queue: Queue, connection: Redis) -> None:
    closed = Webhook("http://127.0.0.1:9/", "finished", timeout=1)
    queue.enqueue(jobs.returns, webhooks=[closed], job_id="webhooks-1")


@case
def order(queue: Queue, connection: Redis) -> None:
    for number in range(6):
        queue.enqueue(jobs.returns, number, at_front=number % 3 == 2, job_id=f"order-{number}")
    queue.enqueue(jobs.enqueues, "order-last", queue.name, job_id="order-enqueues")
    queue.enqueue(jobs.enqueues, "order-other", "other", job_id="order-enqueues-elsewhere")


@case
def meta(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.saves_meta, meta={"before": 1}, job_id="meta-1")
    queue.enqueue(jobs.saves_meta, job_id="meta-2")
    queue.enqueue(jobs.returns, meta={"kept": "as it is"}, description="described", job_id="meta-3")


@case
def unique(queue: Queue, connection: Redis) -> None:
    queue.enqueue(jobs.returns, unique=True, job_id="unique-1")


@case
def odd_data(queue: Queue, connection: Redis) -> None:
    odd: dict[str, Any] = {"uncompressed": b"", "unreadable": b"no call", "gone": None}
    for name, data in odd.items():
        job = queue.enqueue(jobs.returns, name, job_id=f"odd-{name}")
        if data is None:
            connection.delete(job.key)
        else:
            connection.hset(job.key, "data", data or job.data)


@case
def scheduled(queue: Queue, connection: Redis) -> None:
    queue.enqueue_in(timedelta(hours=1), jobs.returns, job_id="scheduled-1")


def enqueue_all(connection: Redis) -> None:
    queue = Queue("jobs", connection=connection)
    for each in CASES.values():
        each(queue, connection)
