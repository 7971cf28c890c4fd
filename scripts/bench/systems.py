"""The job systems that are compared, one run of one of them, and what the run took."""

from __future__ import annotations

import os
import random
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
import psutil
from redis import Redis

from scripts.bench.measuring import work_of
from scripts.bench.peers import work
from scripts.bench.worker_runs import Running

MOST_SECONDS = 600.0
_URL, _POLL_SECONDS = "that of our Redis", 0.01
_APP = "scripts.bench.peers"


@dataclass(frozen=True)
class System:
    """A way to run jobs.

    Attributes:
        package: what must be installed.
        module: of `scripts.bench.peers`; sends the jobs.
        command: what starts a worker.
        rate: about how many jobs that do nothing it runs a second; for the length of a run only.
    """

    name: str
    package: str
    module: str
    command: tuple[str, ...]
    rate: int
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def installed(self) -> bool:
        return find_spec(self.package) is not None

    def send(self, calls: Iterable[dict[str, Any]]) -> None:
        import_module(f"{_APP}.{self.module}").send(calls)

    def send_one(self, call: dict[str, Any]) -> None:
        module = import_module(f"{_APP}.{self.module}")
        module.send_one(call) if hasattr(module, "send_one") else module.send([call])

    def argv(self, *more: str) -> list[str]:
        return [os.environ[work.URL_VARIABLE] if each is _URL else each for each in (*self.command, *more)]


_RQ = ("rq.cli", "worker", work.QUEUE, "--logging_level", "ERROR", "-u", _URL)
_RQMEM = ("rqmem", "worker", work.QUEUE, "--log-level", "error")
_DRAMATIQ = ("dramatiq", f"{_APP}.dramatiq_app", "-p", "1", "-t")
_HUEY = ("huey.bin.huey_consumer", f"{_APP}.huey_app.huey", "-q", "-w", "1", "-k")
RQ = System("rq worker", "rq", "rq_jobs", _RQ, 60)
RQMEM = System("rqmem worker", "rqmem", "rq_jobs", _RQMEM, 15_000)
ONE_BY_ONE = System("rqmem worker --lease-max 0", "rqmem", "rq_jobs", (*_RQMEM, "--lease-max", "0"), 300)
SINGLE_LEASE = System("rqmem worker --lease-max 1", "rqmem", "rq_jobs", (*_RQMEM, "--lease-max", "1"), 5_000)
HUEY = System("huey, process", "huey", "huey_app", (*_HUEY, "process"), 2_500)
DRAMATIQ = System("dramatiq, 8 threads", "dramatiq", "dramatiq_app", (*_DRAMATIQ, "8"), 2_000)
CELERY = System(
    "Celery, prefork", "celery", "celery_app",
    ("celery", "-A", f"{_APP}.celery_app", "worker", "-P", "prefork", "-c", "1", "--loglevel", "ERROR"), 800,
)  # fmt: skip
SAQ = System("SAQ", "saq", "saq_app", ("saq", f"{_APP}.saq_app.settings"), 1_500)
TASKIQ = System(
    "taskiq", "taskiq_redis", "taskiq_app",
    ("taskiq", "worker", f"{_APP}.taskiq_app:broker", "-w", "1", "--log-level", "ERROR"), 1_500,
)  # fmt: skip
ALL = (
    RQ,
    System("rq worker -w SimpleWorker", "rq", "rq_jobs", (*_RQ, "-w", "rq.SimpleWorker"), 300),
    RQMEM,
    SINGLE_LEASE,
    ONE_BY_ONE,
    CELERY,
    System("dramatiq, 1 thread", "dramatiq", "dramatiq_app", (*_DRAMATIQ, "1"), 260),
    DRAMATIQ,
    System("huey, thread", "huey", "huey_app", (*_HUEY, "thread"), 2_000),
    HUEY,
    SAQ,
    TASKIQ,
)
OURS = (RQMEM, SINGLE_LEASE, ONE_BY_ONE)


@dataclass(frozen=True)
class Run:
    """From a tenth of its jobs to the end. Microseconds of processor time and commands are per job.

    ``worker_us`` is the process that was started, ``rest_us`` all processes below it: horses, for ours.
    """

    per_second: float
    commands: float
    worker_us: float
    rest_us: float
    redis_us: float

    @property
    def all_us(self) -> float:
        return self.worker_us + self.rest_us + self.redis_us


def medians(runs: list[Run]) -> Run:
    return Run(*(statistics.median(values) for values in zip(*(vars(run).values() for run in runs), strict=True)))


class Notes:
    """The file in which jobs note that they have run."""

    def __init__(self, path: Path) -> None:
        self._path = path
        os.environ[work.NOTES_VARIABLE] = str(path)
        self.clear()

    def clear(self) -> None:
        """In place, since workers hold it open."""
        self._path.open("wb").close()

    def count(self) -> int:
        return self._path.stat().st_size // work.NOTE.size

    def read(self) -> list[tuple[float, float]]:
        """When each was sent, and when it began."""
        return list(work.NOTE.iter_unpack(self._path.read_bytes()))


@contextmanager
def notes() -> Iterator[Notes]:
    with tempfile.TemporaryDirectory(prefix="rqmem-bench-", dir="/dev/shm") as folder:
        yield Notes(Path(folder) / "notes")


@contextmanager
def working(
    command: list[str], *, workers: int = 1, core: int | None = None, environ: dict[str, str] | None = None
) -> Iterator[list[psutil.Process]]:
    """Workers that run until the end of the block. ``core``: the only one that they may use."""
    before = os.sched_getaffinity(0)
    os.environ.update(environ or {})
    try:
        if core is not None:
            os.sched_setaffinity(0, {core})
        running = [Running(command) for _ in range(workers)]
    finally:
        os.sched_setaffinity(0, before)
        for name in environ or {}:
            del os.environ[name]
    try:
        yield [psutil.Process(each.pid) for each in running]
    finally:
        for each in running:
            with suppress(ProcessLookupError):
                each.terminate()
        for each in reversed(running):  # each ends all that has begun after it
            each.finish(5)


def wait_for(done: Notes, count: int, workers: list[psutil.Process], what: str) -> None:
    """Until so many jobs have run. Raises `click.ClickException` where a worker ends, or it takes too long."""
    until = time.monotonic() + MOST_SECONDS
    while done.count() < count:
        if time.monotonic() > until or any(each.status() == psutil.STATUS_ZOMBIE for each in workers):
            raise click.ClickException(f"{what}: {done.count():,} of {count:,} jobs have run, and then no more")
        time.sleep(_POLL_SECONDS)


def cpu_seconds(workers: list[psutil.Process]) -> tuple[float, float]:
    """Of these, and of all below them, also those that have ended."""
    own = rest = 0.0
    for worker in workers:
        times = worker.cpu_times()
        own += times.user + times.system
        rest += times.children_user + times.children_system
        for child in worker.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                used = child.cpu_times()
                rest += used.user + used.system + used.children_user + used.children_system
    return own, rest


class Meter:
    """What workers and Redis do from its making on."""

    def __init__(self, connection: Redis, workers: list[psutil.Process]) -> None:
        self._connection, self._workers = connection, workers
        self._at, self._before = time.monotonic(), self._read()

    def read(self, jobs: int) -> Run:
        """In which time so many jobs have run."""
        seconds = time.monotonic() - self._at
        commands, redis, own, rest = (now - then for now, then in zip(self._read(), self._before, strict=True))
        return Run(jobs / seconds, commands / jobs, own / jobs * 1e6, rest / jobs * 1e6, redis / jobs * 1e6)

    def _read(self) -> tuple[float, ...]:
        return *work_of(self._connection), *cpu_seconds(self._workers)


def measure(
    connection: Redis, done: Notes, system: System, jobs: int, call: dict[str, Any] | None = None, *,
    workers: int = 1, core: int | None = None, more: tuple[str, ...] = (), sent: bool = False,
) -> Run:  # fmt: skip
    """Send the jobs, start the workers, and measure. ``sent``: the jobs are there already."""
    if not sent:
        connection.flushall()
        system.send(call or {} for _ in range(jobs))
    done.clear()
    redis = psutil.Process(connection.info("server")["process_id"])
    everywhere = redis.cpu_affinity()
    if core is not None:
        redis.cpu_affinity([core])
    try:
        with working(system.argv(*more), workers=workers, core=core, environ=system.environ) as processes:
            wait_for(done, max(1, jobs // 10), processes, system.name)
            ran, meter = done.count(), Meter(connection, processes)
            wait_for(done, jobs, processes, system.name)
            return meter.read(max(1, jobs - ran))
    finally:
        redis.cpu_affinity(everywhere)


def latencies(connection: Redis, done: Notes, system: System, jobs: int, pause_seconds: float) -> list[float]:
    """In milliseconds from the call that sends a job to an idle worker until the job begins, in order of size.

    Args:
        pause_seconds: between two jobs, on average. Equal pauses would meet what a worker does each second always or
            never.
    """
    pauses = random.Random(1)
    connection.flushall()
    done.clear()
    with working(system.argv(), environ=system.environ) as processes:
        system.send_one({})
        wait_for(done, 1, processes, system.name)
        for number in range(jobs):
            time.sleep(pause_seconds * pauses.uniform(0.5, 1.5))
            system.send_one({"sent": time.monotonic()})
            wait_for(done, number + 2, processes, system.name)
    return sorted(1000 * (began - sent) for sent, began in done.read()[1:])
