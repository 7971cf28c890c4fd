"""A host that never runs out of memory: ``python -m scripts.bench.pool [--short] [--output pool.svg] [--json FILE]``.

Runs one mix of jobs under ``rqmem pool``, the same with each job's ceiling reserved, ``rq worker-pool`` and Celery's
prefork, one after another, each in a cgroup of 600 MB where one can be made. Four workers' ceilings are four times the
budget. Meanwhile workers are killed, the parent is killed and started again, and a neighbour in the same group takes
300 MB and gives it back. It counts jobs done, jobs lost, and kills by the kernel; and draws what the group used.

The journal has a history of each kind of job, as after a week of work. Without one, the first 20 runs of each kind
are reserved their ceiling, so that they run one after another.

The exit code is 1 if ``rqmem pool`` broke one of its promises (`scripts.bench.pool_promises`).
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
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import click
import psutil
from redis import Redis
from rq import Worker

from rqmem.events import Evicted
from rqmem.measure import cgroup_places, process_tree, procfs
from rqmem.measure.cgroup import Group
from rqmem.measure.cgroup_files import parse_parts, read_kernel_kills
from rqmem.store.history import history_reader, history_writer
from rqmem.store.history.history_records import OK, Run
from rqmem.units import MB
from scripts.bench import measuring, pool_mix
from scripts.bench.pool_chart import draw
from scripts.bench.pool_promises import Evidence, broken
from scripts.bench.pool_systems import BUDGET_MB, RQMEM, System, systems
from scripts.drawing import output_option
from scripts.harness import ROOT, own_redis

TOTAL_MB, NEIGHBOUR_MB = 600, 300
_NEIGHBOUR = (
    "import sys,time\nb=[]\nfor _ in range({mb}):\n b.append(bytes([1])*2**20); time.sleep(0.01)\ntime.sleep({s})"
)
_RATE = 1.5  # jobs a second
_AWAY_SECONDS = 3.0  # from the parent's death to its next start
_LOOK_SECONDS = 0.25
_HORSE_MB, _KNOWN_DAYS = 25, 8  # what a horse uses before the job; days of history in the journal


@dataclass
class Result:
    """What came of one run.

    Attributes:
        enqueued, done, failed: jobs; ``lost``: those of which nothing came, neither done nor failed nor still queued.
        left: those that were still queued, or ran, when the time was over.
        repeated: how often a job was begun once more.
        kernel_kills: processes that the kernel has killed in the group for want of memory; None: it does not tell.
        longest_wait_seconds: from the enqueueing of a job to its first begin.
        evictions: how often a job was evicted.
        utilisation: MB seconds of the jobs done, as a share of the budget over the time of the run.
        usage: (seconds, MB of the group without page cache, MB of them the neighbour's, jobs done).
        broken: promises of a pool that did not hold, where this is one.
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
    utilisation: float = 0.0
    usage: list[tuple[float, float, float, int]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)


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


def measure(system: System, url: str, seconds: float) -> Result:
    """One run of ``seconds``, and the time that it takes until nothing is left, up to `longest_end`."""
    connection, result, machine = Redis.from_url(url), Result(system.name), Machine(system.name.split()[0])
    connection.flushdb()
    teach(connection)
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
    ids: list[str] = []  # by number
    try:
        while True:
            now = time.monotonic() - began
            while now < seconds and len(ids) < now * _RATE:
                number = str(len(ids))
                ids.append(system.enqueue(kinds[len(ids)], number))
                enqueued_at[number] = now
            if kills and now >= kills[0]:
                kills.pop(0)
                kill_a_worker(parent.pid, draw)
            if parent_at and now >= parent_at:
                parent_at = 0.0
                parent.kill()
                restart_at = now + _AWAY_SECONDS
            if restart_at is not None and now >= restart_at:
                restart_at = None
                parent = start()
            if neighbour is None and now >= neighbour_at:
                code = _NEIGHBOUR.format(mb=NEIGHBOUR_MB, s=neighbour_seconds(seconds))
                neighbour = subprocess.Popen([sys.executable, "-c", code], preexec_fn=machine.enter)
            beside = resident_mb(neighbour.pid) if neighbour is not None and neighbour.poll() is None else 0.0
            pids = [] if machine.group is not None else [parent.pid, *process_tree.descendants(parent.pid)]
            done = int(connection.hlen("bench:done"))
            result.usage.append((round(now, 2), round(machine.used_mb(pids), 1), round(beside, 1), done))
            note_waits(connection, enqueued_at, now, result)
            result.failed, done = system.ended()
            result.left = len(ids) - result.failed - done
            if now >= seconds and (result.left == 0 or now >= seconds + longest_end(system, seconds)):
                break
            time.sleep(_LOOK_SECONDS)
        result.seconds, result.enqueued = round(time.monotonic() - began, 1), len(ids)
        result.kernel_kills = machine.kills()
        _count(result, system, connection, ids, kinds)
        if system.name == RQMEM:
            evidence = _evidence(system, connection, ids, kinds)
            result.evictions = sum(evidence.evicted.values())
            result.broken = broken(result, evidence, neighbour_seconds(seconds) + _AWAY_SECONDS)
    finally:
        for process in (parent, neighbour):
            if process is not None:
                stop(process)
        machine.close()
    return result


def longest_end(system: System, seconds: float) -> float:
    """How long a system may take for what is left after ``seconds``. The one that is judged has longer."""
    return seconds / 4 + (60.0 if system.name == RQMEM else 0.0)


def teach(connection: Redis) -> None:
    """Write to the journal what jobs of the mix have used in the last days."""
    history_writer.version_is_ours(connection)
    for days in range(_KNOWN_DAYS, -1, -1):
        at = time.time() - days * 86400
        runs = [
            Run(
                job=f"{pool_mix.__name__}.{'Chunked' if kind == 'chunked' else kind}", ended_at=at, outcome=OK,
                seconds=seconds, initial_mb=_HORSE_MB, peak_mb=_HORSE_MB + megabytes, limit_mb=BUDGET_MB, times=50,
            )
            for kind, (_, megabytes, seconds) in pool_mix.KINDS.items()
        ]  # fmt: skip
        with connection.pipeline() as pipeline:
            history_writer.write_runs(pipeline, runs, {}, at, [], {run.job: run.job for run in runs})
            pipeline.execute()


def neighbour_seconds(seconds: float) -> float:
    """How long the neighbour keeps what it has taken, in a run of ``seconds``."""
    return seconds / 6


def _count(result: Result, system: System, connection: Redis, ids: list[str], kinds: list[str]) -> None:
    done = [int(raw) for raw in cast("list[bytes]", connection.hkeys("bench:done"))]
    result.done = len(done)
    result.repeated = sum(count - 1 for count in _counts(connection, "begun").values())
    result.jobs_a_minute = round(60 * result.done / result.seconds, 1)
    work = sum(megabytes * seconds for _, megabytes, seconds in (pool_mix.KINDS[kinds[each]] for each in done))
    result.utilisation = round(work / (BUDGET_MB * result.seconds), 3)
    if system.states is not None:
        result.lost = sum(not where for where in system.states(ids).values())
        result.left -= result.lost


def _counts(connection: Redis, name: str) -> dict[int, int]:
    """Number of a job -> what it has counted."""
    return {int(number): int(count) for number, count in connection.hgetall(f"bench:{name}").items()}


def _evidence(system: System, connection: Redis, ids: list[str], kinds: list[str]) -> Evidence:
    assert system.states is not None
    stories = {job_id: history_reader.story(connection, job_id) for job_id in ids}
    evicted = {job_id: sum(isinstance(each.event, Evicted) for each in story) for job_id, story in stories.items()}
    chunks = {ids[number]: count - pool_mix.CHUNKS for number, count in _counts(connection, "chunks").items()}
    return Evidence(
        system.states(ids),
        frozenset(job_id for number, job_id in enumerate(ids) if kinds[number] == "chunked"),
        {job_id: count for job_id, count in evicted.items() if count},
        {job_id: count for job_id, count in chunks.items() if count > 0},
        {ids[number]: count for number, count in _counts(connection, "begun").items()},
    )


def note_waits(connection: Redis, enqueued_at: dict[str, float], now: float, result: Result) -> None:
    """How long jobs have waited until they began, as they are seen; also those that still wait."""
    for raw in cast("list[bytes]", connection.hkeys("bench:begun")):
        at = enqueued_at.pop(raw.decode(), None)
        if at is not None:
            result.longest_wait_seconds = round(max(result.longest_wait_seconds, now - at), 1)
    if enqueued_at:
        waited = now - next(iter(enqueued_at.values()))
        result.longest_wait_seconds = round(max(result.longest_wait_seconds, waited), 1)


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


@click.command()
@click.option("--short", is_flag=True, help="40 seconds each instead of ten minutes.")
@click.option("--seconds", type=click.FloatRange(min=5), help="So long each.")
@click.option("--only", multiple=True, help="Only the systems whose name has this in it.")
@click.option("--json", "json_file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there.")
@output_option
def main(
    short: bool, seconds: float | None, only: tuple[str, ...], json_file: Path | None, output: Path | None
) -> None:
    """Compare rqmem pool, rq worker-pool and Celery in 600 MB, with kills and a neighbour.

    Exits with 1 if rqmem pool broke a promise.
    """
    lasts = seconds or (40.0 if short else 600.0)
    results = []
    with own_redis() as url:
        for system in systems(url):
            if only and not any(each in system.name for each in only):
                continue
            with cleared(url):
                result = measure(system, url, lasts)
            results.append(result)
            click.echo(_line(result))
            for each in result.broken:
                click.echo(f"  broken promise: {each}", err=True)
    if json_file is not None:
        json_file.write_text(json.dumps([asdict(each) for each in results], indent=1) + "\n")
    if output is not None:
        draw(results, TOTAL_MB, output)
    if any(each.broken for each in results):
        raise SystemExit(1)


def _line(result: Result) -> str:
    kills = "?" if result.kernel_kills is None else result.kernel_kills
    return (
        f"{result.name:<15} {result.enqueued:>5} enqueued {result.done:>5} done {result.failed:>4} failed "
        f"{result.lost:>4} lost {result.left:>4} left {result.repeated:>4} begun again {kills:>3} kernel kills "
        f"{result.jobs_a_minute:>6} a minute, {result.utilisation:>4.0%} of the budget used, "
        f"longest wait {result.longest_wait_seconds:.0f} s, {result.evictions} evicted"
    )


if __name__ == "__main__":
    main()
