"""How many jobs that do nothing a worker runs in a second, and what one costs: rq.Worker and ours in turn.

Rates depend on what else the machine does. Processor time and commands per job hardly do, so compare those.

    python -m scripts.bench.throughput --jobs 20000 --rounds 3
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
from redis import Redis
from rq import Queue

from rqmem.measure import procfs
from rqmem.testing import wait_until
from scripts.bench.jobs import nothing
from scripts.bench.measuring import own_redis, work_of
from scripts.bench.worker_runs import QUEUE, Running

_AT_ONCE = 1000
_MOST_SECONDS = 600


@dataclass(frozen=True)
class Way:
    """A worker to measure. ``share``: of the jobs, for one that is slow."""

    name: str
    command: list[str]
    share: float = 1.0


@dataclass(frozen=True)
class Figures:
    """Of one run, from a tenth of its jobs to the end. Microseconds of processor time and commands are per job."""

    per_second: float
    commands: float
    worker_us: float
    horse_us: float
    redis_us: float

    @property
    def all_us(self) -> float:
        return self.worker_us + self.horse_us + self.redis_us


_URL = "that of our Redis"
_OURS = ["rqmem", "worker", QUEUE, "--burst", "--log-level", "error"]
WAYS = (
    Way("rq worker", ["rq.cli", "worker", QUEUE, "--burst", "--logging_level", "ERROR", "-u", _URL], 0.02),
    Way("rqmem worker --lease-max 0", [*_OURS, "--lease-max", "0"], 0.1),
    Way("rqmem worker --lease-max 1", [*_OURS, "--lease-max", "1"]),
    Way("rqmem worker --lease-max 64", [*_OURS, "--lease-max", "64"]),
)


def cpu_seconds(worker: psutil.Process) -> tuple[float, float]:
    """Of the worker, and of its horses: living ones, and those that have ended."""
    times = worker.cpu_times()
    horses = times.children_user + times.children_system
    for child in worker.children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            own = child.cpu_times()
            horses += own.user + own.system
    return times.user + times.system, horses


def finished(queue: Queue, worker: psutil.Process) -> int:
    """How many jobs have finished. Raises `click.ClickException` where the worker has ended before them all."""
    ended = worker.status() == psutil.STATUS_ZOMBIE
    count = queue.finished_job_registry.get_job_count(cleanup=False)
    if ended and queue.count:
        raise click.ClickException(f"{' '.join(worker.cmdline())} has ended; {queue.count} jobs are left")
    return count


def measure(connection: Redis, way: Way, jobs: int) -> Figures:
    connection.flushall()
    queue = Queue(QUEUE, connection=connection)
    for first in range(0, jobs, _AT_ONCE):
        queue.enqueue_many([Queue.prepare_data(nothing) for _ in range(first, min(first + _AT_ONCE, jobs))])
    running = Running([os.environ["RQMEM_REDIS_URL"] if each is _URL else each for each in way.command])
    process = psutil.Process(running.pid)
    wait_until(lambda: finished(queue, process) >= jobs // 10, _MOST_SECONDS)
    redis_pid = connection.info("server")["process_id"]
    at, done = time.monotonic(), finished(queue, process)
    commands, _ = work_of(connection)
    worker, horses = cpu_seconds(process)
    redis = psutil.Process(redis_pid).cpu_times()
    last = (worker, horses)
    while finished(queue, process) < jobs:
        last = cpu_seconds(process)
        time.sleep(0.02)
    seconds, count = time.monotonic() - at, jobs - done
    redis_now, commands_now = psutil.Process(redis_pid).cpu_times(), work_of(connection)[0]
    running.finish(_MOST_SECONDS)
    used = redis_now.user + redis_now.system - redis.user - redis.system
    return Figures(
        count / seconds,
        (commands_now - commands) / count,
        (last[0] - worker) / count * 1e6,
        (last[1] - horses) / count * 1e6,
        used / count * 1e6,
    )


def medians(runs: list[Figures]) -> Figures:
    return Figures(*(statistics.median(values) for values in zip(*(vars(run).values() for run in runs), strict=True)))


@click.command(context_settings={"show_default": True})
@click.option("--jobs", default=20_000, help="Jobs of a run; rq.Worker gets a fiftieth of them.")
@click.option("--rounds", default=3, help="How often each worker is measured; medians are shown.")
def main(jobs: int, rounds: int) -> None:
    """Measure, and print a table."""
    model = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line)
    click.echo(f"{psutil.cpu_count()} processors,{model.partition(':')[2]}; host {procfs.host_identity()[:12]}")
    found: dict[str, list[Figures]] = {way.name: [] for way in WAYS}
    with own_redis() as connection:
        for _ in range(rounds):
            for way in WAYS:
                found[way.name].append(measure(connection, way, max(100, int(jobs * way.share))))
    load = Path("/proc/loadavg").read_text().split()[0]
    click.echo(f"medians of {rounds} rounds, load average {load} at the end; CPU in us a job\n")
    click.echo(f"{'':28}{'jobs/s':>9}{'times rq':>9}{'commands':>9}{'worker':>8}{'horse':>8}{'Redis':>8}{'CPU':>8}")
    stock = medians(found[WAYS[0].name])
    for way in WAYS:
        each = medians(found[way.name])
        click.echo(
            f"{way.name:28}{each.per_second:9,.0f}{each.per_second / stock.per_second:9.1f}{each.commands:9.1f}"
            f"{each.worker_us:8.0f}{each.horse_us:8.0f}{each.redis_us:8.0f}{each.all_us:8.0f}"
        )


if __name__ == "__main__":
    main()
