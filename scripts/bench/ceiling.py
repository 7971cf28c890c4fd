"""``make bench``: how far above the ceiling jobs get, and the rate of jobs beside rq worker. Half a minute.

Real workers on a Redis of its own. The figures are this machine's; compare ratios, not seconds.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
from rq import Queue
from rq.job import Job

from rqmem import connections, embedded_redis
from rqmem.journal import reader
from scripts.bench import adversaries

ROOT = Path(__file__).parents[2]


@click.command()
@click.option("--memory", type=int, default=128, show_default=True, help="Ceiling in MB.")
@click.option("--runs", type=click.IntRange(1), default=5, show_default=True, help="Runs of each adversary.")
@click.option("--jobs", type=click.IntRange(1), default=300, show_default=True, help="No-op jobs for the rate.")
def main(memory: int, runs: int, jobs: int) -> None:
    """Print the tables."""
    with tempfile.TemporaryDirectory() as folder:
        server = embedded_redis.start(Path(folder))
        os.environ["RQMEM_REDIS_URL"] = server.url
        try:
            overshoot(memory, runs)
            rates(jobs)
        finally:
            embedded_redis.stop(Path(folder))


def overshoot(memory: int, runs: int) -> None:
    click.echo(f"MB above a ceiling of {memory} MB, {runs} runs (the reserve is 32 MB):\n")
    click.echo(f"{'adversary':<30}{'median':>8}{'worst':>8}   {'acted':<18}{'next job after, ms':>19}")
    connection = connections.connect()
    for adversary in adversaries.ALL:
        connection.flushall()
        queue = Queue("bench", connection=connection)
        pairs = [(queue.enqueue(adversary), queue.enqueue(adversaries.nothing)) for _ in range(runs)]
        work("rqmem", "worker", "bench", "--burst", "--memory", str(memory), "--log-level", "error")
        breaches = [reader.breaches(connection, job.id)[0] for job, _ in pairs]
        above = [breach.peak_mb - breach.limit_mb for breach in breaches]
        acted = ", ".join(sorted({breach.layer for breach in breaches}))
        pause = statistics.median(milliseconds_between(*pair) for pair in pairs)
        name = adversary.__name__.replace("_", " ")
        click.echo(f"{name:<30}{statistics.median(above):>8.1f}{max(above):>8.1f}   {acted:<18}{pause:>19.0f}")


def rates(jobs: int) -> None:
    """No-op jobs a second against rq.Worker, and CPU of the whole worker per job, in one run."""
    connection = connections.connect()
    quiet_rq = ("rq.cli", "worker", "bench", "--burst", "--quiet", "--url", os.environ["RQMEM_REDIS_URL"])
    quiet_rqmem = ("rqmem", "worker", "bench", "--burst", "--log-level", "error")
    per_job = {}
    click.echo(f"\n{jobs} no-op jobs{'':<14}{'jobs/s':>8}{'CPU ms a job':>14}")
    for name, command in (("rq worker --quiet", quiet_rq), ("rqmem worker", quiet_rqmem)):
        connection.flushall()
        queue = Queue("bench", connection=connection)
        done = [queue.enqueue(adversaries.nothing) for _ in range(jobs)]
        cpu = work(*command)
        seconds = milliseconds_between(done[0], done[-1], since_start=True) / 1000
        per_job[name] = seconds
        click.echo(f"{name:<26}{jobs / seconds:>8.0f}{1000 * cpu / jobs:>14.1f}")
    ratio = per_job["rq worker --quiet"] / per_job["rqmem worker"]
    click.echo(f"\nrqmem worker does {ratio:.2f} times the jobs of rq worker")


def work(*command: str) -> float:
    """Run a worker until its queue is empty; CPU seconds of it and its horses."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", *command], cwd=ROOT, check=True, stdout=-3, stderr=-3)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def milliseconds_between(first: Job, second: Job, *, since_start: bool = False) -> float:
    for job in (first, second):
        job.refresh()
    result = first.latest_result()
    start = first.started_at if since_start or result is None else result.created_at
    end = second.ended_at if since_start else second.started_at
    assert start is not None
    assert end is not None
    return (end - start).total_seconds() * 1000


if __name__ == "__main__":
    started = time.monotonic()
    main(standalone_mode=False)
    click.echo(f"\n{time.monotonic() - started:.0f} s")
