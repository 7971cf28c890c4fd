"""A host that never runs out of memory: ``python -m scripts.bench.pool [--short] [--output pool.svg] [--json FILE]``.

Runs one mix of jobs under ``rqmem pool``, ``rq worker-pool`` and Celery's prefork, one after another, each in a cgroup
of 600 MB where one can be made. Four workers' ceilings are four times the budget. Meanwhile workers are killed, the
parent is killed and started again, and a neighbour in the same group takes 300 MB and gives it back. It counts jobs
done, jobs lost, and kills by the kernel; and draws what the group used.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, cast

import click
import psutil
from redis import Redis
from rq import Queue, Worker

from rqmem.measure import cgroup_places, process_tree, procfs
from rqmem.measure.cgroup import Group
from rqmem.measure.cgroup_files import parse_parts, read_kernel_kills
from rqmem.units import MB
from scripts.bench import measuring, pool_mix
from scripts.drawing import drawing, output_option
from scripts.harness import ROOT, own_redis, without_settings

TOTAL_MB, BUDGET_MB, NEIGHBOUR_MB, WORKERS = 600, 450, 300, 4
_NEIGHBOUR = (
    "import sys,time\nb=[]\nfor _ in range({mb}):\n b.append(bytes([1])*2**20); time.sleep(0.01)\ntime.sleep({s})"
)
_RATE = 1.2  # jobs a second
_LOOK_SECONDS = 0.25


@dataclass
class Result:
    """What came of one run.

    Attributes:
        enqueued, done, failed: jobs; ``lost``: those of which nothing came, neither done nor failed nor still queued.
        left: those that were still queued, or ran, when the time was over.
        repeated: how often a job was begun once more.
        kernel_kills: processes that the kernel has killed in the group for want of memory; None: it does not tell.
        usage: (seconds, MB of the group without page cache, MB of them the neighbour's).
    """

    name: str
    enqueued: int = 0
    done: int = 0
    failed: int = 0
    lost: int = 0
    left: int = 0
    repeated: int = 0
    jobs_a_minute: float = 0.0
    kernel_kills: int | None = None
    seconds: float = 0.0
    longest_wait_seconds: float = 0.0
    evictions: int = 0
    usage: list[tuple[float, float, float]] = field(default_factory=list)


class Machine:
    """A cgroup of 600 MB for one run, or nothing where none can be made."""

    def __init__(self, name: str) -> None:
        taken = cgroup_places.take()
        self._taken = None if isinstance(taken, str) else taken
        self.group = None
        if self._taken is not None:
            self.group = Group.make(self._taken.place, f"rqmem-bench-{os.getpid()}-{name}", TOTAL_MB * MB)

    def enter(self) -> None:
        """In a child, before it becomes the program."""
        os.setsid()
        if self.group is not None:
            (self.group.path / "cgroup.procs").write_text(str(os.getpid()))

    def used_mb(self, pids: list[int]) -> float:
        if self.group is None:
            return resident_mb(*pids)
        parts = parse_parts((self.group.path / "memory.stat").read_text())
        return (parts.anon_bytes + parts.shmem_bytes) / MB

    def kills(self) -> int | None:
        if self.group is None or self._taken is None:
            return None
        version = self._taken.place.version
        paths = [self.group.path, *(path for path in self.group.path.rglob("*") if path.is_dir())]
        return sum(read_kernel_kills(version, path) or 0 for path in paths)

    def close(self) -> None:
        if self.group is not None:
            for path in sorted((p for p in self.group.path.rglob("*") if p.is_dir()), reverse=True):
                with contextlib.suppress(OSError):
                    path.rmdir()
            with contextlib.suppress(OSError):
                self.group.path.rmdir()
        if self._taken is not None:
            cgroup_places.leave(self._taken)


@dataclass(frozen=True)
class System:
    """One of those compared: its command, how a job is enqueued, and what became of all of them."""

    name: str
    command: list[str]
    environ: dict[str, str]
    enqueue: Callable[[str, str], Any]
    counts: Callable[[], tuple[int, int]]
    """Failed jobs, and jobs that are still there."""


def systems(url: str) -> list[System]:
    """Those that can be run here."""
    connection = Redis.from_url(url)
    queue = Queue("bench", connection=connection)

    def of_rq() -> tuple[int, int]:
        registries = (queue.started_job_registry, queue.scheduled_job_registry, queue.deferred_job_registry)
        there = queue.count + sum(each.get_job_count(cleanup=False) for each in registries)
        return queue.failed_job_registry.get_job_count(cleanup=False), there

    def for_rqmem(kind: str, number: str) -> None:
        if kind == "chunked":
            pool_mix.Chunked.enqueue("bench", number=number, connection=connection)
        else:
            queue.enqueue(getattr(pool_mix, kind), number)

    environ = {**without_settings(), "BENCH_REDIS_URL": url, "PYTHONPATH": str(ROOT)}
    python = [sys.executable, "-m"]
    found = [
        System(
            "rqmem pool",
            [*python, "rqmem", "pool", "bench", "-n", str(WORKERS), "--memory", str(BUDGET_MB), "--total-memory",
             str(BUDGET_MB), "--url", url, "--quiet"],
            environ, for_rqmem, of_rq,
        ),
        System(
            "rq worker-pool", [*python, "rq.cli", "worker-pool", "bench", "-n", str(WORKERS), "--url", url, "--quiet"],
            environ, lambda kind, number: queue.enqueue(getattr(pool_mix, kind), number), of_rq,
        ),
    ]  # fmt: skip
    with contextlib.suppress(ImportError):
        os.environ["BENCH_REDIS_URL"] = url
        celery: Any = pool_mix.make_celery()
        found.append(
            System(
                "Celery prefork",
                [
                    *python,
                    "celery",
                    "-A",
                    "scripts.bench.pool_mix",
                    "worker",
                    "-c",
                    str(WORKERS),
                    "--loglevel",
                    "ERROR",
                ],
                {**environ, "BENCH_CELERY": "1"},
                lambda kind, number: celery.send_task(kind, [number]),
                lambda: (0, int(connection.llen("celery")) + int(connection.hlen("unacked"))),
            )
        )
    return found


def measure(system: System, url: str, seconds: float) -> Result:
    """One run of ``seconds``, and the time that it takes until nothing is left, half of that at most."""
    connection, result, machine = Redis.from_url(url), Result(system.name), Machine(system.name.split()[0])
    connection.flushdb()
    draw = random.Random(1)
    kinds = draw.choices(list(pool_mix.KINDS), [share for share, _, _ in pool_mix.KINDS.values()], k=100_000)

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            system.command, env=system.environ, cwd=ROOT, preexec_fn=machine.enter,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    parent, neighbour, began = start(), None, time.monotonic()
    kills = [seconds * at for at in (0.15, 0.3, 0.45, 0.7)]
    parent_at, neighbour_at, enqueued_at = seconds * 0.55, seconds * 0.35, {}
    restart_at: float | None = None
    try:
        while True:
            now = time.monotonic() - began
            while now < seconds and result.enqueued < now * _RATE:
                number = str(result.enqueued)
                system.enqueue(kinds[result.enqueued], number)
                enqueued_at[number] = now
                result.enqueued += 1
            if kills and now >= kills[0]:
                kills.pop(0)
                kill_a_worker(parent.pid, draw)
            if parent_at and now >= parent_at:
                parent_at = 0.0
                parent.kill()
                restart_at = now + 3.0
            if restart_at is not None and now >= restart_at:
                restart_at = None
                parent = start()
            if neighbour is None and now >= neighbour_at:
                code = _NEIGHBOUR.format(mb=NEIGHBOUR_MB, s=seconds / 6)
                neighbour = subprocess.Popen([sys.executable, "-c", code], preexec_fn=machine.enter)
            beside = resident_mb(neighbour.pid) if neighbour is not None and neighbour.poll() is None else 0.0
            pids = [] if machine.group is not None else [parent.pid, *process_tree.descendants(parent.pid)]
            result.usage.append((round(now, 2), round(machine.used_mb(pids), 1), round(beside, 1)))
            note_waits(connection, enqueued_at, now, result)
            result.failed, result.left = system.counts()
            if now >= seconds and (result.left == 0 or now >= 1.5 * seconds):
                break
            time.sleep(_LOOK_SECONDS)
        result.seconds = time.monotonic() - began
        begun, done = (connection.hgetall(f"bench:{name}") for name in ("begun", "done"))
        result.done = len(done)
        result.repeated = sum(int(count) - 1 for count in begun.values())
        result.jobs_a_minute = round(60 * result.done / result.seconds, 1)
        result.lost = max(0, result.enqueued - result.done - result.failed - result.left)
        result.kernel_kills = machine.kills()
        result.evictions = evictions(connection)
    finally:
        for process in (parent, neighbour):
            if process is not None:
                stop(process)
        machine.close()
    return result


def note_waits(connection: Redis, enqueued_at: dict[str, float], now: float, result: Result) -> None:
    """How long jobs have waited until they began, as they are seen."""
    for raw in cast("list[bytes]", connection.hkeys("bench:begun")):
        at = enqueued_at.pop(raw.decode(), None)
        if at is not None:
            result.longest_wait_seconds = round(max(result.longest_wait_seconds, now - at), 1)


def evictions(connection: Redis) -> int:
    from rqmem.store.history import history_reader

    return sum(alert.rule == "job-evicted" for alert in history_reader.alerts(connection))


def resident_mb(*pids: int) -> float:
    """Of those that have not ended."""
    total_mb = 0.0
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            total_mb += measuring.resident_mb(pid)
    return total_mb


def kill_a_worker(parent: int, draw: random.Random) -> None:
    children = sorted(procfs.read_children(parent))
    if children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(draw.choice(children), signal.SIGKILL)


def stop(process: subprocess.Popen[bytes]) -> None:
    """It, and what is in its session."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(20)
    if process.poll() is None:
        process_tree.kill(process.pid)
    process.kill()
    process.wait()


@contextlib.contextmanager
def cleared(url: str) -> Iterator[None]:
    """No worker of a run is there when the next one begins."""
    yield
    connection = Redis.from_url(url)
    for worker in Worker.all(connection=connection):
        if worker.pid and procfs.exists(worker.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(worker.pid, signal.SIGKILL)


def draw_results(results: list[Result], output: Path) -> None:
    """What the group used over time, of each."""
    with drawing(output, 7.5, 2.0 * len(results)) as figure:
        axes = figure.subplots(len(results), 1, sharex=True, squeeze=False)[:, 0]
        for axis, each in zip(axes, results, strict=True):
            at = [point[0] for point in each.usage]
            axis.fill_between(at, [point[1] for point in each.usage], label="all", alpha=0.5)
            axis.fill_between(at, [point[2] for point in each.usage], label="neighbour", alpha=0.9)
            axis.axhline(TOTAL_MB, color="tab:red", linewidth=1, label=f"{TOTAL_MB} MB")
            kills = "not known" if each.kernel_kills is None else str(each.kernel_kills)
            axis.set_title(
                f"{each.name}: {each.done} of {each.enqueued} done, {each.failed} failed, {each.lost + each.left} lost "
                f"or left, {kills} killed by the kernel", loc="left",
            )  # fmt: skip
            axis.set_ylabel("MB")
        axes[0].legend(loc="upper right", ncols=3)
        axes[-1].set_xlabel("seconds")


@click.command()
@click.option("--short", is_flag=True, help="One minute each instead of ten.")
@click.option("--seconds", type=click.FloatRange(min=5), help="So long each.")
@click.option("--only", multiple=True, help="Only the systems whose name has this in it.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there.")
@output_option
def main(
    short: bool, seconds: float | None, only: tuple[str, ...], json_file: Path | None, output: Path | None
) -> None:
    """Compare rqmem pool, rq worker-pool and Celery in 600 MB, with kills and a neighbour."""
    lasts = seconds or (60.0 if short else 600.0)
    results = []
    with own_redis() as url:
        for system in systems(url):
            if only and not any(each in system.name for each in only):
                continue
            with cleared(url):
                result = measure(system, url, lasts)
            results.append(result)
            kills = "?" if result.kernel_kills is None else result.kernel_kills
            click.echo(
                f"{result.name:<15} {result.enqueued:>5} enqueued {result.done:>5} done {result.failed:>4} failed "
                f"{result.lost:>4} lost {result.left:>4} left {result.repeated:>4} begun again {kills:>3} kernel kills "
                f"{result.jobs_a_minute:>6} a minute, longest wait {result.longest_wait_seconds:.0f} s, "
                f"{result.evictions} evicted"
            )
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    if output is not None:
        draw_results(results, output)


if __name__ == "__main__":
    main()
