"""A pool where memory runs out: a neighbour takes it, or processes wait for it. On a real pool and real memory."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis
from rq import Queue
from rq.job import Job, JobStatus

import rqmem.api
from rqmem.measure.cgroup import Group
from rqmem.measure.host_memory import HostReader, free_bytes
from rqmem.observe.model import Pool
from rqmem.store.history import history_reader
from rqmem.testing import wait_until
from rqmem.units import MB
from scripts.bench.pool import TOTAL_MB, Machine
from tests import forked, pool_jobs, sample_jobs
from tests.conftest import ROOT, StartCommand
from tests.worker.test_pool_budget import Begun, begun, evictions, hold, learn

__all__ = ["begun", "hold"]

COUNT = 3000
"""Chunks of the job in chunks: more than it does until the test lets it go fast."""

_NEIGHBOUR = """
import sys, time
kept = []
for _ in range(int(sys.argv[1])):
    kept.append(bytes([1]) * 2**20)
    time.sleep(0.01)
sys.stdin.read()
"""


class Stalls:
    """A file in the format of /proc/pressure/memory. ``share``: of the time, in which all processes wait."""

    def __init__(self, path: Path) -> None:
        self.path, self.share, self._total = path, 0.0, 0.0
        self._ended = threading.Event()
        self._write()
        self._thread = threading.Thread(target=self._go_on)
        self._thread.start()

    def _go_on(self) -> None:
        at = time.monotonic()
        while not self._ended.wait(0.05):
            now = time.monotonic()
            self._total += self.share * (now - at) * 1e6
            at = now
            self._write()

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        line = f"avg10=0.00 avg60=0.00 avg300=0.00 total={self._total:.0f}"
        new.write_text(f"some {line}\nfull {line}\n")
        new.rename(self.path)

    def close(self) -> None:
        self._ended.set()
        self._thread.join()


@pytest.fixture
def stalls(tmp_path: Path) -> Iterator[Stalls]:
    found = Stalls(tmp_path / "pressure")
    yield found
    found.close()


def the_pool(connection: Redis) -> Pool:
    pools = rqmem.api.pools(connection=connection)
    return pools[0] if pools else Pool("", "", 0, 0, 0, 0, 0, 0, 0)


def in_chunks(connection: Redis, begun: Begun, kept_mb: int) -> Job:
    return pool_jobs.HoldsInChunks.enqueue(
        "jobs", megabytes=1, directory=str(begun.directory), name="chunks", job_id="chunks", connection=connection,
        count=COUNT, kept_mb=kept_mb,
    )  # fmt: skip


def lost_nothing(connection: Redis, job: Job, begun: Begun) -> None:
    """The job was evicted and has ended: it repeated a chunk for each eviction at most, and spent nothing."""
    assert job.return_value() == COUNT
    done = begun.chunks("chunks")
    assert sorted(set(done)) == list(range(COUNT))
    assert len(done) - COUNT <= len(evictions(connection, "chunks"))
    assert int(connection.hget("rqmem:run:chunks", "resumes_spent") or 0) == 0


def test_the_share_of_time_in_which_all_wait_is_read_from_a_file(stalls: Stalls) -> None:
    memory = HostReader(pressure=stalls.path)
    read = [memory.read(0.0)]
    for second in (1, 2, 3):
        stalls._total += 0.4e6
        stalls._write()
        read.append(memory.read(float(second)))
    assert [round(each.stalled, 2) for each in read if each] == [0.0, 0.0, 0.4, 0.4]


def test_a_pool_whose_processes_wait_for_memory_pauses_and_then_evicts(
    connection: Redis,
    start_command: StartCommand,
    queue: Queue,
    begun: Begun,
    hold: Callable[..., object],
    stalls: Stalls,
) -> None:
    hold("plain")
    job = in_chunks(connection, begun, 10)
    sizes = ["--memory", "200", "--total-memory", "1000", "--name", "pool"]
    options = [str(stalls.path), "pool", "jobs", "-n", "3", *sizes]
    pool = start_command(*options, module="tests.pool_under_pressure")
    begun.wait_for("plain", "chunks")
    stalls.share = 0.5
    wait_until(lambda: "processes wait for memory" in the_pool(connection).paused, 60)
    late = queue.enqueue(sample_jobs.add, 1, 2)
    wait_until(lambda: len(evictions(connection, "chunks")) == 1, 60)
    assert late.get_status() == JobStatus.QUEUED and not evictions(connection, "plain")
    assert evictions(connection, "chunks")[0].reason == "processes wait for memory"
    stalls.share = 0.0
    begun.go()
    wait_until(lambda: queue.finished_job_registry.count == 3, 90)
    lost_nothing(connection, job, begun)
    assert {"pool-paused", "job-evicted"} <= {alert.rule for alert in history_reader.alerts(connection)}
    log = pool.stop()
    assert "the pool takes no jobs: processes wait for memory" in log and "the pool takes jobs again" in log


@pytest.fixture
def machine() -> Iterator[Machine]:
    found = Machine("test")
    if found.group is None:
        found.close()
        pytest.skip("no cgroup can be made here")
    yield found
    found.close()


def left_mb(group: Group) -> float:
    names = ("memory.current",) if (group.path / "memory.current").exists() else ("memory.usage_in_bytes",)
    used, stat = ((group.path / name).read_text() for name in (*names, "memory.stat"))
    return free_bytes(TOTAL_MB * MB, int(used), stat) / MB


def test_a_neighbour_that_takes_what_is_left_has_a_job_evicted_that_continues_later(
    connection: Redis, redis_url: str, queue: Queue, begun: Begun, machine: Machine
) -> None:
    assert machine.group is not None
    learn(connection, "tests.pool_jobs.HoldsInChunks", 150)
    job = in_chunks(connection, begun, 150)
    command = [sys.executable, "-m", "rqmem", "pool", "jobs", "-n", "2", "--memory", "300", "--total-memory", "450"]
    pool = subprocess.Popen(
        [*command, "--url", redis_url, "--name", "pool"], cwd=ROOT, env=forked.environ(), preexec_fn=machine.enter,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    neighbour = None
    try:
        wait_until(lambda: len(begun.chunks("chunks")) > 2 and len(the_pool(connection).jobs) == 1, 90)
        beside = round(left_mb(machine.group)) - 20  # the interpreter takes some, too
        assert beside > 150
        neighbour = subprocess.Popen(
            [sys.executable, "-c", _NEIGHBOUR, str(beside)], stdin=subprocess.PIPE, preexec_fn=machine.enter
        )
        wait_until(lambda: len(evictions(connection, "chunks")) > 0, 60)
        assert "MB of memory are left of 600" in evictions(connection, "chunks")[0].reason
        assert neighbour.poll() is None and job.get_status() != JobStatus.FAILED
        neighbour.communicate()
        begun.go()
        wait_until(lambda: job.get_status() == JobStatus.FINISHED, 90)
        lost_nothing(connection, job, begun)
        assert not machine.kills()
        pool.terminate()
        log = pool.communicate(timeout=90)[0]
        assert "evicted: only" in log and "the pool takes jobs again" in log
    finally:
        for process in (pool, neighbour):
            if process is not None and process.poll() is None:
                process.kill()
                process.communicate()
