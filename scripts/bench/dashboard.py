"""``python -m scripts.bench.dashboard``: what a page of the dashboard costs its process, on a journal of a month.

A journal at its bounds (100 job types, 150,000 runs in 35 days), 100,000 jobs that wait and 100,000 that failed, on a
Redis of its own. Each page is asked for by Flask's test client: first while nothing is known yet, then again. Ends with
1 when a page that is asked for again takes more than the budget of the design. Ten minutes; ``--short`` two.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any, cast

import click
from redis import Redis
from rq import Queue
from rq.job import Job
from rq.results import Result

from rqmem.dashboard import create_app
from rqmem.store.history import history_reader
from scripts.bench.journal_of_a_month import Month
from scripts.bench.measuring import end, own_redis, resident_mb

MOST_MS = 100.0
_TYPES, _AT_ONCE, _TIMES = 100, 2000, 5


class CrowdedMonth(Month):
    """As many job types as the journal keeps."""

    TYPES = _TYPES


def fill_queue(connection: Redis, count: int) -> None:
    """So many jobs that wait, and as many that failed."""
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


def pages(connection: Redis, jobs: int) -> list[str]:
    """The addresses to ask for."""
    types = sorted(history_reader.types(connection))
    story = next(iter(history_reader.stories(connection)))
    found = [
        *("/", "/live", "/types", "/types?window=30d", f"/types/{types[0]}", "/splitting", "/leaks", "/alerts"),
        *("/trends?window=24h", "/trends?window=7d", "/trends?window=30d", "/queues", "/workers", f"/jobs/{story}"),
        *("/jobs?state=failed", "/jobs?state=queued", "/jobs?state=failed&type=nobody", "/search?q=fail"),
        *(f"/api/v1/{name}" for name in ("overview", "types?window=30d", "trends?window=30d", "jobs", "live")),
        *("/api/v1/jobs?limit=200&state=queued", f"/api/v1/types/{types[0]}", f"/api/v1/jobs/{story}"),
        "/jobs/nobody",
    ]
    page = None
    with create_app(connection=connection).test_client() as client:
        for _ in range(jobs // 250):
            cursor = f"&cursor={page['cursor']}" if page else ""
            page = client.get(f"/api/v1/jobs?limit=200{cursor}", headers={"Host": "localhost"}).get_json()
    return [*found, f"/jobs?state=failed&cursor={page['cursor'] if page else ''}"]


def measure(connection: Redis, jobs: int) -> list[str]:
    """Own CPU of each page; returns what is outside the budget."""
    app, outside = create_app(connection=connection), []
    click.echo(f"\n{'page':<70}{'first ms':>10}{'again ms':>10}{'KB':>8}\n")
    with app.test_client() as client:
        client.environ_base["HTTP_HOST"] = "localhost"
        for path in pages(connection, jobs):
            taken = []
            for _ in range(1 + _TIMES):
                before = time.process_time()
                answer = client.get(path)
                taken.append(1000 * (time.process_time() - before))
            again = median(taken[1:])
            click.echo(f"{path[:68]:<70}{taken[0]:>10.1f}{again:>10.1f}{len(answer.data) / 1024:>8.1f}")
            if answer.status_code >= 500:
                outside.append(f"{path[:60]}: answers {answer.status_code}")
            if again > MOST_MS:
                outside.append(f"{path[:60]}: {again:.0f} ms of CPU, more than {MOST_MS:.0f}")
    click.echo(f"\nthis process: {resident_mb():.0f} MB resident, with the bench in it")
    return outside


@click.command()
@click.option("--short", is_flag=True, help="A third of the runs, a tenth of the jobs.")
def main(short: bool) -> None:
    """Measure what pages of the dashboard cost."""
    runs, jobs = (50_000, 10_000) if short else (150_000, 100_000)
    with own_redis() as connection:
        CrowdedMonth(connection, runs).go_on_until(runs)
        fill_queue(connection, jobs)
        click.echo(f"{runs:,} runs of {_TYPES} job types, {jobs:,} jobs that wait, {jobs:,} that failed")
        outside = measure(connection, jobs)
    end(outside)


if __name__ == "__main__":
    main()
