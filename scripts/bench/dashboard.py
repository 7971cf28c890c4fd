"""``python -m scripts.bench.dashboard``: what the dashboard costs, on a journal of a month.

A journal at its bounds (100 job types, 150,000 runs in 35 days), 100,000 jobs that wait and 100,000 that failed, on a
Redis of its own. Each page, and each address of the API that reads, is asked for by Flask's test client: first by an
application that knows nothing yet, as it is when the server has started, then again. Then ``rqmem dashboard`` runs with
20 viewers on Live: what it costs, how large it is, and how much a browser loads at its first visit.

Ends with 1 where something is outside the budget of the design. Ten minutes; ``--short`` two.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any, cast
from urllib.parse import quote

import click
from flask import Flask
from redis import Redis
from redis.connection import AbstractConnection
from rq import Queue
from rq.job import Job
from rq.results import Result

from rqmem.dashboard.app import build
from rqmem.dashboard.options import Options
from rqmem.dashboard.serving import settle
from rqmem.store.history import history_reader
from scripts.bench import dashboard_viewers
from scripts.bench.journal_of_a_month import Month
from scripts.bench.measuring import end, own_redis

MOST_MS = 100.0
MOST_COMMANDS = 25
_TYPES, _AT_ONCE, _FIRST, _AGAIN = 100, 2000, 3, 5
_WINDOWS = ("1h", "24h", "7d", "30d")


class CrowdedMonth(Month):
    """As many job types as the journal keeps."""

    TYPES = _TYPES


def fill_queue(connection: Redis, count: int) -> None:
    """``count`` jobs that wait, and as many that failed."""
    queue = Queue("campaigns", connection=connection)
    queue.enqueue("jobs.campaigns.first.run")
    template = cast("dict[Any, Any]", connection.hgetall(Job.key_for(queue.job_ids[0])))
    for first in range(0, count, _AT_ONCE):
        with connection.pipeline(transaction=False) as pipeline:
            numbers = range(first, min(first + _AT_ONCE, count))
            pipeline.rpush(queue.key, *(f"waits-{number}" for number in numbers))
            pipeline.zadd(queue.failed_job_registry.key, {f"failed-{number}": number // 5 for number in numbers})
            for number in numbers:
                pipeline.hset(Job.key_for(f"waits-{number}"), mapping=template)
                pipeline.hset(Job.key_for(f"failed-{number}"), mapping={**template, b"status": b"failed"})
            pipeline.execute()
    for number in range(count - 400, count):
        job = Job(f"failed-{number}", connection)
        Result.create_failure(job, ttl=-1, exc_string=f"Traceback\n  File x\nValueError: customer {number}\n")


def addresses(app: Flask, connection: Redis) -> list[str]:
    """All that can be read: each route, with the windows, states and filters that it knows."""
    names = {
        "job_id": next(iter(history_reader.stories(connection))),
        "job_type": sorted(history_reader.types(connection))[0],
        "queue": "campaigns",
    }
    found = []
    for rule in app.url_map.iter_rules():
        known = rule.endpoint.startswith(("pages.", "api.", "live.", "actions."))
        if not known or "GET" not in (rule.methods or ()) or rule.endpoint == "live.events":
            continue
        path = app.url_map.bind("localhost").build(rule.endpoint, {name: names[name] for name in rule.arguments})
        found.append(path)
        if path.endswith(("/types", "/types.csv", "/trends", "/leaks", "/leaks.csv")):
            found += [f"{path}?window={each}" for each in _WINDOWS]
        if path.endswith(("/jobs", "/jobs.csv")):
            found += [f"{path}?state={each}" for each in ("queued", "started", "finished")]
            found += [f"{path}?limit=200", f"{path}?type=nobody", f"{path}?error=customer"]
        if path.endswith("/search"):
            found += [f"{path}?q=fail", f"{path}?q=Step07"]
        if path.endswith(("/api/v1/types", "/api/v1/trends")):
            found.append(f"{path}?window=30d&steps=1")
    return [*sorted(found), f"/jobs/{quote('nobody at all')}"]


def last_page(app: Flask, jobs: int) -> str:
    """The address of the last but one page of all failed jobs."""
    cursor = ""
    with app.test_client() as client:
        for _ in range(jobs // 200 - 1):
            asked = f"/api/v1/jobs?limit=200&cursor={cursor}"
            cursor = client.get(asked, headers={"Host": "localhost"}).get_json()["cursor"]
    return f"/jobs?state=failed&cursor={cursor}"


@contextmanager
def commands() -> Iterator[list[str]]:
    """The names of the commands that this process sends meanwhile."""
    sent: list[str] = []
    one, many = AbstractConnection.send_command, AbstractConnection.pack_commands

    def send(self: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(str(arguments[0]))
        return one(self, *arguments, **options)

    def pack(self: Any, commands: Any) -> Any:
        sent.extend(str(each[0]) for each in commands)
        return many(self, commands)

    AbstractConnection.send_command, AbstractConnection.pack_commands = send, pack  # type: ignore[method-assign]
    try:
        yield sent
    finally:
        AbstractConnection.send_command, AbstractConnection.pack_commands = one, many  # type: ignore[method-assign]


def measure(connection: Redis, jobs: int) -> list[str]:
    """Own CPU of each page; returns what is outside the budget."""
    outside = []

    def started() -> Flask:
        app = build(connection, "redis://localhost", Options())
        settle(app)
        return app

    app = started()
    deep = last_page(app, jobs)
    click.echo(f"\n{'address':<76}{'first ms':>10}{'again ms':>10}{'KB':>8}\n")
    for path in [*addresses(app, connection), deep]:
        first = []
        for _ in range(_FIRST):
            app = started()
            first.append(_taken(app, path)[0])
        known = [_taken(app, path) for _ in range(_AGAIN)]
        again, answer = median(each for each, _ in known), known[-1][1]
        click.echo(f"{path[:74]:<76}{min(first):>10.1f}{again:>10.1f}{len(answer.data) / 1024:>8.1f}")
        if answer.status_code >= 500:
            outside.append(f"{path[:60]}: answers {answer.status_code}")
        if max(min(first), again) > MOST_MS:
            outside.append(f"{path[:60]}: {max(min(first), again):.0f} ms of CPU, more than {MOST_MS:.0f}")
    for path in ("/jobs?state=failed", "/jobs?state=queued", deep):
        with commands() as sent:
            _taken(app, path)
        click.echo(f"{path[:50]}: {len(sent)} commands to Redis")
        if len(sent) > MOST_COMMANDS:
            outside.append(f"{path[:50]}: {len(sent)} commands, more than {MOST_COMMANDS}")
    return outside


def _taken(app: Flask, path: str) -> tuple[float, Any]:
    """Milliseconds of CPU of this process, and the answer."""
    with app.test_client() as client:
        before = time.process_time()
        answer = client.get(path, headers={"Host": "localhost"})
        return 1000 * (time.process_time() - before), answer


@click.command()
@click.option("--short", is_flag=True, help="A third of the runs, a tenth of the jobs.")
def main(short: bool) -> None:
    """Measure what the dashboard costs."""
    runs, jobs = (50_000, 10_000) if short else (150_000, 100_000)
    with own_redis() as connection:
        CrowdedMonth(connection, runs).go_on_until(runs)
        fill_queue(connection, jobs)
        click.echo(f"{runs:,} runs of {_TYPES} job types, {jobs:,} jobs that wait, {jobs:,} that failed")
        outside = measure(connection, jobs) + dashboard_viewers.measure(connection)
    end(outside)


if __name__ == "__main__":
    main()
